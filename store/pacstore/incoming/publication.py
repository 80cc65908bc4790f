"""A publication from elsewhere: what it lacks, where its chunks are, and taking its signed change into the catalog.

The publisher has the directory and the line's key; here are the packs, the index and perhaps the online key. What was found here
may be gone at the commit: then it is said (`StillMissing`), nothing has changed, and the publisher sends it and tries again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pacstore.attributes import Attributes
from pacstore.digest import DIGEST_BYTES
from pacstore.documents import read_object
from pacstore.errors import NotFound, Refused
from pacstore.incoming.damage import of_the_store
from pacstore.ingest import Moving
from pacstore.manifest import Manifest
from pacstore.packing import Packer, PackingOptions
from pacstore.placing import store_placement
from pacstore.storage import ObjectKind, object_path
from pacstore.submission import submit
from pacstore.trust.entries import line_role
from pacstore.trust.targets import SignedDocument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pacstore.document import Column32
    from pacstore.release import Release
    from pacstore.store import Store
    from pacstore.trust.change import Change
    from pacstore.trust.keyring import KeyRing
    from pacstore.trust.repository import Catalog, Outcome
    from pacstore.trust.targets import CatalogRelease

_LOOKED_UP = 16_384


class StillMissing(NotFound):
    """Something that the release needs is not here, or not any more: it is to be sent, and the same asked again."""


@dataclass(frozen=True)
class Placed:
    """Where a release's chunks are now: the placement as the catalog would sign it, and its number.

    `rewritten_bytes`: plain bytes that were stored again, since their old frames would hardly be used.
    """

    placement: SignedDocument
    number: int
    rewritten_bytes: int


@dataclass(frozen=True)
class _ManifestChunks:
    manifest: Manifest

    @property
    def lengths(self) -> Column32:
        return self.manifest.chunk_lengths

    def chunk_id(self, position: int) -> bytes:
        chunk_id: bytes = self.manifest.chunk_ids[position].tobytes()
        return chunk_id


def missing_chunks(store: Store, ids: Sequence[bytes]) -> list[bytes]:
    """Those of the chunks `ids` (32 bytes each) that the store lacks, in their order, each once. Raises Unavailable, Corrupt.

    Whoever holds a lease meanwhile can rely on the others (see `Store.lease`).
    """
    known = store.index.find(list(dict.fromkeys(ids)))
    return [one for one in dict.fromkeys(ids) if one not in known]


def place(
    store: Store, release: Release, manifest: SignedDocument, attributes: SignedDocument, *, options: PackingOptions
) -> Placed:
    """Store a placement of a release whose documents were admitted and whose chunks are all here.

    Raises StillMissing for what is not, Corrupt or TooLarge for documents that are none, or do not belong together; Unavailable
    where the store is damaged.
    """
    found = Manifest.parse(_read(store, ObjectKind.MANIFEST, manifest), place="the manifest that was sent")
    read = _read(store, ObjectKind.ATTRIBUTES, attributes)
    Attributes.parse(read, found.tree, place="the attributes that were sent")
    with of_the_store():
        return _place(store, release, found, options)


def _place(store: Store, release: Release, manifest: Manifest, options: PackingOptions) -> Placed:
    with store.lease():
        frames, offsets = _locate(store, manifest)
        with Packer(store.storage, store.index, options) as packer:
            moving = Moving(_ManifestChunks(manifest), packer, store.storage, frames, offsets)
            rewritten = moving.rewrite(store.index, options.sizes.rewrite_share)
            moving.finish()
        with store.unswept():
            placement, data = store_placement(store, release, manifest, frames, offsets)
    return Placed(SignedDocument.of_all([data]), placement.number, rewritten)


def take_change(
    store: Store, catalog: Catalog, change: Change, release: Release, ring: KeyRing, *, now: float
) -> Outcome:
    """Take in a signed change of the line of `release`, and of nothing else; it is committed if the online key is in `ring`.

    Raises Refused as `submit` does, and for a change of other roles; StillMissing where something has gone meanwhile.
    """
    if set(change.roles) != {line_role(release.project)} or change.above:
        hint = "sign other changes where the catalog is, or send them there: pacball trust submit"
        raise Refused("changes something else than the line", place=release.project, hint=hint)
    with store.catalog_lock():
        try:
            return submit(store, catalog, change, ring, now=now)
        except Refused as error:
            if isinstance(error.__cause__, NotFound):
                raise StillMissing(error.message, place=error.place, hint="send it again") from error
            raise


def release_known(catalog: Catalog, release: Release) -> tuple[CatalogRelease | None, bool]:
    """The release of that name as the catalog has it, or as it waits for signatures; and whether it waits."""
    entry = catalog.release(release)
    if entry is not None:
        return entry, False
    entry = catalog.waiting_release(release)
    return entry, entry is not None


def _locate(store: Store, manifest: Manifest) -> tuple[np.ndarray, np.ndarray]:
    """The index's number of each chunk's frame, and the offset in it. Raises StillMissing."""
    frames = np.empty(manifest.chunks, dtype=np.int64)
    offsets = np.empty(manifest.chunks, dtype=np.int64)
    lacking = 0
    for begin in range(0, manifest.chunks, _LOOKED_UP):
        rows = manifest.chunk_ids[begin : begin + _LOOKED_UP].tobytes()
        ids = [rows[at : at + DIGEST_BYTES] for at in range(0, len(rows), DIGEST_BYTES)]
        known = store.index.find(list(dict.fromkeys(ids)))
        for position, chunk_id in enumerate(ids, begin):
            found = known.get(chunk_id)
            if found is None:
                lacking += 1
            elif found.length != manifest.chunk_lengths[position]:
                raise Refused(
                    "says of a chunk that it has another length than it has", place="the manifest that was sent"
                )
            else:
                frames[position], offsets[position] = found.frame, found.offset
    if lacking:
        raise StillMissing(f"{lacking} of its chunks are not here", place="the release", hint="send them")
    return frames, offsets


def _read(store: Store, kind: ObjectKind, signed: SignedDocument) -> memoryview | bytes | bytearray:
    try:
        return read_object(store.storage, kind, signed)
    except NotFound as error:
        raise StillMissing("is not here", place=object_path(kind, signed.digest), hint="send it") from error
