"""The members of an archive as the entries of a release: sorted, complete, and none where it may not be.

Nothing is unpacked. Paths and a few numbers of each member are kept in memory; their number and length are bounded.
"""

from __future__ import annotations

import os
import stat
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from pacstore.archive.headers import Plain, TarMember, members
from pacstore.errors import Refused, TooLarge
from pacstore.limits import LIMITS, MIB
from pacstore.progress import Progress, Silent
from pacstore.tree import EntryKind, check_name, check_target
from pacstore.walk import Found, Warnings, shown

MOST_MEMBERS = 2_000_000
MOST_PATH_BYTES = 512 * MIB
"""Of all paths and targets of links together; and again of those of directories that no member is for."""

_TOP = -1
_MODES = {EntryKind.DIRECTORY: stat.S_IFDIR, EntryKind.SYMLINK: stat.S_IFLNK}


class Stretch(NamedTuple):
    """Where the content of a file lies in the plain bytes, and the number of the file in the tree."""

    offset: int
    size: int
    file: int


class Entries:
    """The contents of the archive with these `plain` bytes. Raises Corrupt, Refused or TooLarge for what none may have."""

    def __init__(self, plain: Plain) -> None:
        self._plain = plain
        self._keys: list[bytes] = []
        self._kinds = bytearray()
        self._modes = array("I")
        self._mtimes = array("q")
        self._sizes = array("Q")
        self._offsets = array("Q")
        self._targets: dict[int, bytes] = {}
        self._linked: dict[int, bytes] = {}
        self._names = array("I")
        """How many names the content of each member has."""
        self._path_bytes = 0
        for member in members(plain):
            self._add(member)
        # With the least of all bytes between their names, paths sort as the entries of a tree.
        self._order = sorted(range(len(self._keys)), key=self._keys.__getitem__)
        self._check_distinct()
        self._content = array("I", range(len(self._keys)))
        self._names.extend([1] * len(self._keys))
        self._resolve_links()

    def entries(self, progress: Progress) -> Iterator[Found]:
        """Every entry, with the directories that no member is for. Raises TooLarge where these are too many."""
        warned = Warnings(progress)
        stack: list[bytes] = []
        names: list[list[bytes]] = [[]]
        missing = missing_bytes = 0
        for number in self._order:
            parts = self._keys[number].split(b"\0")
            depth = len(parts) - 1
            same = _common(stack, parts[:depth])
            for closed in range(len(names) - 1, same, -1):
                warned.consider_names(b"/".join(stack[:closed]), names.pop())
            del stack[same:]
            for level in range(same, depth):
                directory = self._missing_directory(parts[: level + 1], number)
                # A path of 4 KiB can stand for 2,000 of them, which are as long together as 2 MiB.
                missing, missing_bytes = missing + 1, missing_bytes + len(directory.path)
                if missing > MOST_MEMBERS or missing_bytes > MOST_PATH_BYTES:
                    raise self._too_large("directories that it does not name")
                yield directory
                names[level].append(parts[level])
                names.append([])
                stack.append(parts[level])
            found = self._found(number, depth, parts[-1])
            warned.consider(found)
            names[depth].append(found.name)
            yield found
            if found.kind is EntryKind.DIRECTORY:
                stack.append(found.name)
                names.append([])
        while names:
            warned.consider_names(b"/".join(stack[: len(names) - 1]) or b".", names.pop())
        warned.finish()

    @contextmanager
    def opened(self, found: Found) -> Iterator[int]:
        """The descriptor of the archive, at the first byte of a file."""
        os.lseek(self._plain.descriptor, self._plain.begin + self._offsets[found.status.st_ino], os.SEEK_SET)
        yield self._plain.descriptor

    def stretches(self) -> list[Stretch]:
        """Where all content lies, ascending. A file of several names has the number of the first of them in the tree."""
        firsts: dict[int, int] = {}
        file = 0
        for found in self.entries(Silent()):
            if found.kind.is_file:
                if found.status.st_size:
                    firsts.setdefault(found.status.st_ino, file)
                file += 1
        return [Stretch(self._offsets[n], self._sizes[n], firsts[n]) for n in sorted(firsts)]

    def kind_of(self, path: bytes) -> EntryKind | None:
        """What is at `path`; None where no member is."""
        number = self._find(path.replace(b"/", b"\0"))
        return None if number is None else EntryKind(self._kinds[number])

    def read(self, path: bytes, most_bytes: int) -> bytes:
        """The first bytes of the file at `path`, which is one."""
        number = self._find(path.replace(b"/", b"\0"))
        assert number is not None
        content = self._content[number]
        return self._plain.read(self._offsets[content], min(self._sizes[content], most_bytes))

    def _add(self, member: TarMember) -> None:
        key = self._key(member.path)
        if not key:
            # The top itself, as `tar -C DIR .` has it.
            if member.kind is not EntryKind.DIRECTORY:
                raise self._refused(member.path, "is the top of the release, and not a directory")
            return
        if member.kind is EntryKind.SYMLINK:
            self._check_target(member)
        self._path_bytes += len(key) + len(member.target)
        if len(self._keys) >= MOST_MEMBERS or self._path_bytes > MOST_PATH_BYTES:
            raise self._too_large("members")
        number = len(self._keys)
        if member.linked:
            self._linked[number] = self._key(member.target)
        elif member.target:
            self._targets[number] = member.target
        self._keys.append(key)
        self._kinds.append(member.kind)
        self._modes.append(member.mode & 0o7777)
        self._mtimes.append(member.mtime)
        self._sizes.append(member.size)
        self._offsets.append(member.offset)

    def _key(self, path: bytes) -> bytes:
        """The names of a path, with zero bytes between them; those that mean nothing are left out."""
        if path.startswith(b"/"):
            raise self._refused(path, "has an absolute path", "make the tar again without -P")
        names = [name for name in path.split(b"/") if name not in (b"", b".")]
        for name in names:
            if name == b"..":
                raise self._refused(path, "leads out of the release: its path has '..'")
            try:
                check_name(name)
            except Refused as error:
                raise self._refused(path, error.message, "rename it, or leave it out") from error
        if sum(map(len, names)) + len(names) - 1 > LIMITS.path_bytes:
            raise self._refused(path, f"its path is longer than {LIMITS.path_bytes} bytes")
        return b"\0".join(names)

    def _check_target(self, member: TarMember) -> None:
        try:
            check_target(member.target)
        except Refused as error:
            raise self._refused(member.path, error.message) from error

    def _check_distinct(self) -> None:
        """Raise Refused for a path that occurs twice, or that leads through something that is not a directory."""
        last = b""
        blocked: bytes | None = None
        for number in self._order:
            key = self._keys[number]
            if key == last:
                raise self._refused(key, "is in the archive twice", "make the archive again from one directory")
            if blocked is not None and key.startswith(blocked + b"\0"):
                raise self._refused(key, f"lies under {shown(_path(blocked))}, which is not a directory")
            last = key
            blocked = None if self._kinds[number] == EntryKind.DIRECTORY else key

    def _resolve_links(self) -> None:
        """Let the names that are hard links have the content, mode and time of what they are names of."""
        for number in sorted(self._linked):
            first = self._find(self._linked[number])
            if first is None or first >= number:
                path = shown(_path(self._linked[number]))
                raise self._refused(
                    self._keys[number], f"is a hard link to {path}, which is not in the archive before it"
                )
            if self._kinds[first] == EntryKind.DIRECTORY:
                raise self._refused(self._keys[number], "is a hard link to a directory")
            self._kinds[number] = self._kinds[first]
            if first in self._targets:
                self._targets[number] = self._targets[first]
            content = self._content[number] = self._content[first]
            self._names[content] += 1

    def _find(self, key: bytes) -> int | None:
        at = bisect_left(self._order, key, key=self._keys.__getitem__)
        if at < len(self._order) and self._keys[self._order[at]] == key:
            return self._order[at]
        return None

    def _found(self, number: int, depth: int, name: bytes) -> Found:
        content = self._content[number]
        kind = EntryKind(self._kinds[number])
        names = self._names[content] if kind.is_file else 1
        mode = _MODES.get(kind, stat.S_IFREG) | self._modes[content]
        status = _status(mode, self._sizes[content], self._mtimes[content], content, names)
        return Found(_path(self._keys[number]), depth, name, kind, status, self._targets.get(number, b""))

    def _missing_directory(self, parts: list[bytes], below: int) -> Found:
        """A directory that no member is for, as old as the first member below it."""
        status = _status(stat.S_IFDIR | 0o755, 0, self._mtimes[self._content[below]], _TOP, 1)
        return Found(b"/".join(parts), len(parts) - 1, parts[-1], EntryKind.DIRECTORY, status)

    def _too_large(self, what: str) -> TooLarge:
        limit = f"{MOST_MEMBERS:,} {what} or {MOST_PATH_BYTES:,} bytes of paths"
        return TooLarge(f"has more than {limit}", place=self._plain.name, hint="unpack it and publish the directory")

    def _refused(self, path: bytes, message: str, hint: str = "") -> Refused:
        return Refused(message, place=f"{self._plain.name}: {shown(_path(path))[:300]}", hint=hint)


def _common(stack: list[bytes], parents: list[bytes]) -> int:
    """How many directories of the `stack` are among the `parents`."""
    same = 0
    while same < min(len(stack), len(parents)) and stack[same] == parents[same]:
        same += 1
    return same


def _path(key: bytes) -> bytes:
    return key.replace(b"\0", b"/")


def _status(mode: int, size: int, mtime: int, number: int, names: int) -> os.stat_result:
    """As lstat would give it; the number of the member stands for the inode."""
    return os.stat_result((mode, number, 0, names, 0, 0, size, 0, mtime, 0), {"st_mtime_ns": mtime * 10**9})
