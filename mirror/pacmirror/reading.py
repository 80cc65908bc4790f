"""Reading: one small file, or the end of a pack, from whichever member of a list has it first, in their order.

The next member is asked when one fails, and also when it is quiet or slow: then both are waited for, and the first whole
answer counts.
"""

from __future__ import annotations

import queue
from collections import Counter
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from pacmirror.verdict import InCircle, all_failed
from pacstore.errors import NotFound, PacballError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

    from pacmirror.member import Member
    from pacmirror.part import Part, Transfer

T = TypeVar("T")
_TICK_SECONDS = 0.1
_HASTE_SECONDS = 0.5
"""After the first two are quiet: most likely many are gone, and asking costs little."""


@dataclass(eq=False)
class _Asked(Generic[T]):
    member: Member
    transfer: Transfer[T]
    began: float


class Reading(Generic[T]):
    """What `start` begins to read at `path`, asked of `members`."""

    def __init__(self, members: Sequence[Member], path: str, start: Callable[[Part], Transfer[T]]) -> None:
        self._members = members
        self._path = path
        self._start = start
        self._limits = members[0].limits
        self._clock = members[0].clock
        self._asked: dict[Future[T], _Asked[T]] = {}
        self._ended: queue.SimpleQueue[Future[T]] = queue.SimpleQueue()
        self._errors: dict[Member, PacballError] = {}
        self._failures: Counter[Member] = Counter()
        self._absent: set[Member] = set()
        self._last_asked = 0.0

    def result(self) -> tuple[T, Member]:
        """What was read, and who gave it. Raises why the last one that could have had it did not give it."""
        try:
            while True:
                if (member := self._next_member()) is not None:
                    self._ask(member)
                elif not self._asked and not any(self._is_possible(member) for member in self._members):
                    raise self._verdict()
                try:
                    asked = self._asked.pop(self._ended.get(timeout=_TICK_SECONDS))
                except queue.Empty:
                    continue
                data = self._outcome(asked)
                if data is not None:
                    return data, asked.member
        finally:
            for other in self._asked.values():
                other.transfer.result.cancel()

    def _verdict(self) -> PacballError:
        unasked = Unavailable("was not asked", place=self._path)
        return all_failed(self._path, {one.name: self._errors.get(one, unasked) for one in self._members})

    def _is_possible(self, member: Member) -> bool:
        return (
            member not in self._absent
            and self._failures[member] < self._limits.attempts
            and not any(asked.member is member for asked in self._asked.values())
        )

    def _next_member(self) -> Member | None:
        """Whom to ask now; None if nobody needs to be, or may be."""
        if self._asked and not (self._is_sluggish() and self._may_copy()):
            return None
        possible = [member for member in self._members if self._is_possible(member)]
        least = min((member.times_wrong(self._path) for member in possible), default=0)
        possible = [member for member in possible if member.times_wrong(self._path) == least]
        healthy = [member for member in possible if not member.pause_left()]
        if not healthy and not self._asked:
            healthy = [member for member in possible if not member.pause_left(drought=True)]
        return healthy[0] if healthy else None

    def _may_copy(self) -> bool:
        """Whether another one may be asked, so that not too much comes at once."""
        return sum(asked.transfer.arrival.received > 0 for asked in self._asked.values()) < self._limits.copies

    def _is_sluggish(self) -> bool:
        """Whether nothing comes, or so slowly that another one is worth a try."""
        limits, now = self._limits, self._clock()
        patience = limits.quiet_seconds if len(self._asked) < 2 else min(limits.quiet_seconds, _HASTE_SECONDS)
        if now - self._last_asked < patience:
            return False
        for asked in self._asked.values():
            arrival, passed = asked.transfer.arrival, now - asked.began
            quiet = now - max(arrival.at, asked.began) > limits.quiet_seconds
            slow = passed > limits.slow_after_seconds and arrival.received < limits.slow_bytes_per_second * passed
            if arrival.held or not (quiet or slow):
                return False
        return True

    def _ask(self, member: Member) -> None:
        self._last_asked = began = self._clock()
        try:
            asked = _Asked(member, self._start(member.part), began)
        except PacballError as error:
            self._failed(member, error, began)
            return
        self._asked[asked.transfer.result] = asked
        asked.transfer.result.add_done_callback(self._ended.put)

    def _outcome(self, asked: _Asked[T]) -> T | None:
        try:
            data = asked.transfer.result.result()
        except CancelledError:
            self._failed(asked.member, Unavailable("the source was closed", place=asked.member.name), asked.began)
        except (NotFound, InCircle) as error:
            self._absent.add(asked.member)
            self._errors[asked.member] = error
        except PacballError as error:
            self._failed(asked.member, error, asked.began)
        else:
            asked.member.succeeded()
            return data
        return None

    def _failed(self, member: Member, error: PacballError, began: float) -> None:
        member.failed(error, began=began)
        # What is definite does not change by being asked again.
        self._failures[member] += 1 if isinstance(error, Unavailable) else self._limits.attempts
        self._errors[member] = error
