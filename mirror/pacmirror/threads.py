"""Work in threads that nobody waits for in the end: what hangs on a dead disk must not keep the daemon from stopping.

`asyncio.to_thread` is for short work: when the loop ends, it waits for its threads for as long as they take.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from contextvars import copy_context
from threading import Thread
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def run_in_thread(work: Callable[[], T], *, name: str) -> Future[T]:
    """The result of `work`, which cannot be cancelled. The thread goes on when nobody waits, and ends with the process."""
    result: Future[T] = Future()
    result.set_running_or_notify_cancel()
    # What is known of the request for which it is done is known there, too.
    Thread(target=copy_context().run, args=(_run, work, result), name=name, daemon=True).start()
    return result


def _run(work: Callable[[], T], result: Future[T]) -> None:
    try:
        result.set_result(work())
    except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
        result.set_exception(error)
    finally:
        # A failure has this frame: it and its result would keep each other, and all that the work had in memory.
        del work, result


def start_thread(work: Callable[[], T], *, name: str) -> asyncio.Future[T]:
    """Like `run_in_thread`; to be awaited in this loop."""
    return asyncio.wrap_future(run_in_thread(work, name=name))
