"""Writer: puts verified chunks into the files of a tree being installed, and checks each file when it is whole.

A file of one chunk is written and closed at once: its digest is that chunk's id. A larger file stays open, its digest
computed while its chunks come in order; what came out of order is read back when the file is whole.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from dataclasses import dataclass, field

import numpy as np
from blake3 import blake3

from pacstore.attributes import Attributes
from pacstore.errors import Corrupt
from pacstore.install.tools import Tools
from pacstore.install.tree.cloning import clone_file
from pacstore.install.tree.directories import Directories
from pacstore.install.tree.disk import failure, write_whole
from pacstore.install.tree.paths import Paths
from pacstore.install.wanted import Batch, Flags, Wanted
from pacstore.limits import MIB
from pacstore.tree import EntryKind, Tree

_NEW = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_AGAIN = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_BYTES = 1 * MIB
NO_PLACE = (-1, -1)


@dataclass(slots=True)
class _Growing:
    """An open file of several chunks: `users` threads are at it; its first `hashed_bytes` are in `hasher`."""

    descriptor: int
    users: int = 0
    hashed_bytes: int = 0
    hasher: blake3 = field(default_factory=blake3)


class Writer:
    """Writes files of one tree. For several threads, each with its own `Directories` of that tree.

    `done`: by file number, the files that are whole already and are not written; `begun`: those of which something was there
    already. `paths`: of that tree, whose top is open as `top`. `owner`: user and group id that files are given, None for those
    of the process. `links`: whether a file may be one that other trees have too.
    """

    def __init__(
        self,
        wanted: Wanted,
        attributes: Attributes,
        paths: Paths,
        *,
        top: int,
        open_files: int,
        exact_modes: bool,
        owner: tuple[int, int] | None = None,
        links: bool = False,
    ) -> None:
        self._tree = wanted.manifest.tree
        self._counts = wanted.manifest.chunk_counts
        self._remaining = wanted.manifest.chunk_counts.copy()
        self._mtimes = attributes.mtimes
        self.written_bytes = 0
        """About how much was written; threads count without a lock."""
        self.done: Flags = np.zeros(self._tree.files, dtype=bool)
        self.begun: Flags = np.zeros(self._tree.files, dtype=bool)
        self.paths = paths
        made = os.fstat(top)
        self.owner = owner or (made.st_uid, made.st_gid)
        """User and group id of a new file."""
        self._exact_modes = exact_modes
        self._links = links
        self._owner = owner
        self._limit = max(open_files, 1)
        self._lock = threading.Lock()
        self._growing: dict[int, _Growing] = {}

    def put(
        self,
        directories: Directories,
        batch: Batch,
        at: int,
        data: memoryview,
        *,
        standing: tuple[int, int] = NO_PLACE,
    ) -> None:
        """Write the verified chunk at position `at` of `batch` wherever it belongs. Raises Corrupt or Unavailable.

        `standing` is the place, file number and offset, where it was read from in this tree: there it stands already.
        """
        for place in range(batch.firsts[at], batch.firsts[at + 1]):
            file = batch.files[place]
            if self.done[file]:
                continue
            offset = batch.offsets[place]
            if self._counts[file] == 1:
                self.whole(directories, file, data)
            else:
                self._part(directories, file, offset, data, write=(file, offset) != standing)
            self.written_bytes += len(data)

    def take(self, tools: Tools, batch: Batch, at: int, data: memoryview) -> None:
        """Like put, with the tools of a thread."""
        self.put(tools.tree, batch, at, data)

    def whole(self, directories: Directories, file: int, data: bytes | memoryview) -> None:
        """Write the file number `file`, whose verified content is `data`. Raises Unavailable."""
        paths = self.paths
        entry = int(paths.file_entries[file])
        try:
            mode = self._mode(entry)
            directory = directories.open(int(paths.parents[entry]))
            descriptor = os.open(paths.name(entry), _NEW | os.O_WRONLY, mode, dir_fd=directory)
            try:
                if data:
                    write_whole(descriptor, data)
                self._seal(descriptor, entry)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise failure(error, paths.shown(entry)) from error

    def _mode(self, entry: int) -> int:
        return file_mode(self._tree, entry)

    def _seal(self, descriptor: int, entry: int) -> None:
        if self._owner is not None:
            os.fchown(descriptor, *self._owner)
        if not self._exact_modes:
            os.fchmod(descriptor, self._mode(entry))
        time = int(self._mtimes[entry])
        os.utime(descriptor, (time, time))

    def adopt(self, file: int, source: int, target: int) -> bool:
        """Move the file number `file` here from the open directory `source` to `target`, if it is whole.

        False, and nothing moved, where it is not what it should be. Raises OSError.
        """
        moved = self._move(file, source, target, whole=True)
        self.done[file] |= moved
        return moved

    def adopt_part(self, file: int, source: int, target: int) -> bool:
        """Move what there is of the file number `file`, which has several chunks; they are put where they stand.

        False, and nothing moved, where it cannot be made whole. Raises OSError.
        """
        if self._counts[file] == 1:
            return False
        moved = self._move(file, source, target, whole=False)
        self.begun[file] |= moved
        return moved

    def _move(self, file: int, source: int, target: int, *, whole: bool) -> bool:
        entry = int(self.paths.file_entries[file])
        name = self.paths.name(entry)
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source)
        try:
            found = os.fstat(descriptor)
            if not self._may_keep(found, file, whole=whole) or (whole and not self._is_whole(file, descriptor)):
                return False
            alone = found.st_nlink == 1
            if alone and (found.st_uid, found.st_gid) != self.owner:
                os.fchown(descriptor, *self.owner)
            os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
            try:
                self._check_moved(descriptor, name, target)
                if alone:
                    os.fchmod(descriptor, self._mode(entry))
                    if whole:
                        self._seal(descriptor, entry)
            except BaseException:
                os.unlink(name, dir_fd=target)
                raise
        finally:
            os.close(descriptor)
        return True

    def _may_keep(self, found: os.stat_result, file: int, *, whole: bool) -> bool:
        """Whether a file with this status can become the file number `file`.

        Nothing is ever changed of one that has other names: an installed release may have it.
        """
        if not stat.S_ISREG(found.st_mode):
            return False
        if found.st_nlink == 1:
            return found.st_size <= int(self._tree.sizes[file])
        entry = int(self.paths.file_entries[file])
        return (
            whole
            and self._links
            and stat.S_IMODE(found.st_mode) == self._mode(entry)
            and (found.st_uid, found.st_gid) == self.owner
            and int(found.st_mtime_ns // 10**9) == int(self._mtimes[entry])
        )

    def clone(self, directories: Directories, file: int, source: int) -> bool:
        """Make the file number `file` a clone of the open file `source`, and verify it. False, and no file, where it is not.

        Raises Unavailable where it cannot be made at all.
        """
        entry = int(self.paths.file_entries[file])
        name = self.paths.name(entry)
        try:
            directory = directories.open(int(self.paths.parents[entry]))
            descriptor = os.open(name, _NEW | os.O_RDWR, self._mode(entry), dir_fd=directory)
        except OSError as error:
            raise failure(error, self.paths.shown(entry)) from error
        try:
            with contextlib.suppress(OSError):
                clone_file(source, descriptor)
                if os.fstat(descriptor).st_size == self._tree.sizes[file] and self._is_whole(file, descriptor):
                    self._seal(descriptor, entry)
                    self.done[file] = True
            if not self.done[file]:
                os.unlink(name, dir_fd=directory)
        except OSError as error:
            raise failure(error, self.paths.shown(entry)) from error
        finally:
            os.close(descriptor)
        return bool(self.done[file])

    def link(self, directories: Directories, file: int, source: int, their_directory: int, their_name: bytes) -> bool:
        """Make the file number `file` a further name of the open file `source`, which is verified first and not changed.

        It is `their_name` in the open directory `their_directory`. False, and no file, where that is not possible.
        """
        entry = int(self.paths.file_entries[file])
        name = self.paths.name(entry)
        try:
            if not self._is_whole(file, source):
                return False
            directory = directories.open(int(self.paths.parents[entry]))
            os.link(their_name, name, src_dir_fd=their_directory, dst_dir_fd=directory, follow_symlinks=False)
        except OSError:
            return False
        try:
            self._check_moved(source, name, directory)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=directory)
            return False
        self.done[file] = True
        return True

    def _is_whole(self, file: int, descriptor: int) -> bool:
        growing = _Growing(descriptor)
        _hash_rest(growing, int(self._tree.sizes[file]))
        return bool(growing.hasher.digest() == self._tree.contents[file].tobytes())

    def _check_moved(self, descriptor: int, name: bytes, target: int) -> None:
        there = os.stat(name, dir_fd=target, follow_symlinks=False)
        if not os.path.samestat(os.fstat(descriptor), there):
            raise OSError(errno.ESTALE, "it was replaced")

    def _part(self, directories: Directories, file: int, offset: int, data: memoryview, *, write: bool) -> None:
        try:
            growing = self._take(directories, file)
            if write:
                _write_at(growing.descriptor, data, offset)
            if growing.hashed_bytes == offset:
                # No other thread sees this offset before the digest has moved on to it.
                growing.hasher.update(data)
                growing.hashed_bytes = offset + len(data)
            if self._give_back(file, growing):
                self._finish(file, growing)
        except OSError as error:
            raise failure(error, self.paths.shown(int(self.paths.file_entries[file]))) from error

    def _take(self, directories: Directories, file: int) -> _Growing:
        with self._lock:
            growing = self._growing.pop(file, None)
            if growing is None:
                self._make_room()
                growing = self._opened(directories, file)
            self._growing[file] = growing
            growing.users += 1
            return growing

    def _opened(self, directories: Directories, file: int) -> _Growing:
        entry = int(self.paths.file_entries[file])
        directory = directories.open(int(self.paths.parents[entry]))
        name = self.paths.name(entry)
        if self._remaining[file] == self._counts[file] and not self.begun[file]:
            return _Growing(os.open(name, _NEW | os.O_RDWR, self._mode(entry), dir_fd=directory))
        return _Growing(os.open(name, _AGAIN, dir_fd=directory))

    def _make_room(self) -> None:
        if len(self._growing) >= self._limit:
            idle = next((file for file, growing in self._growing.items() if not growing.users), None)
            if idle is not None:
                os.close(self._growing.pop(idle).descriptor)

    def _give_back(self, file: int, growing: _Growing) -> bool:
        """Count one chunk as written; True for the one thread that has written the last."""
        with self._lock:
            growing.users -= 1
            self._remaining[file] -= 1
            whole = bool(self._remaining[file] == 0)
            if whole:
                del self._growing[file]
            return whole

    def _finish(self, file: int, growing: _Growing) -> None:
        entry = int(self.paths.file_entries[file])
        try:
            _hash_rest(growing, int(self._tree.sizes[file]))
            if growing.hasher.digest() != self._tree.contents[file].tobytes():
                raise Corrupt(
                    "is not what its manifest says, though all its chunks are: the manifest contradicts itself",
                    place=self.paths.shown(entry),
                    hint="this release cannot be installed; tell its publisher",
                )
            self._seal(growing.descriptor, entry)
        finally:
            os.close(growing.descriptor)

    def close(self) -> None:
        """Close the files that are not whole."""
        while self._growing:
            with contextlib.suppress(OSError):
                os.close(self._growing.popitem()[1].descriptor)


def file_mode(tree: Tree, entry: int) -> int:
    """The mode of a file."""
    return 0o755 if tree.kinds[entry] == EntryKind.EXECUTABLE else 0o644


def _write_at(descriptor: int, data: memoryview, offset: int) -> None:
    written = os.pwrite(descriptor, data, offset)
    while written < len(data):
        written += os.pwrite(descriptor, data[written:], offset + written)


def _hash_rest(growing: _Growing, size: int) -> None:
    if growing.hashed_bytes == size:
        return
    buffer = memoryview(bytearray(min(_READ_BYTES, size - growing.hashed_bytes)))
    while growing.hashed_bytes < size:
        count = os.preadv(growing.descriptor, [buffer], growing.hashed_bytes)
        if not count:
            break
        growing.hasher.update(buffer[:count])
        growing.hashed_bytes += count
