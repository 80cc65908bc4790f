"""The packs of a restored store: from the backup, from any mirror; and what follows from them: the index, and holdings."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pacstore.backup.directory import BackupDirectory
from pacstore.backup.work import INDEX
from pacstore.digest import Digest
from pacstore.durable import staged_file, sync_directory, wrapped, write_all
from pacstore.errors import Corrupt, NewerFormat, NotFound, PacballError, Unavailable
from pacstore.holding import hold, is_held, missing_packs
from pacstore.index import ChunkIndex
from pacstore.limits import MIB
from pacstore.pack import Table, read_table
from pacstore.progress import Progress
from pacstore.readback import Damage
from pacstore.source import Source
from pacstore.storage import ObjectKind, object_path
from pacstore.store import Store
from pacstore.transfer import Fault, copy_object, fetch_pack
from pacstore.trust.chain import in_one_state, load_head
from pacstore.trust.targets import CatalogRelease

_TRIES = 3
"""After so many packs one after another for which the source was not to be reached, no more are asked for."""


@dataclass
class RestoreReport:
    """What a restore did.

    `made`: the directory is a store. `catalog_version` is that of its catalog, `time` when the backup was made and `begun` when a
    later one began that did not come to its end, or 0, in seconds since 1970. `damage` is what is wrong in the backup, or with
    what a source gave, and was not made good by the other. `copied` and `kept` are numbers of files; `bytes_fetched` came from
    the source. Of `releases`, those in `incomplete` lack packs: `packs_missing` with `bytes_missing` bytes. `index`: `restored`
    from the snapshot, `rebuilt` from the packs, `kept`, or `none` where there are no packs.
    """

    made: bool = False
    catalog_version: int = 0
    time: int = 0
    begun: int = 0
    releases: int = 0
    copied: int = 0
    kept: int = 0
    bytes_copied: int = 0
    bytes_fetched: int = 0
    packs_missing: int = 0
    bytes_missing: int = 0
    index: str = "none"
    keys: Path | None = None
    incomplete: list[str] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)

    def add(self, error: PacballError, place: str) -> None:
        """Record an error met at `place`, unless it was met there before."""
        if place not in {damage.place for damage in self.damage}:
            self.damage.append(Damage(place, error.message))


class PackRestorer:
    """Brings packs into `store`, which are told to `arrived`, each when it is here."""

    def __init__(
        self, store: Store, report: RestoreReport, *, progress: Progress, arrived: Callable[[Digest], None]
    ) -> None:
        self._store = store
        self._report = report
        self._progress = progress
        self._arrived = arrived
        self._damaged: dict[Digest, PacballError] = {}

    def missing(self, releases: list[CatalogRelease]) -> dict[Digest, int]:
        """The packs of these releases that are not here, with their lengths in bytes."""
        missing = dict[Digest, int]()
        for entry in releases:
            if not is_held(self._store.storage, entry):
                with suppress(NotFound, Corrupt):  # that is said where the release is completed
                    missing |= missing_packs(self._store.storage, entry)
        return missing

    def copy(self, backup: BackupDirectory, packs: Collection[Digest]) -> None:
        """Take those of these packs from the backup that it has and that are not here."""
        there = set(backup.storage.digests(ObjectKind.PACK))
        todo = [pack for pack in packs if pack in there and not self._is_here(pack)]
        self._report.kept += sum(pack in there for pack in packs) - len(todo)
        self._progress.begin("restoring packs", sum(_length(backup, pack) for pack in todo))
        for pack in todo:
            try:
                length = copy_object(
                    backup.storage, self._store.storage, ObjectKind.PACK, pack, progress=self._progress
                )
            except Fault as fault:
                self._damaged[pack] = fault.error
                continue
            self._report.copied += 1
            self._report.bytes_copied += length
            self._arrived(pack)

    def fetch(self, source: Source, wanted: dict[Digest, int]) -> None:
        """Fetch these packs of those lengths; what `source` cannot give is named, unless it just does not have it."""
        self._progress.begin("fetching packs", sum(wanted.values()))
        failures = 0
        for pack, length in wanted.items():
            try:
                self._report.bytes_fetched += fetch_pack(
                    source, self._store.storage, pack, length, progress=self._progress
                )
            except Fault as fault:
                if not isinstance(fault.error, NotFound):
                    self._report.add(fault.error, fault.error.place)
                failures = failures + 1 if isinstance(fault.error, Unavailable) else 0
                if failures == _TRIES:
                    break
                continue
            failures = 0
            self._arrived(pack)

    def name_damaged(self) -> bool:
        """Put into the report which packs of the backup are damaged and not here even so; whether there are any."""
        left = [pack for pack in self._damaged if not self._is_here(pack)]
        for pack in left:
            self._report.add(self._damaged[pack], object_path(ObjectKind.PACK, pack))
        return bool(left)

    def _is_here(self, pack: Digest) -> bool:
        try:
            self._store.storage.size(ObjectKind.PACK, pack)
        except NotFound:
            return False
        return True


def _length(backup: BackupDirectory, pack: Digest) -> int:
    try:
        return backup.storage.size(ObjectKind.PACK, pack)
    except PacballError:
        return 0


def restore_index(store: Store, backup: BackupDirectory) -> str:
    """Give a store whose packs are here the index that fits them; what was done, as in RestoreReport.

    The snapshot of the backup is used if all packs that it names are here and say the same; packs that it lacks are added.
    """
    packs = list(store.storage.digests(ObjectKind.PACK))
    if not packs:
        return "none"
    done = "kept"
    if not store.index_path.exists():
        listed = backup.record.files.get(INDEX)
        snapshot = backup.file(INDEX, listed) if listed is not None else None
        done = "restored" if snapshot is not None and _place(snapshot, store) else "rebuilt"
    try:
        _fill(store.index, store, packs)
    except (Corrupt, NewerFormat, NotFound):
        done = "rebuilt"
        _fill(store.empty_index(), store, packs)
    return done


def complete_index(store: Store) -> None:
    """Let the index of a store at work know every pack that is here; it is made if there are none yet."""
    known = {pack for pack, _ in store.index.packs()}
    for pack in store.storage.digests(ObjectKind.PACK):
        if pack not in known:
            record_pack(store, pack)


def record_pack(store: Store, pack: Digest) -> None:
    """Let the index know a pack that is here."""
    store.index.add(_table(store, pack))


def _fill(index: ChunkIndex, store: Store, packs: list[Digest]) -> None:
    index.check()
    known = {pack for pack, _ in index.packs()}
    if not known <= set(packs):
        raise index.corrupt("it names packs that are not here")
    for pack in packs:
        table = _table(store, pack)
        if pack in known:
            index.confirm(table)
        else:
            index.add(table)


def _table(store: Store, pack: Digest) -> Table:
    place = object_path(ObjectKind.PACK, pack)
    with closing(store.storage.open(ObjectKind.PACK, pack)) as file, wrapped(place):
        return read_table(file, place=place)


def copy_database(snapshot: Path, descriptor: int) -> None:
    """Copy the bytes of a snapshot to the open file. Raises OSError."""
    with open(snapshot, "rb", buffering=0) as file:
        while data := file.read(MIB):
            write_all(descriptor, data)


def _place(snapshot: Path, store: Store) -> bool:
    """Copy the snapshot to where the index belongs, where it appears ready for several publishers; false if it is none."""
    path = store.index_path
    near = store.staging if path.parent.stat().st_dev == store.staging.stat().st_dev else path.parent
    with wrapped(path), staged_file(near, mode=0o600) as (descriptor, temporary):
        copy_database(snapshot, descriptor)
        try:
            # Opening it changes it to a write-ahead log, for which SQLite would not wait if others were there.
            ChunkIndex(temporary, make=False).close()
        except (Corrupt, NewerFormat):
            return False
        os.fsync(descriptor)
        os.replace(temporary, path)
        sync_directory(path.parent)
    return True


def hold_complete(store: Store, releases: list[CatalogRelease], report: RestoreReport, *, at_work: bool) -> None:
    """Write the holdings of every release that is here whole, and count what the others lack.

    `at_work`: publishers may be there, who replace placements.
    """
    missing: dict[Digest, int] = {}
    for entry in releases:
        if is_held(store.storage, entry):
            continue
        try:
            lacking = missing_packs(store.storage, entry)
            missing |= lacking
            if not lacking:
                _hold(store, entry, at_work=at_work)
                continue
        except (NotFound, Corrupt) as error:
            report.add(error, str(entry.release))
        report.incomplete.append(str(entry.release))
    report.packs_missing, report.bytes_missing = len(missing), sum(missing.values())


@in_one_state
def _hold(store: Store, entry: CatalogRelease, *, at_work: bool) -> None:
    if not at_work:
        hold(store.storage, entry)
        return
    with store.catalog_lock():
        if load_head(store.storage).release(entry.release) == entry:
            hold(store.storage, entry)
