"""The directory of a backup: what is put into it, what it has already, and when it is refused.

Its layout is a store's, without the directory in which publishers stage: nobody can publish to it by mistake.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pacstore.backends.directory import DirectoryStorage
from pacstore.backup.record import INCOMING, BackupRecord, Listed, read_record, record_path, write_record
from pacstore.durable import make_directory, staged_file, sync_directory, wrapped, write_all
from pacstore.errors import NotFound, Refused, Unavailable
from pacstore.storage import DocumentKind, ObjectKind
from pacstore.trust.metadata import TIMESTAMP_NAME

PREVIOUS = ".previous"
"""Ends the name of a private file that belongs to the recorded state and was replaced by an attempt that has not ended."""
_STALE_S = 24 * 3600.0


class BackupDirectory:
    """The backup in directory `path`, with its record as it is now. Make one with `begin`, or `open`."""

    def __init__(self, path: Path, record: BackupRecord) -> None:
        self.path = path
        self.public = path / "public"
        self.private = path / "private"
        self.incoming = self.private / INCOMING
        self.storage = DirectoryStorage(self.public, self.incoming)
        self.record = record

    @classmethod
    def open(cls, path: Path) -> BackupDirectory:
        """The backup to read from. Raises NotFound where there is none, Corrupt, NewerFormat, Unavailable."""
        return cls(path, read_record(path))

    @classmethod
    def begin(cls, path: Path, *, now: float) -> BackupDirectory:
        """The backup to write to at `now`, made if `path` is missing or empty. Raises Refused where something else is there."""
        try:
            backup = cls.open(path)
        except NotFound:
            with wrapped(path):
                if not is_blank(path, INCOMING):
                    hint = "name an empty directory, or one that holds a backup"
                    raise Refused("is neither empty nor a backup", place=str(path), hint=hint) from None
                path.mkdir(parents=True, exist_ok=True)
                sync_directory(path.absolute().parent)
            backup = cls(path, BackupRecord())
        if (backup.private / "staging").exists():
            raise Refused(
                "is a store, at which publishers may be at work", place=str(path), hint="name another directory"
            )
        backup._make(now)
        return backup

    def _make(self, now: float) -> None:
        with wrapped(self.path):
            make_directory(self.private, mode=0o700)
            make_directory(self.incoming, mode=0o700)
            if not record_path(self.path).exists():
                # Before anything else: killed from here on, it is known as a backup that was begun.
                self.write(BackupRecord(begun=int(now)))
            make_directory(self.public)
            for kind in (*ObjectKind, *DocumentKind):
                make_directory(self.public / kind.value)
        drop_stale(self.incoming, now)

    def write(self, record: BackupRecord) -> None:
        """Replace the record, durably."""
        write_record(self.path, record)
        self.record = record

    def recorded(self, path: str) -> Listed | None:
        """What is recorded of the private file `path`, if that is here, under its name or put aside."""
        listed = self.record.files.get(path)
        return listed if listed is not None and self.file(path, listed) is not None else None

    def file(self, path: str, listed: Listed) -> Path | None:
        """Where the file `path` is with this length and digest: under its name, or put aside; None if it is not."""
        found = self.path / path
        places = [found, Path(f"{found}{PREVIOUS}")]
        if path.endswith(f".{TIMESTAMP_NAME}"):
            places.append(found.with_name(TIMESTAMP_NAME))
        return next((place for place in places if matches(place, listed)), None)

    def has(self, path: str, *, verify: bool) -> Listed | None:
        """What is recorded of a public file that is here with the recorded length and, if asked, the recorded bytes."""
        listed = self.record.files.get(path)
        if listed is None or not matches(self.path / path, listed, content=verify):
            return None
        return listed

    def put_private(self, path: str, data: bytes) -> Listed:
        """Make these bytes the private file `path`."""
        return self.write_private(path, lambda file: _overwrite(file, data))

    def write_private(self, path: str, write: Callable[[Path], None]) -> Listed:
        """Make what `write` writes into the empty file that it is given the private file `path`.

        What was there is put aside if it belongs to the recorded state, and removed by `drop_unrecorded`.
        """
        final = self.path / path
        with wrapped(final):
            for directory in reversed(final.relative_to(self.private).parents[:-1]):
                make_directory(self.private / directory, mode=0o700)
            with staged_file(self.incoming, mode=0o600) as (descriptor, temporary):
                write(temporary)
                listed = Listed.of_file(temporary)
                if not matches(final, listed):
                    os.fsync(descriptor)
                    self._put_aside(path)
                    os.replace(temporary, final)
                    sync_directory(final.parent)
        return listed

    def _put_aside(self, path: str) -> None:
        recorded = self.record.files.get(path)
        if recorded is not None and matches(self.path / path, recorded):
            os.replace(self.path / path, f"{self.path / path}{PREVIOUS}")

    def drop_unrecorded(self) -> None:
        """Remove the private files that do not belong to the recorded state, which is the newest now."""
        for path in list(self.private_files()):
            if path not in self.record.files:
                with suppress(NotFound), wrapped(path):
                    (self.path / path).unlink()

    def private_files(self) -> Iterator[str]:
        """The paths of files of a store's private part, below the backup; those put aside too."""
        for path in sorted(self.private.rglob("*")):
            below = path.relative_to(self.private)
            of_store = below.parts[0] == "catalog" or below.name.removesuffix(PREVIOUS).endswith(
                (".sqlite", "settings.json")
            )
            if of_store and path.is_file():
                yield f"private/{below}"


def _overwrite(path: Path, data: bytes) -> None:
    with open(path, "r+b", buffering=0) as file:
        write_all(file.fileno(), data)


@contextmanager
def exclusive(directory: Path, *, what: str) -> Iterator[None]:
    """One process at a time. Raises Unavailable if another one holds `directory`; where locks do not work, nobody is kept out."""
    with wrapped(directory):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Unavailable(f"another {what} is at work here", place=str(directory), hint="wait for it") from None
        yield
    finally:
        os.close(descriptor)


def is_blank(path: Path, staging: str) -> bool:
    """Whether directory `path` is missing, empty, or as one that was killed before it had written anything leaves it."""
    if not path.exists():
        return True
    if not path.is_dir() or os.listdir(path) not in ([], ["private"]):
        return False
    private = path / "private"
    inside = os.listdir(private) if private.is_dir() else []
    if inside not in ([], [staging]):
        return False
    return not inside or all(name.endswith(".tmp") for name in os.listdir(private / staging))


def drop_stale(directory: Path, now: float) -> None:
    """Remove what was left unfinished in `directory` more than a day before `now`."""
    for entry in os.scandir(directory):
        with suppress(OSError):
            if now - entry.stat().st_mtime > _STALE_S:
                os.unlink(entry.path)


def matches(path: Path, listed: Listed, *, content: bool = True) -> bool:
    """Whether the file `path` has that length and, with `content`, that digest. Raises Unavailable."""
    try:
        with wrapped(path):
            if path.stat().st_size != listed.length:
                return False
            return not content or Listed.of_file(path) == listed
    except NotFound:
        return False


def check_apart(one: Path, other: Path) -> None:
    """Raise Refused if one of the two directories lies in the other."""
    inner, outer = one.resolve(), other.resolve()
    if inner == outer or inner in outer.parents or outer in inner.parents:
        raise Refused(f"lies inside {one}, or the other way round", place=str(other), hint="name another directory")
