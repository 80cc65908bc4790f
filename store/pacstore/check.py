"""Checking a store: every object is read back and compared with its name, every frame is decoded, every reference followed.

Damage is named, never hidden, and nothing is deleted or changed here.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from blake3 import blake3

from pacstore.attributes import Attributes
from pacstore.confirm import confirm
from pacstore.digest import Digest
from pacstore.documents import read_manifest, read_object, read_placement, read_provenance
from pacstore.durable import wrapped
from pacstore.errors import Corrupt, NotFound, PacballError
from pacstore.holding import holdings_of
from pacstore.holdings import Holdings
from pacstore.limits import LIMITS, MIB
from pacstore.links import links_of
from pacstore.pack import read_table
from pacstore.placement import placement_name
from pacstore.progress import Progress
from pacstore.readback import Damage, Report, read_back, total_length
from pacstore.reindex import check_index
from pacstore.release import Release
from pacstore.storage import DocumentKind, ObjectKind, document_path, named_sha256, object_path
from pacstore.store import Store
from pacstore.trust.repository import Catalog
from pacstore.trust.targets import CatalogRelease

BadFrames = Mapping[Digest, Mapping[int, int] | None]
"""The damaged packs: offsets and lengths of their bad frames, None where all of the pack is bad."""
_NONE_BAD: Mapping[int, int] = {}


@dataclass
class CheckReport(Report):
    """What a check of a whole store found. `releases_dropped`: those that are rightly held no longer; they are not checked.

    `links_missing`: of the releases that were checked; other TUF clients miss them, nothing of ours does. `bad_packs` is for
    who repairs them.
    """

    releases_dropped: int = 0
    links_missing: int = 0
    bad_packs: BadFrames = field(default_factory=dict, metadata={"shown": False})


def check(
    store: Store,
    releases: list[CatalogRelease],
    *,
    progress: Progress,
    droppable: Collection[Release] = (),
    packs: Collection[Digest] | None = None,
) -> CheckReport:
    """Read back everything that the store holds, and follow what `releases`, verified by the caller, refer to.

    A release in `droppable` (see `housekeeping`) need not be held. Of the packs only those in `packs` are read, if it is given.
    Raises Unavailable only when the store as a whole cannot be read.
    """
    report = CheckReport()
    report.damage += [Damage(path, "is no object of this store; remove it") for path in store.storage.strays()]
    wanted = [pack for pack in store.storage.digests(ObjectKind.PACK) if packs is None or pack in packs]
    progress.begin("checking", total_length(store.storage, wanted))
    report.bad_packs = bad = dict[Digest, Mapping[int, int] | None]()
    for pack in wanted:
        state = read_back(store.storage, pack, report, progress=progress)
        if state.table is None or state.bad_frames:
            bad[pack] = state.bad_frames if state.table is not None else None
    for kind in (kind for kind in ObjectKind if kind is not ObjectKind.PACK):
        _check_objects(store, kind, report)
    held = frozenset(store.storage.names(DocumentKind.HOLDINGS))
    expected = [entry for entry in releases if entry.release not in droppable or str(entry.release) in held]
    others = [entry for entry in releases if entry.release in droppable and str(entry.release) not in held]
    report.releases_dropped = len(others)
    for entry in expected:
        _check_release(store, entry, bad, report)
    for entry in others:
        _check_placement(store, entry, report)
    _check_links(store, releases, expected, report)
    try:
        check_index(store, [pack for pack, frames in bad.items() if frames is None], report)
    except PacballError as error:
        report.add(error, "index")
    return report


def _check_placement(store: Store, entry: CatalogRelease, report: Report) -> None:
    """Compare the placement, if it is here: as of a release that a mirror does not hold, but clients have asked it for."""
    name = placement_name(entry.release, entry.placement_number)
    place = document_path(DocumentKind.PLACEMENT, name)
    try:
        data = store.storage.get(DocumentKind.PLACEMENT, name, limit=entry.placement.length)
        if not entry.placement.matches(data):
            raise Corrupt("is not what the catalog says", place=place)
    except NotFound:
        return
    except PacballError as error:
        _add_once(report, error, place)


def _check_links(
    store: Store, releases: list[CatalogRelease], expected: list[CatalogRelease], report: CheckReport
) -> None:
    """Compare every link with the SHA-256 in its name, unless it is the very file that was checked under its other name."""
    files = {link.path: link.file for entry in releases for link in links_of(entry)}
    missing = {link.path for entry in expected for link in links_of(entry)}
    for path in store.storage.links():
        missing.discard(path)
        other = files.get(path)
        try:
            with closing(store.storage.open_link(path)) as file, wrapped(path):
                if (other is None or not _is_same(file, store, other)) and _sha256(file) != named_sha256(path):
                    raise Corrupt("is not what its name says; remove it", place=path)
        except PacballError as error:
            report.add(error, path)
    report.links_missing = len(missing)


def _is_same(file: BinaryIO, store: Store, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(store.public / path))
    except FileNotFoundError:
        return False


def _sha256(file: BinaryIO) -> str:
    hasher = hashlib.sha256()
    while data := file.read(MIB):
        hasher.update(data)
    return hasher.hexdigest()


def _check_objects(store: Store, kind: ObjectKind, report: Report) -> None:
    for digest in store.storage.digests(kind):
        place = object_path(kind, digest)
        hasher = blake3()
        try:
            with closing(store.storage.open(kind, digest)) as file, wrapped(place):
                while data := file.read(MIB):
                    hasher.update(data)
            if hasher.digest() != digest.raw:
                raise Corrupt("is not what its name says", place=place)
        except PacballError as error:
            report.add(error, place)


def _check_release(store: Store, entry: CatalogRelease, bad: BadFrames, report: Report) -> None:
    name = str(entry.release)
    report.releases_checked += 1
    try:
        manifest = read_manifest(store.storage, entry)
        attributes = read_object(store.storage, ObjectKind.ATTRIBUTES, entry.attributes)
        Attributes.parse(attributes, manifest.tree, place=object_path(ObjectKind.ATTRIBUTES, entry.attributes.digest))
        placement = read_placement(store.storage, entry, manifest)
        confirm(placement, manifest, store.storage)
        for frame in range(placement.frames):
            pack = placement.pack(int(placement.frame_packs[frame]))
            frames = bad.get(pack, _NONE_BAD)
            if frames is None or int(placement.frame_offsets[frame]) in frames:
                raise Corrupt(f"needs a frame that is damaged or missing, in pack {pack}", place=name)
        read_provenance(store.storage, entry)
        _check_holdings(store, entry)
    except PacballError as error:
        report.releases.append(name)
        _add_once(report, error, name)
        # What is damaged first hides nothing of what comes later.
        _check_placement(store, entry, report)
        try:
            _check_holdings(store, entry)
        except PacballError as other:
            _add_once(report, other, name)


def _add_once(report: Report, error: PacballError, place: str) -> None:
    """What was found by its own name already is not said twice."""
    if error.place not in {damage.place for damage in report.damage}:
        report.add(error, place)


def _check_holdings(store: Store, entry: CatalogRelease) -> None:
    name = str(entry.release)
    place = document_path(DocumentKind.HOLDINGS, name)
    held = Holdings.parse(store.storage.get(DocumentKind.HOLDINGS, name, limit=LIMITS.holdings_bytes), place=place)
    expected = holdings_of(entry)
    if held.placement_number > expected.placement_number:
        # It was repacked while this check was at work.
        expected = replace(expected, placement_digest=held.placement_digest, placement_number=held.placement_number)
    if held != expected:
        raise Corrupt("does not name what the catalog names", place=place)


@dataclass(frozen=True)
class Statistics:
    """How much a store holds. Bytes: `packs_` and `documents_bytes` on disk, `releases_bytes` the sum of the releases' files."""

    releases: int
    releases_bytes: int
    packs: int
    packs_bytes: int
    frames: int
    chunks: int
    documents_bytes: int


def statistics(store: Store) -> Statistics:
    """How much the store holds, from its directories, its index and its catalog, which is not verified for this.

    A mirror, to which nobody publishes, has no index: there the tables of its packs are counted, and a chunk that is in two
    of them twice.
    """
    releases = catalog_releases(store)
    packs = list(store.storage.digests(ObjectKind.PACK))
    frames, chunks = _counts(store, packs)
    return Statistics(
        releases=len(releases),
        releases_bytes=sum(entry.total_bytes for entry in releases),
        packs=len(packs),
        packs_bytes=total_length(store.storage, packs),
        frames=frames,
        chunks=chunks,
        documents_bytes=sum(document.length for entry in releases for document in entry.documents()),
    )


def _counts(store: Store, packs: list[Digest]) -> tuple[int, int]:
    """How many frames and chunks there are."""
    if not packs:
        return 0, 0
    if not store.is_mirror or store.index_path.exists():
        return store.index.counts()[1:]
    frames = chunks = 0
    for pack in packs:
        place = object_path(ObjectKind.PACK, pack)
        with closing(store.storage.open(ObjectKind.PACK, pack)) as file, wrapped(place):
            table = read_table(file, place=place)
        frames += len(table.lengths)
        chunks += len(table.chunk_lengths)
    return frames, chunks


def catalog_releases(store: Store) -> list[CatalogRelease]:
    """The releases of the store's own catalog; none if it has no catalog yet."""
    try:
        return Catalog.open(store.storage).releases()
    except NotFound:
        return []
