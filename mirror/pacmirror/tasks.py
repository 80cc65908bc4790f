"""Tasks: the owner of what goes on in the event loop beside the requests, so that nothing is lost or left behind."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, TypeVar

from pacstore.errors import PacballError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Tasks:
    """Begins tasks and keeps them until they end. What they raise and nobody awaits is told in the log."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin `work` in the running loop."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def ended(self) -> None:
        """Return when all that were begun so far have ended."""
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, PacballError):
            _log.error("a task failed unexpectedly", exc_info=error)


async def keep_doing(work: Callable[[], Awaitable[None]], *, every_seconds: float, what: str) -> None:
    """Do `work` again and again until cancelled, with a pause after each time.

    Whatever it raises, the next time comes: a part of the daemon that has ended unnoticed would be found out at night.
    """
    while True:
        try:
            await work()
        except Exception:  # noqa: BLE001 - see above
            _log.exception("%s failed unexpectedly, and is tried again", what)
        await asyncio.sleep(every_seconds)
