"""Entrance: the directory that an install root's path names, opened so that no other user can lead root elsewhere.

Root follows a symbolic link in that path only if nobody but root can have put it there: each is looked at before it is
followed, and what was looked at is what is followed. All other users follow links as usual.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from pacstore.errors import Refused
from pacstore.install.tree.disk import DIRECTORY_MODE, make_directory

_LINKS = 40
"""How many links one path may lead through, as in Linux."""
_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def open_entrance(path: Path, *, uid: int) -> int:
    """Open the directory `path` for the user `uid`. Raises OSError, and Refused for another user's link."""
    if uid != 0:
        return os.open(path, _OPEN)
    return _enter(os.open("/" if path.is_absolute() else ".", _STEP), str(path), path)


def make_entrance(path: Path, *, uid: int) -> int:
    """The same, made first if it is not there. Raises FileNotFoundError if the directory above it is not there either."""
    above = open_entrance(path.parent, uid=uid)
    try:
        if path.name and not _is_there(above, path.name):
            return make_directory(above, path.name, DIRECTORY_MODE)
        return _enter(os.dup(above), path.name, path) if uid == 0 else os.open(path.name or ".", _OPEN, dir_fd=above)
    finally:
        os.close(above)


def _is_there(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _enter(at: int, way: str, path: Path) -> int:
    """Follow `way` from the open directory `at`, which is closed."""
    steps, links = way.split("/")[::-1], 0
    try:
        while steps:
            step = steps.pop()
            if step in ("", "."):
                continue
            below = os.open(step, _STEP, dir_fd=at)
            if stat.S_ISLNK(os.fstat(below).st_mode):
                links += 1
                target = _followed(at, below, step, path, links)
                steps += target.split("/")[::-1]
                below = os.open("/", _STEP) if target.startswith("/") else os.dup(at)
            os.close(at)
            at = below
        return os.open(".", _OPEN, dir_fd=at)
    finally:
        os.close(at)


def _followed(directory: int, link: int, name: str, path: Path, links: int) -> str:
    """Where the open `link`, which is closed, leads, if root may follow it."""
    try:
        if links > _LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        holder = os.fstat(directory)
        only_root_writes = holder.st_uid == 0 and not holder.st_mode & 0o022
        if os.fstat(link).st_uid != 0 and not only_root_writes:
            raise Refused(
                f"leads through a symbolic link of another user: {name}",
                place=str(path),
                hint="give the directory that it leads to, or let root own the link: chown -h root LINK",
            )
        return os.readlink("", dir_fd=link)
    finally:
        os.close(link)
