"""Member: one source of a list: how fast it is, whether it may be asked now, and what was wrong with it.

A source that failed is left alone for a while, longer each time, and then asked again on probation: what it gives well ends
its pauses. Times are of the monotonic clock, so that a clock which is set changes nothing.
"""

from __future__ import annotations

import random
import time
from collections import OrderedDict
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

from pacmirror.verdict import InCircle, TryLater
from pacstore.errors import Corrupt, NotFound, PacballError, Refused, TooLarge
from pacstore.limits import MIB
from pacstore.source import Condition, PackRange, SourceState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pacmirror.limits import MirrorLimits
    from pacmirror.part import Part
    from pacmirror.throttle import Throttle

_SETTLING_SECONDS = 1.0
_SETTLING_BYTES = 4 * MIB
_REMEMBERED_WRONGS = 1_000
_random = random.SystemRandom()


class Member:
    """A part and what is known of it. For any threads."""

    def __init__(
        self,
        part: Part,
        limits: MirrorLimits,
        throttle: Throttle | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.part = part
        self.limits = limits
        self.clock = clock
        self.bytes_per_second = 0.0
        self.flight_bytes = 0
        """Asked of it and not here yet, by all who ask at once."""
        self.condition = Condition.UNUSED
        self._throttle = throttle
        self._lock = Lock()
        self._error = ""
        self._failures = 0
        self._strikes = 0
        self._paused_at = 0.0
        self._pause_seconds = 0.0
        self._seen = (0, 0.0)
        self._observed_seconds = 0.0
        self._wrong: OrderedDict[PackRange | str, int] = OrderedDict()

    @property
    def name(self) -> str:
        """For messages."""
        return self.part.name

    @property
    def effective_bytes_per_second(self) -> float:
        """What it brings under our own limit on the rate; 0 while nothing was measured."""
        if self._throttle is None:
            return self.bytes_per_second
        limit = self._throttle.bytes_per_second
        return self.bytes_per_second if limit is None else min(self.bytes_per_second, float(limit))

    def state(self) -> SourceState:
        """What is to be told of it."""
        traffic = self.part.traffic
        condition = self.condition
        if condition is Condition.UNUSED and traffic.requests:
            condition = Condition.GOOD
        return SourceState(
            self.name,
            traffic.bytes_downloaded,
            traffic.requests,
            traffic.retries,
            round(self.bytes_per_second, 1),
            condition,
            self._error,
            self._failures,
        )

    def took(self, count_bytes: int) -> None:
        """So many bytes more were asked of it; or fewer, when they have come or are not waited for any longer."""
        with self._lock:
            self.flight_bytes += count_bytes

    def skip(self) -> None:
        """Measure nothing of what it did until now: small documents say much of its latency and little of its speed."""
        with self._lock:
            self._seen = self.part.progress()

    def observe(self) -> None:
        """Measure its speed: what it brought while it was at work, the last second or the last few MiB counting most."""
        with self._lock:
            count, seconds = self.part.progress()
            more, passed = count - self._seen[0], seconds - self._seen[1]
            if passed <= 0 or (not more and passed < _SETTLING_SECONDS):
                return
            self._seen = (count, seconds)
            self._observed_seconds += passed
            weight = max(passed / (passed + _SETTLING_SECONDS), more / (more + _SETTLING_BYTES))
            weight = weight if self.bytes_per_second else 1.0
            self.bytes_per_second += weight * (more / passed - self.bytes_per_second)

    def succeeded(self) -> None:
        """It gave what it was asked for."""
        with self._lock:
            # A quarantine is not over because other things come well.
            if self.condition is not Condition.FAILING and not self._is_over():
                return
            self.condition = Condition.GOOD
            # Its pauses start small again once it has done well for as long as it was left alone.
            if self.clock() >= self._paused_at + 2 * self._pause_seconds:
                self._strikes = 0
                self._pause_seconds = 0.0
            else:
                self._pause_seconds = min(self._pause_seconds, self.clock() - self._paused_at)

    def failed(self, error: PacballError, *, began: float | None = None) -> None:
        """It did not give what it was asked for at the time `began`; it is left alone for a while.

        That is no news of what was under way when it failed before, which fails with it.
        """
        with self._lock:
            if began is not None and self._failures and began < self._paused_at:
                return
        kind = _condition_of(error)
        least = self._least_pause(kind)
        if isinstance(error, TryLater):
            least = max(least, min(error.seconds, self.limits.pause_max_seconds))
        self._drop(kind, least, str(error))

    def gave_wrong(self, given: PackRange | str, error: PacballError) -> None:
        """What it gave is not what was asked for."""
        with self._lock:
            self._wrong[given] = self._wrong.get(given, 0) + 1
            if len(self._wrong) > _REMEMBERED_WRONGS:
                self._wrong.popitem(last=False)
        self._drop(Condition.WRONG, self._least_pause(Condition.WRONG), str(error))

    def is_slow_beside(self, best: float) -> bool:
        """Whether it is not worth asking while another brings `best` bytes a second."""
        limits = self.limits
        if self._observed_seconds < limits.slow_after_seconds or best <= 4 * self.bytes_per_second:
            return False
        unfair = self.bytes_per_second < min(best * limits.slow_share, limits.fair_bytes_per_second)
        return unfair or self.bytes_per_second < limits.slow_bytes_per_second

    def is_slow(self) -> None:
        """It brings much less than others: it is left alone for a while, and measured anew then."""
        rate = f"{self.bytes_per_second / 1000:.0f} kB/s"
        self._drop(Condition.SLOW, self._least_pause(Condition.SLOW), f"brings {rate}, much less than others")
        with self._lock:
            self._observed_seconds = 0.0

    def times_wrong(self, wanted: PackRange | str) -> int:
        """How often it gave wrong bytes for something that overlaps with `wanted`."""
        if not self._wrong:
            return 0
        with self._lock:
            return sum(times for given, times in self._wrong.items() if _overlap(given, wanted))

    def pause_left(self, *, drought: bool = False) -> float:
        """Seconds until it may be asked again; 0 for now. `drought`: nobody else has anything."""
        with self._lock:
            pause = self._pause_seconds
            if drought:
                passing = self.condition is Condition.FAILING
                pause = min(pause, self.limits.drought_pause_seconds) if passing else 0.0
            return max(self._paused_at + pause - self.clock(), 0.0)

    @contextmanager
    def judged(self) -> Iterator[None]:
        """Count how what is asked of it in the context ends. That it does not have something is a good answer."""
        try:
            yield
        except (NotFound, InCircle):
            raise
        except PacballError as error:
            self.failed(error)
            raise
        self.succeeded()

    def _drop(self, condition: Condition, least_seconds: float, error: str) -> None:
        with self._lock:
            limits = self.limits
            longest = limits.pause_max_seconds if condition is Condition.FAILING else limits.longest_pause_seconds
            pause = max(least_seconds, min(least_seconds * 2.0**self._strikes, longest)) * _random.uniform(0.75, 1.0)
            left = self._paused_at + self._pause_seconds - self.clock()
            self._failures += 1
            self._error = error
            if left > 0 and self.condition is condition is not Condition.FAILING:
                return  # it is in quarantine for this already
            self._strikes = min(self._strikes + 1, 30)
            if pause >= left:
                self._paused_at, self._pause_seconds = self.clock(), pause
                self.condition = condition

    def _is_over(self) -> bool:
        return self.clock() >= self._paused_at + self._pause_seconds

    def _least_pause(self, condition: Condition) -> float:
        limits = self.limits
        return {
            Condition.WRONG: limits.wrong_pause_seconds,
            Condition.REFUSED: limits.refused_pause_seconds,
            Condition.SLOW: limits.slow_pause_seconds,
        }.get(condition, limits.pause_seconds)


def _condition_of(error: PacballError) -> Condition:
    if isinstance(error, Refused):
        return Condition.REFUSED
    return Condition.WRONG if isinstance(error, Corrupt | TooLarge) else Condition.FAILING


def _overlap(given: PackRange | str, wanted: PackRange | str) -> bool:
    if isinstance(given, str) or isinstance(wanted, str):
        return given == wanted
    ends = given.offset + given.length, wanted.offset + wanted.length
    return given.pack == wanted.pack and given.offset < ends[1] and wanted.offset < ends[0]
