"""Examination: parts of a tree as they are on the disk against what they should be, reading every byte.

It knows nothing but the part and the open top of the tree, so it can be done by any thread or process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pacstore.chunker import CHUNKER
from pacstore.digest import DIGEST_BYTES
from pacstore.errors import printable
from pacstore.install.actions.generated import Made
from pacstore.install.tree.directories import open_directory
from pacstore.install.tree.disk import DIRECTORY_MODE
from pacstore.install.tree.hashing import digest_of, key_of
from pacstore.install.upkeep.findings import NO_ENTRY, Fault, Finding
from pacstore.install.upkeep.parts import Owner, Part, Piece
from pacstore.limits import MIB
from pacstore.tree import EntryKind

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_ADVANCE_BYTES = 1 * MIB
"""So often is told how far it is: other processes hear of it over a pipe."""
_OPEN_DIRECTORIES = 32
"""So many directories are open at once: what is known already is asked for all of them together."""
_USUAL = (stat.S_IFDIR | DIRECTORY_MODE, stat.S_IFREG | 0o644, stat.S_IFREG | 0o755, stat.S_IFLNK | 0o777)
"""The modes with which nothing is wrong, by kind."""
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_DIRECTORY, _FILE, _SYMLINK = int(EntryKind.DIRECTORY), int(EntryKind.FILE), int(EntryKind.SYMLINK)
_FORMATS = (stat.S_IFDIR, stat.S_IFREG, stat.S_IFREG, stat.S_IFLNK)
_NAMES = ("directory", "file", "file", "symbolic link")
Ask = Callable[[list[bytes]], list[bytes | None]]
Advance = Callable[[int], None]
Inode = tuple[int, int]


@dataclass(slots=True)
class Found:
    """What comes of a piece: what is wrong, the inodes that were asked for, by entry, and digests of files with several links."""

    findings: list[Finding] = field(default_factory=list)
    inodes: dict[int, Inode] = field(default_factory=dict)
    digests: list[tuple[bytes, bytes]] = field(default_factory=list)


@dataclass(slots=True)
class _Reading:
    """A file whose content is to be read: where it stands in its part, and what there is on the disk."""

    position: int
    size: int
    inode: Inode
    key: bytes | None


@dataclass(slots=True)
class _Open:
    """A part whose directory is open."""

    part: Part
    descriptor: int
    readings: list[_Reading] = field(default_factory=list)


class Buffer:
    """Into what a thread or process reads."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(CHUNKER.max_bytes))

    def close(self) -> None:
        """Nothing is held open."""


class Examination:
    """Of one piece, below the open directory `top`. `ask`: which digests of files with several links are known."""

    def __init__(self, top: int, owner: Owner | None, buffer: Buffer, *, ask: Ask, advance: Advance) -> None:
        self._top = top
        self._owner = owner
        self._buffer = buffer
        self._ask = ask
        self._advance = advance
        self._waiting_bytes = 0
        self._here: dict[bytes, bytes] = {}
        self._found = Found()

    def run(self, piece: Piece) -> Found:
        """All that is wrong, in no order. Raises nothing because of what is on the disk."""
        for at in range(0, len(piece.parts), _OPEN_DIRECTORIES):
            self._examine(piece.parts[at : at + _OPEN_DIRECTORIES])
        if self._waiting_bytes:
            self._advance(self._waiting_bytes)
        self._found.digests = list(self._here.items())
        return self._found

    def _examine(self, parts: list[Part]) -> None:
        opened: list[_Open] = []
        try:
            for part in parts:
                self._open(part, opened)
            known = self._known(opened)
            for one in opened:
                self._read_all(one, known)
                self._compare_rest(one.part, one.descriptor)
        finally:
            for one in opened:
                if one.descriptor != self._top:
                    os.close(one.descriptor)

    def _open(self, part: Part, opened: list[_Open]) -> None:
        try:
            descriptor = open_directory(self._top, part.path) if part.path else self._top
        except OSError as error:
            what = _absence(error)
            for entry, name in zip(part.entries, part.entry_names, strict=True):
                if name not in part.made:
                    self._add(_below(part, name), entry, *what)
            self._compare_rest(part, -1)
            return
        opened.append(one := _Open(part, descriptor))
        self._look_at_all(one)

    def _compare_rest(self, part: Part, descriptor: int) -> None:
        """What is to be compared once for each directory."""
        if part.names is not None:
            self._check_made(part, descriptor)
            if descriptor >= 0:
                self._check_listing(part, part.names, descriptor)

    def _add(
        self, path: str, entry: int, fault: Fault, detail: str, inode: Inode | None = None, *, generated: bool = False
    ) -> None:
        self._found.findings.append(Finding(path, fault, detail, entry, inode, generated))

    # -- entries

    def _look_at_all(self, one: _Open) -> None:
        """Compare all but contents; find the files whose contents are to be read."""
        part = one.part
        for position, name in enumerate(part.entry_names):
            if part.made and name in part.made:
                continue
            try:
                found = os.stat(name, dir_fd=one.descriptor, follow_symlinks=False)
                self._look_at(one, position, found)
            except OSError as error:
                self._add(_below(part, name), part.entries[position], *_absence(error))

    def _look_at(self, one: _Open, position: int, found: os.stat_result) -> None:
        part = one.part
        entry, kind, name = part.entries[position], part.kinds[position], part.entry_names[position]
        if stat.S_IFMT(found.st_mode) != _FORMATS[kind]:
            self._add(_below(part, name), entry, Fault.KIND, f"is not a {_NAMES[kind]}")
            return
        inode = None if kind in (_DIRECTORY, _SYMLINK) else (found.st_dev, found.st_ino)
        if self._owner is not None or found.st_mode != _USUAL[kind]:
            for fault, detail in attribute_faults(kind, found, self._owner):
                self._add(_below(part, name), entry, fault, detail, inode)
        if kind == _SYMLINK:
            target = os.readlink(name, dir_fd=one.descriptor)
            if target != part.targets[entry]:
                self._add(_below(part, name), entry, Fault.TARGET, f"leads to {_shown(target)}")
        elif inode is not None:
            if entry in part.linked:
                self._found.inodes[entry] = inode
            one.readings.append(_Reading(position, found.st_size, inode, key_of(found)))

    # -- contents

    def _read_all(self, one: _Open, known: dict[bytes, bytes]) -> None:
        part = one.part
        for reading in one.readings:
            entry, name = part.entries[reading.position], part.entry_names[reading.position]
            try:
                what = self._content_fault(one, reading, known)
            except OSError as error:
                self._add(_below(part, name), entry, *_absence(error))
                continue
            if what:
                self._add(_below(part, name), entry, Fault.DAMAGED, what, reading.inode)
            self._waiting_bytes += part.sizes[reading.position]
            if self._waiting_bytes >= _ADVANCE_BYTES:
                self._advance(self._waiting_bytes)
                self._waiting_bytes = 0

    def _known(self, opened: list[_Open]) -> dict[bytes, bytes]:
        """The digests of files with several links that were read before, here or elsewhere."""
        every = {reading.key for one in opened for reading in one.readings}
        keys = [key for key in every if key is not None and key not in self._here]
        answers = zip(keys, self._ask(keys), strict=True) if keys else ()
        return {key: digest for key, digest in answers if digest is not None}

    def _content_fault(self, one: _Open, reading: _Reading, known: dict[bytes, bytes]) -> str:
        part, at, key = one.part, reading.position * DIGEST_BYTES, reading.key
        if reading.size != part.sizes[reading.position]:
            return f"has {reading.size} bytes, not {part.sizes[reading.position]}"
        digest = (known.get(key) or self._here.get(key)) if key is not None else None
        if digest is None:
            digest = self._digest(one.descriptor, part.entry_names[reading.position], reading.size)
            if key is not None:
                self._here[key] = digest
        return "" if digest == part.contents[at : at + DIGEST_BYTES] else "has other content"

    def _digest(self, directory: int, name: bytes, size: int) -> bytes:
        descriptor = os.open(name, _READ, dir_fd=directory)
        try:
            return digest_of(descriptor, size, self._buffer.view)
        finally:
            os.close(descriptor)

    # -- what is there besides, and what the release's own commands made

    def _check_listing(self, part: Part, expected: frozenset[bytes], directory: int) -> None:
        with contextlib.suppress(OSError):
            for name in map(os.fsencode, os.listdir(directory)):
                if name not in expected:
                    self._add(_below(part, name), NO_ENTRY, Fault.EXTRA, "is not part of the release")

    def _check_made(self, part: Part, directory: int) -> None:
        for name, (expected, entry) in part.made.items():
            what: tuple[Fault, str] | None
            try:
                there = directory >= 0
                what = self._made_fault(directory, name, expected) if there else (Fault.MISSING, "is not there")
            except OSError as error:
                what = _absence(error)
            if what is not None:
                detail = f"{what[1]} (the release's own commands made it)"
                self._add(_below(part, name), entry, what[0], detail, generated=True)

    def _made_fault(self, directory: int, name: bytes, made: Made) -> tuple[Fault, str] | None:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_IFMT(found.st_mode) != _FORMATS[made.kind]:
            return Fault.KIND, f"is not a {_NAMES[made.kind]}"
        if made.kind is EntryKind.SYMLINK:
            target = os.readlink(name, dir_fd=directory)
            return None if target == made.target.encode() else (Fault.TARGET, f"leads to {_shown(target)}")
        if made.kind is EntryKind.DIRECTORY or made.digest is None:
            return None
        if bool(found.st_mode & 0o100) != (made.kind is EntryKind.EXECUTABLE):
            return Fault.MODE, f"has mode {stat.S_IMODE(found.st_mode):04o}"
        if found.st_size != made.bytes:
            return Fault.DAMAGED, f"has {found.st_size} bytes, not {made.bytes}"
        same = self._digest(directory, name, found.st_size) == made.digest.raw
        return None if same else (Fault.DAMAGED, "has other content")


def attribute_faults(kind: int, found: os.stat_result, owner: Owner | None) -> Iterator[tuple[Fault, str]]:
    """What is wrong with the owner and the mode of what should be of this kind, and is."""
    if owner is not None and (found.st_uid != owner[0] or owner[1] not in (None, found.st_gid)):
        expected = f"user {owner[0]}" if owner[1] is None else f"user {owner[0]} and group {owner[1]}"
        yield Fault.OWNER, f"belongs to user {found.st_uid} and group {found.st_gid}, not to {expected}"
    if kind == _SYMLINK:
        return
    expected_mode = 0o644 if kind == _FILE else DIRECTORY_MODE
    # A directory may inherit setgid from the one above it.
    actual_mode = stat.S_IMODE(found.st_mode) & (0o777 if kind == _DIRECTORY else 0o7777)
    if actual_mode != expected_mode:
        yield Fault.MODE, f"has mode {actual_mode:04o}, not {expected_mode:04o}"


def _absence(error: OSError) -> tuple[Fault, str]:
    """What it means that an entry cannot be looked at: only some errors say that it is not there."""
    if error.errno in _MISSING:
        return Fault.MISSING, "is not there"
    return Fault.DAMAGED, f"cannot be read: {error.strerror}"


def _below(part: Part, name: bytes) -> str:
    """The path of what has this name, safe to print."""
    return _shown(part.path + b"/" + name if part.path else name)


def _shown(name: bytes) -> str:
    return printable(name.decode("utf-8", "backslashreplace"))
