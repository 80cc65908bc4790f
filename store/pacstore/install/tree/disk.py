"""What the installer asks of a file system: free space, folding of case, durability; and its errors in our words."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

from pacstore.errors import Refused, Unavailable

DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
DIRECTORY_MODE = 0o755
_EXCHANGE = 2
"""RENAME_EXCHANGE of linux/fs.h."""
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Free:
    """What is free on a file system, and in what units it allocates; `inodes` is None where there is no such limit."""

    bytes: int
    inodes: int | None
    block_bytes: int


def free_space(directory: int) -> Free:
    """What this user may still use on the file system of the open `directory`."""
    found = os.statvfs(directory)
    return Free(found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None, found.f_frsize)


def folds_case(directory: int) -> bool:
    """Whether the open `directory` takes two names that differ in case only for one, tried with two files."""
    name = f"probe-{secrets.token_hex(8)}"
    made = []
    try:
        for spelling in (name.lower(), name.upper()):
            os.close(os.open(spelling, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=directory))
            made.append(spelling)
    except FileExistsError:
        return True
    finally:
        for spelling in made:
            os.unlink(spelling, dir_fd=directory)
    return False


def sync_file_system(directory: int) -> None:
    """Return when everything written so far to the file system of the open `directory` is durable. Raises OSError."""
    syncfs = getattr(_libc, "syncfs", None)
    if syncfs is None:
        os.sync()
    elif syncfs(directory) != 0:
        number = ctypes.get_errno()
        if number != errno.ENOSYS:
            raise OSError(number, os.strerror(number))
        os.sync()


def check_owner(owner: tuple[int, int] | None) -> None:
    """Raise Refused unless this process may give files to `owner` (user and group id)."""
    if owner is None or os.geteuid() == 0:
        return
    user, group = owner
    if user != os.geteuid() or group not in (os.getegid(), *os.getgroups()):
        raise Refused(
            f"files cannot be given to user {user} and group {group}",
            place="--owner",
            hint="run it as root, or as the user who is to own the files",
        )


def failure(error: OSError, place: str) -> Unavailable:
    """The error that the disk failed at `place`, with what to do about it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "free some space and run the same command again; what is there already is used"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        hint = "run it as a user who may write there"
    elif error.errno in (errno.ELOOP, errno.ENOTDIR):
        hint = (
            "something else changes the install root at the same time; find out what, then run the same command again"
        )
    elif error.errno in (errno.EMFILE, errno.ENFILE):
        hint = "raise the limit of open files (ulimit -n) and run the same command again"
    else:
        hint = "check the disk and run the same command again"
    return Unavailable(f"cannot be used: {error.strerror or error}", place=place, hint=hint)


@contextlib.contextmanager
def disk_at(place: str) -> Iterator[None]:
    """Turns OSError into Unavailable naming `place`, or the file concerned where the error says which."""
    try:
        yield
    except OSError as error:
        name = error.filename if isinstance(error.filename, str) else ""
        raise failure(error, f"{place} ({name})" if name and name not in place else place) from error


def write_whole(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of `data`, however many calls that takes. Raises OSError."""
    written = os.write(descriptor, data)
    while written < len(data):
        written += os.write(descriptor, memoryview(data)[written:])


def write_durably(directory: int, name: str, data: bytes, *, through: int) -> None:
    """Write or replace the file `name` of the open `directory`: readers see old or new, and the new one survives.

    It is written in the open directory `through`, of the same file system, where a killed process may leave it.
    """
    temporary = f".{secrets.token_hex(8)}.tmp"
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600, dir_fd=through)
    try:
        try:
            write_whole(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(temporary, name, src_dir_fd=through, dst_dir_fd=directory)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=through)
        raise
    os.fsync(directory)


def exchange(source: int, name: str, target: int, other: str) -> None:
    """Exchange the entry `name` of the open directory `source` with `other` of `target`, atomically. Raises OSError."""
    rename = getattr(_libc, "renameat2", None)
    if rename is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if rename(source, name.encode(), target, other.encode(), _EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def make_directory(parent: int, name: str, mode: int) -> int:
    """Open the directory `name` of the open directory `parent`, made with exactly `mode` if it is not there yet."""
    try:
        os.mkdir(name, mode, dir_fd=parent)
    except FileExistsError:
        return os.open(name, DIRECTORY_FLAGS, dir_fd=parent)
    descriptor = os.open(name, DIRECTORY_FLAGS, dir_fd=parent)
    os.fchmod(descriptor, mode)
    return descriptor
