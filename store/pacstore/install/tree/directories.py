"""Directories: descriptors of a tree's directories, opened so that no symbolic link is ever followed.

A directory whose parent is open is opened as one component with O_NOFOLLOW. Any other is opened from the top with
openat2(2), which the kernel keeps below it and off all links; where that call is missing, component by component.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Callable

from pacstore.install.tree.disk import DIRECTORY_FLAGS
from pacstore.install.tree.paths import TOP, Layout

_libc = ctypes.CDLL(None, use_errno=True)
_OPENAT2 = 437
"""The number of the system call on every architecture of Linux but Alpha."""
_RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS, _RESOLVE_BENEATH = 0x02, 0x04, 0x08
_FALL_BACK = (errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.ENAMETOOLONG, errno.EAGAIN, errno.E2BIG)
Open = Callable[[int, bytes], int]


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_HOW = _OpenHow(DIRECTORY_FLAGS, 0, _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS)


def open_beneath(top: int, path: bytes) -> int:
    """Open the directory `path` below the open directory `top` with openat2(2). Raises OSError."""
    number = _libc.syscall(
        ctypes.c_long(_OPENAT2), ctypes.c_int(top), path, ctypes.byref(_HOW), ctypes.c_size_t(ctypes.sizeof(_HOW))
    )
    if number < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), path)
    return int(number)


def open_by_steps(top: int, path: bytes) -> int:
    """Open the directory `path` below the open directory `top`, component by component. Raises OSError."""
    at = os.dup(top)
    for name in path.split(b"/"):
        try:
            below = os.open(name, DIRECTORY_FLAGS, dir_fd=at)
        finally:
            os.close(at)
        at = below
    return at


def open_directory(top: int, path: bytes) -> int:
    """Open the directory `path` below the open directory `top` by the best way that there is. Raises OSError."""
    try:
        return open_beneath(top, path)
    except OSError as error:
        if error.errno not in _FALL_BACK:
            raise
    return open_by_steps(top, path)


class Directories:
    """Open directories of one tree, the most recently used `limit` of them (at least 2). For one thread."""

    def __init__(self, top: int, paths: Layout, *, limit: int, open_path: Open = open_directory) -> None:
        self._top = top
        self._paths = paths
        self._limit = max(limit, 2)
        self._open_path = open_path
        self._open: dict[int, int] = {}

    def open(self, entry: int) -> int:
        """The descriptor of the directory `entry`; it stays open while at most one other is asked for. Raises OSError."""
        if entry == TOP:
            return self._top
        descriptor = self._open.pop(entry, None)
        if descriptor is None:
            descriptor = self._opened(entry)
            if len(self._open) >= self._limit:
                os.close(self._open.pop(next(iter(self._open))))
        self._open[entry] = descriptor
        return descriptor

    def _opened(self, entry: int) -> int:
        parent = int(self._paths.parents[entry])
        above = self._top if parent == TOP else self._open.get(parent)
        if above is None:
            return self._open_path(self._top, self._paths.path(entry))
        return os.open(self._paths.name(entry), DIRECTORY_FLAGS, dir_fd=above)

    def close(self) -> None:
        """Close all that it opened; the top is the caller's."""
        while self._open:
            with contextlib.suppress(OSError):
                os.close(self._open.popitem()[1])
