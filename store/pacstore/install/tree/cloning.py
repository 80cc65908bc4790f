"""Cloning: a file that shares the blocks of another until one of the two is written, where the file system can (btrfs, xfs)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

_FICLONE = 0x40049409
"""From linux/fs.h; another number on alpha, mips, powerpc and sparc, where it fails and files are copied."""
_PROBE_BYTES = 4096


def clone_file(source: int, target: int) -> None:
    """Let the open file `target` have the content of the open file `source`, without a copy. Raises OSError where it cannot."""
    fcntl.ioctl(target, _FICLONE, source)


def can_clone(directory: int, source: int | None = None) -> bool:
    """Whether files below the open `directory` can be clones of the open file `source`, or of each other; tried.

    Nothing is left behind.
    """
    try:
        with _nameless(directory) as target:
            if source is not None:
                clone_file(source, target)
                return True
            with _nameless(directory) as another:
                os.write(another, bytes(_PROBE_BYTES))
                clone_file(another, target)
    except OSError:
        return False
    return True


@contextmanager
def _nameless(directory: int) -> Iterator[int]:
    """A new open file without a name, or with one only for a moment."""
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        descriptor = os.open(".", flags | os.O_TMPFILE, 0o600, dir_fd=directory)
    except OSError:
        name = f".probe-{secrets.token_hex(8)}"
        descriptor = os.open(name, flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=directory)
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
