"""Schedule: which frames are fetched next: what clients wait for before the rest, one pack after another, within bounds."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pacmirror.cache.filling import Filling
    from pacmirror.limits import CacheLimits

_SHARE = 0.75
"""Of the bytes under way, what nobody waits for."""


@dataclass(frozen=True)
class Job:
    """Frames of one pack that lie one after another, `length` bytes, to be fetched at once."""

    filling: Filling
    run: range
    waited: bool
    urgent: bool

    @property
    def length(self) -> int:
        frames = self.filling.frames
        return frames.begin(self.run.stop) - frames.begin(self.run.start)


@dataclass(frozen=True)
class Room:
    """What line and disk allow now: bytes of one run and of all under way; whether only what somebody waits for is fetched.

    Unless it `keeps_all`, this is so of packs that only clients want.
    """

    run_bytes: int
    flight_bytes: int
    only_waited_for: bool = False
    keeps_all: bool = True


class Schedule:
    """The packs of which something is wanted, and the jobs under way."""

    def __init__(self, limits: CacheLimits) -> None:
        self._limits = limits
        # By filling, not by pack: one that was given up may have a successor.
        self._queues: dict[bool, OrderedDict[Filling, None]] = {True: OrderedDict(), False: OrderedDict()}
        self._jobs = {True: 0, False: 0}
        self._flight_bytes = 0

    @property
    def queued(self) -> int:
        """Packs of which something is wanted that was not asked for yet, counted for clients and for the rest."""
        return sum(len(queue) for queue in self._queues.values())

    @property
    def under_way(self) -> int:
        """Jobs under way."""
        return sum(self._jobs.values())

    def add(self, filling: Filling) -> None:
        """Something may be wanted of this pack."""
        for urgent, queue in self._queues.items():
            if filling.wants(urgent=urgent):
                queue.setdefault(filling)

    def drop_bulk(self) -> None:
        """Only what clients wait for is fetched from now on."""
        self._queues[False].clear()

    def begin_next(self, room: Room) -> Job | None:
        """The next job, which is under way from now on; None if there is no room, or nothing to do.

        First what somebody waits for at this moment, then what clients wanted who have left or still have enough to read, then
        the rest; for the latter two never all places, so that whoever comes next does not wait for long.
        """
        for urgent, waited in ((True, True), (True, False), (False, False)):
            if self._has_room(room, waited=waited):
                job = self._next(room, urgent=urgent, waited=waited)
                if job is not None:
                    self._count(job, 1)
                    return job
        return None

    def end(self, job: Job) -> None:
        """The job is over, whatever came of it. The pack may have one more under way at once than before."""
        self._count(job, -1)
        job.filling.window = min(job.filling.window + 1, self._limits.jobs)

    def _count(self, job: Job, count: int) -> None:
        self._jobs[job.waited] += count
        self._flight_bytes += count * job.length
        job.filling.under_way += count

    def _has_room(self, room: Room, *, waited: bool) -> bool:
        limits = self._limits
        most = min(limits.flight_bytes, room.flight_bytes)
        if not waited and (self._jobs[False] >= limits.bulk_jobs or self._flight_bytes >= most * _SHARE):
            return False
        return self.under_way < limits.jobs and self._flight_bytes < most

    def _next(self, room: Room, *, urgent: bool, waited: bool) -> Job | None:
        queue = self._queues[urgent]
        for _ in range(len(queue)):
            filling = queue.popitem(last=False)[0]
            if filling.is_over or not filling.wants(urgent=urgent):
                continue
            queue[filling] = None
            if waited and not filling.is_waited_for:
                continue
            run = filling.next_run(
                urgent=urgent,
                most_bytes=room.run_bytes,
                waited_for=room.only_waited_for or not (room.keeps_all or filling.is_needed),
            )
            if run is not None:
                return Job(filling, run, waited, urgent)
        return None
