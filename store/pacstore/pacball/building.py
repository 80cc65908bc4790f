"""Building a pacball from a directory: one pass over its files, the same bytes on any machine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pacstore.description import Description
from pacstore.durable import staged_file, sync_directory, wrapped, write_all
from pacstore.errors import Refused
from pacstore.pacball.members import END, Member, padding
from pacstore.pacball.payload import DISK_BLOCK_BYTES
from pacstore.pacball.stub import STUB_BYTES, Stub, is_pacball_of
from pacstore.progress import Progress
from pacstore.reader import Batch, Linked, Uncut, batches
from pacstore.release import Release
from pacstore.walk import Found, measure

_WRITE_BYTES = 1 << 20


@dataclass(frozen=True)
class Built:
    """A pacball that was built: where, its length in bytes, and what its stub says."""

    path: Path
    total_bytes: int
    stub: Stub


def build(directory: Path, release: Release, output: Path, *, progress: Progress, spools: Path | None = None) -> Built:
    """Write the pacball of `directory`, to the file `output` or, if that is a directory, to a file of the pacball's name in it.

    When this returns it is whole and durable; before that nothing has its name. Raises Refused for what no release may contain,
    for files that change meanwhile, and for an `output` that has other content; Unavailable when the disk fails or is full.
    """
    extent = measure(directory, progress)
    if not extent.entries:
        raise Refused("is empty", place=str(directory), hint="name the directory that holds the release")
    place = output if output.is_dir() else output.parent
    _check_apart(directory, place)
    _check_output(release, output)
    progress.begin("building", extent.total_bytes)
    description = Description(spools)
    with wrapped(place), staged_file(place, mode=0o755) as (descriptor, temporary):
        written = _Written(descriptor)
        members = _MemberStream()
        with batches(directory, progress, cutter=Uncut()) as stream:
            for batch in stream:
                for piece in members.take(batch):
                    written.append(piece)
                description.absorb(batch)
        written.append(END)
        stub = Stub(
            release,
            description.tree_digest(),
            written.total_bytes,
            files=description.files,
            disk_kib=members.disk_bytes // 1024,
            payload_sha256=written.finish(),
        )
        os.pwrite(descriptor, stub.encode(), 0)
        os.fsync(descriptor)
        path = output / stub.file_name if output.is_dir() else output
        os.replace(temporary, path)
        sync_directory(place)
    return Built(path, STUB_BYTES + stub.payload_bytes, stub)


class _Written:
    """The payload on its way to disk, small pieces joined, and its SHA-256."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._hash = hashlib.sha256()
        self._buffer = bytearray()
        self.total_bytes = 0
        os.lseek(descriptor, STUB_BYTES, os.SEEK_SET)

    def append(self, piece: bytes | memoryview) -> None:
        self.total_bytes += len(piece)
        if len(piece) >= _WRITE_BYTES:
            self._flush()
            self._hash.update(piece)
            write_all(self._descriptor, piece)
            return
        self._buffer += piece
        if len(self._buffer) >= _WRITE_BYTES:
            self._flush()

    def finish(self) -> str:
        self._flush()
        return self._hash.hexdigest()

    def _flush(self) -> None:
        if self._buffer:
            self._hash.update(self._buffer)
            write_all(self._descriptor, memoryview(self._buffer))
            self._buffer = bytearray()


class _MemberStream:
    """The members of the directory whose batches it is given."""

    def __init__(self) -> None:
        self._path: list[bytes] = []
        self._files = 0
        self._first_names: dict[int, tuple[bytes, int]] = {}
        self._left = 0
        self._size = 0
        self.disk_bytes = 0

    def take(self, batch: Batch) -> Iterator[bytes | memoryview]:
        """The bytes that follow from this batch."""
        data, ends = iter(batch.data), iter(batch.ends)
        if self._left:
            yield from self._content(data)
            next(ends, None)
        for found in batch.entries:
            linked = None
            if found.kind.is_file:
                end = next(ends, None)
                linked = end.earlier if isinstance(end, Linked) else None
            yield self._member(found, linked).header()
            if found.kind.is_file and linked is None:
                self._left = self._size = found.status.st_size
                yield from self._content(data)

    def _content(self, data: Iterator[memoryview]) -> Iterator[bytes | memoryview]:
        while self._left:
            piece = next(data, None)
            if piece is None:
                return
            self._left -= len(piece)
            yield piece
        yield padding(self._size)

    def _member(self, found: Found, linked: int | None) -> Member:
        del self._path[found.depth :]
        self._path.append(found.name)
        path, mtime = b"/".join(self._path), found.status.st_mtime_ns // 10**9
        self._files += found.kind.is_file
        if linked is not None:
            target, mtime = self._first_names[linked]
            return Member(path, found.kind, mtime, target=target, linked=True)
        size = found.status.st_size if found.kind.is_file else 0
        if found.kind.is_file and found.status.st_nlink > 1:
            self._first_names[self._files - 1] = (path, mtime)
        self.disk_bytes += max(size + -size % DISK_BLOCK_BYTES, DISK_BLOCK_BYTES)
        return Member(path, found.kind, mtime, size, found.target)


def _check_output(release: Release, output: Path) -> None:
    """Raise Refused if `output` is there and is neither a directory nor a pacball of the release, which is replaced."""
    if output.is_dir() or not os.path.lexists(output):
        return
    if not output.is_symlink() and output.is_file():
        with wrapped(output), open(output, "rb") as file:
            if is_pacball_of(release, file.read(STUB_BYTES)):
                return
    hint = "name another file with -o"
    raise Refused("is there already, and is no pacball of this release", place=str(output), hint=hint)


def _check_apart(directory: Path, place: Path) -> None:
    if not place.is_dir():
        raise Refused("is not a directory", place=str(place), hint="make it, or name another with -o")
    if directory.resolve() in (place.resolve(), *place.resolve().parents):
        raise Refused("lies inside of the directory that is built", place=str(place), hint="name another place with -o")
