"""Files that survive power loss: write elsewhere, fsync, rename, fsync the directory; and errors in plain words."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pacstore.errors import NotFound, PacballError, Refused, Unavailable

TAKEN = "something else is in its place: move that away, and run the same command again"
_HINTS = {
    errno.ENOSPC: "free some space and run the same command again; nothing is lost",
    errno.EDQUOT: "the quota is exhausted: free some space and run the same command again; nothing is lost",
    errno.EROFS: "the file system is mounted read-only",
    errno.EACCES: "check the permissions, or run as the owner",
    errno.EPERM: "check the permissions, or run as the owner",
    errno.EIO: "the disk or file system fails: check it before you go on",
    errno.EISDIR: TAKEN,
    errno.ELOOP: TAKEN,
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


def unavailable(error: OSError, place: str | os.PathLike[str] | None = None) -> PacballError:
    """`error` as one of ours: NotFound where a file is definitely absent, Unavailable otherwise."""
    where = os.fsdecode(place if place is not None else error.filename or "")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return NotFound("does not exist", place=where)
    text = (error.strerror or str(error)).lower()
    return Unavailable(text, place=where, hint=_HINTS.get(error.errno or 0, ""))


@contextmanager
def wrapped(place: str | os.PathLike[str]) -> Iterator[None]:
    """Errors of the operating system inside become ours, naming `place`."""
    try:
        yield
    except OSError as error:
        raise unavailable(error, place) from error


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Make the names in directory `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path, *, mode: int = 0o755) -> None:
    """Create directory `path` with exactly `mode` if it is missing, durably; its parent must exist."""
    with suppress(FileExistsError):
        path.mkdir(mode=mode)
        # Whatever the umask says: a web server must be able to read what is public.
        path.chmod(mode)
    # Also where another process made it: that process may not have come to this yet.
    sync_directory(path.parent)


@contextmanager
def staged_file(directory: Path, *, mode: int) -> Iterator[tuple[int, Path]]:
    """A new file of an unpredictable name in `directory`, open for writing; removed at the end if it still has that name."""
    path = directory / f"{secrets.token_hex(16)}.tmp"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        os.fchmod(descriptor, mode)
        yield descriptor, path
    finally:
        os.close(descriptor)
        with suppress(OSError):
            path.unlink(missing_ok=True)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of `data` at the descriptor's position."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def replace_file(path: Path, data: bytes, *, staging: Path, mode: int = 0o644) -> None:
    """Write or replace the file `path` atomically and durably, by way of `staging` in the same file system."""
    with wrapped(path), staged_file(staging, mode=mode) as (descriptor, temporary):
        write_all(descriptor, data)
        os.fsync(descriptor)
        os.replace(temporary, path)
        sync_directory(path.parent)


def create_file(path: Path, data: bytes, *, staging: Path, mode: int = 0o644) -> None:
    """Like replace_file, but of several concurrent callers one succeeds; the others get Refused."""
    with wrapped(path), staged_file(staging, mode=mode) as (descriptor, temporary):
        write_all(descriptor, data)
        os.fsync(descriptor)
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise Refused("exists already", place=str(path)) from None
        sync_directory(path.parent)
