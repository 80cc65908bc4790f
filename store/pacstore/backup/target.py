"""The directory that a store is restored to: when it is refused, and how it becomes a store."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pacstore.backends.directory import read_bounded
from pacstore.backup.directory import is_blank
from pacstore.backup.record import BackupRecord
from pacstore.durable import make_directory, replace_file, sync_directory, wrapped
from pacstore.errors import NotFound, Refused
from pacstore.holdings import check_format, decode_json, encode_json
from pacstore.limits import KIB
from pacstore.mounts import mounts
from pacstore.storage import STORE_MARKER, DocumentKind, ObjectKind
from pacstore.store import Store, check_local

FORMAT = 1
KIND = "pacball restore"
UNFINISHED = "restore.json"
"""Beside public/ and private/ until the directory is a store: publishers refuse it then, as anybody's directory."""
FINISHED = "restored.json"
"""In private/ from then on: the store was made from that backup, and packs may still come."""
_NOTE_BYTES = 4 * KIB


@dataclass(frozen=True)
class Origin:
    """Which state of which backup a store is restored from: what of the backup's record tells it from others."""

    catalog: str
    catalog_version: int
    time: int

    @classmethod
    def of(cls, record: BackupRecord) -> Origin:
        """The recorded state."""
        return cls(record.catalog.hex if record.catalog else "", record.catalog_version, record.time)


class Target:
    """A store that is being restored, in directory `path`. Make one with `begin`."""

    def __init__(self, path: Path, origin: Origin, state_dir: Path | None) -> None:
        self.path = path
        self.state_dir = state_dir
        self._origin = origin
        self._store: Store | None = None

    @classmethod
    def begin(cls, path: Path, record: BackupRecord, *, state_dir: Path | None, now: float) -> Target:
        """The directory `path`, made if it is missing, whose databases are to be in `state_dir` (None: STORE/private).

        Raises Refused for one that is neither empty nor begun by a restore of the same state.
        """
        origin = Origin.of(record)
        if (path / "public" / STORE_MARKER).exists():
            return cls._finished(path, origin, state_dir)
        state_dir = state_dir.absolute() if state_dir is not None else None
        begun = _read(path / UNFINISHED)
        if begun is None:
            if not is_blank(path, "staging"):
                raise Refused(
                    "is neither empty nor a store being restored", place=str(path), hint="name another directory"
                )
            check_local(state_dir or path, mounts())
            _check_free(state_dir)
        elif begun != _note(origin, state_dir):
            hint = "give the same backup and --state-dir, or remove the directory and begin again"
            raise Refused("was begun from another backup, or with another --state-dir", place=str(path), hint=hint)
        target = cls(path, origin, state_dir)
        target._make()
        target.store.drop_stale_staging(now)
        return target

    @classmethod
    def _finished(cls, path: Path, origin: Origin, state_dir: Path | None) -> Target:
        made_from = _read(path / "private" / FINISHED)
        if made_from is None or made_from.get("catalog") != origin.catalog:
            hint = "restore into a new or empty directory"
            raise Refused("is a store already, and not one made from this backup", place=str(path), hint=hint)
        with wrapped(path), suppress(FileNotFoundError):
            os.unlink(path / UNFINISHED)
            sync_directory(path)
        target = cls(path, origin, None)
        if state_dir is not None and state_dir.resolve() != target.store.state_dir.resolve():
            raise Refused(
                f"keeps its databases in {target.store.state_dir}", place=str(path), hint="leave out --state-dir"
            )
        return target

    def _make(self) -> None:
        store = Store(self.path, writable=True)
        with wrapped(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            sync_directory(self.path.absolute().parent)
            make_directory(store.private, mode=0o700)
            make_directory(store.staging, mode=0o700)
            replace_file(
                self.path / UNFINISHED, encode_json(_note(self._origin, self.state_dir)), staging=store.staging
            )
            make_directory(store.public)
            for kind in (*ObjectKind, *DocumentKind):
                make_directory(store.public / kind.value)
            if self.state_dir is not None:
                self.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)

    def is_finished(self) -> bool:
        """Whether it is a store already, so that only packs are to come."""
        return (self.path / "public" / STORE_MARKER).exists()

    @property
    def store(self) -> Store:
        """The store; its settings are read when its databases are first asked for."""
        if self._store is None:
            self._store = Store(self.path, writable=True)
        return self._store

    def finish(self, marker: bytes) -> None:
        """Make the directory a store, with `marker` as its store.json."""
        note = encode_json(_note(self._origin, self.state_dir))
        replace_file(self.store.private / FINISHED, note, staging=self.store.staging, mode=0o600)
        replace_file(self.store.public / STORE_MARKER, marker, staging=self.store.staging)
        with wrapped(self.path):
            os.unlink(self.path / UNFINISHED)
            sync_directory(self.path)

    def close(self) -> None:
        """Close the databases."""
        self.store.close()


def _note(origin: Origin, state_dir: Path | None) -> dict[str, object]:
    return {
        "catalog": origin.catalog,
        "catalog_version": origin.catalog_version,
        "format": FORMAT,
        "kind": KIND,
        "state_dir": str(state_dir or ""),
        "time": origin.time,
    }


def _read(path: Path) -> dict[str, object] | None:
    try:
        data = read_bounded(path, _NOTE_BYTES)
    except NotFound:
        return None
    value = decode_json(data, limit=_NOTE_BYTES, place=str(path))
    check_format(value, FORMAT, str(path))
    return value


def _check_free(state_dir: Path | None) -> None:
    if state_dir is not None and state_dir.exists() and any(state_dir.glob("*.sqlite*")):
        raise Refused("has the databases of another store", place=str(state_dir), hint="name an empty directory")
