"""Listing: the files below a directory that pacball did not make, as columns: about 50 bytes a file.

Nothing but regular files of some content is listed, no symbolic link is followed, and what cannot be looked at is counted.
"""

from __future__ import annotations

import os
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pacstore.document import Numbers
from pacstore.errors import printable
from pacstore.install.tree.directories import open_directory
from pacstore.install.tree.paths import TOP, Numbers32
from pacstore.limits import GIB, LIMITS, MIB

MOST_ENTRIES = 2_000_000
"""Files and directories that are listed at most."""
NAME_BYTES = 64 * MIB
"""How many bytes their names may have together."""
FILE_BYTES = 1024 * GIB
"""A file of more bytes is passed over: nobody means its holes."""


@dataclass
class Skipped:
    """How many files and directories were passed over, and of the first its path, safe to print, and the reason."""

    count: int = 0
    first: str = ""

    def add(self, path: bytes, reason: str) -> None:
        """One more."""
        self.count += 1
        self.first = self.first or f"{printable(path.decode('utf-8', 'backslashreplace')) or '.'}: {reason}"


class Listing:
    """Directories and files by entry number, each after its directory; files have numbers of their own too.

    A Layout (paths.py). `sizes` in bytes and `name_sums`, CRC-32 of the last component, are by file number.
    """

    def __init__(self) -> None:
        self._parents = array("i")
        self._names = bytearray()
        self._starts = array("q", [0])
        self._files = array("i")
        self._sizes = array("q")
        self._sums = array("I")

    def add(self, parent: int, name: bytes, *, size: int | None = None) -> int:
        """Add a file of `size` bytes, or a directory; its entry number."""
        entry = len(self._parents)
        self._parents.append(parent)
        self._names += name
        self._starts.append(len(self._names))
        if size is not None:
            self._files.append(entry)
            self._sizes.append(size)
            self._sums.append(zlib.crc32(name))
        return entry

    @property
    def entries(self) -> int:
        return len(self._parents)

    @property
    def is_full(self) -> bool:
        """Whether nothing more is listed, for all the memory that it would need."""
        return len(self._parents) >= MOST_ENTRIES or len(self._names) >= NAME_BYTES

    @property
    def parents(self) -> Numbers32:
        """For each entry the number of its directory."""
        return np.frombuffer(self._parents, dtype=np.int32)

    @property
    def file_entries(self) -> Numbers32:
        """For each file the number of its entry."""
        return np.frombuffer(self._files, dtype=np.int32)

    @property
    def sizes(self) -> Numbers:
        """The files' sizes in bytes."""
        return np.frombuffer(self._sizes, dtype=np.int64)

    @property
    def name_sums(self) -> NDArray[np.uint32]:
        """CRC-32 of the files' names."""
        return np.frombuffer(self._sums, dtype=np.uint32)

    def name(self, entry: int) -> bytes:
        """The last component of the entry's path."""
        return bytes(self._names[self._starts[entry] : self._starts[entry + 1]])

    def path(self, entry: int) -> bytes:
        """The entry's path from the top; empty for the top."""
        parts = []
        while entry != TOP:
            parts.append(self.name(entry))
            entry = self._parents[entry]
        return b"/".join(reversed(parts))

    def only(self, files: Numbers32) -> Listing:
        """A listing of these files alone, numbered in this order, and of the directories on the way to them."""
        kept = Listing()
        numbers = {TOP: TOP}
        entries, sizes = self.file_entries[files].tolist(), self.sizes[files].tolist()
        for entry, size in zip(entries, sizes, strict=True):
            parent = self._parents[entry]
            way = []
            while parent not in numbers:
                way.append(parent)
                parent = self._parents[parent]
            for directory in reversed(way):
                numbers[directory] = kept.add(numbers[self._parents[directory]], self.name(directory))
            kept.add(numbers[self._parents[entry]], self.name(entry), size=size)
        return kept


def list_files(top: int, skipped: Skipped) -> Listing:
    """The files below the open directory `top`."""
    listing = Listing()
    pending = [TOP]
    while pending:
        directory = pending.pop()
        path = listing.path(directory)
        if len(path) > LIMITS.path_bytes:
            skipped.add(path[:200], "its path is too long")
            continue
        try:
            descriptor = os.dup(top) if directory == TOP else open_directory(top, path)
            try:
                pending.extend(_add_directory(listing, directory, descriptor, skipped))
            finally:
                os.close(descriptor)
        except OSError as error:
            skipped.add(path, error.strerror or "cannot be read")
        if listing.is_full:
            skipped.add(path, f"more than {MOST_ENTRIES:,} files and directories, or {NAME_BYTES >> 20} MiB of names")
            break
    return listing


def _add_directory(listing: Listing, directory: int, descriptor: int, skipped: Skipped) -> Iterator[int]:
    """Add what an open directory holds; the entry numbers of the directories in it."""
    with os.scandir(descriptor) as found:
        for one in found:
            if listing.is_full:
                return
            name = os.fsencode(one.name)
            try:
                if one.is_dir(follow_symlinks=False):
                    yield listing.add(directory, name)
                elif one.is_file(follow_symlinks=False):
                    size = one.stat(follow_symlinks=False).st_size
                    if 0 < size <= FILE_BYTES:
                        listing.add(directory, name, size=size)
            except OSError as error:
                skipped.add(name, error.strerror or "cannot be read")
