"""Tally: how far the present phase of some work is, how fast it goes, and how long it will take. Time is a parameter."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

MEMORY_SECONDS = 10.0
"""Over about how long a rate is an average: short enough to follow the line, long enough for a calm remaining time."""
_LEAST_SECONDS = 0.05
_LONGEST_SECONDS = 100 * 86_400.0


@dataclass(frozen=True)
class Snapshot:
    """A phase at one moment. `bytes_total` is None where it is not known, `seconds_left` where nothing can be said.

    `bytes_per_second` is a weighted average of the last seconds; `seconds` how long the phase has been going on.
    """

    phase: str
    bytes_done: int
    bytes_total: int | None
    bytes_per_second: float
    seconds_left: float | None
    seconds: float


class Rate:
    """An exponentially weighted rate of a counter that only grows."""

    def __init__(self, now: float, count: int = 0) -> None:
        self._time = now
        self._count = count
        self._weighted = 0.0
        self._weight = 0.0

    def at(self, now: float, count: int) -> float:
        """The rate in units a second, after the counter was seen to be `count` at `now`, in seconds of any clock."""
        passed = now - self._time
        if passed >= _LEAST_SECONDS:
            kept = math.exp(-passed / MEMORY_SECONDS)
            self._weighted = self._weighted * kept + (count - self._count) / passed * (1 - kept)
            # Early on there is less than all of the weight: without it the first rates would be far too low.
            self._weight = self._weight * kept + (1 - kept)
            self._time, self._count = now, count
        return max(self._weighted / self._weight, 0.0) if self._weight else 0.0


class Tally:
    """Counts for any number of threads; one of them looks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.begin("", None, 0.0)

    def begin(self, phase: str, total_bytes: int | None, now: float) -> None:
        """A phase begins."""
        with self._lock:
            self._phase, self._total, self._done, self._began = phase, total_bytes, 0, now
            self._rate = Rate(now)

    def advance(self, count_bytes: int) -> None:
        """So much more is done."""
        with self._lock:
            self._done += count_bytes

    def look(self, now: float, *, arrived: int = 0) -> Snapshot:
        """The present phase as it is at `now`, when `arrived` bytes had come, some of which are not done yet."""
        with self._lock:
            done = max(self._done, arrived)
            done = done if self._total is None else min(done, self._total)
            rate = self._rate.at(now, done)
            return Snapshot(self._phase, done, self._total, rate, self._left(done, rate), max(now - self._began, 0.0))

    def _left(self, done: int, rate: float) -> float | None:
        if self._total is None:
            return None
        if done >= self._total:
            return 0.0
        seconds = (self._total - done) / rate if rate > 0 else math.inf
        return seconds if seconds < _LONGEST_SECONDS else None
