"""Dispatch: spreads ranges over the members of a list by their speed, until each has come from one of them.

It runs in the thread of whoever takes the ranges, and does nothing else than start transfers and wait for them to end. A
faster member has more under way, so it is given more. What fails goes to another one. At the end, when nothing is left to be
given out, a member with nothing to do is asked for what a slow one still has, and whoever is first is believed.
"""

from __future__ import annotations

import queue
from collections import Counter, deque
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pacmirror.verdict import InCircle, all_failed
from pacstore.errors import NotFound, PacballError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Future

    from pacmirror.limits import MirrorLimits
    from pacmirror.member import Member
    from pacmirror.part import Arrival, Transfer
    from pacstore.digest import Bytes, Digest
    from pacstore.source import PackRange

_TICK_SECONDS = 0.25
_WORTH = 2.0
"""How much sooner another member must have a range before it is asked for what one has under way."""
_WORTH_SECONDS = 0.25
_DEFINITE = 1 << 20
"""More failures than any number of attempts."""


@dataclass(eq=False)
class _Task:
    """A range that somebody waits for, and who was asked for it."""

    wanted: PackRange
    under_way: list[_Under] = field(default_factory=list)
    failures: Counter[Member] = field(default_factory=Counter)
    errors: dict[Member, PacballError] = field(default_factory=dict)
    came: bool = False


@dataclass(eq=False)
class _Under:
    """A transfer under way. `given_up`: what comes of it is not looked at any more."""

    task: _Task
    member: Member
    transfer: Transfer[Bytes]
    began: float
    given_up: bool = False


class Dispatch:
    """Gives ranges to members. Several threads may do so at once."""

    def __init__(self, members: Sequence[Member], *, given: Callable[[PackRange, Member], None] | None = None) -> None:
        """`given` is told, before a range is handed on, who gave it."""
        self.members = members
        self.range_bytes = members[0].limits.first_range_bytes
        """About how long the next range should be that is taken from the caller."""
        self.given = given or (lambda _wanted, _member: None)

    def ranges(
        self, wanted: Iterable[PackRange], *, broken: Callable[[PackRange, Bytes], None] | None = None
    ) -> Iterator[tuple[PackRange, Bytes]]:
        """Each range with its bytes, in any order. Raises what the last member that could have had it raised.

        `broken` is given the beginning of a range that came no further; what it raises ends the iteration.
        """
        run = _Run(self, wanted, broken)
        try:
            yield from run.results()
        finally:
            run.end()


class _Run:
    """The ranges of one caller."""

    def __init__(
        self,
        dispatch: Dispatch,
        wanted: Iterable[PackRange],
        broken: Callable[[PackRange, Bytes], None] | None,
    ) -> None:
        self._dispatch = dispatch
        self._broken = broken
        self._members = dispatch.members
        self._limits: MirrorLimits = dispatch.members[0].limits
        self._clock = dispatch.members[0].clock
        self._wanted = iter(wanted)
        self._more = True
        self._waiting: deque[_Task] = deque()
        self._under_way: list[_Under] = []
        # Results know the queue alone: a future keeps its callbacks, and what they hold would keep its bytes in memory.
        self._ended: queue.SimpleQueue[Future[Bytes]] = queue.SimpleQueue()
        self._by_result: dict[Future[Bytes], _Under] = {}
        self._absent: dict[Member, set[Digest]] = {member: set() for member in self._members}
        self._drought: Counter[Member] = Counter()
        self._failed_at: dict[Member, float] = {}
        self._watched = self._clock()
        self._came_at: float | None = None

    def results(self) -> Iterator[tuple[PackRange, Bytes]]:
        while True:
            self._give_out()
            if not (self._under_way or self._waiting or self._more):
                return
            under = self._next_ended()
            data = self._outcome(under) if under is not None else None
            if self._clock() >= self._watched + _TICK_SECONDS:
                self._watch()
                for task in self._waiting:
                    self._check_hope(task)
            if under is not None and data is not None:
                self._dispatch.given(under.task.wanted, under.member)
                self._give_out()
                wanted = under.task.wanted
                del under
                yield wanted, data
                del data

    def end(self) -> None:
        """Stop what is under way."""
        for under in list(self._under_way):
            self._cancel(under)

    # What a member is given

    def _give_out(self) -> None:
        given = True
        while given:
            able = [member for member in self._members if self._may_be_asked(member)]
            # Whoever has least to do, for its speed, comes first.
            ordered = sorted(able, key=self._share_used)
            given = any(self._has_room(member, able) and self._give(member, able) for member in ordered)

    def _give(self, member: Member, able: Sequence[Member]) -> bool:
        """Start one transfer from `member`; False if there is nothing for it."""
        task = self._find(member) or self._fetch_task(member, able)
        if task is None:
            task = self._slow_one(member)
        if task is None:
            return False
        self._start(task, member)
        return True

    def _find(self, member: Member) -> _Task | None:
        """A waiting task that suits `member`, taken from those that wait."""
        room = self._limits.flight_bytes - self._flight()
        for task in self._waiting:
            if (task.wanted.length <= room or not self._under_way) and self._suits(task, member):
                self._waiting.remove(task)
                return task
        return None

    def _fetch_task(self, member: Member, able: Sequence[Member]) -> _Task | None:
        """The next range of the caller's that suits `member`; those that do not wait for others."""
        while self._more and len(self._waiting) < self._limits.look_ahead:
            self._dispatch.range_bytes = self._range_bytes(member, able)
            wanted = next(self._wanted, None)
            if wanted is None:
                self._more = False
                break
            task = _Task(wanted)
            if self._suits(task, member):
                return task
            self._waiting.append(task)
        return None

    def _may_be_asked(self, member: Member) -> bool:
        """Whether `member` is not left alone now; in a drought, those are asked again sooner that have not failed too often."""
        if not member.pause_left():
            return True
        if any(not other.pause_left() for other in self._members if not self._is_spent(other)):
            # Others can do the work; only what they do not have is asked of a member that is left alone.
            return any(self._only_one_left(task, member) for task in self._waiting)
        return not member.pause_left(drought=True)

    def _only_one_left(self, task: _Task, member: Member) -> bool:
        others = (other for other in self._members if other is not member)
        return (
            not member.pause_left(drought=True)
            and self._is_possible(task, member)
            and not any(self._is_possible(task, other) for other in others)
        )

    def _is_spent(self, member: Member) -> bool:
        return self._is_enough(self._drought[member])

    def _is_enough(self, failures: int) -> bool:
        """Whether so many failures end all hope. What has worked may be interrupted for a while: a line, a server's restart."""
        if failures < self._limits.attempts or failures >= _DEFINITE:
            return failures >= _DEFINITE
        return self._came_at is None or self._clock() > self._came_at + self._limits.patience_seconds

    def _is_possible(self, task: _Task, member: Member) -> bool:
        """Whether `member` may still have the range of `task`."""
        return (
            task.wanted.pack not in self._absent[member]
            and not self._is_enough(task.failures[member])
            and not self._is_spent(member)
        )

    def _suits(self, task: _Task, member: Member) -> bool:
        """Whether `member` is one to ask for `task`: possible, and no other possible one gave it wrong less often."""
        if not self._is_possible(task, member) or any(under.member is member for under in task.under_way):
            return False
        if member.pause_left() and not self._only_one_left(task, member) and self._healthy_other(task, member):
            return False
        wrong = member.times_wrong(task.wanted)
        return not wrong or not any(
            other.times_wrong(task.wanted) < wrong for other in self._members if self._is_possible(task, other)
        )

    def _healthy_other(self, task: _Task, member: Member) -> bool:
        return any(
            other is not member and not other.pause_left() and self._is_possible(task, other) for other in self._members
        )

    # How much a member is given

    def _allowed(self, member: Member, able: Sequence[Member]) -> float:
        """How many bytes may be under way from `member`: some seconds of its line, and its share of all."""
        limits = self._limits
        speed = member.effective_bytes_per_second
        if not speed:
            return limits.first_range_bytes
        total = sum(other.effective_bytes_per_second for other in able) or speed
        return max(min(speed * limits.line_seconds, limits.flight_bytes * speed / total), limits.least_range_bytes)

    def _connections(self, able: Sequence[Member]) -> int:
        return max(min(self._limits.connections, 2 * self._limits.connections // max(len(able), 1)), 1)

    def _range_bytes(self, member: Member, able: Sequence[Member]) -> int:
        limits = self._limits
        if not member.effective_bytes_per_second:
            return limits.first_range_bytes
        share = self._allowed(member, able) / self._connections(able)
        return int(min(max(share, limits.least_range_bytes), limits.most_range_bytes))

    def _flight(self, member: Member | None = None) -> int:
        return sum(u.task.wanted.length for u in self._under_way if member in (None, u.member))

    def _share_used(self, member: Member) -> float:
        return member.flight_bytes / (member.effective_bytes_per_second or self._limits.first_range_bytes)

    def _has_room(self, member: Member, able: Sequence[Member]) -> bool:
        count = sum(under.member is member for under in self._under_way)
        if not count and not self._under_way:
            return True
        more = self._range_bytes(member, able)
        if count >= self._limits.connections or self._flight() + more > self._limits.flight_bytes:
            return False
        return not count or self._flight(member) + more <= self._allowed(member, able)

    def _start(self, task: _Task, member: Member) -> None:
        began = self._clock()
        if not member.flight_bytes:
            member.skip()
        try:
            transfer = member.part.start_range(task.wanted)
        except PacballError as error:
            self._failed(task, member, error, began, definite=True)
            return
        under = _Under(task, member, transfer, began)
        task.under_way.append(under)
        self._under_way.append(under)
        member.took(task.wanted.length)
        self._by_result[transfer.result] = under
        transfer.result.add_done_callback(self._ended.put)

    # What comes of it

    def _next_ended(self) -> _Under | None:
        """The next transfer that ended; None after a while, if there is more to look after than that."""
        alone = len(self._members) == 1 and self._under_way
        try:
            return self._by_result.pop(self._ended.get(timeout=None if alone else _TICK_SECONDS))
        except queue.Empty:
            return None

    def _outcome(self, under: _Under) -> Bytes | None:
        """The bytes, if they have come and are the first for their range."""
        self._drop(under)
        if under.given_up:
            return None
        task, member = under.task, under.member
        try:
            data = under.transfer.result.result()
        except CancelledError:
            closed = Unavailable("the source was closed", place=member.name)
            self._failed(task, member, closed, under.began, definite=True)
        except (NotFound, InCircle) as error:
            self._absent[member].add(task.wanted.pack)
            task.errors[member] = error
            self._retry(task)
        except PacballError as error:
            # Only what is unavailable may change by being asked again.
            definite = not isinstance(error, Unavailable)
            self._failed(task, member, error, under.began, definite=definite, beginning=under.transfer.arrival)
        else:
            member.observe()
            member.succeeded()
            self._drought.clear()
            self._came_at = self._clock()
            task.came = True
            self._give_up(task)
            return data
        return None

    def _drop(self, under: _Under) -> None:
        if under in self._under_way:
            self._under_way.remove(under)
            under.task.under_way.remove(under)
            under.member.took(-under.task.wanted.length)

    def _give_up(self, task: _Task) -> None:
        """Let go of the transfers of a task that are not needed any more, and remember from whom nothing came."""
        for under in list(task.under_way):
            quiet = self._quiet_seconds(under)
            self._cancel(under)
            if quiet > self._limits.quiet_seconds:
                under.member.failed(self._silence(under.member), began=under.began)

    def _cancel(self, under: _Under) -> None:
        under.given_up = True
        under.transfer.result.cancel()
        self._drop(under)

    def _failed(
        self,
        task: _Task,
        member: Member,
        error: PacballError,
        began: float,
        *,
        definite: bool = False,
        beginning: Arrival | None = None,
    ) -> None:
        member.failed(error, began=began)
        # What was under way when it failed before fails with it, and is one attempt of ours; those of others are no matter.
        if began >= self._failed_at.get(member, began):
            self._failed_at[member] = self._clock()
            times = _DEFINITE if definite else 1
            self._drought[member] += times
            task.failures[member] += times
        task.errors[member] = error
        if beginning is not None and not definite:
            self._broke_off(task, beginning)
        self._retry(task)

    def _broke_off(self, task: _Task, arrival: Arrival) -> None:
        """Hand on what had come, unless somebody else is about to bring all of it."""
        if self._broken is not None and not task.came and not task.under_way and (begun := arrival.beginning):
            self._broken(task.wanted, begun)

    def _retry(self, task: _Task) -> None:
        """Have somebody else bring it. Raises when there is nobody left."""
        if task.came or task.under_way:
            return
        self._check_hope(task)
        self._waiting.appendleft(task)

    def _check_hope(self, task: _Task) -> None:
        """Raise if nobody is left who may bring it."""
        if not any(self._is_possible(task, member) for member in self._members):
            raise all_failed(task.wanted.pack, {member.name: self._why_not(task, member) for member in self._members})

    def _why_not(self, task: _Task, member: Member) -> PacballError:
        if member in task.errors:
            return task.errors[member]
        if task.wanted.pack in self._absent[member]:
            return NotFound("does not have this pack", place=member.name)
        return Unavailable(member.state().error or "was not asked", place=member.name)

    # What has to be looked after meanwhile

    def _watch(self) -> None:
        """Drop members that are too slow, or from which nothing comes, if others may do better."""
        self._watched = self._clock()
        for member in {under.member for under in self._under_way}:
            member.observe()
        best = max((m.bytes_per_second for m in self._members if not m.pause_left()), default=0.0)
        for under in list(self._under_way):
            task, member, result = under.task, under.member, under.transfer.result
            if under.given_up or result.done() or not self._healthy_other(task, member):
                continue  # it is given up already, or better than nothing
            if self._quiet_seconds(under) > self._patience(task, member):
                self._cancel(under)
                self._failed(task, member, self._silence(member), under.began, beginning=under.transfer.arrival)
            elif member.is_slow_beside(best):
                member.is_slow()
                self._take_away(member)

    def _patience(self, task: _Task, member: Member) -> float:
        """For how long nothing may come from `member`: for less while one that could bring it has nothing to do."""
        busy = {under.member for under in self._under_way}
        idle = any(
            other is not member and other not in busy and not other.pause_left() and self._is_possible(task, other)
            for other in self._members
        )
        return self._limits.quiet_seconds if idle else self._limits.stalled_seconds

    def _take_away(self, member: Member) -> None:
        """Have others bring what a slow member has under way."""
        for under in list(self._under_way):
            if under.member is member and not under.transfer.result.done():
                self._cancel(under)
                self._broke_off(under.task, under.transfer.arrival)
                self._retry(under.task)

    def _slow_one(self, member: Member) -> _Task | None:
        """A range that another member has under way, and that `member`, which has nothing to do, would have much sooner."""
        if self._more or member.pause_left() or any(under.member is member for under in self._under_way):
            return None
        found: tuple[float, _Task] | None = None
        for under in self._under_way:
            task = under.task
            if len(task.under_way) > 1 or not self._suits(task, member):
                continue
            left = self._seconds_left(under)
            if self._broken is not None and left == float("inf"):
                continue  # it is about to be dropped, and what has come of it is kept
            if left > _WORTH * self._seconds_here(task, member) + _WORTH_SECONDS and (not found or left > found[0]):
                found = left, task
        return found[1] if found else None

    def _seconds_here(self, task: _Task, member: Member) -> float:
        speeds = [other.effective_bytes_per_second for other in self._members if other.bytes_per_second]
        speed = member.effective_bytes_per_second or (sum(speeds) / len(speeds) if speeds else 0.0)
        return task.wanted.length / speed if speed else self._limits.quiet_seconds

    def _seconds_left(self, under: _Under) -> float:
        """How long a transfer will take, as far as can be told."""
        arrival, quiet = under.transfer.arrival, self._quiet_seconds(under)
        if arrival.held or under.transfer.result.done():
            return 0.0
        if quiet > self._limits.quiet_seconds:
            return float("inf")
        passed = max(self._clock() - under.began, 1e-3)
        if passed < _WORTH_SECONDS or not arrival.received:
            speed = under.member.effective_bytes_per_second / max(self._connections(self._members), 1)
        else:
            speed = arrival.received / passed
        return (under.task.wanted.length - arrival.received) / speed if speed else quiet

    def _quiet_seconds(self, under: _Under) -> float:
        """For how long nothing has come, through no fault of ours."""
        arrival = under.transfer.arrival
        if arrival.held or under.transfer.result.done():
            return 0.0
        return self._clock() - max(arrival.at, under.began)

    @staticmethod
    def _silence(member: Member) -> Unavailable:
        return Unavailable("sends nothing", place=member.name)
