"""Repairing documents and links: fetched again by what the catalog signs, or put aside where nobody has them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pacstore.digest import Digest
from pacstore.documents import fetch_signed
from pacstore.durable import make_directory, sync_directory, wrapped
from pacstore.errors import NotFound, PacballError
from pacstore.limits import LIMITS
from pacstore.links import links_of
from pacstore.placement import placement_name
from pacstore.scrub import path_of_placement
from pacstore.storage import TARGETS_TOP, DocumentKind, ObjectKind, TargetLink, object_path
from pacstore.transfer import Fault, read_public

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pacstore.source import Source
    from pacstore.store import Store
    from pacstore.trust.targets import CatalogRelease, SignedDocument

_ASIDE = "damaged"
"""The directory below `private/` where damaged documents are kept for a look."""
_LIMITS = {
    ObjectKind.MANIFEST: LIMITS.manifest_bytes,
    ObjectKind.ATTRIBUTES: LIMITS.attributes_bytes,
    ObjectKind.PROVENANCE: LIMITS.provenance_bytes,
    ObjectKind.BUNDLE: LIMITS.bundle_bytes,
}


@dataclass(frozen=True)
class DocumentRepair:
    """What became of the document or link at `path`. `withdrawn`: it is not public any more. `faults`: why nobody gave it."""

    path: str
    whole: bool
    giver: str = ""
    withdrawn: bool = False
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Wanted:
    """`fetch` gets it from a source, verified, and `put` puts it in its place."""

    fetch: Callable[[Source], bytes]
    put: Callable[[bytes], None]


class DocumentRepairer:
    """Repairs documents of the `releases` of `store`'s catalog, and orphans, with what `sources` have, asked in their order."""

    def __init__(self, store: Store, releases: Iterable[CatalogRelease], sources: Sequence[Source]) -> None:
        self._store = store
        self._sources = sources
        self._signed: dict[str, SignedDocument] = {}
        self._placements: dict[str, str] = {}
        self._links: dict[str, TargetLink] = {}
        for entry in releases:
            self._add(entry)

    def _add(self, entry: CatalogRelease) -> None:
        self._signed[object_path(ObjectKind.MANIFEST, entry.manifest.digest)] = entry.manifest
        self._signed[object_path(ObjectKind.ATTRIBUTES, entry.attributes.digest)] = entry.attributes
        self._signed[path_of_placement(entry)] = entry.placement
        self._placements[path_of_placement(entry)] = placement_name(entry.release, entry.placement_number)
        if entry.provenance is not None:
            self._signed[object_path(ObjectKind.PROVENANCE, entry.provenance.digest)] = entry.provenance
        self._links |= {link.path: link for link in links_of(entry)}

    def repair(self, path: str) -> DocumentRepair:
        """Make the document or link good, or put it aside. Raises Unavailable when the store's own disk fails in writing."""
        if path.startswith(f"{TARGETS_TOP}/"):
            return self._repair_link(path)
        wanted = self._wanted(path)
        if wanted is None:
            self._put_aside(path)
            return DocumentRepair(path, whole=False, withdrawn=True)
        faults = []
        for source in self._sources:
            try:
                data = wanted.fetch(source)
            except PacballError as error:
                faults.append(str(error))
                continue
            except Fault as fault:
                faults.append(str(fault.error))
                continue
            wanted.put(data)
            self._store.storage.link([link for link in self._links.values() if link.file == path])
            return DocumentRepair(path, whole=True, giver=source.name)
        self._put_aside(path)
        return DocumentRepair(path, whole=False, withdrawn=True, faults=tuple(faults))

    def _wanted(self, path: str) -> _Wanted | None:
        """How to get the document; None where nobody says what it must be."""
        signed = self._signed.get(path)
        if path in self._placements:
            name = self._placements[path]
            return _Wanted(
                lambda source: fetch_signed(source, path, self._signed[path]),
                lambda data: self._store.storage.put(DocumentKind.PLACEMENT, name, data),
            )
        kind = next((kind for kind in _LIMITS if path.startswith(f"{kind.value}/")), None)
        if kind is None:
            return None
        digest, limit = Digest.parse(path[-64:]), _LIMITS[kind]

        def put(data: bytes) -> None:
            with self._store.storage.stage(kind) as staged:
                staged.write(data)
                staged.publish(digest)

        if signed is None:
            return _Wanted(lambda source: read_public(source, path, digest, limit=limit), put)
        return _Wanted(lambda source: fetch_signed(source, path, signed), put)

    def _repair_link(self, path: str) -> DocumentRepair:
        """A link is made again of its document; one that the catalog does not name is put aside, and missed by nobody.

        Whether the document itself is good is found out by reading it under its own name.
        """
        self._put_aside(path)
        with suppress(NotFound):
            self._store.storage.link([self._links[path]] if path in self._links else [])
        return DocumentRepair(path, whole=True)

    def _put_aside(self, path: str) -> None:
        """Take the file out of the docroot, with the links that are the same file. It is kept for a look."""
        public, aside = self._store.public / path, self._store.private / _ASIDE
        with wrapped(aside):
            make_directory(aside, mode=0o700)
        for other in (link.path for link in self._links.values() if link.file == path):
            with suppress(OSError):
                if os.path.samestat(os.stat(public), os.stat(self._store.public / other)):
                    self._store.storage.unlink(other)
        with suppress(NotFound), wrapped(public):
            os.replace(public, aside / _name_aside(path))
            sync_directory(aside)
            sync_directory(public.parent)


def is_put_aside(private: Path, path: str) -> bool:
    """Whether there is no document at the public `path` because it was damaged, as far as `private/` of the store tells."""
    return (private / _ASIDE / _name_aside(path)).exists()


def _name_aside(path: str) -> str:
    return path.replace("/", "+")
