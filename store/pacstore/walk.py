"""Walking a directory that is to be published: its entries in the order of a tree, and what may not be part of one."""

from __future__ import annotations

import errno
import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pacstore.durable import unavailable
from pacstore.errors import PacballError, Refused, printable
from pacstore.limits import LIMITS
from pacstore.progress import Progress
from pacstore.tree import EntryKind, check_name, check_target

_REPLACED = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO))
"""What opening a file or directory says when something else has taken its place: nothing, a file, a link, a socket."""


class Found(NamedTuple):
    """One entry on disk: `path` as the system names it, `depth` and `name` as in a tree, `status` as by lstat."""

    path: bytes
    depth: int
    name: bytes
    kind: EntryKind
    status: os.stat_result
    target: bytes = b""


@dataclass(frozen=True)
class Extent:
    """How much a directory holds: numbers of entries and files, bytes of the files, hard links counted each."""

    entries: int
    files: int
    total_bytes: int


def walk(top: Path, progress: Progress) -> Iterator[Found]:
    """Every entry below `top` in preorder, siblings by the bytes of their names.

    Raises Refused for what no release may contain, with its path; Unavailable for what cannot be read.
    """
    root = os.fsencode(top)
    if not os.path.isdir(root):
        raise Refused("is not a directory", place=str(top), hint="name the directory that holds the release")
    warned = Warnings(progress)
    pending = [(root, iter(_children(root, warned, follow=True)))]
    while pending:
        directory, names = pending[-1]
        name = next(names, None)
        if name is None:
            pending.pop()
            continue
        found = _look(directory, name, len(pending) - 1, len(root))
        warned.consider(found)
        yield found
        if found.kind is EntryKind.DIRECTORY:
            pending.append((found.path, iter(_children(found.path, warned))))
    warned.finish()


def measure(top: Path, progress: Progress) -> Extent:
    """How much `walk` would give; reads no file."""
    return extent_of(walk(top, progress))


def extent_of(found: Iterable[Found]) -> Extent:
    """How much these entries are."""
    entries = files = total = 0
    for one in found:
        entries += 1
        if one.kind.is_file:
            files += 1
            total += one.status.st_size
    return Extent(entries, files, total)


def _children(directory: bytes, warned: Warnings, *, follow: bool = False) -> list[bytes]:
    try:
        names = sorted(_names(directory, follow=follow))
    except OSError as error:
        raise vanished(error, directory) from error
    warned.consider_names(directory, names)
    return names


def _names(directory: bytes, *, follow: bool) -> list[bytes]:
    """The names in a directory, which may be a symbolic link only if `follow`: nobody can lead the walk elsewhere."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    descriptor = os.open(directory, flags)
    try:
        return [os.fsencode(name) for name in os.listdir(descriptor)]
    finally:
        os.close(descriptor)


def vanished(error: OSError, path: bytes) -> PacballError:
    """The error for a path that was there a moment ago, or cannot be read."""
    if error.errno in _REPLACED:
        return Refused("vanished or changed while it was read", place=shown(path),
                       hint="publish a directory that nobody is writing to")  # fmt: skip
    if error.errno == errno.ENAMETOOLONG:
        return Refused(f"its path is longer than the {LIMITS.path_bytes} bytes that a path may have", place=shown(path)[:300],
                       hint="leave it out, or give a shorter path to the directory")  # fmt: skip
    return unavailable(error, shown(path))


def shown(path: bytes) -> str:
    """A path for messages, whatever its bytes."""
    return printable(path.decode("utf-8", "surrogateescape"))


def _look(directory: bytes, name: bytes, depth: int, root_bytes: int) -> Found:
    path = directory + b"/" + name
    try:
        status = os.lstat(path)
        target = os.readlink(path) if stat.S_ISLNK(status.st_mode) else b""
    except OSError as error:
        raise vanished(error, path) from error
    try:
        check_name(name)
        if target:
            check_target(target)
    except Refused as error:
        raise Refused(error.message, place=shown(path), hint="rename it, or leave it out") from error
    if len(path) - root_bytes - 1 > LIMITS.path_bytes:
        raise Refused(f"its path is longer than {LIMITS.path_bytes} bytes", place=shown(path)[:300])
    return Found(path, depth, name, _kind(path, status), status, target)


def _kind(path: bytes, status: os.stat_result) -> EntryKind:
    mode = status.st_mode
    if stat.S_ISDIR(mode):
        return EntryKind.DIRECTORY
    if stat.S_ISLNK(mode):
        return EntryKind.SYMLINK
    if not stat.S_ISREG(mode):
        names = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
        what = names.get(stat.S_IFMT(mode), "of an unknown type")
        raise Refused(f"is {what}; a release has files, directories and links", place=shown(path), hint="leave it out")
    if mode & (stat.S_ISUID | stat.S_ISGID):
        raise Refused("is a setuid or setgid file", place=shown(path), hint="remove the bit: chmod ug-s")
    return EntryKind.EXECUTABLE if mode & stat.S_IXUSR else EntryKind.FILE


class Warnings:
    """Counts what deserves a warning and says each kind once, with an example."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._seen: dict[str, tuple[int, bytes]] = {}

    def consider(self, found: Found) -> None:
        """Warn of its mode, if there is anything to say."""
        mode = found.status.st_mode
        if found.kind.is_file and mode & 0o044 != 0o044:
            self._add("cannot be read by group or others (a secret?); it will be readable by everybody", found.path)
        if found.kind is EntryKind.DIRECTORY and mode & (stat.S_ISGID | stat.S_ISVTX | stat.S_IWOTH):
            self._add("has a setgid, sticky or world-writable bit, which is dropped", found.path)

    def consider_names(self, directory: bytes, names: list[bytes]) -> None:
        """Warn of names in one directory that some file systems take for the same."""
        folded = {unicodedata.normalize("NFC", name.decode("utf-8", "replace")).casefold() for name in names}
        if len(folded) < len(names):
            text = "has names that differ only in case or Unicode normalization; some file systems cannot hold both"
            self._add(text, directory)

    def _add(self, text: str, path: bytes) -> None:
        count, first = self._seen.get(text, (0, path))
        self._seen[text] = (count + 1, first)

    def finish(self) -> None:
        """Say all that was found."""
        for text, (count, path) in self._seen.items():
            more = f" (and {count - 1} more)" if count > 1 else ""
            self._progress.warn(f"{shown(path)} {text}{more}")
