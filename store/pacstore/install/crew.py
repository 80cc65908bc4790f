"""Crew: a few threads that do jobs in the order given, each with tools of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar


class Closing(Protocol):
    """Tools that hold something open."""

    def close(self) -> None:
        """Let it go."""


Tools = TypeVar("Tools", bound=Closing)


class Crew(Generic[Tools]):
    """Threads that take jobs from a short queue. After the first error nothing more is begun, and the caller is told."""

    def __init__(self, workers: int, make_tools: Callable[[], Tools]) -> None:
        self._queue: queue.Queue[Callable[[Tools], None] | None] = queue.Queue(maxsize=workers)
        self._error: BaseException | None = None
        self._make_tools = make_tools
        self._threads = [
            threading.Thread(target=self._work, name=f"install-{n}", daemon=True) for n in range(max(workers, 1))
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._error is None:
            self._error = error
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def give(self, job: Callable[[Tools], None]) -> None:
        """Have `job` done soon; waits while enough is waiting. Raises the first error of any job before."""
        self.check()
        self._queue.put(job)

    def finish(self) -> None:
        """Return when all jobs given are done. Raises the first error of any."""
        self._queue.join()
        self.check()

    def check(self) -> None:
        """Raise the first error of any job."""
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        tools = None
        try:
            tools = self._make_tools()
        except BaseException as error:  # noqa: BLE001 - the thread that gives the jobs raises it
            self._error = self._error or error
        try:
            while (job := self._queue.get()) is not None:
                self._do(job, tools)
        finally:
            if tools is not None:
                tools.close()

    def _do(self, job: Callable[[Tools], None], tools: Tools | None) -> None:
        try:
            if self._error is None and tools is not None:
                job(tools)
        except BaseException as error:  # noqa: BLE001 - the thread that gave the job raises it
            self._error = self._error or error
        finally:
            self._queue.task_done()
