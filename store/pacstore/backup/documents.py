"""The documents of a restored store: the catalog, placements, manifests and the like, and its private part."""

from __future__ import annotations

import os
from pathlib import Path

from pacstore.backends.directory import read_bounded
from pacstore.backup.catalog_state import CatalogState, read_state
from pacstore.backup.directory import BackupDirectory, matches
from pacstore.backup.packs import RestoreReport, copy_database
from pacstore.backup.record import Listed
from pacstore.backup.work import INDEX, SETTINGS, SETTINGS_BYTES, STATE_DIR, named_objects
from pacstore.digest import Digest
from pacstore.durable import make_directory, replace_file, staged_file, sync_directory, wrapped
from pacstore.errors import Corrupt, NotFound, PacballError
from pacstore.holdings import decode_json, encode_json
from pacstore.marker import MARKER
from pacstore.placement import placement_name
from pacstore.progress import Progress
from pacstore.source import Source
from pacstore.storage import STORE_MARKER, DocumentKind, ObjectKind, document_path, object_path
from pacstore.store import Store
from pacstore.transfer import Fault, copy_object, fetch_object, read_public, reading
from pacstore.trust.metadata import METADATA_LIMITS, TIMESTAMP_NAME
from pacstore.trust.targets import CatalogRelease

_PUBLIC = "public/"
_MARKER = f"{_PUBLIC}{STORE_MARKER}"
_DATABASE = ".sqlite"


class DocumentRestorer:
    """Brings what is no pack into `store`: from the backup, or else, where it is public, from `source`.

    `lacking`: something is to be had from neither; it is in the report. `marker`: the bytes of store.json.
    """

    def __init__(
        self, backup: BackupDirectory, store: Store, source: Source | None, report: RestoreReport, *, progress: Progress
    ) -> None:
        self._backup = backup
        self._store = store
        self._source = source
        self.report = report
        self.progress = progress
        self.lacking = False
        self.marker = MARKER

    def copy_files(self, state_dir: Path | None) -> None:
        """Copy all files that the backup's record lists, the index apart; the databases are to be in `state_dir`."""
        self._copy_settings(state_dir)
        for path, listed in self._backup.record.files.items():
            if path == _MARKER:
                self.marker = self._data(path, listed) or MARKER
            elif path == INDEX:
                self._check_index(listed)
            elif path.endswith(_DATABASE):
                self._copy_database(path, listed)
            elif path != SETTINGS:
                self._copy_file(path, listed)

    def read_state(self) -> CatalogState:
        """The recorded state of the catalog, from the files that were copied; its faults are in the report."""
        version = self._backup.record.catalog_version
        if not version:
            return CatalogState()
        name = f"{version}.{TIMESTAMP_NAME}"
        try:
            data = self._store.storage.get(DocumentKind.CATALOG, name, limit=METADATA_LIMITS.timestamp_bytes)
        except NotFound:
            state = CatalogState(faults=[Corrupt("is missing", place=document_path(DocumentKind.CATALOG, name))])
        else:
            state = read_state(self._store.public, timestamp=data)
        for error in state.faults:
            self._lack(error, error.place)
        return state

    def copy_objects(self, releases: list[CatalogRelease], *, everything: bool) -> None:
        """Copy the objects of these releases, packs apart, and their placements; with `everything`, all of the backup's."""
        named = {(kind, signed.digest): signed.length for kind, signed in named_objects(releases)}
        wanted = dict.fromkeys(sorted(named))
        for kind in ObjectKind:
            if everything and kind is not ObjectKind.PACK:
                wanted |= dict.fromkeys((kind, digest) for digest in self._backup.storage.digests(kind))
        self.progress.begin("restoring", sum(self._length(*one) for one in wanted))
        for kind, digest in wanted:
            self._copy_object(kind, digest, named.get((kind, digest)))
        for entry in releases:
            name = placement_name(entry.release, entry.placement_number)
            path = f"public/{document_path(DocumentKind.PLACEMENT, name)}"
            if path not in self._backup.record.files or not everything:
                self._copy_file(path, Listed(entry.placement.length, entry.placement.digest))

    def _length(self, kind: ObjectKind, digest: Digest) -> int:
        try:
            return self._backup.storage.size(kind, digest)
        except PacballError:
            return 0

    def _copy_object(self, kind: ObjectKind, digest: Digest, length: int | None) -> None:
        """`length` is what the catalog says of it, None if it does not name it."""
        try:
            self._store.storage.size(kind, digest)
        except NotFound:
            pass
        else:
            self.report.kept += 1
            return
        place = object_path(kind, digest)
        try:
            copied = copy_object(self._backup.storage, self._store.storage, kind, digest, progress=self.progress)
        except Fault as fault:
            if length is None:
                self.report.add(fault.error, place)
            elif not self._fetch_object(kind, digest, length):
                self._lack(fault.error, place)
            return
        self.report.copied += 1
        self.report.bytes_copied += copied

    def _fetch_object(self, kind: ObjectKind, digest: Digest, length: int) -> bool:
        if self._source is None:
            return False
        try:
            fetched = fetch_object(
                self._source, self._store.storage, kind, digest, limit=length, progress=self.progress
            )
        except Fault:
            return False
        self.report.bytes_fetched += fetched
        return True

    def _copy_file(self, path: str, listed: Listed) -> None:
        final = self._store.path / path
        if matches(final, listed):
            self.report.kept += 1
            return
        data = self._data(path, listed)
        if data is None:
            return
        public = path.startswith(_PUBLIC)
        if not public:
            for directory in reversed(final.relative_to(self._store.private).parents[:-1]):
                with wrapped(final):
                    make_directory(self._store.private / directory, mode=0o700)
        replace_file(final, data, staging=self._store.staging, mode=0o644 if public else 0o600)

    def _data(self, path: str, listed: Listed) -> bytes | None:
        """The bytes of a file that the record lists, or None: then it is lacking."""
        try:
            with reading(path):
                data = read_bounded(self._undamaged(path, listed), listed.length)
        except Fault as fault:
            fetched = self._fetched(path, listed)
            if fetched is None:
                self._lack(fault.error, path.removeprefix(_PUBLIC))
            return fetched
        self.report.copied += 1
        self.report.bytes_copied += len(data)
        return data

    def _fetched(self, path: str, listed: Listed) -> bytes | None:
        if self._source is None or not path.startswith(_PUBLIC) or path == _MARKER:
            return None
        try:
            data = read_public(self._source, path.removeprefix(_PUBLIC), listed.digest, limit=listed.length)
        except Fault:
            return None
        self.report.bytes_fetched += len(data)
        return data

    def _copy_settings(self, state_dir: Path | None) -> None:
        listed = self._backup.record.files.get(SETTINGS)
        data = self._data(SETTINGS, listed) if listed is not None else None
        values = decode_json(data, limit=SETTINGS_BYTES, place=SETTINGS) if data is not None else {}
        if state_dir is not None:
            values[STATE_DIR] = str(state_dir)
        replace_file(self._store.path / SETTINGS, encode_json(values), staging=self._store.staging, mode=0o600)

    def _copy_database(self, path: str, listed: Listed) -> None:
        final = self._store.state_dir / Path(path).name
        if matches(final, listed):
            return
        try:
            with reading(path):
                place = self._undamaged(path, listed)
        except Fault as fault:
            self._lack(fault.error, path)
            return
        with wrapped(final), staged_file(final.parent, mode=0o600) as (descriptor, temporary):
            copy_database(place, descriptor)
            os.fsync(descriptor)
            os.replace(temporary, final)
            sync_directory(final.parent)
        self.report.copied += 1
        self.report.bytes_copied += listed.length

    def _check_index(self, listed: Listed) -> None:
        try:
            with reading(INDEX):
                self._undamaged(INDEX, listed)
        except Fault as fault:
            # It is not lacking: it can be made anew.
            self.report.add(fault.error, INDEX)

    def _undamaged(self, path: str, listed: Listed) -> Path:
        place = self._backup.file(path, listed)
        if place is None:
            raise Corrupt("is missing or damaged", place=path)
        return place

    def _lack(self, error: PacballError, place: str) -> None:
        self.report.add(error, place)
        self.lacking = True
