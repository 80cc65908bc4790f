"""Places: where in a tree a release's own commands may write, found from its patterns, and handed over to them.

A directory is opened if something in it can meet a pattern. Where a pattern demands a directory that is not there, as
`**/__pycache__/**` does everywhere, it is made, so that nothing above it need be opened; what stays empty is removed later.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field

from pacstore.contain.running import User
from pacstore.declaration import FILE
from pacstore.errors import Refused
from pacstore.globs import Patterns, States
from pacstore.install.tree.directories import Directories
from pacstore.install.tree.disk import DIRECTORY_FLAGS, DIRECTORY_MODE, failure
from pacstore.install.tree.fresh import copy_fresh
from pacstore.install.tree.paths import TOP, Children, Paths
from pacstore.tree import EntryKind

_MOST = 100_000


@dataclass(frozen=True)
class Place:
    """A directory of the release (entry number, or TOP) that something is generated in or below.

    `opened`: something in it can meet a pattern; `missing`: directories to make in it, with their states; `met`: the files and
    links of the release in it that meet a pattern themselves, as entry numbers.
    """

    entry: int
    path: str
    states: States
    opened: bool
    missing: dict[str, States]
    met: tuple[int, ...]


@dataclass
class Places:
    """All places of one tree. `writable`: the opened directories, made ones among them, as paths from the top.

    `made`: device and inode of the directories that were made.
    """

    patterns: Patterns
    places: list[Place]
    writable: list[str] = field(default_factory=list)
    made: set[tuple[int, int]] = field(default_factory=set)

    def exposed(self, paths: Paths) -> set[int]:
        """The release's directories in which, and below which, something is opened, as entry numbers."""
        found = {place.entry for place in self.places if place.opened}
        for directory in paths.directories():
            if int(paths.parents[directory]) in found:
                found.add(directory)
        return found


def find_places(paths: Paths, patterns: Patterns) -> Places:
    """The places for `patterns` in the tree of `paths`; nothing is changed. Raises Refused for too many."""
    children = Children(paths)
    states = {TOP: patterns.start()}
    found = []
    for directory in (TOP, *paths.directories()):
        above = states.get(TOP if directory == TOP else int(paths.parents[directory]))
        here = above if directory == TOP or not above else patterns.step(above, paths.name(directory).decode())
        if not here:
            continue
        states[directory] = here
        place = _place(paths, patterns, children, directory, here)
        if place.opened or place.missing:
            found.append(place)
        if len(found) > _MOST:
            raise Refused(f"its patterns open more than {_MOST} directories", place=FILE)
    return Places(patterns, found)


def _place(paths: Paths, patterns: Patterns, children: Children, directory: int, states: States) -> Place:
    path = "" if directory == TOP else paths.path(directory).decode()
    opened = patterns.holds(states) or patterns.free(states)
    needed = {} if opened else patterns.needed(states)
    entries = children.of(directory).tolist() if opened or needed else []
    names = {paths.name(entry).decode(): entry for entry in entries}
    met = [
        entry
        for name, entry in names.items()
        if paths.tree.kinds[entry] != EntryKind.DIRECTORY
        and patterns.met(patterns.step(states, name))
        and not (directory == TOP and name == FILE)
    ]
    missing = {name: after for name, after in needed.items() if name not in names}
    return Place(directory, path, states, opened, missing, tuple(met))


def hand_over(places: Places, directories: Directories, paths: Paths, user: User) -> None:
    """Make what is missing, and give the opened directories and the files that are met to `user`. Raises Unavailable."""
    for place in places.places:
        try:
            top = directories.open(place.entry)
            for name, states in place.missing.items():
                _make(places, top, name, f"{place.path}/{name}".lstrip("/"), states, user)
            for entry in place.met:
                _give_file(top, paths.name(entry), user)
            if place.opened:
                _open(places, top, place.path, user)
        except OSError as error:
            raise failure(error, place.path or ".") from error


def _make(places: Places, above: int, name: str, path: str, states: States, user: User) -> None:
    os.mkdir(name, DIRECTORY_MODE, dir_fd=above)
    made = os.open(name, DIRECTORY_FLAGS, dir_fd=above)
    try:
        os.fchmod(made, DIRECTORY_MODE)
        status = os.fstat(made)
        places.made.add((status.st_dev, status.st_ino))
        if places.patterns.holds(states) or places.patterns.free(states):
            _open(places, made, path, user)
            return
        for below, after in places.patterns.needed(states).items():
            _make(places, made, below, f"{path}/{below}", after, user)
    finally:
        os.close(made)


def _open(places: Places, directory: int, path: str, user: User) -> None:
    places.writable.append(path)
    if user.changes:
        os.fchown(directory, user.uid, user.gid)


def _give_file(directory: int, name: bytes, user: User) -> None:
    """A file that is shared by a hard link becomes one of its own: nothing may be written through to another name."""
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
        copy_fresh(directory, name, status, owner=(status.st_uid, status.st_gid))
    if user.changes:
        os.chown(name, user.uid, user.gid, dir_fd=directory, follow_symlinks=False)
