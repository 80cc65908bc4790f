"""Partial packs: packs that are being filled frame by frame, in any order, until they are whole and become public.

A partial pack is `private/partial/ab/ID`: a sparse file of the pack's final length, with its header, table and footer in their
places. Nothing of it is synced to disk before it is whole, and no record says which frames are in it: the table proves itself by
the pack's id, and a frame that may be there is compared with its digest before a process uses it for the first time. So it does
not matter what power loss or kill -9 leave, nor how many processes fill the same pack: they write the same verified bytes to
the same places. What becomes public is the very file whose frames were verified, whatever happened to its name meanwhile.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from pacstore.backends.directory import DirectoryStorage
from pacstore.digest import Bytes, Digest
from pacstore.durable import sync_directory, wrapped
from pacstore.errors import Corrupt, NotFound
from pacstore.frame_list import FrameList
from pacstore.pack import HEADER, Table, ending, read_table
from pacstore.partial_pack import PartialPack, write_at
from pacstore.storage import ObjectKind, object_path

PARTIAL_NAME = "partial"
"""The directory below `private/`."""
_PRIVATE_MODE = 0o600
_NAME = re.compile(r"[0-9a-f]{64}\Z")
_SECOND_NAME = re.compile(r"[0-9a-f]{64}\.[0-9a-f]{16}\Z")
"""That a pack has for a moment while it takes the place of another file."""


class PartialPacks:
    """The partial packs of a store. Any number of threads and processes may use them at once."""

    def __init__(self, private: Path, storage: DirectoryStorage) -> None:
        """`private` is the store's private directory, in the file system of `storage`. Nothing is made yet."""
        self._top = private / PARTIAL_NAME
        self._storage = storage

    def open(self, pack: Digest) -> PartialPack:
        """The partial pack, its table proven. Raises NotFound if there is none, Corrupt if its table cannot be proven."""
        path = self._path(pack)
        with _opened(path, create=False) as descriptor:
            return PartialPack(path, self._public(pack), descriptor, _prove(path, pack))

    def begin(self, pack: Digest, table: Bytes) -> PartialPack:
        """The partial pack, made if there is none; the frames of an existing one are kept, whatever became of its table.

        Raises Corrupt if `table` is not the table of `pack`, Unavailable when the disk is full or fails.
        """
        if Digest.of(table) != pack:
            raise Corrupt("is not the table of this pack", place=object_path(ObjectKind.PACK, pack))
        with suppress(NotFound, Corrupt):
            return self.open(pack)
        path, frames = self._path(pack), FrameList.of(Table.parse(table, place=f"the table of {pack}"))
        self._make_directories(path)
        with _opened(path, create=True) as descriptor:
            os.ftruncate(descriptor, frames.pack_length)
            write_at(descriptor, HEADER, 0)
            write_at(descriptor, ending(bytes(table)), frames.begin(len(frames)))
            return PartialPack(path, self._public(pack), descriptor, frames)

    def demote(self, pack: Digest) -> None:
        """Withdraw a public pack that has damage: it becomes a partial pack, of which all good frames are kept.

        Which frames are bad need not be told: each is compared with its digest before it is used. Durable when this
        returns; may be repeated. Raises NotFound if there is no such pack, neither public nor partial.
        """
        public, path = self._public(pack), self._path(pack)
        self._make_directories(path)
        with wrapped(public):
            try:
                if path.exists():
                    damaged = public.stat()
                    self._merge(pack)
                    sync_directory(path.parent)
                    # Another file is one that was filled meanwhile: it is good, and may have no other name.
                    if os.path.samestat(public.stat(), damaged):
                        public.unlink()
                else:
                    # In one step: whoever fills it from now on may make it public again before this returns.
                    os.rename(public, path)
                    sync_directory(path.parent)
            except FileNotFoundError:
                os.stat(path)
                return
            sync_directory(public.parent)

    def digests(self) -> Iterator[Digest]:
        """Every partial pack, ascending."""
        for directory in _listed(self._top):
            for name in _listed(self._top / directory):
                if _NAME.match(name) and name[:2] == directory:
                    yield Digest.parse(name)

    def occupied(self, pack: Digest) -> int:
        """How many bytes the partial pack takes on disk. Raises NotFound."""
        path = self._path(pack)
        with wrapped(path):
            return path.stat().st_blocks * 512

    def drop(self, pack: Digest) -> None:
        """Remove the partial pack and what is in it; to remove an absent one is no error."""
        with suppress(NotFound), wrapped(self._path(pack)):
            self._path(pack).unlink()

    def tidy(self) -> None:
        """Remove what a killed process may have left: second names of packs that are public, files without any frame."""
        for pack in list(self.digests()):
            path = self._path(pack)
            with suppress(NotFound), wrapped(path):
                if self._public(pack).exists() or not path.stat().st_blocks:
                    path.unlink()
        for directory in _listed(self._top):
            for name in _listed(self._top / directory):
                if _SECOND_NAME.match(name):
                    with suppress(NotFound), wrapped(self._top / directory / name):
                        (self._top / directory / name).unlink()

    def _merge(self, pack: Digest) -> None:
        """Beside a public pack there is a partial one, which gets the good frames of the public one."""
        public, path = self._public(pack), self._path(pack)
        if os.path.samestat(public.stat(), path.stat()):
            return
        try:
            partial = self.open(pack)
        except Corrupt:
            os.replace(public, path)
            return
        with closing(partial), closing(self._storage.open(ObjectKind.PACK, pack)) as file:
            for number in partial.missing(range(len(partial.frames))):
                # What the disk cannot read is damage, too, and no reason to let the pack stay public.
                with suppress(Corrupt, OSError):
                    data = os.pread(file.fileno(), partial.frames.length(number), partial.frames.begin(number))
                    partial.write(number, data)

    def _make_directories(self, path: Path) -> None:
        with wrapped(path):
            for directory in (self._top, path.parent):
                directory.mkdir(mode=0o700, exist_ok=True)

    def _path(self, pack: Digest) -> Path:
        return self._top / pack.hex[:2] / pack.hex

    def _public(self, pack: Digest) -> Path:
        return self._storage.public / object_path(ObjectKind.PACK, pack)


@contextmanager
def _opened(path: Path, *, create: bool) -> Iterator[int]:
    """A descriptor of the file, which is closed if the block fails."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_CREAT if create else 0)
    with wrapped(path):
        try:
            descriptor = os.open(path, flags, _PRIVATE_MODE)
        except PermissionError:  # a pack that was public may be read only
            path.chmod(_PRIVATE_MODE)
            descriptor = os.open(path, flags, _PRIVATE_MODE)
        try:
            yield descriptor
        except BaseException:
            os.close(descriptor)
            raise


def _prove(path: Path, pack: Digest) -> FrameList:
    with open(path, "rb", buffering=0) as file:
        table = read_table(file, place=str(path))
    if table.id != pack:
        raise Corrupt("its table is not the one that its name says", place=str(path))
    return FrameList.of(table)


def _listed(directory: Path) -> list[str]:
    with wrapped(directory):
        try:
            return sorted(os.listdir(directory))
        except (FileNotFoundError, NotADirectoryError):
            return []
