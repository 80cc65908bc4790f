"""Throttle: one limit on the rate of receiving, shared by all connections to all sources."""

from __future__ import annotations

import time
from threading import Lock
from typing import TYPE_CHECKING

from pacstore.errors import Refused
from pacstore.limits import KIB

if TYPE_CHECKING:
    from collections.abc import Callable

LEAST_BYTES_PER_SECOND = 1 * KIB
_CREDIT_SECONDS = 0.25


class Throttle:
    """Lets `bytes_per_second` through, for any number of threads and event loops together; None is without a limit.

    Who was idle may catch up with a quarter of a second and no more, so the rate holds over any few seconds.
    """

    def __init__(self, bytes_per_second: int | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises Refused for a rate at which nothing would ever arrive."""
        self._clock = clock
        self._lock = Lock()
        self._paid_until = clock()
        self.change(bytes_per_second)

    def change(self, bytes_per_second: int | None) -> None:
        """Let so much through from now on; who waits already waits as it was told. Raises Refused as the constructor."""
        if bytes_per_second is not None and bytes_per_second < LEAST_BYTES_PER_SECOND:
            message = f"{bytes_per_second} bytes a second are too few"
            raise Refused(message, place="--limit-rate", hint=f"give at least {LEAST_BYTES_PER_SECOND}")
        with self._lock:
            self.bytes_per_second = bytes_per_second
            # What was received faster, while that was allowed, is not paid for at the new rate.
            self._paid_until = min(self._paid_until, self._clock())

    def take(self, count_bytes: int) -> float:
        """Count bytes that have arrived; how many seconds whoever received them has to wait before it receives more."""
        with self._lock:
            if self.bytes_per_second is None:
                return 0.0
            now = self._clock()
            self._paid_until = max(self._paid_until, now - _CREDIT_SECONDS) + count_bytes / self.bytes_per_second
            return max(self._paid_until - now, 0.0)
