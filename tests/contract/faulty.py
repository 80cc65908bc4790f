"""A Storage that fails: at the n-th call, once or from then on, with an error of ours or by losing its publisher."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pacstore.durable import wrapped
from pacstore.errors import Unavailable
from pacstore.storage import Staged, Storage


class Killed(BaseException):
    """The process would have ended here."""


def unavailable(call: str) -> None:
    raise Unavailable("a fault was injected", place=call)


def disk_full(call: str) -> None:
    with wrapped(call):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def killed(call: str) -> None:
    raise Killed(call)


class FaultyStorage:
    """Passes every call on to `storage`, but lets `fail` act at call number `at` (from 1) and those after it.

    `only`: calls of these names count; all of them otherwise. `once`: later calls succeed again.
    """

    def __init__(
        self,
        storage: Storage,
        at: int = 0,
        fail: Callable[[str], None] = unavailable,
        only: tuple[str, ...] = (),
        *,
        once: bool = False,
    ) -> None:
        self._storage = storage
        self._at = at
        self._fail = fail
        self._only = only
        self._once = once
        self.calls: list[str] = []

    def _count(self, call: str) -> None:
        if self._only and call not in self._only:
            return
        self.calls.append(call)
        if self._at and (len(self.calls) == self._at or (len(self.calls) > self._at and not self._once)):
            self._fail(call)

    @contextmanager
    def stage(self, kind) -> Iterator[Staged]:
        self._count("stage")
        with self._storage.stage(kind) as staged:
            yield _FaultyStaged(self, staged)

    def __getattr__(self, name: str):
        inner = getattr(self._storage, name)

        def call(*args, **named):
            self._count(name)
            return inner(*args, **named)

        return call


class _FaultyStaged:
    def __init__(self, storage: FaultyStorage, staged: Staged) -> None:
        self._storage = storage
        self._staged = staged

    def write(self, data) -> None:
        self._storage._count("write")
        self._staged.write(data)

    def publish(self, digest) -> None:
        self._storage._count("publish")
        self._staged.publish(digest)
