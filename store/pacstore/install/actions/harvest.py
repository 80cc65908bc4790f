"""Harvest: what a release's own commands made in its tree, taken from them, judged, and described for the record.

The commands have ended, but whoever else runs as their user may still hold files open. So directories are taken back first,
by descriptor, which ends all changes of their entries; then every file that another user could write becomes a fresh copy.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
from dataclasses import dataclass, field

from pacstore.attributes import Attributes
from pacstore.contain.running import User
from pacstore.declaration import FILE
from pacstore.document import Numbers
from pacstore.errors import PacballError, Refused, printable
from pacstore.globs import Patterns, States
from pacstore.install.actions.generated import PATHS, Made
from pacstore.install.actions.places import Place, Places
from pacstore.install.tree.directories import Directories
from pacstore.install.tree.disk import DIRECTORY_FLAGS, DIRECTORY_MODE
from pacstore.install.tree.fresh import copy_fresh, file_mode, read_file, relink
from pacstore.install.tree.paths import Children, Paths
from pacstore.limits import GIB
from pacstore.tree import EntryKind, check_name, check_target

GENERATED_BYTES = 32 * GIB
_UNDECLARED = "was made, which is not declared"
_DEPTH = 200
_SHOWN = 10
_ACLS = ("system.posix_acl_access", "system.posix_acl_default")


@dataclass
class Faults:
    """What commands did that they may not: the first few in words, and how many in all."""

    shown: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, path: str, text: str) -> None:
        """One more."""
        self.count += 1
        if len(self.shown) < _SHOWN:
            self.shown.append(f"{printable(path[:300])} {text}")

    def __str__(self) -> str:
        more = f"; and {self.count - len(self.shown)} more" if self.count > len(self.shown) else ""
        return "; ".join(self.shown) + more


class Harvest:
    """Takes back the places of one tree. `owner`: user and group id that everything is given; `mtimes`: of the
    release's entries, in seconds. `made`: for the record.
    """

    def __init__(self, paths: Paths, places: Places, mtimes: Numbers, *, user: User, owner: tuple[int, int]) -> None:
        self.made: dict[str, Made] = {}
        self.faults = Faults()
        self._paths = paths
        self._places = places
        self._patterns: Patterns = places.patterns
        self._children = Children(paths)
        self._mtimes = mtimes
        self._owner = owner
        self._foreign = user.changes
        self._user = user
        self._bytes = 0
        self._device = -1

    def run(self, directories: Directories, top: int) -> None:
        """Take back everything. Raises OSError; what commands may not do is in `faults` afterwards."""
        self._device = os.fstat(top).st_dev
        for place in self._places.places:
            # What is no directory any more, the comparison with the manifest will find.
            with contextlib.suppress(NotADirectoryError, FileNotFoundError):
                try:
                    self._take_place(place, directories.open(place.entry))
                except Refused as error:
                    self.faults.add(place.path or ".", error.message)
                except OSError as error:
                    if error.errno != errno.ELOOP:
                        raise

    def relink(self, directories: Directories, attributes: Attributes) -> None:
        """Link again what was linked, after no fault was found: files that commands could have changed, but did not."""
        met = {entry for place in self._places.places for entry in place.met}
        for group in attributes.groups():
            same = [entry for entry in group if self._paths.path(entry).decode() not in self.made]
            for entry in same[1:] if met & set(group) else ():
                first, name = self._paths.name(same[0]), self._paths.name(entry)
                source = directories.open(int(self._paths.parents[same[0]]))
                relink(source, first, directories.open(int(self._paths.parents[entry])), name)

    def _take_place(self, place: Place, directory: int) -> None:
        if place.opened:
            self._take_directory(directory)
        own = {self._paths.name(entry): entry for entry in self._children.of(place.entry).tolist()}
        for name in _names(directory):
            if name not in own:
                self._take(directory, name, place.path, place.states, 0)
            elif own[name] in place.met:
                self._take_own(directory, name, place, own[name])

    def _take_directory(self, directory: int) -> None:
        """Raises Refused for one that a command put there, and that was never its user's: it may be closed to all others."""
        status = os.fstat(directory)
        theirs = not self._foreign or status.st_uid == self._user.uid
        if not theirs and (status.st_dev, status.st_ino) not in self._places.made:
            raise Refused("is a directory of somebody else")
        if (status.st_uid, status.st_gid) != self._owner:
            os.fchown(directory, *self._owner)
        for acl in _ACLS:
            with contextlib.suppress(OSError):
                os.removexattr(directory, acl)
        os.fchmod(directory, DIRECTORY_MODE)

    def _take_own(self, directory: int, name: bytes, place: Place, entry: int) -> None:
        """A file or link of the release that commands may change; where it is as it was, it is not recorded."""
        path = _join(place.path, name)
        try:
            made = self._judged(directory, name)
            if made is None:
                raise Refused("became a directory")
            if self._is_as_signed(entry, made):
                time = int(self._mtimes[entry])
                os.utime(name, (time, time), dir_fd=directory, follow_symlinks=False)
            else:
                self._record(path, made)
        except (PacballError, PermissionError) as error:
            self.faults.add(path, _words(error))

    @functools.cached_property
    def _targets(self) -> dict[int, bytes]:
        return dict(self._paths.symlinks())

    def _is_as_signed(self, entry: int, made: Made) -> bool:
        tree = self._paths.tree
        if int(made.kind) != int(tree.kinds[entry]):
            return False
        if made.digest is None:
            return bool(made.target.encode() == self._targets[entry])
        file = int(self._paths.file_entries.searchsorted(entry))
        return bool(made.digest.raw == tree.contents[file].tobytes())

    def _take(self, directory: int, name: bytes, above: str, states: States, depth: int) -> bool:
        """Something that the release does not have; whether it is recorded now."""
        path = _join(above, name)
        try:
            check_name(name)
            here = self._patterns.step(states, name.decode())
            met = self._patterns.met(here) and path != FILE
            if not met and not self._patterns.leads(here):
                raise Refused(_UNDECLARED)
            made = self._judged(directory, name)
            if made is None:
                return self._take_below(directory, name, path, here, depth)
            if not met:
                raise Refused(_UNDECLARED)
            self._record(path, made)
        except (PacballError, PermissionError) as error:
            self.faults.add(path, _words(error))
            return False
        return True

    def _take_below(self, directory: int, name: bytes, path: str, states: States, depth: int) -> bool:
        """A directory that the release does not have; one that is empty and not met itself is removed."""
        if depth > _DEPTH:
            raise Refused(f"lies more than {_DEPTH} directories deep")
        below = os.open(name, DIRECTORY_FLAGS, dir_fd=directory)
        try:
            if os.fstat(below).st_dev != self._device:
                raise Refused("is another file system")
            self._take_directory(below)
            kept = [self._take(below, child, path, states, depth + 1) for child in _names(below)]
        finally:
            os.close(below)
        if self._patterns.met(states) or any(kept):
            self._record(path, Made(EntryKind.DIRECTORY))
            return True
        with contextlib.suppress(OSError):  # what is in it was found fault with
            os.rmdir(name, dir_fd=directory)
        return False

    def _judged(self, directory: int, name: bytes) -> Made | None:
        """The file or link, made this installer's own; None for a directory. Raises Refused for what may not be."""
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            return None
        if self._foreign and status.st_uid != self._user.uid:
            # It is a name of a file that is not theirs, and perhaps not theirs to read.
            raise Refused("is a hard link to a file of somebody else")
        if stat.S_ISLNK(status.st_mode):
            target = os.readlink(name, dir_fd=directory)
            check_target(target)
            os.chown(name, *self._owner, dir_fd=directory, follow_symlinks=False)
            return Made(EntryKind.SYMLINK, target=target.decode())
        if not stat.S_ISREG(status.st_mode):
            raise Refused("is a device, FIFO or socket")
        if status.st_mode & (stat.S_ISUID | stat.S_ISGID):
            raise Refused("is a setuid or setgid file")
        self._bytes += status.st_size
        if self._bytes > GENERATED_BYTES:
            raise Refused(f"is beyond the {GENERATED_BYTES >> 30} GiB that may be generated")
        mode = file_mode(status)
        if self._foreign or status.st_nlink > 1:
            size, digest = copy_fresh(directory, name, status, owner=self._owner)
        else:
            size, digest = read_file(directory, name, status, mode=mode)
        return Made(EntryKind.EXECUTABLE if mode == DIRECTORY_MODE else EntryKind.FILE, size, digest)

    def _record(self, path: str, made: Made) -> None:
        if len(self.made) >= PATHS:
            raise Refused(f"is beyond the {PATHS} paths that may be generated")
        self.made[path] = made


def _names(directory: int) -> list[bytes]:
    return sorted(map(os.fsencode, os.listdir(directory)))


def _words(error: PacballError | PermissionError) -> str:
    return error.message if isinstance(error, PacballError) else "cannot be read"


def _join(above: str, name: bytes) -> str:
    shown = name.decode("utf-8", "backslashreplace")
    return f"{above}/{shown}" if above else shown
