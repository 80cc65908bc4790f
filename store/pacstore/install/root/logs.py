"""Logs: what the commands of releases printed, kept under the root.

    ROOT/.pacball/logs/RELEASE/TIME-KIND-NUMBER-NAME.XXXX.log     TIME in UTC, as 20260131T235959Z

Each has some lines of ours, then the output as it came, then how it ended. The newest of each release are kept.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pacstore.errors import printable
from pacstore.install.root.layout import PRIVATE, PRIVATE_MODE, Root
from pacstore.install.tree.disk import make_directory, write_whole
from pacstore.limits import KIB
from pacstore.release import Release

KEPT = 60
_TAIL_BYTES = 8 * KIB
_TAIL_LINES = 10
_LINE_CHARACTERS = 400


@dataclass
class Log:
    """One log: its open file, and its path."""

    descriptor: int
    path: Path
    _begin: int = 0

    def say(self, *lines: str) -> None:
        """Lines of ours."""
        write_whole(self.descriptor, "".join(f"pacball: {printable(line)}\n" for line in lines).encode())
        self._begin = os.lseek(self.descriptor, 0, os.SEEK_CUR)

    def last_lines(self) -> list[str]:
        """The last lines of the output so far, safe to print."""
        end = os.lseek(self.descriptor, 0, os.SEEK_CUR)
        begin = max(self._begin, end - _TAIL_BYTES)
        text = os.pread(self.descriptor, end - begin, begin).decode("utf-8", "backslashreplace")
        lines = [line.rstrip() for line in text.expandtabs().split("\n") if line.strip()]
        return [printable(line[:_LINE_CHARACTERS]) for line in lines[-_TAIL_LINES:]]


@contextmanager
def new_log(root: Root, release: Release, name: str, *, now: float) -> Iterator[Log]:
    """A new log of `release`; older ones are removed where there are too many. Raises OSError."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    file = f"{stamp}-{name}.{secrets.token_hex(2)}.log"
    logs = make_directory(root.private, "logs", PRIVATE_MODE)
    try:
        directory = make_directory(logs, str(release), PRIVATE_MODE)
    finally:
        os.close(logs)
    try:
        _prune(directory)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(file, flags, 0o600, dir_fd=directory)
    finally:
        os.close(directory)
    try:
        yield Log(descriptor, root.path / PRIVATE / "logs" / str(release) / file)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _prune(directory: int) -> None:
    for name in sorted(os.listdir(directory), reverse=True)[KEPT - 1 :]:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=directory)
