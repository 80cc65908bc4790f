"""Comparison: whether a tree is still its manifest's after a release's own commands were let at it.

A file is read again unless the kernel kept the commands from opening it for writing (they ran as another user, or under
Landlock and not in its directory) and everything that stat says of it is as before.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
from collections.abc import Container, Mapping

import numpy as np
from blake3 import blake3

from pacstore.document import Column8, Numbers, starts
from pacstore.errors import Refused, printable
from pacstore.install.actions.generated import Made
from pacstore.install.actions.harvest import Faults
from pacstore.install.tree.directories import Directories, open_directory
from pacstore.install.tree.disk import DIRECTORY_FLAGS, DIRECTORY_MODE
from pacstore.install.tree.fresh import read_file
from pacstore.install.tree.paths import TOP, Children, Numbers32, Paths
from pacstore.tree import EntryKind

_KEY_BYTES = 16
_FIELDS = struct.Struct("<8q")
Snapshot = Column8
"""What stat says of each entry that is no directory, as digests of 16 bytes, by entry number."""


def take_snapshot(paths: Paths, directories: Directories) -> Snapshot:
    """What the tree is like now; zeros for what is not there, or cannot be looked at."""
    snapshot = np.zeros((paths.tree.entries, _KEY_BYTES), dtype=np.uint8)
    for entry in np.flatnonzero(paths.tree.kinds != EntryKind.DIRECTORY).tolist():
        with contextlib.suppress(OSError):
            directory = directories.open(int(paths.parents[entry]))
            status = os.stat(paths.name(entry), dir_fd=directory, follow_symlinks=False)
            snapshot[entry] = np.frombuffer(_key(status), dtype=np.uint8)
    return snapshot


def changed_entries(before: Snapshot, after: Snapshot) -> Numbers32:
    """The numbers of the entries that differ."""
    return np.flatnonzero((before != after).any(axis=1)).astype(np.int32)


def _key(status: os.stat_result) -> bytes:
    return blake3(
        _FIELDS.pack(
            status.st_dev,
            status.st_ino,
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )
    ).digest(_KEY_BYTES)


class Comparison:
    """Compares one tree with its manifest.

    `snapshot`: of before; `exposed`: the directories (entry numbers) whose files may have been opened for writing, None where
    all may have been. `made`: paths that may be there, or differ, as recorded.
    `harvested`: directories whose other contents were judged already, with `faults` found.
    """

    def __init__(
        self,
        paths: Paths,
        snapshot: Snapshot,
        mtimes: Numbers,
        *,
        exposed: Container[int] | None,
        made: Mapping[str, Made],
        owner: tuple[int, int],
        harvested: Container[int] = (),
        faults: Faults | None = None,
    ) -> None:
        self.faults = faults if faults is not None else Faults()
        self._harvested = harvested
        self._paths = paths
        self._tree = paths.tree
        self._snapshot = snapshot
        self._mtimes = mtimes
        self._exposed = exposed
        self._made = made
        self._owner = owner
        self._links = np.flatnonzero(paths.tree.kinds == EntryKind.SYMLINK)
        self._targets = starts(paths.tree.target_lengths)

    def run(self, directories: Directories) -> Faults:
        """What the commands changed, removed or made although they may not."""
        children = Children(self._paths)
        for directory in (TOP, *self._paths.directories()):
            exposed = self._exposed is None or directory in self._exposed
            self._compare_directory(directories, directory, children.of(directory).tolist(), exposed=exposed)
        return self.faults

    def _compare_directory(
        self, directories: Directories, directory: int, entries: list[int], *, exposed: bool
    ) -> None:
        shown = "." if directory == TOP else self._paths.shown(directory)
        try:
            descriptor = directories.open(directory)
            present = {os.fsencode(name) for name in os.listdir(descriptor)}
            status = os.fstat(descriptor)
        except OSError:
            return self.faults.add(shown, "is no directory any more, or cannot be read")
        if stat.S_IMODE(status.st_mode) & 0o7777 & ~stat.S_ISGID != DIRECTORY_MODE:
            self.faults.add(shown, f"got the mode {stat.S_IMODE(status.st_mode):04o}")
        if status.st_uid != self._owner[0]:
            self.faults.add(shown, "got another owner")
        for entry in entries:
            name = self._paths.name(entry)
            if name not in present:
                self.faults.add(self._paths.shown(entry), "was removed")
            elif self._tree.kinds[entry] != EntryKind.DIRECTORY:
                self._compare(descriptor, name, entry, exposed=exposed)
        if directory not in self._harvested:
            self._find_extras(directory, present - {self._paths.name(entry) for entry in entries})
        return None

    def _find_extras(self, directory: int, names: set[bytes]) -> None:
        above = "" if directory == TOP else f"{self._paths.path(directory).decode()}/"
        for name in sorted(names):
            path = above + name.decode("utf-8", "backslashreplace")
            if path not in self._made:
                self.faults.add(path, "was made, which is not declared")

    def _compare(self, directory: int, name: bytes, entry: int, *, exposed: bool) -> None:
        path = self._paths.path(entry).decode()
        if path in self._made:
            return
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if exposed or _key(status) != self._snapshot[entry].tobytes():
                fault = self._difference(directory, name, entry, status)
                if fault:
                    self.faults.add(path, fault)
        except (OSError, Refused):
            self.faults.add(path, "was changed")

    def _difference(self, directory: int, name: bytes, entry: int, status: os.stat_result) -> str:
        kind = EntryKind(int(self._tree.kinds[entry]))
        if (stat.S_ISLNK if kind is EntryKind.SYMLINK else stat.S_ISREG)(status.st_mode) == 0:
            return "became something else"
        if status.st_uid != self._owner[0]:
            return "was replaced: it belongs to another user now"
        if kind is EntryKind.SYMLINK:
            link = int(np.searchsorted(self._links, entry))
            target = bytes(self._tree.targets[int(self._targets[link]) : int(self._targets[link + 1])])
            return "" if os.readlink(name, dir_fd=directory) == target else "leads elsewhere"
        mode = DIRECTORY_MODE if kind is EntryKind.EXECUTABLE else 0o644
        if stat.S_IMODE(status.st_mode) != mode:
            return f"got the mode {stat.S_IMODE(status.st_mode):04o}"
        file = int(np.searchsorted(self._paths.file_entries, entry))
        if read_file(directory, name, status)[1].raw != self._tree.contents[file].tobytes():
            return "was changed"
        return "" if status.st_mtime_ns == int(self._mtimes[entry]) * 10**9 else "got another time"


def compare_made(made: Mapping[str, Made], top: int, *, owner: tuple[int, int]) -> Faults:
    """What was changed of the recorded paths `made` after they were recorded."""
    faults = Faults()
    for path, recorded in made.items():
        fault = "was changed by a command that may not"
        with contextlib.suppress(OSError, Refused):
            if _is_recorded(path, recorded, made, top, owner):
                fault = ""
        if fault:
            faults.add(printable(path), fault)
    return faults


def _is_recorded(path: str, recorded: Made, made: Mapping[str, Made], top: int, owner: tuple[int, int]) -> bool:
    directory = _above(top, path)
    try:
        name = os.fsencode(path.rpartition("/")[2])
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if status.st_uid != owner[0]:
            return False
        if recorded.kind is EntryKind.DIRECTORY:
            return stat.S_ISDIR(status.st_mode) and all(f"{path}/{name}" in made for name in _listed(directory, name))
        if recorded.kind is EntryKind.SYMLINK:
            return os.readlink(name, dir_fd=directory).decode() == recorded.target
        return read_file(directory, name, status) == (recorded.bytes, recorded.digest)
    finally:
        os.close(directory)


def _above(top: int, path: str) -> int:
    """The directory that holds `path`, open."""
    above = path.rpartition("/")[0]
    return open_directory(top, above.encode()) if above else os.dup(top)


def _listed(directory: int, name: bytes) -> list[str]:
    below = os.open(name, DIRECTORY_FLAGS, dir_fd=directory)
    try:
        return os.listdir(below)
    finally:
        os.close(below)
