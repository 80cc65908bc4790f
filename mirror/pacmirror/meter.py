"""Meter: what one source has moved, and for how long it was at work."""

from __future__ import annotations

import time
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING

from pacstore.source import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable


class Meter:
    """Counts traffic, and the seconds during which at least one request was under way. For any threads."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._traffic = Traffic()
        self._busy_seconds = 0.0
        self._busy_since = 0.0
        self._under_way = 0

    def add(self, *, bytes_downloaded: int = 0, requests: int = 0, retries: int = 0) -> None:
        """Add to the counters."""
        with self._lock:
            self._traffic.bytes_downloaded += bytes_downloaded
            self._traffic.requests += requests
            self._traffic.retries += retries

    def begin(self) -> None:
        """A request is under way."""
        with self._lock:
            if not self._under_way:
                self._busy_since = self._clock()
            self._under_way += 1

    def end(self) -> None:
        """It has ended, or waits for something that is not the source's doing."""
        with self._lock:
            self._under_way -= 1
            if not self._under_way:
                self._busy_seconds += self._clock() - self._busy_since

    def read(self) -> Traffic:
        """The counters as they are now."""
        with self._lock:
            return replace(self._traffic)

    def progress(self) -> tuple[int, float]:
        """Bytes received, and seconds at work, so far."""
        with self._lock:
            more = self._clock() - self._busy_since if self._under_way else 0.0
            return self._traffic.bytes_downloaded, self._busy_seconds + more
