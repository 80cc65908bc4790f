"""Clearing: removing trees of whatever depth, closed directories in them included, through no symbolic link."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat

from pacstore.install.tree.disk import DIRECTORY_FLAGS, DIRECTORY_MODE

CLEARED = "cleared."
"""How the names of directories begin that were moved up, and are to be removed by whoever finds them."""


def clear_tree(above: int, name: bytes) -> None:
    """Remove the directory `name` of the open directory `above` with all in it; what cannot be removed stays.

    Each directory in it is moved up before it is entered, so that a deep tree needs neither descriptors nor a deep stack.
    """
    pending = [name]
    while pending:
        here = pending.pop()
        with contextlib.suppress(OSError):
            make_accessible(above, here)
            directory = os.open(here, DIRECTORY_FLAGS, dir_fd=above)
            try:
                for child in map(os.fsencode, os.listdir(directory)):
                    with contextlib.suppress(OSError):
                        pending += _clear_child(above, directory, child)
            finally:
                os.close(directory)
            os.rmdir(here, dir_fd=above)


def _clear_child(above: int, directory: int, name: bytes) -> list[bytes]:
    """Remove what is no directory; a directory is moved to `above`: its name there."""
    if not stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=directory)
        return []
    make_accessible(directory, name)
    moved = f"{CLEARED}{secrets.token_hex(8)}".encode()
    os.rename(name, moved, src_dir_fd=directory, dst_dir_fd=above)
    return [moved]


def make_accessible(above: int, name: bytes) -> None:
    """Open the directory `name` to its owner, if it was closed. Raises OSError, also for a link."""
    handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    try:
        if stat.S_IMODE(os.fstat(handle).st_mode) & 0o700 != 0o700:
            os.chmod(f"/proc/self/fd/{handle}", DIRECTORY_MODE)
    finally:
        os.close(handle)
