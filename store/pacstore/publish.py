"""Publishing: a directory or an archive becomes a release of a store, visible at once or not at all.

Order: packs, index, then manifest, attributes and placement and their links, then holdings, then the catalog, whose timestamp
is the commit.
Killed anywhere before that, the release does not exist, and the next attempt uses the packs that were finished.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from pacstore.attributes import Attributes
from pacstore.description import Description, describe
from pacstore.digest import Digest
from pacstore.documents import read_manifest, read_object
from pacstore.errors import Corrupt, Refused
from pacstore.holding import packs_of
from pacstore.ingest import Ingested, ingest
from pacstore.ledger.completion import record_complete
from pacstore.links import links_of
from pacstore.manifest import Manifest
from pacstore.material import Material, opened
from pacstore.original import Original
from pacstore.packing import PackingOptions
from pacstore.placing import store_placement
from pacstore.progress import Progress
from pacstore.release import Release
from pacstore.storage import Clock, ObjectKind, ObjectStorage
from pacstore.store import Store
from pacstore.trust.entries import line_role
from pacstore.trust.keyring import KeyRing
from pacstore.trust.repository import Catalog, Outcome
from pacstore.trust.targets import CatalogRelease, SignedDocument


@dataclass(frozen=True)
class Published:
    """What a publish did. Bytes: `total` of all files; `new` plain bytes that the store lacked; `rewritten` plain bytes stored
    again for locality; `stored` length of the new packs. `existed`: the release was there already, with this very tree.
    `waiting`: it is not in the catalog yet, but waits for signatures, or for the origin's online key.

    `original`: the name of the file that is given back bit for bit, empty for none. `original_bytes`: plain bytes of what of it
    is no file's content; `original_new`: of these the new ones. `recompression`: how its stream is made again; `opaque_bytes`:
    the length of one that is kept as it is.
    """

    release: Release
    tree_digest: Digest
    manifest_digest: Digest
    files: int
    bytes_total: int
    bytes_new: int = 0
    bytes_rewritten: int = 0
    bytes_stored: int = 0
    existed: bool = False
    waiting: bool = False
    created_keys: tuple[str, ...] = field(default=())
    original: str = ""
    original_bytes: int = 0
    original_new: int = 0
    recompression: str = ""
    opaque_bytes: int = 0


def publish(
    source: Path,
    release: Release,
    store: Store,
    catalog: Catalog,
    *,
    keys: KeyRing,
    options: PackingOptions,
    progress: Progress,
    now: Clock,
    sign_later: bool = False,
    keep_stream: bool = False,
) -> Published:
    """Publish the directory or archive `source` as `release`. When this returns, it is in the catalog, or waits to be, durably.

    It waits where `keys` has no online key; with `sign_later` also where it lacks the line's. `keep_stream` as for
    `pacstore.archive.taking.taken`, whose errors are raised too.

    The same tree again is a quiet success. Raises Refused where the name is bound to another tree, for what no release
    may contain, for a pacball.toml that is not valid (also Corrupt, TooLarge or NewerFormat), and for files that change
    meanwhile; NotFound for a missing key; Unavailable when the disk fails.
    """
    check_source(source, store.path)
    catalog.check_name(release, keys, sign_later=sign_later)
    known_keys = keys.names()
    store.drop_stale_staging(now())
    existing = catalog.release(release)
    # How a stream is made again is of no use where only trees are compared.
    keep_stream = keep_stream or existing is not None
    with opened(source, staging=store.staging, keep_stream=keep_stream, progress=progress) as material:
        extent = material.measure(progress)
        quiet = Quiet(progress)
        if existing is not None:
            progress.begin("comparing", extent.total_bytes)
            found = describe(material.contents, spools=store.staging, progress=quiet)
            return _compare(store, existing, found, material, progress)
        material.check_declared()
        progress.begin("publishing", extent.total_bytes)
        # Nothing that is looked up from here on is deleted before this ends.
        with store.lease():
            ingested = ingest(
                material.contents, store.storage, store.index, spools=store.staging, options=options, progress=quiet,
                beside=material.archive,
            )  # fmt: skip
            check_archive(material, ingested.description)
            # From when a document is found here, or a pack, until the catalog refers to it.
            with store.unswept():
                entry, packs = _store_documents(store, release, ingested, int(now()))
                outcome = _commit(store, catalog, entry, packs, keys, now(), sign_later=sign_later)
    return Published(
        release=release,
        tree_digest=entry.tree_digest,
        manifest_digest=entry.manifest.digest,
        files=entry.files,
        bytes_total=entry.total_bytes,
        bytes_new=ingested.new_bytes,
        bytes_rewritten=ingested.rewritten_bytes,
        bytes_stored=ingested.stored_bytes,
        existed=not outcome.changed,
        waiting=outcome.waits(line_role(release.project)),
        created_keys=tuple(sorted(set(keys.names()) - set(known_keys))),
        original_new=ingested.beside_new_bytes,
        **original_fields(material),
    )


class OriginalFields(TypedDict, total=False):
    """Fields of Published."""

    original: str
    original_bytes: int
    recompression: str
    opaque_bytes: int


def original_fields(material: Material) -> OriginalFields:
    """What Published says of the archive, if `material` is one."""
    if material.archive is None:
        return {}
    original = material.archive.original
    return {
        "original": original.name,
        "original_bytes": original.residue_bytes,
        "recompression": str(original.recompression or ""),
        "opaque_bytes": material.archive.opaque_bytes,
    }


def check_archive(material: Material, found: Description) -> None:
    """Raise Refused or Corrupt if the archive changed meanwhile, or is a pacball of another tree than it says."""
    archive = material.archive
    if archive is None:
        return
    archive.check_unchanged()
    tree = found.tree_digest().hex
    if archive.stub_tree not in ("", tree):
        message = f"its stub says that it has the tree {archive.stub_tree}, but it is {tree}"
        raise Corrupt(message, place=archive.original.name, hint="fetch or make it again")


def _commit(
    store: Store,
    catalog: Catalog,
    entry: CatalogRelease,
    packs: dict[Digest, int],
    keys: KeyRing,
    now: float,
    *,
    sign_later: bool,
) -> Outcome:
    with store.catalog_lock():
        # Looked up again: another publisher may have been first, and its holdings must stay as they are.
        if catalog.release(entry.release) is None and catalog.waiting_release(entry.release) is None:
            record_complete(store.ledger, store.storage, entry, packs, now=now)
        return catalog.publish(entry, keys, now=now, sign_later=sign_later)


class Quiet:
    """Progress for the second walk over a directory, whose warnings were given in the first."""

    def __init__(self, progress: Progress) -> None:
        self.begin = progress.begin
        self.advance = progress.advance

    def warn(self, message: str) -> None:
        """Said already."""


def check_source(source: Path, store: Path) -> None:
    """Raise Refused unless `source` is a directory or a file, apart from the store that it is to be published to."""
    check_kind(source)
    inner, outer = source.resolve(), store.resolve()
    if inner == outer or inner in outer.parents or outer in inner.parents:
        what = "directory" if source.is_dir() else "file"
        raise Refused(f"the {what} and the store lie inside one another", place=str(source))


def check_kind(source: Path) -> None:
    """Raise Refused unless `source` is a directory or a file."""
    if not source.is_dir() and not source.is_file():
        hint = "name the directory that holds the release, or an archive of it"
        raise Refused("is neither a directory nor a file", place=str(source), hint=hint)


def _compare(
    store: Store, existing: CatalogRelease, found: Description, material: Material, progress: Progress
) -> Published:
    digest = found.tree_digest()
    check_same_tree(existing, digest, "directory" if material.archive is None else "archive")
    kept = read_manifest(store.storage, existing).original
    if material.archive is not None:
        check_archive(material, found)
        _tell_other_original(material.archive.original, kept, existing.release, progress)
    return Published(
        release=existing.release,
        tree_digest=existing.tree_digest,
        manifest_digest=existing.manifest.digest,
        files=found.files,
        bytes_total=found.total_bytes,
        existed=True,
        original=kept.name if kept is not None else "",
    )


def check_same_tree(existing: CatalogRelease, digest: Digest, what: str) -> None:
    """Raise Refused unless a name that is taken stands for this tree. `what`: what was to be published, in a word."""
    if existing.tree_digest != digest:
        raise Refused(
            f"is bound for ever to the tree {existing.tree_digest}; the {what} is {digest}",
            place=str(existing.release),
            hint="publish it under a new version",
        )


def _tell_other_original(offered: Original, kept: Original | None, release: Release, progress: Progress) -> None:
    """Say what becomes of an original that is not the one which the release has: a release never changes."""
    if kept is None:
        progress.warn(
            f"{release} was published from a directory, so the file {offered.name} is not kept; its files are the same. To get "
            "the very file back, publish it under another version or platform: that costs next to nothing"
        )
    elif kept.sha256 != offered.sha256:
        progress.warn(
            f"{release} keeps another file, {kept.name}, with the same files in it; {offered.name} is not kept"
        )


def _store_documents(
    store: Store, release: Release, ingested: Ingested, published: int
) -> tuple[CatalogRelease, dict[Digest, int]]:
    found = ingested.description
    signed_manifest = store_object(store.storage, ObjectKind.MANIFEST, found.manifest)
    signed_attributes = store_object(store.storage, ObjectKind.ATTRIBUTES, lambda: [found.attributes()])
    # Read back, as installers will: what cannot be parsed must not get into a catalog.
    manifest = Manifest.parse(
        read_object(store.storage, ObjectKind.MANIFEST, signed_manifest), place="the new manifest"
    )
    attributes = read_object(store.storage, ObjectKind.ATTRIBUTES, signed_attributes)
    Attributes.parse(attributes, manifest.tree, place="the new attributes")
    placement, data = store_placement(store, release, manifest, ingested.chunk_frames, ingested.chunk_offsets)
    entry = CatalogRelease(
        release=release,
        tree_digest=manifest.tree.digest,
        manifest=signed_manifest,
        attributes=signed_attributes,
        placement=SignedDocument.of_all([data]),
        placement_number=placement.number,
        total_bytes=manifest.tree.total_bytes,
        files=manifest.tree.files,
        published=published,
    )
    store.storage.link(links_of(entry))
    return entry, packs_of(placement)


def store_object(storage: ObjectStorage, kind: ObjectKind, pieces: Callable[[], Iterable[bytes]]) -> SignedDocument:
    """Store the document that is made of `pieces`, which are the same each time; what a catalog signs of it."""
    signed = SignedDocument.of_all(pieces())
    with storage.stage(kind) as staged:
        for piece in pieces():
            staged.write(piece)
        staged.publish(signed.digest)
    return signed
