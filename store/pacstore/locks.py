"""Locks between the processes that work on one store, on files in its state directory, which is on local disk.

The kernel gives a lock back when its holder ends, however it ends: nothing has to expire, and no clock, host name or process id
says who is alive.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pacstore.durable import make_directory, wrapped
from pacstore.errors import NotFound, Unavailable

_POLL_S = 0.05
_FRESH = ".new"


@contextmanager
def locked(
    path: Path, *, shared: bool, wait_seconds: float, busy: str, pause: Callable[[float], None] = time.sleep
) -> Iterator[None]:
    """Hold the lock on the file `path`, alone or with others who share it.

    Raises Unavailable, with the sentence `busy`, if others hold it for longer than `wait_seconds`; `pause` is what is done
    for so many seconds between two looks.
    """
    with wrapped(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor, path, shared=shared, wait_seconds=wait_seconds, busy=busy, pause=pause)
        yield
    finally:
        os.close(descriptor)


def _lock(
    descriptor: int, path: Path, *, shared: bool, wait_seconds: float, busy: str, pause: Callable[[float], None]
) -> None:
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            return fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Unavailable(busy, place=str(path), hint="try again later") from None
            pause(_POLL_S)


class Leases:
    """The leases of a store: one file below `directory` for each process that relies on what it has looked up there.

    A lease lives exactly as long as its holder: its file is locked before it can be seen under its name, which is random.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @contextmanager
    def hold(self) -> Iterator[str]:
        """Have a lease inside; its name. Raises Unavailable."""
        with wrapped(self._directory):
            make_directory(self._directory, mode=0o700)
            name, descriptor = self._begin()
        try:
            yield name
        finally:
            with suppress(OSError):
                os.unlink(self._directory / name)
            os.close(descriptor)

    def live(self) -> frozenset[str]:
        """The names of the leases that are held. Those whose holders were killed are removed. Raises Unavailable."""
        with suppress(NotFound), wrapped(self._directory):
            held = [name for name in os.listdir(self._directory) if self._is_held(self._directory / name)]
            # What has not its name yet has not begun: whoever makes it has looked up nothing.
            return frozenset(name for name in held if not name.endswith(_FRESH))
        return frozenset()

    def _begin(self) -> tuple[str, int]:
        while True:
            name = secrets.token_hex(16)
            fresh = self._directory / f"{name}{_FRESH}"
            descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                os.rename(fresh, self._directory / name)
            except FileNotFoundError:
                # Somebody looked between the two steps, and took it for one whose holder was killed.
                os.close(descriptor)
                continue
            except BaseException:
                os.close(descriptor)
                raise
            return name, descriptor

    @staticmethod
    def _is_held(path: Path) -> bool:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            with suppress(FileNotFoundError):
                os.unlink(path)
            return False
        finally:
            os.close(descriptor)
