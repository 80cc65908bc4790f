"""Reading what is to be published: its files' bytes as chunks with their ids, in batches, in a thread of its own.

Batches keep the cost of handing work from thread to thread small; a bounded queue keeps memory small.
"""

from __future__ import annotations

import os
import queue
import stat
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from blake3 import blake3

from pacstore.chunker import Chunker
from pacstore.digest import EMPTY
from pacstore.errors import Refused
from pacstore.limits import MIB
from pacstore.progress import Progress
from pacstore.walk import Found, shown, vanished, walk

_SEGMENT_BYTES = 4 * MIB
_BATCH_ENTRIES = 512
_QUEUED_BATCHES = 2


@dataclass(slots=True)
class FileEnd:
    """A file that ends in this batch: its size in bytes and content digest; `chunks` counts all of its chunks."""

    size: int
    content: bytes
    chunks: int


@dataclass(slots=True)
class Linked:
    """A file that is another name of an earlier one; `earlier` counts files from 0."""

    earlier: int


@dataclass(slots=True)
class Batch:
    """What was found and read since the last batch.

    `entries` began in it; `ends` are the files that ended, in the same order as entries; `ids` and `data` are its chunks:
    32-byte ids and plain bytes; `size` is the sum of their lengths.
    """

    entries: list[Found] = field(default_factory=list)
    ends: list[FileEnd | Linked] = field(default_factory=list)
    ids: list[bytes] = field(default_factory=list)
    data: list[memoryview] = field(default_factory=list)
    size: int = 0


class Cutter(Protocol):
    """Cuts files, as Chunker does."""

    def cut(self, data: memoryview, *, last: bool) -> list[int]:
        """The lengths of the pieces at the start of `data`; the `last` of a file's leave nothing over."""


class Contents(Protocol):
    """What a release is made of: entries in tree order, and the bytes of the files among them. For one thread."""

    def entries(self, progress: Progress) -> Iterator[Found]:
        """Every entry in preorder, siblings by the bytes of their names. Raises Refused for what no release may contain."""

    def opened(self, found: Found) -> AbstractContextManager[int]:
        """A descriptor that is at the first byte of a file. At the end it is Refused if that has changed meanwhile."""


class Directory:
    """The contents of the directory `top`."""

    def __init__(self, top: Path) -> None:
        self.top = top

    def entries(self, progress: Progress) -> Iterator[Found]:
        """Every entry below it. Raises as `walk` does."""
        return walk(self.top, progress)

    @contextmanager
    def opened(self, found: Found) -> Iterator[int]:
        """The open file. Raises Refused where it vanished or changed."""
        descriptor = _open(found)
        try:
            yield descriptor
            _check_unchanged(found, os.fstat(descriptor))
        except OSError as error:
            raise vanished(error, found.path) from error
        finally:
            os.close(descriptor)


class Uncut:
    """For who wants the bytes of files and no chunks: pieces are what was read at once."""

    def cut(self, data: memoryview, *, last: bool) -> list[int]:  # noqa: ARG002 - the same for all pieces
        """All of `data`."""
        return [len(data)] if len(data) else []


class _Stopped(Exception):
    """The consumer went away."""


@contextmanager
def batches(top: Path | Contents, progress: Progress, *, cutter: Cutter | None = None) -> Iterator[Iterator[Batch]]:
    """Everything in the directory `top`, or in other contents, in tree order, read ahead by a thread that ends with the context.

    Files are cut into chunks, unless `cutter` cuts them otherwise.

    Iterating raises what the contents raise, and Refused for a file that changes or vanishes while it is read.
    """
    ahead = _Ahead()
    contents = Directory(top) if isinstance(top, Path) else top
    thread = threading.Thread(
        target=ahead.run, args=(_Reader(contents, progress, cutter or Chunker()),), name="reader", daemon=True
    )
    thread.start()
    try:
        yield ahead.drain()
    finally:
        ahead.stop.set()
        thread.join()


class _Ahead:
    """The queue between the reading thread and its consumer."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self._queue: queue.Queue[Batch | BaseException | None] = queue.Queue(_QUEUED_BATCHES)

    def run(self, reader: _Reader) -> None:
        with suppress(_Stopped):
            try:
                for batch in reader.batches():
                    self._put(batch)
                self._put(None)
            except _Stopped:
                raise
            except BaseException as error:  # noqa: BLE001 - raised again in the consumer, which would wait for ever
                self._put(error)

    def _put(self, item: Batch | BaseException | None) -> None:
        while not self.stop.is_set():
            with suppress(queue.Full):
                return self._queue.put(item, timeout=0.2)
        raise _Stopped

    def drain(self) -> Iterator[Batch]:
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item


class _Reader:
    def __init__(self, contents: Contents, progress: Progress, cutter: Cutter) -> None:
        self._contents = contents
        self._progress = progress
        self._cutter = cutter
        self._batch = Batch()
        self._files = 0
        # By device, then inode: installers that link from a cache give every file of a release several names.
        self._links: dict[int, dict[int, int]] = {}

    def batches(self) -> Iterator[Batch]:
        for found in self._contents.entries(self._progress):
            self._batch.entries.append(found)
            if found.kind.is_file:
                yield from self._file(found)
                self._files += 1
            if self._batch.size >= _SEGMENT_BYTES or len(self._batch.entries) >= _BATCH_ENTRIES:
                yield self._take()
        yield self._take()

    def _take(self) -> Batch:
        batch, self._batch = self._batch, Batch()
        self._progress.advance(batch.size)
        return batch

    def _file(self, found: Found) -> Iterator[Batch]:
        status = found.status
        if status.st_nlink > 1:
            earlier = self._links.setdefault(status.st_dev, {}).setdefault(status.st_ino, self._files)
            if earlier != self._files:
                self._batch.ends.append(Linked(earlier))
                # The total has it once for each of its names.
                self._progress.advance(status.st_size)
                return
        with self._contents.opened(found) as descriptor:
            yield from self._content(found, descriptor)

    def _content(self, found: Found, descriptor: int) -> Iterator[Batch]:
        size = found.status.st_size
        if size <= _SEGMENT_BYTES:
            data = _read(descriptor, size, found)
            self._batch.ends.append(self._whole(data))
            return
        hasher = blake3()
        chunks = done = 0
        rest = b""
        while done < size:
            piece = _read(descriptor, min(_SEGMENT_BYTES, size - done), found)
            done += len(piece)
            hasher.update(piece)
            joined = rest + piece if rest else piece
            lengths = self._cutter.cut(memoryview(joined), last=done == size)
            rest = joined[self._add(joined, lengths) :]
            chunks += len(lengths)
            if done < size:
                yield self._take()
        self._batch.ends.append(FileEnd(size, hasher.digest(), chunks))

    def _whole(self, data: bytes) -> FileEnd:
        if not data:
            return FileEnd(0, EMPTY.raw, 0)
        lengths = self._cutter.cut(memoryview(data), last=True)
        self._add(data, lengths)
        content = self._batch.ids[-1] if len(lengths) == 1 else blake3(data).digest()
        return FileEnd(len(data), content, len(lengths))

    def _add(self, data: bytes, lengths: list[int]) -> int:
        batch, view, at = self._batch, memoryview(data), 0
        for length in lengths:
            chunk = view[at : at + length]
            batch.ids.append(blake3(chunk).digest())
            batch.data.append(chunk)
            at += length
        batch.size += at
        return at


def _open(found: Found) -> int:
    try:
        descriptor = os.open(found.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise vanished(error, found.path) from error
    try:
        _check_unchanged(found, os.fstat(descriptor))
    except Refused:
        os.close(descriptor)
        raise
    return descriptor


def _read(descriptor: int, length: int, found: Found) -> bytes:
    data = os.read(descriptor, length)
    if len(data) == length:
        return data
    parts = [data]
    left = length - len(data)
    while left and parts[-1]:
        parts.append(os.read(descriptor, left))
        left -= len(parts[-1])
    if left:
        raise _changed(found)
    return b"".join(parts)


def _check_unchanged(found: Found, now: os.stat_result) -> None:
    old = found.status
    if (
        not stat.S_ISREG(now.st_mode)
        or (now.st_dev, now.st_ino, now.st_size) != (old.st_dev, old.st_ino, old.st_size)
        or (now.st_mtime_ns, now.st_ctime_ns) != (old.st_mtime_ns, old.st_ctime_ns)
    ):
        raise _changed(found)


def _changed(found: Found) -> Refused:
    return Refused("changed while it was read", place=shown(found.path),
                   hint="publish a directory that nobody is writing to")  # fmt: skip
