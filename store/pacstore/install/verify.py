"""Verify: an installed release against its kept manifest, offline, reading every byte."""

from __future__ import annotations

import contextlib
import enum
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from blake3 import blake3

from pacstore.document import starts
from pacstore.errors import NotFound, printable
from pacstore.install.crew import Crew
from pacstore.install.disk import DIRECTORY_FLAGS, DIRECTORY_MODE, disk_at
from pacstore.install.paths import TOP, Children, Numbers32, Paths
from pacstore.install.root import Root
from pacstore.install.tools import Tools
from pacstore.limits import MIB
from pacstore.progress import Progress
from pacstore.release import Release
from pacstore.tree import EntryKind

_JOB_BYTES = 16 * MIB
_JOB_ENTRIES = 1_024
_READ_BYTES = 1 * MIB
_LARGE_BYTES = 64 * MIB
"""Files from this size on are hashed by all cores."""
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Fault(enum.StrEnum):
    """What can be wrong with an entry."""

    DAMAGED = "damaged"
    MISSING = "missing"
    EXTRA = "extra"
    MODE = "mode"
    TARGET = "target"
    KIND = "kind"


@dataclass(frozen=True, slots=True, order=True)
class Damage:
    """One thing that is wrong: the path below the release's top (safe to print), what, and details for people."""

    path: str
    fault: Fault
    detail: str


def verify(root: Path, release: Release, progress: Progress, *, workers: int = 2) -> list[Damage]:
    """All that is wrong with `release` as it is installed under `root`, by path; times are not compared.

    Raises NotFound if it is not installed, Corrupt if its kept manifest is damaged, Unavailable when the disk fails.
    """
    if not Root.exists(root):
        raise NotFound("is not an install root", place=str(root), hint="give the directory that was given to install")
    with disk_at(str(root)), Root.open(root) as opened:
        manifest = opened.manifest(release)
        try:
            top = os.open(str(release), DIRECTORY_FLAGS, dir_fd=opened.releases)
        except FileNotFoundError as error:
            place = str(opened.release_path(release))
            raise NotFound("is not there", place=place, hint="install the release again") from error
        try:
            return _Check(Paths(manifest.tree), top, progress).run(workers)
        finally:
            os.close(top)


class _Check:
    """One check of a tree, by directories: what each holds is compared by one thread."""

    def __init__(self, paths: Paths, top: int, progress: Progress) -> None:
        self._paths = paths
        self._tree = paths.tree
        self._top = top
        self._progress = progress
        self._children = Children(paths)
        self._links = np.flatnonzero(self._tree.kinds == EntryKind.SYMLINK)
        self._targets = starts(self._tree.target_lengths)
        self._damages: list[Damage] = []

    def run(self, workers: int) -> list[Damage]:
        self._progress.begin("verifying", self._tree.total_bytes)
        with Crew(workers, lambda: Tools(self._top, self._paths, open_directories=64)) as crew:
            for directories in self._jobs():
                crew.give(self._job(directories))
            crew.finish()
        return sorted(self._damages)

    def _jobs(self) -> Iterator[list[int]]:
        """The directories, in runs of bounded bytes and entries."""
        directories: list[int] = []
        size = entries = 0
        for directory in (TOP, *self._paths.directories()):
            children = self._children.of(directory)
            directories.append(directory)
            entries += 1 + len(children)
            size += self._bytes(children)
            if size > _JOB_BYTES or entries > _JOB_ENTRIES:
                yield directories
                directories, size, entries = [], 0, 0
        yield directories

    def _bytes(self, entries: Numbers32) -> int:
        files = np.searchsorted(self._paths.file_entries, entries)
        files = files[np.isin(self._tree.kinds[entries], (EntryKind.FILE, EntryKind.EXECUTABLE))]
        return int(self._tree.sizes[files].sum())

    def _job(self, directories: list[int]) -> Callable[[Tools], None]:
        def check(tools: Tools) -> None:
            for directory in directories:
                self._check_directory(tools, directory)

        return check

    def _found(self, entry: int, fault: Fault, detail: str) -> None:
        self._damages.append(Damage(self._paths.shown(entry), fault, detail))

    def _check_directory(self, tools: Tools, directory: int) -> None:
        children = {self._paths.name(entry): entry for entry in self._children.of(directory).tolist()}
        descriptor = -1
        present: set[bytes] = set()
        with contextlib.suppress(OSError):
            descriptor = tools.tree.open(directory)
            present = {os.fsencode(name) for name in os.listdir(descriptor)}
        for name, entry in children.items():
            if name not in present:
                self._found(entry, Fault.MISSING, "is not there")
            else:
                self._check_entry(descriptor, name, entry)
        above = "" if directory == TOP else f"{self._paths.shown(directory)}/"
        for name in present - set(children):
            shown = printable(name.decode("utf-8", "backslashreplace"))
            self._damages.append(Damage(above + shown, Fault.EXTRA, "is not part of the release"))

    def _check_entry(self, directory: int, name: bytes, entry: int) -> None:
        kind = EntryKind(int(self._tree.kinds[entry]))
        try:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if not _is(kind, found.st_mode):
                self._found(entry, Fault.KIND, f"is not a {kind.name.lower()}")
            elif kind is EntryKind.SYMLINK:
                self._check_target(entry, os.readlink(name, dir_fd=directory))
            else:
                self._check_mode(entry, kind, found.st_mode)
                if kind.is_file:
                    self._check_content(directory, name, entry, found.st_size)
        except OSError as error:
            self._found(entry, Fault.DAMAGED, f"cannot be read: {error.strerror}")

    def _check_mode(self, entry: int, kind: EntryKind, mode: int) -> None:
        expected = 0o644 if kind is EntryKind.FILE else DIRECTORY_MODE
        # A directory may inherit setgid from the one above it.
        actual = stat.S_IMODE(mode) & (0o777 if kind is EntryKind.DIRECTORY else 0o7777)
        if actual != expected:
            self._found(entry, Fault.MODE, f"has mode {actual:04o}, not {expected:04o}")

    def _check_target(self, entry: int, target: bytes) -> None:
        link = int(np.searchsorted(self._links, entry))
        expected = bytes(self._tree.targets[int(self._targets[link]) : int(self._targets[link + 1])])
        if target != expected:
            shown = printable(target.decode("utf-8", "backslashreplace"))
            self._found(entry, Fault.TARGET, f"leads to {shown}")

    def _check_content(self, directory: int, name: bytes, entry: int, size: int) -> None:
        file = int(np.searchsorted(self._paths.file_entries, entry))
        expected = int(self._tree.sizes[file])
        if size != expected:
            self._found(entry, Fault.DAMAGED, f"has {size} bytes, not {expected}")
        elif _digest(directory, name, size) != self._tree.contents[file].tobytes():
            self._found(entry, Fault.DAMAGED, "has other content")
        self._progress.advance(expected)


def _is(kind: EntryKind, mode: int) -> bool:
    if kind is EntryKind.DIRECTORY:
        return stat.S_ISDIR(mode)
    return stat.S_ISLNK(mode) if kind is EntryKind.SYMLINK else stat.S_ISREG(mode)


def _digest(directory: int, name: bytes, size: int) -> bytes:
    hasher = blake3(max_threads=blake3.AUTO if size >= _LARGE_BYTES else 1)
    buffer = memoryview(bytearray(min(size, _READ_BYTES * (4 if size >= _LARGE_BYTES else 1))))
    descriptor = os.open(name, _READ, dir_fd=directory)
    try:
        while size and (count := os.readv(descriptor, [buffer])):
            hasher.update(buffer[:count])
    finally:
        os.close(descriptor)
    return hasher.digest()
