"""Checking: an installed tree against what it should be, by directories, reading every byte."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from pacstore.attributes import Attributes
from pacstore.document import Numbers, starts
from pacstore.errors import printable
from pacstore.install.actions.generated import Generated, Made
from pacstore.install.crew import Crew
from pacstore.install.seeds.copying import jobs
from pacstore.install.tools import Tools
from pacstore.install.tree.directories import open_directory
from pacstore.install.tree.disk import DIRECTORY_MODE
from pacstore.install.tree.hashing import Known, digest_of
from pacstore.install.tree.paths import TOP, Children, Numbers32, Paths
from pacstore.install.upkeep.findings import NO_ENTRY, Fault, Finding
from pacstore.limits import MIB
from pacstore.progress import Progress
from pacstore.tree import EntryKind

_JOB_BYTES = 16 * MIB
_JOB_ENTRIES = 1_024
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
TOP_PATH = "."


@dataclass(frozen=True, eq=False)
class _Part:
    """Some of the entries of a directory; with the first of them come `all`, to see what is there besides."""

    directory: int
    entries: Numbers32
    all: Numbers32 | None


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
        if not len(self.entries):
            return
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

    def _jobs(self) -> Iterator[list[_Part]]:
        """Parts of directories, in runs of bounded bytes and entries."""
        run: list[_Part] = []
        size = entries = 0
        for directory in (TOP, *self._paths.directories()):
            children = self._children.of(directory)
            sizes = self._sizes(children)
            cuts = list(jobs(sizes)) or [(0, 0)]
            for first, last in cuts:
                run.append(_Part(directory, children[first:last], children if first == 0 else None))
                size += int(sizes[first:last].sum())
                entries += 1 + last - first
                if size > _JOB_BYTES or entries > _JOB_ENTRIES:
                    yield run
                    run, size, entries = [], 0, 0
        yield run

    def _file_numbers(self, entries: Numbers32) -> Numbers32:
        """The file number of each of `entries` that is a file; for others something."""
        return np.searchsorted(self._paths.file_entries, entries).astype(np.int32)

    def _sizes(self, entries: Numbers32) -> Numbers:
        """The bytes of each of `entries` that is a file; 0 for others."""
        sizes = np.zeros(len(entries), dtype=np.int64)
        files = np.flatnonzero(np.isin(self._tree.kinds[entries], (EntryKind.FILE, EntryKind.EXECUTABLE)))
        sizes[files] = self._tree.sizes[self._file_numbers(entries[files])]
        return sizes

    def _job(self, parts: list[_Part]) -> Callable[[Tools], None]:
        def check(tools: Tools) -> None:
            for part in parts:
                self._check_part(tools, part)

        return check

    def _found(
        self, entry: int, fault: Fault, detail: str, inode: tuple[int, int] | None = None, path: str = ""
    ) -> None:
        self._findings.append(Finding(path or self._paths.shown(entry), fault, detail, entry, inode))

    def _check_part(self, tools: Tools, part: _Part) -> None:
        made = self._made.get(self._path(part.directory), {}) if self._made else {}
        try:
            directory = tools.tree.open(part.directory)
        except OSError as error:
            for entry in part.entries.tolist():
                if self._paths.name(entry) not in made:
                    self._found(entry, *_absence(error))
            if part.all is not None:
                self._check_made(tools, -1, part.directory, made)
            return
        kinds = self._tree.kinds[part.entries].tolist()
        files = self._file_numbers(part.entries).tolist()
        for entry, kind, file in zip(part.entries.tolist(), kinds, files, strict=True):
            name = self._paths.name(entry)
            if name not in made:
                self._check_entry(tools, directory, name, entry, _KINDS[kind], file)
        if part.all is not None:
            self._check_made(tools, directory, part.directory, made)
            self._check_listing(directory, part.directory, {*map(self._paths.name, part.all.tolist()), *made})

    def _path(self, directory: int) -> bytes:
        return b"" if directory == TOP else self._paths.path(directory)

    def _check_listing(self, descriptor: int, directory: int, expected: set[bytes]) -> None:
        with contextlib.suppress(OSError):
            present = {os.fsencode(name) for name in os.listdir(descriptor)}
            self._extra(self._path(directory), present - expected)

    def _extra(self, above: bytes, names: set[bytes]) -> None:
        for name in names:
            path = _shown(above + b"/" + name if above else name)
            self._findings.append(Finding(path, Fault.EXTRA, "is not part of the release"))

    def _check_entry(self, tools: Tools, directory: int, name: bytes, entry: int, kind: EntryKind, file: int) -> None:
        try:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if not _is(kind, found.st_mode):
                self._found(entry, Fault.KIND, f"is not a {_NAMES[kind]}")
                return
            self._check_attributes("", entry, kind, found)
            if kind is EntryKind.SYMLINK:
                self._check_target(entry, os.readlink(name, dir_fd=directory))
            elif kind is not EntryKind.DIRECTORY:
                self._members.note(entry, found)
                self._check_content(tools, directory, name, entry, file, found)
        except OSError as error:
            self._found(entry, *_absence(error))

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

    def _check_content(
        self, tools: Tools, directory: int, name: bytes, entry: int, file: int, found: os.stat_result
    ) -> None:
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
        for path, made in generated.paths.items() if generated is not None else ():
            if made.kind is EntryKind.DIRECTORY:
                self._check_made_directory(tools, path.encode())

    def _check_made_directory(self, tools: Tools, path: bytes) -> None:
        names = self._made.get(path, {})
        descriptor = -1
        try:
            with contextlib.suppress(OSError):
                descriptor = open_directory(self._top, path)
            for name, expected in names.items():
                self._check_one_made(tools, descriptor, path + b"/" + name, name, expected, NO_ENTRY)
            if descriptor >= 0:
                with contextlib.suppress(OSError):
                    self._extra(path, {os.fsencode(name) for name in os.listdir(descriptor)} - set(names))
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def _check_made(self, tools: Tools, descriptor: int, directory: int, made: Mapping[bytes, Made]) -> None:
        """What commands made in a directory of the tree, or changed there."""
        if not made:
            return
        entries = {self._paths.name(entry): entry for entry in self._children.of(directory).tolist()}
        above = self._path(directory)
        for name, expected in made.items():
            path = above + b"/" + name if above else name
            self._check_one_made(tools, descriptor, path, name, expected, entries.get(name, NO_ENTRY))

    def _check_one_made(
        self, tools: Tools, directory: int, path: bytes, name: bytes, expected: Made, entry: int
    ) -> None:
        what: tuple[Fault, str] | None
        try:
            what = _made_fault(directory, name, expected, tools) if directory >= 0 else (Fault.MISSING, "is not there")
        except OSError as error:
            what = _absence(error)
        if what is not None:
            fault, detail = what
            detail = f"{detail} (the release's own commands made it)"
            self._findings.append(Finding(_shown(path), fault, detail, entry, generated=True))


def _absence(error: OSError) -> tuple[Fault, str]:
    """What it means that an entry cannot be looked at: only some errors say that it is not there."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
        return Fault.MISSING, "is not there"
    return Fault.DAMAGED, f"cannot be read: {error.strerror}"


_KINDS = tuple(EntryKind)
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
