"""Skeleton: all of a tree that is not the content of files: directories, links, empty files, and directories' times."""

from __future__ import annotations

import contextlib
import os
import unicodedata

import numpy as np

from pacstore.attributes import Attributes
from pacstore.document import Numbers
from pacstore.errors import Refused
from pacstore.install.tree.directories import Directories
from pacstore.install.tree.disk import DIRECTORY_MODE, failure
from pacstore.install.tree.paths import TOP, Children, Paths
from pacstore.install.wanted import Wanted
from pacstore.install.writer import Writer

_SHOWN_CLASHES = 3


def make_directories(directories: Directories, paths: Paths, *, exact_modes: bool) -> None:
    """Make every directory of the tree. Raises Unavailable."""
    for entry in paths.directories():
        try:
            os.mkdir(paths.name(entry), DIRECTORY_MODE, dir_fd=directories.open(int(paths.parents[entry])))
            if not exact_modes:
                os.fchmod(directories.open(entry), DIRECTORY_MODE)
        except OSError as error:
            raise failure(error, paths.shown(entry)) from error


def make_symlinks(
    directories: Directories, paths: Paths, attributes: Attributes, *, owner: tuple[int, int] | None
) -> None:
    """Make the symbolic links, whatever they lead to; they belong to `owner`. Raises Unavailable."""
    for entry, target in paths.symlinks():
        name = paths.name(entry)
        time = int(attributes.mtimes[entry])
        try:
            directory = directories.open(int(paths.parents[entry]))
            os.symlink(target, name, dir_fd=directory)
            if owner is not None:
                os.chown(name, *owner, dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            raise failure(error, paths.shown(entry)) from error
        # Some file systems (sshfs) cannot set it, and nobody needs the time of a link.
        with contextlib.suppress(OSError):
            os.utime(name, (time, time), dir_fd=directory, follow_symlinks=False)


def make_empty_files(directories: Directories, wanted: Wanted, writer: Writer) -> None:
    """Make the files of no bytes, but for hard links. Raises Unavailable."""
    for file in np.flatnonzero((wanted.manifest.tree.sizes == 0) & ~wanted.linked).tolist():
        writer.whole(directories, file, b"")


def make_hard_links(directories: Directories, paths: Paths, attributes: Attributes) -> None:
    """Link the members of each hard-link group to its first. Raises Unavailable."""
    for first, *others in attributes.groups():
        for entry in others:
            try:
                os.link(
                    paths.name(first),
                    paths.name(entry),
                    src_dir_fd=directories.open(int(paths.parents[first])),
                    dst_dir_fd=directories.open(int(paths.parents[entry])),
                    follow_symlinks=False,
                )
            except OSError as error:
                raise failure(error, paths.shown(entry)) from error


def finish_directories(
    directories: Directories, paths: Paths, mtimes: Numbers, *, owner: tuple[int, int] | None
) -> None:
    """Set the time and `owner` of every directory; nothing may be made in them afterwards. Raises Unavailable."""
    for entry in paths.directories():
        time = int(mtimes[entry])
        try:
            directory = directories.open(entry)
            if owner is not None:
                os.fchown(directory, *owner)
            os.utime(directory, (time, time))
        except OSError as error:
            raise failure(error, paths.shown(entry)) from error


def check_case(paths: Paths) -> None:
    """Raise Refused if two entries of one directory have names that a case-folding file system takes for one."""
    children = Children(paths)
    clashes: list[str] = []
    for directory in [TOP, *paths.directories()]:
        seen: dict[str, int] = {}
        for entry in children.of(directory).tolist():
            folded = unicodedata.normalize("NFC", paths.name(entry).decode().casefold())
            other = seen.setdefault(folded, entry)
            if other != entry:
                clashes.append(f"{paths.shown(other)} and {paths.shown(entry)}")
    if clashes:
        more = f", and {len(clashes) - _SHOWN_CLASHES} more" if len(clashes) > _SHOWN_CLASHES else ""
        raise Refused(
            f"cannot be installed here: the file system takes for one {'; '.join(clashes[:_SHOWN_CLASHES])}{more}",
            hint="install on a file system that tells upper from lower case",
        )
