"""Mending: puts what was rebuilt, and all that has no content of its own, into an installed tree, entry by entry.

Nothing that is there is written to: a file is replaced by a rename, so whoever reads it, or shares it by a hard link, keeps what
they have. Everything goes through descriptors of directories that no link leads to. What stands where a directory belongs, and
directories where something else does, are set aside, not deleted.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from pacstore.attributes import Attributes
from pacstore.install.root.layout import PRIVATE, PRIVATE_MODE, Root
from pacstore.install.root.staging import Attempt
from pacstore.install.tree.directories import Directories
from pacstore.install.tree.disk import DIRECTORY_MODE, failure, make_directory, sync_file_system
from pacstore.install.tree.paths import TOP, Paths
from pacstore.release import Release
from pacstore.tree import EntryKind

ASIDE = "aside"
_O_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_IN_THE_WAY = (errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)


@dataclass
class Mending:
    """Mends the tree of `release`, whose open top is `top`, through the open `attempt`. `owner`: of what it makes, None for ours.

    `aside`: where what was in the way is now, as paths below the root. Raises Unavailable throughout.
    """

    root: Root
    release: Release
    paths: Paths
    attributes: Attributes
    top: int
    attempt: Attempt
    owner: tuple[int, int] | None
    aside: list[str] = field(default_factory=list)
    _touched: set[int] = field(default_factory=set)
    _emptied: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._tree = Directories(self.top, self.paths, limit=64)
        self._staged = Directories(self.attempt.top, self.paths, limit=64)

    def close(self) -> None:
        """Let go of the directories."""
        self._tree.close()
        self._staged.close()

    def make_directory(self, entry: int) -> None:
        """Make the directory `entry`, whatever is in its place; what another repair made just now, and filled, stays."""
        parent, name = self._place(entry)
        with self._at(entry):
            try:
                os.mkdir(name, DIRECTORY_MODE, dir_fd=parent)
                is_new = True
            except FileExistsError:
                is_new = not self._may_stay(os.stat(name, dir_fd=parent, follow_symlinks=False))
                if is_new:
                    self._set_aside(entry)
                    os.mkdir(name, DIRECTORY_MODE, dir_fd=parent)
            made = self._tree.open(entry)
            if not is_new and not self._may_stay(os.fstat(made)):
                raise OSError(errno.ESTALE, "it was replaced meanwhile")
            os.fchmod(made, DIRECTORY_MODE)
            if self.owner is not None:
                os.fchown(made, *self.owner)
        self._touched |= {entry, int(self.paths.parents[entry])}

    def _may_stay(self, found: os.stat_result) -> bool:
        return stat.S_ISDIR(found.st_mode) and not self.would_tell(found)

    def put_file(self, entry: int) -> None:
        """Put the file `entry` of the staging tree in its place."""
        with self._at(entry):
            staged = self._staged.open(int(self.paths.parents[entry]))
            self._put(entry, self.paths.name(entry), staged)

    def link_file(self, entry: int, origin: int) -> None:
        """Make the file `entry` a hard link to the file `origin` of the same tree."""
        parent, name = self._place(origin)
        temporary = _temporary()
        with self._at(entry):
            os.link(name, temporary, src_dir_fd=parent, dst_dir_fd=self.attempt.directory, follow_symlinks=False)
            self._put(entry, temporary, self.attempt.directory)
            # A rename of one link over another of the same file does nothing.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=self.attempt.directory)

    def put_link(self, entry: int, target: bytes) -> None:
        """Put a symbolic link to `target` in the place of `entry`."""
        temporary = _temporary()
        directory = self.attempt.directory
        with self._at(entry):
            os.symlink(target, temporary, dir_fd=directory)
            if self.owner is not None:
                os.chown(temporary, *self.owner, dir_fd=directory, follow_symlinks=False)
            time = int(self.attributes.mtimes[entry])
            with contextlib.suppress(OSError):
                os.utime(temporary, (time, time), dir_fd=directory, follow_symlinks=False)
            self._put(entry, temporary, directory)

    def would_tell(self, found: os.stat_result) -> bool:
        """Whether to give this away and open it could tell a secret: it is closed, and of somebody else than its owner to be.

        Whom a release was given to can move there what they may move, but not read.
        """
        open_bits = 0o055 if stat.S_ISDIR(found.st_mode) else 0o044
        closed = found.st_mode & open_bits != open_bits
        return closed and self.owner is not None and found.st_uid != self.owner[0]

    def restore_attributes(self, entry: int, links: int = 1, inode: tuple[int, int] | None = None) -> None:
        """Set mode and owner of the file or directory `entry`, TOP for the top.

        A file has at most so many `links`, and is the `inode` that was verified, where that is given. Whatever else has come
        into its place meanwhile is not touched; a directory that it would tell of is set aside, and made anew.
        """
        if entry != TOP and int(self.paths.parents[entry]) in self._emptied:
            self._emptied.add(entry)
            return
        kind = EntryKind.DIRECTORY if entry == TOP else EntryKind(int(self.paths.tree.kinds[entry]))
        with self._at(entry):
            if entry == TOP:
                self._restore(self.top, kind, entry)
                return
            parent, name = self._place(entry)
            descriptor = os.open(name, _O_PATH, dir_fd=parent)
            try:
                found = os.fstat(descriptor)
                same = stat.S_ISREG(found.st_mode) and found.st_nlink <= links
                same = same and inode in (None, (found.st_dev, found.st_ino))
                if not (stat.S_ISDIR(found.st_mode) if kind is EntryKind.DIRECTORY else same):
                    raise OSError(errno.ESTALE, "it was replaced meanwhile")
                if not self.would_tell(found):
                    self._restore(descriptor, kind, entry)
                    return
                if kind is not EntryKind.DIRECTORY:
                    raise OSError(errno.ESTALE, "it was closed meanwhile")
            finally:
                os.close(descriptor)
        self.make_directory(entry)
        self._emptied.add(entry)

    def _restore(self, descriptor: int, kind: EntryKind, entry: int) -> None:
        # By way of /proc, since a file may be such that it cannot be opened for anything else.
        path = f"/proc/self/fd/{descriptor}"
        if self.owner is not None:
            os.chown(path, *self.owner)
        os.chmod(path, 0o644 if kind is EntryKind.FILE else DIRECTORY_MODE)
        if kind.is_file:
            # What has another mode may have another time too.
            time = int(self.attributes.mtimes[entry])
            os.utime(path, (time, time))
        self._touched.add(TOP if entry == TOP else int(self.paths.parents[entry]))
        if kind is EntryKind.DIRECTORY:
            self._touched.add(entry)

    def finish(self) -> None:
        """Set the times of the directories in which something changed, and make all of it durable."""
        for entry in sorted(self._touched, reverse=True):
            with self._at(entry):
                directory = self._tree.open(entry)
                if entry != TOP:
                    time = int(self.attributes.mtimes[entry])
                    os.utime(directory, (time, time))
                os.fsync(directory)
        if self._touched:
            # Modes and owners of files, which cannot all be opened for that.
            with self._at(TOP):
                sync_file_system(self.top)
        self._touched.clear()

    def _place(self, entry: int) -> tuple[int, bytes]:
        """The open directory in which `entry` lies, and its name in it."""
        return self._tree.open(int(self.paths.parents[entry])), self.paths.name(entry)

    def _put(self, entry: int, source: bytes | str, directory: int) -> None:
        parent, name = self._place(entry)
        try:
            os.rename(source, name, src_dir_fd=directory, dst_dir_fd=parent)
        except OSError as error:
            if error.errno not in _IN_THE_WAY:
                raise
            self._set_aside(entry)
            os.rename(source, name, src_dir_fd=directory, dst_dir_fd=parent)
        self._touched.add(int(self.paths.parents[entry]))

    def _set_aside(self, entry: int) -> None:
        """Move what is in the place of `entry` out of the tree, with all that is in it."""
        parent, name = self._place(entry)
        place = f"{self.release}.{secrets.token_hex(8)}"
        aside = make_directory(self.root.private, ASIDE, PRIVATE_MODE)
        try:
            os.rename(name, place, src_dir_fd=parent, dst_dir_fd=aside)
            os.fsync(aside)
        finally:
            os.close(aside)
        self.aside.append(f"{PRIVATE}/{ASIDE}/{place}")

    @contextlib.contextmanager
    def _at(self, entry: int) -> Iterator[None]:
        """Errors of the disk name the entry."""
        place = str(self.root.release_path(self.release))
        try:
            yield
        except OSError as error:
            raise failure(error, place if entry == TOP else f"{place}/{self.paths.shown(entry)}") from error


def _temporary() -> str:
    return f"mended.{secrets.token_hex(8)}"
