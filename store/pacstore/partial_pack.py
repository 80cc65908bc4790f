"""PartialPack: one pack that is being filled. `pacstore.partial` says what holds for all of them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Self

from pacstore.digest import Bytes
from pacstore.durable import make_directory, sync_directory, wrapped
from pacstore.errors import Corrupt, Refused, Unavailable
from pacstore.frame_list import FrameList

_PUBLIC_MODE = 0o444
_ABSENT, _CANDIDATE, _PRESENT = 0, 1, 2


class Removed(Unavailable):
    """Others have removed the pack while it was filled, to make room: it must be begun anew."""


class PartialPack:
    """One partial pack, opened. Threads may use it at once, except for `close`. `frames` come from its proven table."""

    def __init__(self, path: Path, public: Path, descriptor: int, frames: FrameList) -> None:
        self.frames = frames
        self._path = path
        self._public = public
        self._descriptor = descriptor
        self._states = bytearray(len(frames))
        self._find_candidates()

    @property
    def is_whole(self) -> bool:
        """Whether every frame is known to be here. False also where `look` was not called for all of them."""
        return self._states.count(_PRESENT) == len(self._states)

    def has(self, number: int) -> bool:
        """Whether frame `number` is known to be here, verified."""
        return self._states[number] == _PRESENT

    def needs_look(self, number: int) -> bool:
        """Whether frame `number` may be here from before, and was not looked at yet."""
        return self._states[number] == _CANDIDATE

    def look(self, numbers: Iterable[int]) -> None:
        """Read those of these frames that may be here from before, and compare them with their digests."""
        for number in numbers:
            if self._states[number] == _CANDIDATE:
                good = self._is_good(number)
                # Another thread may have written it meanwhile.
                if self._states[number] == _CANDIDATE:
                    self._states[number] = _PRESENT if good else _ABSENT

    def missing(self, numbers: Iterable[int]) -> list[int]:
        """Those of these frames that are not here; looks at them first."""
        numbers = list(numbers)
        self.look(numbers)
        return [number for number in numbers if self._states[number] != _PRESENT]

    def write(self, number: int, data: Bytes) -> None:
        """Put frame `number` in its place. Raises Corrupt if `data` is not that frame, Unavailable when the disk fails."""
        self.frames.check(number, data, place=str(self._path))
        self.write_verified(number, data)

    def write_verified(self, number: int, data: Bytes) -> None:
        """Like `write`, for bytes which the caller has compared with the digest of this frame by `frames.check`."""
        with wrapped(self._path):
            write_at(self._descriptor, data, self.frames.begin(number))
        self._states[number] = _PRESENT

    def open_file(self) -> BinaryIO:
        """The file for reading; only header, table, footer and frames that are here count in it. The caller closes it."""
        with wrapped(self._path):
            # Opened anew, whatever its name is by now: copies of one descriptor share their position, and many read at once.
            try:
                return open(f"/proc/self/fd/{self._descriptor}", "rb", buffering=0)
            except FileNotFoundError:
                raise Unavailable("was closed, or /proc is not mounted", place=str(self._path)) from None

    def publish(self) -> None:
        """Make the whole pack durable, then visible under its public name. May be repeated.

        Raises Refused if a frame is not here, Removed, or Unavailable when the disk fails: then the file is given up, since
        what a failed sync has lost looks, until it is needed, as if it were on disk.
        """
        if not self.is_whole:
            raise Refused("lacks frames and cannot become public", place=str(self._path))
        with wrapped(self._path):
            os.fchmod(self._descriptor, _PUBLIC_MODE)
            try:
                os.fsync(self._descriptor)
            except OSError:
                self._give_up()
                raise
        with wrapped(self._public):
            make_directory(self._public.parent)
            self._give_public_name()
            sync_directory(self._public.parent)
        self._give_up()

    def close(self) -> None:
        """Close the file. May be repeated."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _find_candidates(self) -> None:
        for begin, end in _data_extents(self._descriptor, self.frames.begin(len(self.frames))):
            inside = self.frames.covering(begin, end - begin)
            for number in inside:
                if self.frames.begin(number) >= begin and self.frames.begin(number + 1) <= end:
                    self._states[number] = _CANDIDATE

    def _is_good(self, number: int) -> bool:
        """A frame that cannot be read, as on a failing disk, is as good as none: it will be fetched again."""
        with suppress(OSError, Corrupt):
            data = os.pread(self._descriptor, self.frames.length(number), self.frames.begin(number))
            self.frames.check(number, data, place=str(self._path))
            return True
        return False

    def _give_public_name(self) -> None:
        """Name the very file that was verified: by now another one may have its private name."""
        directory = os.open(self._public.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._link(self._public.name, directory)
        except FileExistsError:
            self._take_public_name(directory)
        except FileNotFoundError:
            raise Removed("was removed while it was filled", place=str(self._path), hint="try again") from None
        finally:
            os.close(directory)

    def _take_public_name(self, directory: int) -> None:
        """Another process has made it, or it is damaged and about to be withdrawn; this file is good, whatever that one is."""
        private = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        temporary = f"{self._public.name}.{secrets.token_hex(8)}"
        try:
            with suppress(FileNotFoundError):  # removed: others have made room, or withdrawn one over it
                self._link(temporary, private)
                os.rename(temporary, self._public.name, src_dir_fd=private, dst_dir_fd=directory)
                # Of two names of one file, a rename leaves both.
                os.unlink(temporary, dir_fd=private)
        finally:
            os.close(private)

    def _link(self, name: str, directory: int) -> None:
        # With a directory given, this is linkat(AT_SYMLINK_FOLLOW), which follows the descriptor to its file.
        os.link(f"/proc/self/fd/{self._descriptor}", name, src_dir_fd=directory, dst_dir_fd=directory)

    def _give_up(self) -> None:
        """Remove the private name, if it is still that of this file."""
        with suppress(OSError):
            if os.path.samestat(os.fstat(self._descriptor), self._path.stat()):
                self._path.unlink()


def write_at(descriptor: int, data: Bytes, offset: int) -> None:
    """Write all of `data` at `offset`, wherever the descriptor stands."""
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count


def _data_extents(descriptor: int, length: int) -> Iterator[tuple[int, int]]:
    """Where a sparse file has data, or may have."""
    at = 0
    while at < length:
        try:
            at = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole from here on
            return
        end = os.lseek(descriptor, at, os.SEEK_HOLE)
        yield at, end
        at = end
