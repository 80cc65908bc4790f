"""Fresh files: a file's content in an inode that nobody else has, or may still have open."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat

from blake3 import blake3

from pacstore.digest import Digest
from pacstore.errors import Refused
from pacstore.install.tree.disk import write_whole
from pacstore.limits import MIB

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_BYTES = 1 * MIB


def file_mode(status: os.stat_result) -> int:
    """0755 where the owner may run it, else 0644."""
    return 0o755 if status.st_mode & stat.S_IXUSR else 0o644


def copy_fresh(directory: int, name: bytes, status: os.stat_result, *, owner: tuple[int, int]) -> tuple[int, Digest]:
    """Replace the file `name` of the open `directory` by a copy that belongs to `owner`: its size in bytes, and digest.

    `status` says what it is to be: another file under the name by now, or one that grows, is Refused. Raises OSError.
    """
    source = _open(directory, name, status)
    temporary = f".{secrets.token_hex(8)}.tmp".encode()
    try:
        target = os.open(temporary, _NEW, 0o600, dir_fd=directory)
        try:
            found = _read(source, status, target)
            os.fchown(target, *owner)
            os.fchmod(target, file_mode(status))
            os.utime(target, ns=(status.st_mtime_ns, status.st_mtime_ns))
        finally:
            os.close(target)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=directory)
        raise
    finally:
        os.close(source)
    return found


def relink(source: int, name: bytes, target: int, other: bytes) -> None:
    """Let `other` in the open directory `target` be a hard link to `name` in `source`, in place of what it is. Raises OSError."""
    temporary = f".{secrets.token_hex(8)}.tmp".encode()
    os.link(name, temporary, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    try:
        os.rename(temporary, other, src_dir_fd=target, dst_dir_fd=target)
    finally:
        with contextlib.suppress(FileNotFoundError):  # it stays where both were one file already
            os.unlink(temporary, dir_fd=target)


def read_file(directory: int, name: bytes, status: os.stat_result, *, mode: int | None = None) -> tuple[int, Digest]:
    """Size and digest of the file `name` of the open `directory`, which gets `mode` if one is given. Raises as `copy_fresh`."""
    source = _open(directory, name, status)
    try:
        if mode is not None and stat.S_IMODE(status.st_mode) != mode:
            os.fchmod(source, mode)
        return _read(source, status, None)
    finally:
        os.close(source)


def _open(directory: int, name: bytes, status: os.stat_result) -> int:
    descriptor = os.open(name, _READ, dir_fd=directory)
    if os.path.samestat(os.fstat(descriptor), status):
        return descriptor
    os.close(descriptor)
    raise _changed(name)


def _read(source: int, status: os.stat_result, target: int | None) -> tuple[int, Digest]:
    hasher = blake3()
    size = 0
    buffer = memoryview(bytearray(min(_READ_BYTES, status.st_size + 1)))
    while count := os.readv(source, [buffer]):
        hasher.update(buffer[:count])
        size += count
        if size > status.st_size:
            raise _changed(b"it")
        if target is not None:
            write_whole(target, buffer[:count])
    return size, Digest(hasher.digest())


def _changed(name: bytes) -> Refused:
    return Refused("changed while it was read", place=name.decode("utf-8", "backslashreplace"))
