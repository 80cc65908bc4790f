"""The work of a backup: copying one state of a store, and what the backup says of it afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from pacstore.backends.directory import read_bounded
from pacstore.backup.catalog_state import CatalogState, read_state
from pacstore.backup.directory import BackupDirectory, matches
from pacstore.backup.record import BackupRecord, Listed, is_recorded
from pacstore.backup.snapshot import snapshot
from pacstore.digest import Digest
from pacstore.durable import replace_file
from pacstore.errors import Corrupt, NotFound, PacballError, Refused
from pacstore.holding import hold, holdings_of, is_held
from pacstore.holdings import Holdings, decode_json, encode_json
from pacstore.housekeeping import droppable_releases, retention_rules
from pacstore.limits import KIB, LIMITS
from pacstore.placement import placement_name
from pacstore.progress import Progress
from pacstore.readback import Damage
from pacstore.release import Release
from pacstore.storage import STORE_MARKER, DocumentKind, ObjectKind, document_path, object_path
from pacstore.store import Store
from pacstore.transfer import Fault, check_object, copy_object, reading
from pacstore.trust.change import CHANGE_BYTES
from pacstore.trust.metadata import METADATA_LIMITS, TIMESTAMP_NAME
from pacstore.trust.targets import CatalogRelease, SignedDocument

SETTINGS = "private/settings.json"
INDEX = "private/index.sqlite"
STATE_DIR = "state_dir"
SETTINGS_BYTES = 64 * KIB
_CHANGE_ATTEMPTS = 100


@dataclass
class BackupReport:
    """What a backup did.

    `recorded`: the backup has the state `catalog_version` now; false where the store's catalog is damaged, and what was recorded
    before remains. `copied` and `kept` are numbers of files; `bytes_left_out` is the length of the packs that the store has
    and the backup has not. `damage` is what is wrong in the store; `missing` are those of its paths that the backup does not
    have from earlier either. `keys` is where the catalog's keys are, as far as the store was told: they are not in the backup.
    """

    catalog_version: int = 0
    releases: int = 0
    recorded: bool = False
    packs: bool = False
    copied: int = 0
    kept: int = 0
    bytes_copied: int = 0
    packs_left_out: int = 0
    bytes_left_out: int = 0
    keys: Path | None = None
    damage: list[Damage] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def add(self, error: PacballError, place: str) -> None:
        """Record an error met at `place`, which is relative to the store, unless it was met there before."""
        if place not in {damage.place for damage in self.damage}:
            self.damage.append(Damage(place, error.message))


class BackupWork:
    """One attempt to copy one state."""

    def __init__(
        self, store: Store, backup: BackupDirectory, report: BackupReport, *, verify: bool, progress: Progress
    ) -> None:
        self._store = store
        self._backup = backup
        self._verify = verify
        self._progress = progress
        self._files: dict[str, Listed] = {}
        self.report = report
        self.report.damage.clear()
        self.report.missing.clear()
        self.report.kept = 0
        self.state = CatalogState()
        self._time = 0
        self._wanted: list[CatalogRelease] = []
        self._droppable: set[Release] = set()

    def copy(self, *, packs: bool, now: float) -> None:
        """Copy all but holdings. Changes that wait come first: what is committed meanwhile may be there twice, but is there."""
        self._public_file(STORE_MARKER, read_bounded(self._store.public / STORE_MARKER, LIMITS.store_marker_bytes))
        self._settings()
        self._changes()
        self._databases()
        self.state = read_state(self._store.public)
        self._time = int(now)
        for error in self.state.faults:
            self._lacks(error, error.place or DocumentKind.CATALOG.value)
        self._wanted = self._still_offered(now)
        self._objects(packs=packs)
        self._placements()
        self._check_holdings()
        self._catalog()

    def _still_offered(self, now: float) -> list[CatalogRelease]:
        """The releases that the store has to have; not those which it may have ceased to offer, and has."""
        held = frozenset(self._store.storage.names(DocumentKind.HOLDINGS))
        self._droppable = releases_let_go(self._store, self.state.releases, now)
        return [e for e in self.state.releases if e.release not in self._droppable or str(e.release) in held]

    def finish(self, *, packs: bool) -> None:
        """Let the holdings of the backup say what it holds, and record the state."""
        report = self.report
        whole = set(self._whole()) if packs else set[str]()
        for name in list(self._backup.storage.names(DocumentKind.HOLDINGS)):
            if name not in whole:
                self._backup.storage.remove(DocumentKind.HOLDINGS, name)
        self._count_left_out()
        report.catalog_version, report.releases = self.state.version, len(self.state.releases)
        if self.state.faults:
            return
        record = BackupRecord(
            complete=not report.missing,
            catalog_version=self.state.version,
            time=self._time,
            packs=packs,
            catalog=self.state.catalog,
            held=tuple(str(entry.release) for entry in self._wanted),
            damaged=tuple(report.missing),
            files=self._files,
        )
        self._backup.write(record)
        report.recorded = True
        self._backup.drop_unrecorded()

    def _lacks(self, error: PacballError, place: str) -> None:
        """What the store cannot give and the backup does not have."""
        self.report.add(error, place)
        if place not in self.report.missing:
            self.report.missing.append(place)

    # Objects

    def _objects(self, *, packs: bool) -> None:
        named = {(kind, signed.digest) for kind, signed in named_objects(self._wanted)}
        wanted = dict.fromkeys(sorted(named))
        for kind in ObjectKind:
            if packs or kind is not ObjectKind.PACK:
                wanted |= dict.fromkeys((kind, digest) for digest in self._store.storage.digests(kind))
        if self._verify:
            here = [one for one in wanted if self._size(self._backup, *one) is not None]
            self._progress.begin("verifying", sum(self._size(self._backup, *one) or 0 for one in here))
        todo = [one for one in wanted if not self._is_kept(*one)]
        self.report.kept += len(wanted) - len(todo)
        self._progress.begin("backing up", sum(self._size(self._store, *one) or 0 for one in todo))
        for kind, digest in todo:
            self._object(kind, digest, needed=(kind, digest) in named)

    def _is_kept(self, kind: ObjectKind, digest: Digest) -> bool:
        size = self._size(self._backup, kind, digest)
        # One that the store has lost, or has in another length, is looked at more closely.
        if size is None or size != self._size(self._store, kind, digest):
            return False
        return not self._verify or self._is_good(kind, digest)

    @staticmethod
    def _size(where: Store | BackupDirectory, kind: ObjectKind, digest: Digest) -> int | None:
        try:
            return where.storage.size(kind, digest)
        except PacballError:
            return None

    def _is_good(self, kind: ObjectKind, digest: Digest) -> bool:
        try:
            check_object(self._backup.storage, kind, digest, progress=self._progress)
        except Fault:
            return False
        return True

    def _object(self, kind: ObjectKind, digest: Digest, *, needed: bool) -> None:
        place = object_path(kind, digest)
        try:
            length = copy_object(self._store.storage, self._backup.storage, kind, digest, progress=self._progress)
        except Fault as fault:
            if isinstance(fault.error, NotFound) and not needed:
                return
            if needed and not self._is_good(kind, digest):
                self._lacks(fault.error, place)
            else:
                self.report.add(fault.error, place)
            return
        self.report.copied += 1
        self.report.bytes_copied += length

    # Documents

    def _placements(self) -> None:
        kind, named = DocumentKind.PLACEMENT, dict[str, Listed]()
        for entry in self._wanted:
            name = placement_name(entry.release, entry.placement_number)
            named[name] = Listed(entry.placement.length, entry.placement.digest)
        for name in sorted({*named, *_documents(self._store, kind)}):
            self._document(kind, name, named.get(name), limit=LIMITS.placement_bytes)

    def _catalog(self) -> None:
        kind, named = DocumentKind.CATALOG, self.state.files
        for name in sorted({*named, *filter(self.state.includes, _documents(self._store, kind))}):
            # Without a state that verifies, nothing of the one recorded before is touched.
            if not (self.state.faults and (self._backup.public / document_path(kind, name)).exists()):
                self._document(kind, name, named.get(name), limit=METADATA_LIMITS.targets_bytes)
        if self.state.timestamp and not self.state.faults:
            newest = document_path(kind, f"{self.state.version}.{TIMESTAMP_NAME}")
            self._public_file(newest, self.state.timestamp)
            shown = self._backup.public / document_path(kind, TIMESTAMP_NAME)
            if not matches(shown, Listed.of(self.state.timestamp)):
                replace_file(shown, self.state.timestamp, staging=self._backup.incoming)

    def _document(self, kind: DocumentKind, name: str, expected: Listed | None, *, limit: int) -> None:
        place = document_path(kind, name)
        have = self._backup.has(f"public/{place}", verify=self._verify)
        if have is not None and expected in (None, have):
            self._files[f"public/{place}"] = have
            self.report.kept += 1
            return
        try:
            with reading(place):
                data = self._store.storage.get(kind, name, limit=limit)
                if expected not in (None, Listed.of(data)):
                    raise Corrupt("is not what the catalog says", place=place)
        except Fault as fault:
            if expected is not None or not isinstance(fault.error, NotFound):
                self._lacks(fault.error, place)
            return
        self._public_file(place, data)

    def _public_file(self, place: str, data: bytes) -> None:
        path, listed = f"public/{place}", Listed.of(data)
        if self._backup.has(path, verify=self._verify) == listed:
            self.report.kept += 1
        else:
            replace_file(self._backup.path / path, data, staging=self._backup.incoming)
            self.report.copied += 1
            self.report.bytes_copied += listed.length
        self._files[path] = listed

    # The private part

    def _settings(self) -> None:
        path = self._store.path / SETTINGS
        try:
            with reading(SETTINGS):
                data = read_bounded(path, SETTINGS_BYTES)
                values = decode_json(data, limit=SETTINGS_BYTES, place=SETTINGS)
                self.report.keys = self._store.keys_dir
        except Fault as fault:
            if not isinstance(fault.error, NotFound):
                self._keep_recorded(SETTINGS, fault.error)
            return
        # In a backup, and at first in a restored store, the databases are in its private part.
        values.pop(STATE_DIR, None)
        self._private_file(SETTINGS, encode_json(values))

    def _changes(self) -> None:
        """What waits for signatures. A change is replaced by another file: one that is gone by now has a successor."""
        for _ in range(_CHANGE_ATTEMPTS):
            gone = False
            for file in sorted((self._store.private / "catalog").rglob("*")):
                if file.is_file() and not file.name.endswith(".tmp"):
                    gone |= not self._change(file)
            if not gone:
                return

    def _change(self, file: Path) -> bool:
        """Copy a file of a change; false if it is gone."""
        path = f"private/{file.relative_to(self._store.private)}"
        try:
            with reading(path):
                if not is_recorded(path):
                    raise Corrupt("is no change to the catalog; move it elsewhere", place=path)
                data = read_bounded(file, CHANGE_BYTES)
        except Fault as fault:
            if isinstance(fault.error, NotFound):
                return False
            self._keep_recorded(path, fault.error)
            return True
        self._private_file(path, data)
        return True

    def _databases(self) -> None:
        try:
            directory = self._store.state_dir
        except (Corrupt, Refused):
            directory = self._store.private
        for database in sorted(directory.glob("*.sqlite")):
            path = f"private/{database.name}"
            try:
                self._files[path] = self._backup.write_private(path, partial(snapshot, database))
            except Fault as fault:
                self._keep_recorded(path, fault.error)

    def _private_file(self, path: str, data: bytes) -> None:
        self._files[path] = self._backup.put_private(path, data)

    def _keep_recorded(self, path: str, error: PacballError) -> None:
        """What the store cannot give stays as it was recorded before, if it was. The index can be made anew."""
        listed = self._backup.recorded(path)
        if listed is not None:
            self._files[path] = listed
        if listed is not None or path == INDEX:
            self.report.add(error, path)
        else:
            self._lacks(error, path)

    # Holdings

    def _check_holdings(self) -> None:
        for entry in self._wanted:
            name = str(entry.release)
            place = document_path(DocumentKind.HOLDINGS, name)
            try:
                data = self._store.storage.get(DocumentKind.HOLDINGS, name, limit=LIMITS.holdings_bytes)
                held, said = Holdings.parse(data, place=place), holdings_of(entry)
                # When a placement is replaced, the holdings come before the catalog.
                if (
                    replace(held, placement_digest=said.placement_digest, placement_number=said.placement_number)
                    != said
                ):
                    raise Corrupt("does not name what the catalog names", place=place)
            except PacballError as error:
                if entry.release not in self._droppable or not isinstance(error, NotFound):
                    self.report.add(error, place)

    def _whole(self) -> Iterator[str]:
        """The releases whose every byte is in the backup; each has its holdings there when its name comes."""
        for entry in self._wanted:
            try:
                if self._verify or not is_held(self._backup.storage, entry):
                    hold(self._backup.storage, entry)
            except (NotFound, Corrupt) as error:
                if entry.release not in self._droppable:
                    self._lacks(error, error.place.removeprefix(f"{self._backup.public}/") or str(entry.release))
                continue
            yield str(entry.release)

    def _count_left_out(self) -> None:
        here = set(self._backup.storage.digests(ObjectKind.PACK))
        left_out = [pack for pack in self._store.storage.digests(ObjectKind.PACK) if pack not in here]
        self.report.packs_left_out = len(left_out)
        self.report.bytes_left_out = sum(self._size(self._store, ObjectKind.PACK, pack) or 0 for pack in left_out)


def releases_let_go(store: Store, releases: list[CatalogRelease], now: float) -> set[Release]:
    """Those of all releases of a store which it need not offer at `now`. A rule that cannot be read lets nothing go."""
    with suppress(PacballError):
        return droppable_releases(releases, retention_rules(store.storage), now=now, grace_seconds=0)
    return set()


def named_objects(releases: Iterable[CatalogRelease]) -> Iterator[tuple[ObjectKind, SignedDocument]]:
    """The objects that the catalog names for these releases, packs apart."""
    for entry in releases:
        yield ObjectKind.MANIFEST, entry.manifest
        yield ObjectKind.ATTRIBUTES, entry.attributes
        if entry.provenance is not None:
            yield ObjectKind.PROVENANCE, entry.provenance


def _documents(store: Store, kind: DocumentKind) -> Iterator[str]:
    """The names of a store's documents of this kind, without what is none."""
    return (name for name in store.storage.names(kind) if is_recorded(f"public/{kind.value}/{name}"))
