"""Filler: brings what is asked for of packs from the upstreams: each frame once for all who wait, verified, and keeps it.

Clients, synchronisation and repair say which frames they want, and wait. The filler cuts what is wanted into jobs: runs of
frames that lie one after another, short at first and then longer, what clients wait for before the rest; each is done by a
thread. Nobody's leaving stops what was begun. Where the disk is full or fails, frames pass through memory to those who wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily

from pacmirror.cache.changes import Changes
from pacmirror.cache.fetching import Fetched, fetch_frames, keep_frames
from pacmirror.cache.figures import Figures
from pacmirror.cache.filling import Filling
from pacmirror.cache.health import Health
from pacmirror.cache.opener import Opener
from pacmirror.cache.passing import Passing
from pacmirror.cache.schedule import Job, Room, Schedule
from pacmirror.cache.shelf import Shelf
from pacmirror.limits import CacheLimits
from pacmirror.peers import came_through
from pacmirror.service import Service
from pacmirror.tasks import Tasks
from pacmirror.threads import start_thread
from pacmirror.verdict import as_gateway
from pacstore.backends.directory import DirectoryStorage
from pacstore.errors import Corrupt, PacballError, Unavailable
from pacstore.partial import PartialPacks
from pacstore.partial_pack import Removed
from pacstore.storage import ObjectKind, object_path

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    from prometheus_client.core import Metric

    from pacmirror.config import Config
    from pacmirror.upstream import Upstream
    from pacstore.digest import Digest
    from pacstore.storage import Clock, ObjectStorage

_TIMES = 3
"""For what was removed while it was filled."""
_log = logging.getLogger(__name__)


class Filler(Service):
    """The service `cache`. To be used in the daemon's event loop."""

    def __init__(
        self,
        partials: PartialPacks,
        storage: ObjectStorage,
        upstream: Upstream,
        *,
        limits: CacheLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Clock = time.time,
    ) -> None:
        """`storage` has the public packs, beside the partial ones."""
        self.limits = limits or CacheLimits()
        self.figures = Figures()
        self.changes = Changes()
        self.partials = partials
        self.keeps = True
        """Whether what clients ask for is kept; otherwise it passes through memory. What was asked of `fetch` always is."""
        self._upstream = upstream
        self._passing = Passing(self.limits.memory_bytes)
        self._health = Health(self.limits, clock, is_closed=lambda: upstream.is_closed)
        self._shelf = Shelf(self.limits)
        self._schedule = Schedule(self.limits)
        self.writers = asyncio.Semaphore(self.limits.writers)
        """Of who sends from memory."""
        self._tasks = Tasks()
        self._looking: set[Filling] = set()
        self._opener = Opener(
            partials, storage, upstream, self._shelf, self._tasks,
            health=self._health, figures=self.figures, passing=self._passing, limits=self.limits,
        )  # fmt: skip
        self._wall_clock = wall_clock

    @property
    def name(self) -> str:
        """The section of /v1/status."""
        return "cache"

    # What others ask for

    async def fetch(
        self, pack: Digest, *, length: int | None = None, frames: range | None = None, urgent: bool = False
    ) -> None:
        """Return when these frames are on disk, verified; None: when the whole pack is durable and public.

        Others may have begun it, and what was begun goes on if the caller leaves. `length`: what the pack must have, in bytes.
        Raises NotFound if that is definite, otherwise Unavailable or Corrupt.
        """
        for _ in range(_TIMES - 1):
            with contextlib.suppress(Removed):
                await self._fetch(pack, length, frames, urgent=urgent)
                return
        await self._fetch(pack, length, frames, urgent=urgent)

    async def _fetch(self, pack: Digest, length: int | None, frames: range | None, *, urgent: bool) -> None:
        async with self.filling(pack) as filling:
            if filling is None:
                return
            if length is not None and length != filling.frames.pack_length:
                message = f"has {filling.frames.pack_length} bytes, and not {length}"
                raise Corrupt(message, place=object_path(ObjectKind.PACK, pack))
            filling.is_needed = True
            wanted = range(len(filling.frames)) if frames is None else frames
            self.want(filling, wanted, urgent=urgent)
            for number in wanted:
                await self.wait(filling, number, urgent=urgent, on_disk=True)
            if frames is None:
                await self._completed(filling)

    @contextlib.asynccontextmanager
    async def filling(self, pack: Digest, *, who: str = "") -> AsyncIterator[Filling | None]:
        """The pack as it is being filled, kept open in the context; None if it is public by now. Raises as `fetch`.

        `who`: the address of a client: those take turns.
        """
        found = await self._opener.open(pack, who=who)
        if found is None:
            yield None
            return
        self._shelf.take(found)
        try:
            yield found
        finally:
            self._shelf.give_back(found)

    def want(self, filling: Filling, numbers: Iterable[int], *, urgent: bool) -> bool:
        """Let these frames come, whoever waits for them; whether others want any of them already."""
        if self._health.refusal(filling.pack) is not None:
            # What was wanted before still comes, if somebody waits for it now.
            self._begin_work(filling)
            return False
        joined = filling.want(numbers, urgent=urgent)
        self._begin_work(filling)
        return joined

    def ask(self, filling: Filling, frames: range) -> None:
        """A client wants these frames, now."""
        self.changes.used[filling.pack] = self._wall_clock()
        if self._passing.held_bytes and not filling.is_saved and self._is_kept(filling) and self._health.may_write():
            filling.is_saved = True
            self._tasks.begin(self._save(filling))
        if all(filling.is_on_disk(number) for number in frames):
            self.figures.hits += 1
            return
        self.figures.misses += 1
        self.figures.joins += self.want(filling, frames, urgent=True)

    def sent_public(self, pack: Digest, count_bytes: int) -> None:
        """A client was answered with so much of a pack that is public."""
        self.changes.used[pack] = self._wall_clock()
        self.figures.hits += 1
        self.figures.disk_bytes += count_bytes

    async def wait(self, filling: Filling, number: int, *, urgent: bool, on_disk: bool = False) -> None:
        """Return when frame `number` is here. Raises as `fetch`, Unavailable also if `on_disk` cannot be."""
        while not (filling.is_on_disk(number) or (filling.is_here(number) and not on_disk)):
            if on_disk:
                self._require_disk(filling, number)
            if not filling.is_wanted(number) and (refusal := self._health.refusal(filling.pack)) is not None:
                raise refusal
            with filling.expecting(number) as arrival:
                self.want(filling, (number,), urgent=urgent)
                try:
                    await arrival
                except PacballError as error:
                    raise as_gateway(error) from error

    @property
    def disk_fault(self) -> PacballError | None:
        """Why packs cannot be written now; None if they can."""
        return self._health.disk_fault

    def in_use(self) -> frozenset[Digest]:
        """The packs that somebody is sent, or wants something of."""
        return frozenset(filling.pack for filling in self._shelf if not filling.is_idle)

    def close_idle(self, packs: Iterable[Digest]) -> None:
        """Close the files of those packs that nobody uses: they are deleted, and take room as long as they are open."""
        for pack in packs:
            filling = self._shelf.get(pack)
            if filling is not None and filling.is_idle:
                self._shelf.close(filling)

    def _is_kept(self, filling: Filling) -> bool:
        return self.keeps or filling.is_needed

    def _require_disk(self, filling: Filling, number: int) -> None:
        """Raise Unavailable if the frame could not be written now."""
        fault = self._health.disk_fault
        if fault is not None and (filling.partial is None or not self._health.may_write()):
            raise Unavailable(fault.message, place=fault.place, hint=fault.hint)
        if filling.partial is None:
            raise Removed("was opened while there was no room for it", place=filling.pack.hex, hint="try again")
        self._passing.drop(filling.pack, number)

    async def _completed(self, filling: Filling) -> None:
        self._settle(filling)
        if filling.whole is None:
            raise Unavailable("was given up while it was filled", place=filling.pack.hex, hint="it is fetched again")
        await asyncio.shield(filling.whole)

    # Giving out work

    def _begin_work(self, filling: Filling) -> None:
        """Let a thread look for what may be here of what is wanted, and begin all jobs for which there is room."""
        self._schedule.add(filling)
        if filling not in self._looking and filling.next_look():
            self._looking.add(filling)
            self._tasks.begin(self._look(filling))
        room = self._room()
        while (job := self._schedule.begin_next(room)) is not None:
            self._tasks.begin(self._do(job))

    def _room(self) -> Room:
        """On a thin line little is under way, so that whoever comes next does not wait for much that came before."""
        limits, mirrors = self.limits, self._upstream.mirrors
        flight = max(int(mirrors.bytes_per_second() * limits.line_seconds), limits.least_flight_bytes)
        if self._health.disk_fault is not None:
            return Room(0, flight, only_waited_for=True)
        return Room(min(limits.job_bytes, mirrors.range_bytes()), flight, keeps_all=self.keeps)

    # Doing it

    async def _look(self, filling: Filling) -> None:
        """Compare what may be here from before with its digests, a little at a time."""
        filling.under_way += 1
        try:
            while filling.partial is not None and (numbers := filling.next_look()):
                await start_thread(partial(filling.partial.look, numbers), name="pacball-look")
                filling.looked(numbers)
                self._begin_work(filling)
        finally:
            filling.under_way -= 1
            self._looking.discard(filling)
        self._settle(filling)
        self._shelf.rest(filling)

    async def _do(self, job: Job) -> None:
        # Whoever's request happened to begin it, it is for all who wait.
        came_through.set(())
        filling, run, began = job.filling, job.run, self._health.now
        written_to = filling.partial if self._is_kept(filling) and self._health.may_write() else None
        work = partial(
            fetch_frames, self._upstream.mirrors, filling.pack, filling.frames, run,
            partial=written_to, kept_bytes=self.limits.kept_bytes,
        )  # fmt: skip
        try:
            fetched = await start_thread(work, name="pacball-fetch")
        except PacballError as error:
            self._fetch_failed(filling, run, error, began)
        except Exception:  # noqa: BLE001 - whatever it is, nobody is to wait for ever
            _log.exception("a pack could not be fetched, unexpectedly")
            filling.fail(Unavailable("the daemon failed unexpectedly", hint="its log says more"), run)
        else:
            self._arrived(filling, fetched)
            filling.came_short(fetched.left, urgent=job.urgent)
        finally:
            self._schedule.end(job)
        self._settle(filling)
        self._begin_work(filling)
        self._shelf.rest(filling)

    def _arrived(self, filling: Filling, fetched: Fetched) -> None:
        if not fetched.left:
            self._health.came()
        self.figures.fetched_bytes += fetched.bytes_fetched
        self._keep(filling, fetched)
        if fetched.wrong_error is not None:
            self.figures.verify_failures += len(fetched.wrong)
            if self._health.may_tell():
                _log.warning("%s", fetched.wrong_error)
            filling.came_wrong(fetched.wrong, fetched.wrong_error)

    def _keep(self, filling: Filling, fetched: Fetched) -> None:
        if fetched.disk_error is not None:
            self._health.disk_failed(fetched.disk_error)
        elif fetched.written:
            self.changes.begun[filling.pack] = filling.frames.pack_length
            self._disk_works()
        for number, data in fetched.passed.items():
            self._passing.put(filling.pack, number, data)
        filling.arrived((*fetched.written, *fetched.passed))

    async def _save(self, filling: Filling) -> None:
        """Write what is in memory of this pack, since there may be room for it again."""
        try:
            await self._save_held(filling)
        finally:
            filling.is_saved = False

    async def _save_held(self, filling: Filling) -> None:
        held = {
            number: data for number in range(len(filling.frames)) if (data := filling.in_memory(number)) is not None
        }
        if filling.partial is None or not held:
            return
        filling.under_way += 1
        fetched = Fetched()
        try:
            await start_thread(partial(keep_frames, fetched, held, filling.partial), name="pacball-save")
        finally:
            filling.under_way -= 1
        for number in fetched.written:
            self._passing.drop(filling.pack, number)
        self._keep(filling, fetched)
        self._settle(filling)
        self._shelf.rest(filling)

    def _disk_works(self) -> None:
        if self._health.disk_works():
            self._passing.clear()
            for filling in self._shelf:
                if filling.partial is None:
                    self._opener.begin_anew(filling)
                self._begin_work(filling)

    def _fetch_failed(self, filling: Filling, run: range, error: PacballError, began: float) -> None:
        self.figures.fetches_failed += 1
        told = as_gateway(error)
        filling.fail(told, run)
        if self._health.failed(filling.pack, error, began):
            # Nothing at all comes: nobody is to wait only to hear the same later.
            for other in self._shelf:
                other.fail(told)
                self._shelf.rest(other)

    # Making packs public

    def _settle(self, filling: Filling) -> None:
        if filling.is_whole and filling.whole is None and not filling.is_over:
            filling.under_way += 1
            filling.whole = self._tasks.begin(self._publish(filling))

    async def _publish(self, filling: Filling) -> None:
        try:
            if filling.partial is not None:
                await start_thread(filling.partial.publish, name="pacball-publish")
            self.figures.packs_completed += 1
            self.changes.completed.add(filling.pack)
            self.changes.begun.pop(filling.pack, None)
        except Removed as error:
            _log.info("a pack was not kept: %s", error)
            raise
        except PacballError as error:
            self._health.disk_failed(error)
            raise
        finally:
            filling.under_way -= 1
            filling.is_over = True
            self._shelf.remove(filling)
            self._shelf.rest(filling)

    # As a service

    async def start(self) -> None:
        """Tidy up what a killed daemon left."""
        await asyncio.to_thread(self.partials.tidy)

    def stop(self) -> None:
        """What clients wait for still comes, while the daemon drains."""
        self._health.stop()
        self._schedule.drop_bulk()
        for filling in self._shelf:
            filling.fail(Unavailable("the daemon stops", hint="it goes on when it runs again"), bulk=True)

    async def end(self) -> None:
        """Fetch nothing more, and close all files."""
        self._health.stop()
        for filling in self._shelf:
            filling.fail(Unavailable("the daemon stops", hint="try another source"))
        await start_thread(self._upstream.mirrors.close, name="pacball-close")
        await self._tasks.ended()
        for filling in self._shelf:
            self._shelf.close(filling)

    def status(self) -> Mapping[str, object]:
        """What is under way, and what was counted."""
        return {
            **self.figures.document(),
            "filling": self._shelf.in_use,
            "queued": self._schedule.queued,
            "under_way": self._schedule.under_way,
            "memory_held_bytes": self._passing.held_bytes,
            "disk": self._disk_fault(),
        }

    def metrics(self) -> Iterable[Metric]:
        """The same as numbers."""
        yield from self.figures.metrics()
        for name, text, value in (
            ("queued_packs", "Packs of which frames are wanted that were not asked for yet", self._schedule.queued),
            ("fetches_under_way", "Ranges of packs that are being fetched", self._schedule.under_way),
            ("disk_good", "0 while packs cannot be written to the disk, otherwise 1", self._health.disk_fault is None),
        ):
            yield GaugeMetricFamily(f"pacball_cache_{name}", text, value=float(value))

    def warnings(self) -> list[str]:
        """That nothing can be kept."""
        fault = self._disk_fault()
        return [f"packs are passed on and not kept: {fault}"] if fault else []

    def _disk_fault(self) -> str:
        fault = self._health.disk_fault
        return f"{fault.place}: {fault.message}" if fault is not None else ""


def make_filler(config: Config, upstream: Upstream) -> Filler:
    """The filler of a mirror's store, which need not be there yet."""
    storage = DirectoryStorage(config.public, config.store / "private" / "staging")
    partials = PartialPacks(config.store / "private", storage)
    return Filler(partials, storage, upstream, limits=config.limits.cache)
