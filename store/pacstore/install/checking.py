"""Checking: an installed tree against what it should be, by directories, reading every byte."""

from __future__ import annotations

import contextlib
import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from pacstore.attributes import Attributes
from pacstore.document import starts
from pacstore.errors import printable
from pacstore.install.crew import Crew
from pacstore.install.directories import open_directory
from pacstore.install.disk import DIRECTORY_MODE
from pacstore.install.findings import NO_ENTRY, Fault, Finding
from pacstore.install.generated import Generated, Made
from pacstore.install.hashing import Known, digest_of
from pacstore.install.paths import TOP, Children, Numbers32, Paths
from pacstore.install.tools import Tools
from pacstore.limits import MIB
from pacstore.progress import Progress
from pacstore.tree import EntryKind

_JOB_BYTES = 16 * MIB
_JOB_ENTRIES = 1_024
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
TOP_PATH = "."
_MadeByName = Mapping[bytes, Made]


@dataclass(frozen=True, eq=False)
class Expected:
    """What a tree should be. `attributes`: None where they are not known; `owner`: user and group id, a group of None is any."""

    paths: Paths
    attributes: Attributes | None = None
    owner: tuple[int, int | None] | None = None
    generated: Generated | None = None


@dataclass
class _Members:
    """The inodes of the members of hard-link groups, found while they are checked."""

    entries: Numbers32
    inodes: list[tuple[int, int] | None] = field(default_factory=list)

    @classmethod
    def of(cls, attributes: Attributes | None) -> _Members:
        members = (
            np.zeros(0, dtype=np.int32) if attributes is None else np.sort(attributes.group_members).astype(np.int32)
        )
        return cls(members, [None] * len(members))

    def note(self, entry: int, found: os.stat_result) -> None:
        at = int(np.searchsorted(self.entries, entry))
        if at < len(self.entries) and self.entries[at] == entry:
            self.inodes[at] = found.st_dev, found.st_ino

    def inode(self, entry: int) -> tuple[int, int] | None:
        return self.inodes[int(np.searchsorted(self.entries, entry))]


class Check:
    """One check of the tree whose open top is `top`. What each directory holds is compared by one thread."""

    def __init__(self, expected: Expected, top: int, progress: Progress, known: Known) -> None:
        self._expected = expected
        self._paths = expected.paths
        self._tree = expected.paths.tree
        self._top = top
        self._progress = progress
        self._known = known
        self._children = Children(expected.paths)
        self._links = np.flatnonzero(self._tree.kinds == EntryKind.SYMLINK)
        self._targets = starts(self._tree.target_lengths)
        self._members = _Members.of(expected.attributes)
        self._made = _by_directory(expected.generated)
        self._findings: list[Finding] = []

    def run(self, workers: int) -> list[Finding]:
        """All that is wrong, by path. Raises OSError where nothing can be found out."""
        self._check_top()
        with Crew(workers, lambda: Tools(self._top, self._paths, open_directories=64)) as crew:
            for directories in self._jobs():
                crew.give(self._job(directories))
            crew.give(self._check_made_directories)
            crew.finish()
        self._check_links()
        return sorted(self._findings)

    def _check_top(self) -> None:
        found = os.fstat(self._top)
        self._check_attributes(TOP_PATH, NO_ENTRY, EntryKind.DIRECTORY, found)

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

    def _found(
        self, entry: int, fault: Fault, detail: str, inode: tuple[int, int] | None = None, path: str = ""
    ) -> None:
        self._findings.append(Finding(path or self._paths.shown(entry), fault, detail, entry, inode))

    def _check_directory(self, tools: Tools, directory: int) -> None:
        children = {self._paths.name(entry): entry for entry in self._children.of(directory).tolist()}
        made = self._made.get(b"" if directory == TOP else self._paths.path(directory), {}) if self._made else {}
        descriptor = -1
        present: set[bytes] = set()
        with contextlib.suppress(OSError):
            descriptor = tools.tree.open(directory)
            present = {os.fsencode(name) for name in os.listdir(descriptor)}
        for name, entry in children.items():
            if name in made:
                continue
            if name not in present:
                self._found(entry, Fault.MISSING, "is not there")
            else:
                self._check_entry(tools, descriptor, name, entry)
        above = "" if directory == TOP else f"{self._paths.shown(directory)}/"
        self._check_made(tools, descriptor, above, made, present, children)
        self._extra(above, present - set(children) - set(made))

    def _extra(self, above: str, names: set[bytes]) -> None:
        for name in names:
            self._findings.append(Finding(above + _shown(name), Fault.EXTRA, "is not part of the release"))

    def _check_entry(self, tools: Tools, directory: int, name: bytes, entry: int) -> None:
        kind = EntryKind(int(self._tree.kinds[entry]))
        try:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if not _is(kind, found.st_mode):
                self._found(entry, Fault.KIND, f"is not a {_NAMES[kind]}")
                return
            self._check_attributes("", entry, kind, found)
            if kind is EntryKind.SYMLINK:
                self._check_target(entry, os.readlink(name, dir_fd=directory))
            elif kind.is_file:
                self._members.note(entry, found)
                self._check_content(tools, directory, name, entry, found)
        except OSError as error:
            self._found(entry, Fault.DAMAGED, f"cannot be read: {error.strerror}")

    def _check_attributes(self, path: str, entry: int, kind: EntryKind, found: os.stat_result) -> None:
        owner = self._expected.owner
        inode = (found.st_dev, found.st_ino) if kind.is_file else None
        if owner is not None and (found.st_uid != owner[0] or owner[1] not in (None, found.st_gid)):
            expected = f"user {owner[0]}" if owner[1] is None else f"user {owner[0]} and group {owner[1]}"
            actual = f"user {found.st_uid} and group {found.st_gid}"
            self._found(entry, Fault.OWNER, f"belongs to {actual}, not to {expected}", inode, path)
        if kind is EntryKind.SYMLINK:
            return
        expected_mode = 0o644 if kind is EntryKind.FILE else DIRECTORY_MODE
        # A directory may inherit setgid from the one above it.
        actual_mode = stat.S_IMODE(found.st_mode) & (0o777 if kind is EntryKind.DIRECTORY else 0o7777)
        if actual_mode != expected_mode:
            self._found(entry, Fault.MODE, f"has mode {actual_mode:04o}, not {expected_mode:04o}", inode, path)

    def _check_target(self, entry: int, target: bytes) -> None:
        link = int(np.searchsorted(self._links, entry))
        expected = bytes(self._tree.targets[int(self._targets[link]) : int(self._targets[link + 1])])
        if target != expected:
            self._found(entry, Fault.TARGET, f"leads to {_shown(target)}")

    def _check_content(self, tools: Tools, directory: int, name: bytes, entry: int, found: os.stat_result) -> None:
        file = int(np.searchsorted(self._paths.file_entries, entry))
        expected = int(self._tree.sizes[file])
        inode = found.st_dev, found.st_ino
        if found.st_size != expected:
            self._found(entry, Fault.DAMAGED, f"has {found.st_size} bytes, not {expected}", inode)
        elif self._digest(tools, directory, name, found) != self._tree.contents[file].tobytes():
            self._found(entry, Fault.DAMAGED, "has other content", inode)
        self._progress.advance(expected)

    def _digest(self, tools: Tools, directory: int, name: bytes, found: os.stat_result) -> bytes:
        digest = self._known.find(found)
        if digest is None:
            descriptor = os.open(name, _READ, dir_fd=directory)
            try:
                digest = digest_of(descriptor, found.st_size, tools.buffer)
            finally:
                os.close(descriptor)
            self._known.keep(found, digest)
        return digest

    def _check_links(self) -> None:
        """Whether the members of each hard-link group are one file."""
        if self._expected.attributes is None:
            return
        for first, *others in self._expected.attributes.groups():
            inode = self._members.inode(first)
            for entry in others:
                other = self._members.inode(entry)
                if inode is not None and other is not None and other != inode:
                    self._found(entry, Fault.LINK, f"is no longer the same file as {self._paths.shown(first)}")

    # -- what the release's own commands made

    def _check_made_directories(self, tools: Tools) -> None:
        """The directories that commands made, which are none of the tree."""
        generated = self._expected.generated
        if generated is None:
            return
        for path, made in generated.paths.items():
            if made.kind is not EntryKind.DIRECTORY:
                continue
            encoded = path.encode()
            names = self._made.get(encoded, {})
            descriptor = -1
            present: set[bytes] = set()
            try:
                with contextlib.suppress(OSError):
                    descriptor = open_directory(self._top, encoded)
                    present = {os.fsencode(name) for name in os.listdir(descriptor)}
                above = f"{_shown(encoded)}/"
                self._check_made(tools, descriptor, above, names, present, {})
                self._extra(above, present - set(names))
            finally:
                if descriptor >= 0:
                    os.close(descriptor)

    def _check_made(
        self,
        tools: Tools,
        directory: int,
        above: str,
        made: _MadeByName,
        present: set[bytes],
        children: Mapping[bytes, int],
    ) -> None:
        for name, expected in made.items():
            try:
                what = (
                    _made_fault(directory, name, expected, tools)
                    if name in present
                    else (Fault.MISSING, "is not there")
                )
            except OSError as error:
                what = Fault.DAMAGED, f"cannot be read: {error.strerror}"
            if what is not None:
                fault, detail = what
                entry = children.get(name, NO_ENTRY)
                path = above + _shown(name)
                self._findings.append(
                    Finding(path, fault, f"{detail} (the release's own commands made it)", entry, generated=True)
                )


_NAMES = {
    EntryKind.DIRECTORY: "directory",
    EntryKind.FILE: "file",
    EntryKind.EXECUTABLE: "file",
    EntryKind.SYMLINK: "symbolic link",
}


def _made_fault(directory: int, name: bytes, made: Made, tools: Tools) -> tuple[Fault, str] | None:
    found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if not _is(made.kind, found.st_mode):
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
    descriptor = os.open(name, _READ, dir_fd=directory)
    try:
        same = digest_of(descriptor, found.st_size, tools.buffer) == made.digest.raw
    finally:
        os.close(descriptor)
    return None if same else (Fault.DAMAGED, "has other content")


def _by_directory(generated: Generated | None) -> dict[bytes, dict[bytes, Made]]:
    """What commands made, by the path of the directory and the name in it."""
    found: defaultdict[bytes, dict[bytes, Made]] = defaultdict(dict)
    for path, made in generated.paths.items() if generated is not None else ():
        above, _, name = path.encode().rpartition(b"/")
        found[above][name] = made
    return dict(found)


def _is(kind: EntryKind, mode: int) -> bool:
    if kind is EntryKind.DIRECTORY:
        return stat.S_ISDIR(mode)
    return stat.S_ISLNK(mode) if kind is EntryKind.SYMLINK else stat.S_ISREG(mode)


def _shown(name: bytes) -> str:
    return printable(name.decode("utf-8", "backslashreplace"))
