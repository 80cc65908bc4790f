"""Work in threads that nobody waits for in the end: what hangs on a dead disk must not keep the daemon from stopping.

`asyncio.to_thread` is for short work: when the loop ends, it waits for its threads for as long as they take.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from threading import Thread
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def start_thread(work: Callable[[], T], *, name: str) -> asyncio.Future[T]:
    """The result of `work`, to be awaited in this loop. The thread goes on when nobody does, and ends with the process."""
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is awaited
            result.set_exception(error)

    result.set_running_or_notify_cancel()
    Thread(target=run, name=name, daemon=True).start()
    return asyncio.wrap_future(result)
