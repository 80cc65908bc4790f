"""An event loop in a thread of its own, for synchronous callers."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import CancelledError, Future
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, TypeVar

from pacstore.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextlib import AbstractAsyncContextManager

T = TypeVar("T")
_JOIN_SECONDS = 10.0


class BackgroundLoop:
    """Runs coroutines for threads, inside `context`, which is entered in the loop first and left last.

    The thread is a daemon: a program that forgets to close it still ends.
    """

    def __init__(self, context: AbstractAsyncContextManager[object]) -> None:
        self._context = context
        self._lock = Lock()
        self._closed = False
        started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._thread = Thread(target=lambda: asyncio.run(self._live(started)), name="pacball-http", daemon=True)
        self._thread.start()
        self._loop, self._stop = started.result()

    async def _live(self, started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]) -> None:
        stop = asyncio.Event()
        try:
            async with self._context:
                started.set_result((asyncio.get_running_loop(), stop))
                await stop.wait()
                await _cancel_others()
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin `work`. Cancelling the future cancels it. Raises Unavailable after `close`."""
        with self._lock:  # what is started before the stop is cancelled by it; nothing is left waiting
            if not self._closed:
                return asyncio.run_coroutine_threadsafe(work, self._loop)
        work.close()
        raise Unavailable("the source was closed")

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`; an exception in this thread, such as ^C, cancels it."""
        future = self.start(work)
        try:
            return future.result()
        except CancelledError as error:
            raise Unavailable("the source was closed") from error
        except BaseException:
            future.cancel()
            raise

    def soon(self, function: Callable[[], object]) -> None:
        """Call `function` in the loop, unless it is closed."""
        with self._lock:
            if not self._closed:
                self._loop.call_soon_threadsafe(function)

    def close(self) -> None:
        """Cancel all work, leave the context and end the thread. May be repeated."""
        with self._lock:
            if not self._closed:
                self._loop.call_soon_threadsafe(self._stop.set)
            self._closed = True
        self._thread.join(_JOIN_SECONDS)


async def _cancel_others() -> None:
    """Cancel every other task and let it end, so that the context is left with nothing in use."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*others, return_exceptions=True)
