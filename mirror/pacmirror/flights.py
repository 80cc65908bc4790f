"""Flights: what is fetched once for all who want the same thing at the same time, whoever of them leaves."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

from pacmirror.threads import start_thread
from pacmirror.verdict import InCircle, NotReached, as_gateway
from pacstore.errors import NotFound, PacballError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from pacmirror.limits import DocumentLimits

T = TypeVar("T")
R = TypeVar("R")


class Flights(Generic[T]):
    """Fetches by key; a failure counts for a moment, so that a crowd of clients is no crowd of questions. In one event loop.

    `joined` counts those who waited for another's fetch, `failures` fetches that brought neither a thing nor its absence.
    """

    def __init__(self, limits: DocumentLimits) -> None:
        self.joined = 0
        self.failures = 0
        self._limits = limits
        self._tasks: dict[str, asyncio.Task[T]] = {}
        self._failed: OrderedDict[str, tuple[float, PacballError]] = OrderedDict()
        self._stopping = False

    def __len__(self) -> int:
        return len(self._tasks)

    async def share(self, key: str, fetch: Callable[[], Coroutine[None, None, T]]) -> T:
        """What `fetch` gives, which runs once for all who ask for `key` meanwhile, and goes on when they leave.

        Raises what it raises, NotReached if that takes too long, or if too much is fetched already.
        """
        task = self._tasks.get(key)
        if task is None:
            self._refuse(key)
            task = self._tasks[key] = asyncio.create_task(fetch())
            task.add_done_callback(lambda done: self._landed(key, done))
        else:
            self.joined += 1
        try:
            async with asyncio.timeout(self._limits.wait_seconds):
                return await asyncio.shield(task)
        except TimeoutError as error:
            raise NotReached("takes too long to come", place=key, hint="try again later") from error
        except asyncio.CancelledError:
            if task.cancelled():
                raise NotReached("the daemon stops", place=key, hint="ask another source") from None
            raise

    async def work(self, key: str, work: Callable[[], R]) -> R:
        """The result of `work` in a thread, for what is fetched as `key`; its errors as our clients are to see them."""
        try:
            return await start_thread(work, name="pacball-document")
        except PacballError as error:
            self.failures += not isinstance(error, NotFound)
            told = as_gateway(error)
            if not isinstance(told, InCircle):  # who asks by another way may have another answer
                until = asyncio.get_running_loop().time() + self._limits.failed_seconds
                remember(self._failed, key, (until, told), self._limits.remembered)
            raise told from error

    def stop(self) -> None:
        """Fetch nothing more; who waits is told so."""
        self._stopping = True
        for task in self._tasks.values():
            task.cancel()

    async def end(self) -> None:
        """Wait until nobody waits any more. What threads still do may be interrupted anywhere."""
        self.stop()
        if self._tasks:
            await asyncio.wait(set(self._tasks.values()))

    def _refuse(self, key: str) -> None:
        """Raise why nothing is to be asked of anybody now."""
        failed = self._failed.get(key)
        if failed is not None and asyncio.get_running_loop().time() < failed[0]:
            raise failed[1]
        if self._stopping or len(self._tasks) >= self._limits.waiting:
            why = "the daemon stops" if self._stopping else "too much is fetched already"
            raise NotReached(why, place=key, hint="try again later, or another source")

    def _landed(self, key: str, task: asyncio.Task[T]) -> None:
        del self._tasks[key]
        if not task.cancelled():
            task.exception()  # it was told to all who waited, if anybody still did


def remember(known: OrderedDict[str, R], key: str, value: R, most: int) -> None:
    """Put `value` into `known`, which never has more than `most`."""
    known[key] = value
    known.move_to_end(key)
    while len(known) > most:
        known.popitem(last=False)
