"""Health: what is known for a moment of the upstreams and of the disk, so that nobody asks again and again in vain."""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import TYPE_CHECKING

from pacmirror.verdict import InCircle, NotReached, as_gateway
from pacstore.errors import NotFound
from pacstore.source import PerhapsAbsent

if TYPE_CHECKING:
    from collections.abc import Callable

    from pacmirror.limits import CacheLimits
    from pacstore.digest import Digest
    from pacstore.errors import PacballError

_log = logging.getLogger(__name__)
_TOLD_SECONDS = 60.0


class Health:
    """Failures are remembered for seconds. That an upstream is not reached never becomes that something is absent."""

    def __init__(
        self, limits: CacheLimits, clock: Callable[[], float], *, is_closed: Callable[[], bool] = lambda: False
    ) -> None:
        """`is_closed`: whether nothing may be asked at this hour."""
        self._limits = limits
        self._clock = clock
        self._is_closed = is_closed
        self._absent: OrderedDict[Digest, tuple[float, PacballError]] = OrderedDict()
        self._down_until = 0.0
        self._down: PacballError | None = None
        self._failures = 0
        self._came_at = float("-inf")
        self._disk_retry_at = 0.0
        self._stopped = False
        self._told_at = float("-inf")
        self.disk_fault: PacballError | None = None
        """Why packs cannot be written; None if they can."""

    @property
    def now(self) -> float:
        """Seconds of the clock that counts here."""
        return self._clock()

    def refusal(self, pack: Digest) -> PacballError | None:
        """Why the upstreams are not to be asked for `pack` now."""
        if self._stopped:
            return NotReached("the daemon stops", hint="try another source")
        if self._is_closed():
            return NotReached("nothing may be fetched from the upstreams at this hour", hint="try again later")
        until, error = self._absent.get(pack, (0.0, None))
        if error is not None and self._clock() < until:
            return as_gateway(error)
        if self._down is not None and self._clock() < self._down_until:
            return as_gateway(self._down)
        return None

    def stop(self) -> None:
        """Ask nothing more."""
        self._stopped = True

    def came(self) -> None:
        """Something came from an upstream."""
        self._came_at = self._clock()
        self._down, self._failures = None, 0

    def failed(self, pack: Digest, error: PacballError, began: float) -> bool:
        """What was asked for at the time `began` did not come; whether nothing else has come either since then.

        `error`: what the upstreams said. Strangers may ask for packs that nobody has: if one that answers has not got it, while
        another is down, that says nothing of other packs.
        """
        told = as_gateway(error)
        if isinstance(told, NotReached) and not isinstance(error, PerhapsAbsent):
            if self._came_at >= began:
                return False
            pause = min(self._limits.failed_seconds * 2**self._failures, self._limits.failed_max_seconds)
            if self._clock() >= self._down_until:  # what began at the same time is one failure
                self._failures = min(self._failures + 1, 10)
            self._down, self._down_until = told, self._clock() + pause
            return True
        if isinstance(error, NotFound | PerhapsAbsent):
            self._came_at = self._clock()  # an upstream has answered
        if isinstance(error, InCircle):
            return False  # who asks by another way may have another answer
        self._absent[pack] = (self._clock() + self._limits.absent_seconds, told)
        self._absent.move_to_end(pack)
        if len(self._absent) > self._limits.remembered:
            self._absent.popitem(last=False)
        return False

    def may_tell(self) -> bool:
        """Whether wrong bytes are to be told in the log: not of every frame of one that lies."""
        if self._clock() < self._told_at + _TOLD_SECONDS:
            return False
        self._told_at = self._clock()
        return True

    def may_write(self) -> bool:
        """Whether the disk is to be tried."""
        return self.disk_fault is None or self._clock() >= self._disk_retry_at

    def disk_failed(self, error: PacballError) -> None:
        """The disk is full or fails: this is said once."""
        if self.disk_fault is None:
            text = "packs are not kept but passed on, until the disk can be written again: %s: %s"
            _log.error(text, error.place, error.message)
        self.disk_fault = error
        self._disk_retry_at = self._clock() + self._limits.disk_retry_seconds

    def disk_works(self) -> bool:
        """The disk was written to; whether that is news."""
        if self.disk_fault is None:
            return False
        _log.warning("packs can be written to the disk again")
        self.disk_fault = None
        return True
