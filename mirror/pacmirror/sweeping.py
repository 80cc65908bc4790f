"""Sweeping: collects what nothing refers to, now and then, and keeps packs within the quota: room is made before it is needed.

What is only here because somebody asked for it once leaves, longest unused first. If nothing can leave any more, what clients ask
for passes through the mirror without being kept, and the status says so.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from pacmirror.service import Service
from pacmirror.tasks import keep_doing
from pacmirror.threads import start_thread
from pacstore.errors import PacballError
from pacstore.ledger import marks
from pacstore.ledger.marks import MarkState
from pacstore.sweep.collection import collect
from pacstore.sweep.eviction import Evicted, adopt_partials, evict, held_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prometheus_client.core import Metric

    from pacmirror.cache.filler import Filler
    from pacmirror.config import Config
    from pacmirror.sync.bookkeeping import Bookkeeping
    from pacstore.ledger.schema import Total
    from pacstore.storage import Clock
    from pacstore.sweep.report import SweepReport

_log = logging.getLogger(__name__)
_THREAD = "pacball-sweep"
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Sweeping(Service):
    """The service `sweep`. `books` has the store and its ledger; the `filler`, of a mirror, what is being used."""

    def __init__(
        self, config: Config, books: Bookkeeping, filler: Filler | None = None, *, clock: Clock = time.time
    ) -> None:
        self._config = config
        self._books = books
        self._filler = filler
        self._clock = clock
        self._limits = config.limits.sweep
        self._quota = config.quota_bytes
        self._tasks: list[asyncio.Task[None]] = []
        self._report: SweepReport | None = None
        self._swept_at: float | None = None
        self._marks: Mapping[MarkState, Total] = {}
        self._held_bytes = 0
        self._evicted_packs = 0
        self._evicted_bytes = 0
        self._deleted_files = 0
        self._deleted_bytes = 0
        self._fault = ""

    @property
    def name(self) -> str:
        """The section of /v1/status."""
        return "sweep"

    async def start(self) -> None:
        """Begin, where the store can be written."""
        keeping = self._books.keeping
        if keeping is None:
            return
        if self._filler is not None:
            partials = self._filler.partials
            await start_thread(lambda: adopt_partials(keeping.store.ledger, partials, now=self._clock()), name=_THREAD)
            self._tasks.append(asyncio.create_task(self._keep_room()))
        if self._config.collects:
            self._tasks.append(asyncio.create_task(self._keep_collecting()))

    def stop(self) -> None:
        """Begin nothing new; what a thread does is done batch by batch, and can be left anywhere."""
        for task in self._tasks:
            task.cancel()

    async def end(self) -> None:
        """Wait for the tasks."""
        self.stop()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # Collecting

    async def _keep_collecting(self) -> None:
        await asyncio.sleep(self._limits.first_seconds)
        await keep_doing(self.collect, every_seconds=self._limits.every_seconds, what="collecting")

    async def collect(self) -> None:
        """Collect once. What goes wrong is told, and is no reason to do anything else."""
        store, now, grace = self._books.store, self._clock(), self._config.collect.grace_seconds
        in_use = self._filler.in_use() if self._filler is not None else frozenset()

        def work() -> tuple[SweepReport, Mapping[MarkState, Total]]:
            report = collect(store, store.ledger, now=now, grace_seconds=grace, in_use=in_use)
            with store.ledger.reading() as connection:
                return report, marks.mark_totals(connection)

        try:
            report, self._marks = await start_thread(work, name=_THREAD)
        except PacballError as error:
            self._tell(f"nothing could be collected: {error}")
            return
        self._report, self._swept_at, self._fault = report, now, ""
        deleted = report.deleted
        self._deleted_files += deleted.files
        self._deleted_bytes += deleted.bytes
        if deleted.files:
            _log.info("deleted %s unused files with %s bytes", deleted.files, deleted.bytes)
        for damage in report.failed:
            self._tell(f"{damage.place} could not be deleted: {damage.fault}")

    def _tell(self, fault: str) -> None:
        if fault != self._fault:
            _log.error("%s", fault)
        self._fault = fault

    # The quota

    async def _keep_room(self) -> None:
        # Until then, in a ledger that was made anew, the packs of releases that are held look as if nobody kept them.
        await self._books.settled()
        await keep_doing(self._look_for_room, every_seconds=self._limits.look_seconds, what="making room")

    async def _look_for_room(self) -> None:
        try:
            await self.make_room()
        except PacballError as error:
            self._tell(f"no room could be made: {error}")

    async def make_room(self) -> None:
        """Let packs leave if more is taken than should be, or the disk is full."""
        store, filler = self._books.store, self._filler
        assert filler is not None
        self._held_bytes = await start_thread(lambda: held_bytes(store.ledger), name=_THREAD)
        wanted = self._wanted_bytes(filler)
        if wanted <= 0:
            self._keep_again(filler)
            return
        in_use = filler.in_use()

        def work() -> Evicted:
            now = self._clock()
            return evict(store, store.ledger, filler.partials, wanted_bytes=wanted, now=now, in_use=in_use)

        done = await start_thread(work, name=_THREAD)
        filler.close_idle(done.packs)
        self._held_bytes -= done.bytes
        self._evicted_packs += len(done.packs)
        self._evicted_bytes += done.bytes
        if done.packs:
            _log.info("%s packs with %s bytes that were not used for longest made room", len(done.packs), done.bytes)
        if self._quota is not None and self._held_bytes > self._quota * self._limits.high:
            if filler.keeps:
                _log.warning("%s", self._over_quota())
            filler.keeps = False
        else:
            self._keep_again(filler)

    def _wanted_bytes(self, filler: Filler) -> int:
        quota, limits = self._quota, self._limits
        wanted = 0
        if quota is not None and self._held_bytes > quota * limits.high:
            wanted = self._held_bytes - int(quota * limits.low)
        cause = filler.disk_fault.__cause__ if filler.disk_fault is not None else None
        if isinstance(cause, OSError) and cause.errno in _FULL:
            wanted = max(wanted, limits.full_disk_bytes)
        return wanted

    def _keep_again(self, filler: Filler) -> None:
        if not filler.keeps:
            _log.info("what clients ask for is kept again")
        filler.keeps = True

    def _over_quota(self) -> str:
        return (
            f"packs take {self._held_bytes} bytes of the {self._quota} that they may (max_bytes), and what is left is "
            "subscribed, pinned or in use: what clients ask for is passed on, and not kept"
        )

    # What is told

    @property
    def _passes(self) -> bool:
        return self._filler is not None and not self._filler.keeps

    def status(self) -> Mapping[str, object]:
        """What was deleted, what is going to be, and how full the quota is."""
        if self._books.keeping is None:
            return {}
        section: dict[str, object] = {
            "collects": self._config.collects,
            "last_collected": self._swept_at,
            "deleted_files": self._deleted_files,
            "deleted_bytes": self._deleted_bytes,
        }
        for state, total in self._marks.items():
            section[f"{state}_files"], section[f"{state}_bytes"] = total
        if self._filler is not None:
            section |= {
                "held_bytes": self._held_bytes,
                "quota_bytes": self._quota,
                "evicted_packs": self._evicted_packs,
                "evicted_bytes": self._evicted_bytes,
                "passes_through": self._passes,
            }
        return section

    def metrics(self) -> Iterable[Metric]:
        """The same as numbers."""
        if self._books.keeping is None:
            return
        for name, text, value in (
            ("deleted_files", "Unused files that were deleted", self._deleted_files),
            ("deleted_bytes", "Bytes of unused files that were deleted", self._deleted_bytes),
            ("evicted_packs", "Packs that made room for others", self._evicted_packs),
            ("evicted_bytes", "Bytes of packs that made room for others", self._evicted_bytes),
        ):
            yield CounterMetricFamily(f"pacball_sweep_{name}", text, value=float(value))
        if self._swept_at is not None:
            text = "When unused files were last collected, in seconds since 1970"
            yield GaugeMetricFamily("pacball_sweep_collected_time_seconds", text, value=self._swept_at)
        unused = GaugeMetricFamily("pacball_sweep_unused_bytes", "Bytes that nothing refers to", labels=["state"])
        for state, total in self._marks.items():
            unused.add_metric([state], total.bytes)
        yield unused
        if self._filler is not None:
            text = "1 while what clients ask for is not kept, as the quota is exhausted, otherwise 0"
            yield GaugeMetricFamily("pacball_sweep_passes_through", text, value=float(self._passes))
        if self._quota is not None:
            yield GaugeMetricFamily("pacball_sweep_quota_bytes", "What packs may take", value=float(self._quota))

    def warnings(self) -> Iterable[str]:
        """What should be looked after."""
        if self._fault:
            yield self._fault
        if self._passes:
            yield self._over_quota()
        if self._report is not None and self._report.unjudged and not self._config.is_mirror:
            first, count = self._report.unjudged[0], self._report.unjudged_releases
            yield f"packs are not collected: of {count} releases it cannot be read what they need: {first.place}: {first.fault}"
