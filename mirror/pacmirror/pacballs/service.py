"""The service `pacballs`: what can be had whole here, the digests of it, and who is being sent what is put together."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from threading import BoundedSemaphore
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from pacmirror.freed_memory import FreedMemory
from pacmirror.pacballs.digesting import Digesting
from pacmirror.pacballs.file_digesting import FileDigesting
from pacmirror.pacballs.offer import Offer
from pacmirror.pacballs.seats import Seats
from pacmirror.service import Service
from pacmirror.tasks import Tasks, keep_doing
from pacmirror.threads import start_thread
from pacstore.backends.directory import DirectoryStorage
from pacstore.damage import WHOLE, DamagedPart, pack_at
from pacstore.errors import NotFound
from pacstore.frames import DamagedFrame

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prometheus_client.core import Metric

    from pacmirror.catalog import ServedCatalog
    from pacmirror.config import Config
    from pacmirror.scrubbing import Scrubbing
    from pacmirror.sync.bookkeeping import Bookkeeping
    from pacstore.errors import PacballError
    from pacstore.trust.targets import CatalogRelease

_IDLE_SECONDS = 30.0


class Pacballs(Service):
    """What the handlers of /pacballs/ and /files/ work with. For use in one event loop."""

    def __init__(self, config: Config, catalog: ServedCatalog, books: Bookkeeping, scrubbing: Scrubbing) -> None:
        limits = config.limits.pacballs
        storage = DirectoryStorage(config.public, config.store / "private" / "staging")
        self.offer = Offer(catalog, storage, books, limits)
        self.digesting = Digesting(self.offer, books, limits, ahead=config.pacballs.ahead, damaged=self.report)
        self.seats = Seats(limits)
        self.writing = asyncio.Semaphore(1)
        """Of pages, which keep the event loop from its work."""
        self.freed = FreedMemory()
        self.turns = BoundedSemaphore(min(limits.decoding, os.cpu_count() or 1))
        self.file_digesting = FileDigesting(limits, self.turns)
        self._scrubbing = scrubbing
        self._tasks = Tasks()
        self._running: list[asyncio.Task[None]] = []

    @property
    def name(self) -> str:
        """The section of /v1/status."""
        return "pacballs"

    async def start(self) -> None:
        """Begin to take digests."""
        digesting = keep_doing(self.digesting.run, every_seconds=_IDLE_SECONDS, what="taking digests of pacballs")
        closing = keep_doing(self._close_idle, every_seconds=_IDLE_SECONDS, what="closing releases")
        self._running = [asyncio.create_task(digesting), asyncio.create_task(closing)]

    def stop(self) -> None:
        """Begin nothing new."""
        self.digesting.stop()
        for task in self._running:
            task.cancel()

    async def end(self) -> None:
        """Wait for the tasks; what a thread still does is left to itself."""
        self.stop()
        if self._running:
            await asyncio.wait(self._running)
        await self._tasks.ended()

    def status(self) -> Mapping[str, object]:
        """What is under way."""
        digesting, seats = self.digesting, self.seats
        return {
            "assembling": seats.taken,
            "refused": seats.refused,
            "digests_under_way": digesting.under_way,
            "digests_lacking": digesting.lacking,
            "digests_taken": digesting.taken,
            "digests_failed": digesting.failures,
        }

    def metrics(self) -> Iterable[Metric]:
        """The same as numbers."""
        digesting, seats = self.digesting, self.seats
        yield GaugeMetricFamily("pacball_assemblies", "Answers that are being put together from packs", seats.taken)
        yield GaugeMetricFamily(
            "pacball_pacballs_without_digests", "Pacballs whose digests are still to be taken", digesting.lacking
        )
        yield CounterMetricFamily(
            "pacball_assemblies_refused", "Requests refused since too much was put together", seats.refused
        )
        yield CounterMetricFamily(
            "pacball_digests_failures", "Digests of pacballs that could not be taken", digesting.failures
        )

    async def report(self, error: PacballError, entry: CatalogRelease) -> None:
        """Have what was found damaged of a release, if `error` says that, written down and repaired."""
        part = part_of(error)
        # While it was read it may have been dropped, or moved to other packs: what is gone since then is not missed.
        if part is not None and (part.offset != WHOLE or await self.offer.is_held(entry)):
            await self._scrubbing.report([part])

    def report_soon(self, error: PacballError, entry: CatalogRelease) -> None:
        """The same, from who cannot wait."""
        self._tasks.begin(self.report(error, entry))

    async def _close_idle(self) -> None:
        self.offer.close_idle()
        await start_thread(self.freed.give_back, name="pacball-memory")


def part_of(error: PacballError) -> DamagedPart | None:
    """The part of the store that is damaged or missing, as `error` says; None if it says something else."""
    if isinstance(error, DamagedFrame):
        return error.part
    if isinstance(error, NotFound):
        path = error.place[max(error.place.rfind("packs/"), 0) :]
        with suppress(ValueError, KeyError):
            if path.startswith("packs/") and pack_at(path) is not None:
                return DamagedPart(path, WHOLE, "is missing")
    return None
