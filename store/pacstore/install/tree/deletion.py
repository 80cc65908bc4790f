"""Deletion: directories with all that is in them, however deep, by descriptors: no link is ever followed.

A directory that is found in another is first moved beside the topmost one, so that two descriptors do for any depth.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable
from dataclasses import dataclass

from pacstore.install.tree.clearing import make_accessible
from pacstore.install.tree.directories import open_directory
from pacstore.install.tree.disk import DIRECTORY_FLAGS

_BLOCK_BYTES = 512


@dataclass
class Freed:
    """What a deletion frees: `bytes` of the disk, as far as links tell; `files` that had no other link."""

    bytes: int = 0
    files: int = 0


def delete(pool: int, name: str, freed: Freed, told: Callable[[int], None] = lambda _: None) -> None:
    """Delete `name` in the open directory `pool`, with all that is in it; count in `freed`, tell `told` the bytes of each file.

    Directories in it are moved to `pool` under names of 32 hex digits. What another deletes at the same time is no error.
    Raises OSError for what cannot be deleted.
    """
    pending = [name]
    while pending:
        with contextlib.suppress(FileNotFoundError):
            _delete(pool, pending.pop(), pool, pending, freed, told)


def _delete(parent: int, name: str, pool: int, pending: list[str], freed: Freed, told: Callable[[int], None]) -> None:
    found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if not stat.S_ISDIR(found.st_mode):
        os.unlink(name, dir_fd=parent)
        if found.st_nlink == 1:
            freed.bytes += found.st_blocks * _BLOCK_BYTES
            freed.files += stat.S_ISREG(found.st_mode)
        told(found.st_size)
    elif parent != pool:
        make_accessible(parent, os.fsencode(name))
        moved = secrets.token_hex(16)
        try:
            os.rename(name, moved, src_dir_fd=parent, dst_dir_fd=pool)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            # Not even for a name is there room: then where it is.
            delete(parent, name, freed, told)
        else:
            pending.append(moved)
    else:
        make_accessible(parent, os.fsencode(name))
        descriptor = os.open(name, DIRECTORY_FLAGS, dir_fd=parent)
        try:
            for below in os.listdir(descriptor):
                with contextlib.suppress(FileNotFoundError):
                    _delete(descriptor, below, pool, pending, freed, told)
        finally:
            os.close(descriptor)
        os.rmdir(name, dir_fd=parent)
        freed.bytes += found.st_blocks * _BLOCK_BYTES


def space_of(directory: int, name: str) -> int:
    """How many bytes of the disk `name` in the open `directory` takes up, with all that is in it.

    Files with several links count once for each, and what vanishes meanwhile for nothing. Raises OSError.
    """
    total = 0
    pending = [os.fsencode(name)]
    while pending:
        path = pending.pop()
        try:
            descriptor = open_directory(directory, path)
        except OSError:
            continue
        try:
            for below in os.listdir(descriptor):
                with contextlib.suppress(FileNotFoundError):
                    found = os.stat(below, dir_fd=descriptor, follow_symlinks=False)
                    total += found.st_blocks * _BLOCK_BYTES
                    if stat.S_ISDIR(found.st_mode):
                        pending.append(path + b"/" + os.fsencode(below))
        finally:
            os.close(descriptor)
    return total
