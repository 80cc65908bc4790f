"""Small files of one user's own: keys, pinned roots, version floors. Durable, and readable by their owner only."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from pacstore import durable
from pacstore.errors import NotFound, TooLarge, Unavailable

if TYPE_CHECKING:
    from pathlib import Path


def make_directory(path: Path) -> None:
    """Make the directory `path` and those above it with mode 0700; existing ones stay as they are. Raises Unavailable."""
    is_there = False
    with suppress(NotFound), durable.wrapped(path):
        missing = [directory for directory in (path, *path.parents) if not directory.exists()]
        for directory in reversed(missing):
            durable.make_directory(directory, mode=0o700)
        is_there = path.is_dir()
    if not is_there:
        # Never NotFound: that says that something is definitely not there which was looked for.
        raise Unavailable("it, or what is above it, is no directory", place=str(path), hint=durable.TAKEN)


def create(path: Path, data: bytes) -> None:
    """Write a new file of mode 0600. Raises Refused if there is one, which stays as it is; Unavailable."""
    durable.create_file(path, data, staging=path.parent, mode=0o600)


def replace(path: Path, data: bytes) -> None:
    """Write the file, of mode 0600, or replace it as a whole. Raises Unavailable."""
    durable.replace_file(path, data, staging=path.parent, mode=0o600)


def read(path: Path, *, limit: int) -> bytes | None:
    """The file's bytes, or None if there is none. Raises TooLarge for more than `limit` bytes, else Unavailable."""
    try:
        with durable.wrapped(path), open(path, "rb") as file:
            data = file.read(limit + 1)
    except NotFound:
        return None
    if len(data) > limit:
        raise TooLarge(f"has more than {limit} bytes", place=str(path))
    return data
