"""Filling: a file that grows under its name with `.partial` at the end, chunk by chunk, in any order."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from blake3 import blake3

from pacstore.digest import DIGEST_BYTES
from pacstore.document import Numbers, row_keys, starts
from pacstore.durable import sync_directory
from pacstore.errors import NotFound, Refused, Unavailable
from pacstore.install.wanted import Batch, Wanted
from pacstore.limits import MIB
from pacstore.pacball.seeds import Cut, chunks_of
from pacstore.progress import Progress

PARTIAL = ".partial"
_RUN_BYTES = 4 * MIB


class NoTools:
    """What threads need that put chunks into one file: nothing."""

    def close(self) -> None:
        """Nothing is open."""


class Filling:
    """The file that becomes the one at `path`. `put` may be called by several threads. Raises OSError from the disk.

    The content of file f of what is `wanted` belongs at byte `contents[f]`, and nowhere where that is negative. Two fillings of
    one file write the same bytes to the same places, and only what was verified.
    """

    def __init__(self, wanted: Wanted, contents: Numbers, total_bytes: int, path: Path, progress: Progress) -> None:
        self.wanted = wanted
        self.written_bytes = 0
        self.partial = path.with_name(path.name + PARTIAL)
        self._manifest = wanted.manifest
        self.room_bytes = total_bytes
        """What the disk must have room for, what is written already included."""
        self._path = path
        self._progress = progress
        self._contents = contents
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        self.descriptor = os.open(self.partial, flags, 0o755)
        found = os.fstat(self.descriptor)
        if not stat.S_ISREG(found.st_mode):
            os.close(self.descriptor)
            raise Refused("is not a file", place=str(self.partial), hint="move it away")
        self._found_bytes = found.st_size
        os.ftruncate(self.descriptor, total_bytes)

    def close(self) -> None:
        """Leave it as it is: the next one goes on with it."""
        os.close(self.descriptor)

    def resume(self) -> int:
        """Find the chunks that stand in their places already; the bytes of files that they make up."""
        if self._found_bytes:
            self._progress.begin("verifying", self.wanted.bytes_of(self.wanted.missing()))
            in_place = np.zeros(self._manifest.chunks, dtype=bool)
            for file, first, last in self._runs():
                self._look(file, first, last, in_place)
            self.wanted.have_positions(in_place)
        return self._have_bytes()

    def _runs(self) -> Iterator[tuple[int, int, int]]:
        """Chunks that follow one another in a file, some megabytes at a time: file, first and last, the latter excluded."""
        firsts = self._manifest.first_chunks
        at_once = _RUN_BYTES // int(self._manifest.chunk_lengths.max(initial=1))
        placed = ~self.wanted.linked & (self._contents >= 0)
        for file in np.flatnonzero(placed).tolist():
            for first in range(int(firsts[file]), int(firsts[file + 1]), at_once):
                yield file, first, min(first + at_once, int(firsts[file + 1]))

    def _look(self, file: int, first: int, last: int, in_place: np.ndarray) -> None:
        positions = np.arange(first, last, dtype=np.int32)
        offset = int(self.wanted.places.offsets(positions[:1], np.array([file]))[0])
        ends = starts(self._manifest.chunk_lengths[first:last]).tolist()
        data = memoryview(os.pread(self.descriptor, ends[-1], int(self._contents[file]) + offset))
        ids = self._manifest.chunk_ids[first:last].tobytes()
        for at in range(last - first):
            is_right = (
                blake3(data[ends[at] : ends[at + 1]]).digest() == ids[DIGEST_BYTES * at : DIGEST_BYTES * (at + 1)]
            )
            in_place[first + at] = is_right
        self._progress.advance(len(data))

    def take_seed(self, seed: Path) -> int:
        """Put those chunks of `seed` that are missing; the bytes of files that they make up. Raises NotFound."""
        if not seed.exists():
            hint = "name a pacball, a tar or a directory, or leave it out"
            raise NotFound("is not there", place=f"--seed {seed}", hint=hint)
        before = self._have_bytes()
        self._progress.begin("looking into seed", None)
        keys = row_keys(self.wanted.ids())
        for cut in chunks_of(seed, self._progress):
            if self.wanted.have.all():
                break
            self._put_wanted(keys, cut)
        return self._have_bytes() - before

    def _put_wanted(self, keys: np.ndarray, cut: Cut) -> None:
        if not cut.ids:
            return
        ids = row_keys(np.frombuffer(b"".join(cut.ids), dtype=np.uint8).reshape(-1, DIGEST_BYTES))
        numbers = np.minimum(np.searchsorted(keys, ids), len(keys) - 1).astype(np.int32)
        for position in np.flatnonzero((keys[numbers] == ids) & ~self.wanted.have[numbers]).tolist():
            number = numbers[position : position + 1]
            self.put(NoTools(), self.wanted.batch(number), 0, cut.data[position])
            self.wanted.have[number] = True

    def _have_bytes(self) -> int:
        return self.wanted.bytes_of(np.flatnonzero(self.wanted.have).astype(np.int32))

    def check_space(self) -> None:
        """Raise Unavailable unless the disk has room for what is not written yet."""
        found, free = os.fstat(self.descriptor), os.statvfs(self.descriptor)
        needed = self.room_bytes - found.st_blocks * 512
        if needed > free.f_bavail * free.f_frsize:
            raise Unavailable(
                f"has {free.f_bavail * free.f_frsize:,} bytes free, but {needed:,} more are needed",
                place=str(self._path.parent),
                hint="free some space, or name another directory with -o",
            )

    def put(self, _: NoTools, batch: Batch, at: int, data: memoryview) -> None:
        """Write the verified chunk at position `at` of `batch` wherever it belongs."""
        for place in range(batch.firsts[at], batch.firsts[at + 1]):
            _write_at(self.descriptor, data, int(self._contents[batch.files[place]]) + batch.offsets[place])
            self.written_bytes += len(data)

    def sync(self) -> None:
        """Return when all that was written is durable."""
        os.fdatasync(self.descriptor)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write what is no chunk."""
        _write_at(self.descriptor, data, offset)

    def publish(self) -> None:
        """Give the file its name, durably: it was read back, and is whole."""
        self._progress.begin("syncing", None)
        os.fsync(self.descriptor)
        self._rename()
        sync_directory(self._path.parent)

    def _rename(self) -> None:
        try:
            os.replace(self.partial, self._path)
        except FileNotFoundError:
            # Another fetch of the same has published the file that both have written.
            if not os.path.samestat(os.stat(self._path, follow_symlinks=False), os.fstat(self.descriptor)):
                raise


def _write_at(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
