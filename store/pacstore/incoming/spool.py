"""The spool of uploads: what has come so far of objects that are sent in pieces, below `private/`, where nobody is served it.

Each upload belongs to one token, so that nobody can touch another's. Beside its bytes lies a record of its whole length and of
how many bytes are acknowledged; the record is written after the bytes are durable, in place, in one sector. What lies behind the
acknowledged bytes counts for nothing, and is written again. Nothing is locked here: one daemon has one spool.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pacstore.digest import Digest
from pacstore.durable import create_file, make_directory, sync_directory, wrapped
from pacstore.errors import Corrupt, NotFound, Refused
from pacstore.storage import ObjectKind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SPOOL_NAME = "uploads"
"""Of its directory, below a store's `private/`."""
_RECORD = re.compile(rb"([0-9]{20}) ([0-9]{20})\n\Z")
_RECORD_BYTES = 42
_SUFFIX = ".state"
_OWNER = re.compile(r"[0-9a-f]{8}\Z")
_NAME = re.compile(r"([a-z]+)-([0-9a-f]{64})\Z")


@dataclass(frozen=True, slots=True, order=True)
class UploadName:
    """Which object is uploaded, and the id of the token (8 hexadecimal digits) with which it is."""

    owner: str
    kind: ObjectKind
    digest: Digest

    def __post_init__(self) -> None:
        if not _OWNER.match(self.owner):
            raise Refused("is no id of a token", place=self.owner[:20])

    @property
    def file(self) -> str:
        """The name of its file, below its owner's directory."""
        return f"{self.kind.value}-{self.digest.hex}"


@dataclass(frozen=True, slots=True)
class Upload:
    """`length`: of the whole object in bytes; `offset`: how many of them are acknowledged; `path`: where they are."""

    name: UploadName
    length: int
    offset: int
    path: Path


class UploadSpool:
    """The uploads below `directory`, which is made when it is needed; `staging` is in the same file system.

    Every method blocks, and raises Unavailable where the disk fails or is full.
    """

    def __init__(self, directory: Path, staging: Path) -> None:
        self._directory = directory
        self._staging = staging

    def begin(self, name: UploadName, length: int) -> Upload:
        """Begin an upload, durably; what there was of it is dropped."""
        path = self._path(name)
        self.drop(name)
        with wrapped(path):
            make_directory(self._directory, mode=0o700)
            make_directory(path.parent, mode=0o700)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        create_file(_record_path(path), _record(length, 0), staging=self._staging, mode=0o600)
        return Upload(name, length, 0, path)

    def find(self, name: UploadName) -> Upload | None:
        """The upload, if it was begun. One whose record or bytes were lost is dropped."""
        path = self._path(name)
        try:
            with wrapped(path), open(_record_path(path), "rb") as file:
                length, offset = _parse(file.read(_RECORD_BYTES + 1))
                whole = offset <= path.stat().st_size and offset <= length
        except NotFound:
            return None
        except Corrupt:
            whole = False
        if not whole:
            self.drop(name)
            return None
        return Upload(name, length, offset, path)

    def acknowledge(self, upload: Upload, offset: int) -> Upload:
        """Record that all bytes up to `offset` are here: they are made durable first."""
        with wrapped(upload.path):
            _sync(upload.path, None)
            _sync(_record_path(upload.path), _record(upload.length, offset))
        return Upload(upload.name, upload.length, offset, upload.path)

    def drop(self, name: UploadName) -> None:
        """Forget an upload; one that there is not is no error."""
        path = self._path(name)
        with suppress(NotFound), wrapped(path):
            # The record first: what has none was never begun.
            for file in (_record_path(path), path):
                with suppress(FileNotFoundError):
                    file.unlink()

    def uploads(self) -> Iterator[tuple[Upload, float]]:
        """All uploads, and when something last came of each, in seconds since 1970."""
        for owner in self._listed(self._directory):
            if not _OWNER.match(owner):
                continue
            for file in self._listed(self._directory / owner):
                match = _NAME.match(file)
                if match and match[1] in list(ObjectKind):
                    found = self.find(UploadName(owner, ObjectKind(match[1]), Digest.parse(match[2])))
                    if found is not None:
                        with suppress(OSError):
                            yield found, max(found.path.stat().st_mtime, _record_path(found.path).stat().st_mtime)

    def collect(self, before: float) -> list[Upload]:
        """Drop the uploads of which nothing has come since `before`, in seconds since 1970, and what is left of others; those."""
        gone = [upload for upload, changed in self.uploads() if changed < before]
        for upload in gone:
            self.drop(upload.name)
        for owner in self._listed(self._directory):
            directory = self._directory / owner
            for file in self._listed(directory):
                # Bytes without a record, of a beginning that was interrupted.
                with suppress(OSError):
                    stale = (directory / file).stat().st_mtime < before
                    if stale and not file.endswith(_SUFFIX) and not _record_path(directory / file).exists():
                        (directory / file).unlink()
            with suppress(OSError):
                directory.rmdir()
        return gone

    def free_bytes(self) -> int:
        """How much room there is for anybody on its disk."""
        with wrapped(self._staging):
            return shutil.disk_usage(self._staging).free

    def _path(self, name: UploadName) -> Path:
        return self._directory / name.owner / name.file

    def _listed(self, directory: Path) -> list[str]:
        try:
            with wrapped(directory):
                return sorted(os.listdir(directory))
        except NotFound:
            return []


def _record_path(path: Path) -> Path:
    return path.with_name(path.name + _SUFFIX)


def _record(length: int, offset: int) -> bytes:
    return b"%020d %020d\n" % (length, offset)


def _parse(data: bytes) -> tuple[int, int]:
    match = _RECORD.match(data)
    if not match:
        raise Corrupt("is no record of an upload")
    return int(match[1]), int(match[2])


def _sync(path: Path, data: bytes | None) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if data is not None:
            os.pwrite(descriptor, data, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if data is None:
        sync_directory(path.parent)
