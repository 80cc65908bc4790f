"""Syncing: keeps a mirror at what its subscriptions say, by the catalog that is here, for as long as the daemon runs.

One release that fails is tried again later, and later each time; all others go on. Nothing is decided without a verified catalog.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Protocol

from pacmirror.service import Service
from pacmirror.sync.bringing import Bringer
from pacmirror.sync.standing import Transfer
from pacmirror.threads import start_thread
from pacstore.errors import PacballError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prometheus_client.core import Metric

    from pacmirror.config import Config
    from pacmirror.sync.bookkeeping import Bookkeeping
    from pacmirror.sync.keeping import Keeping
    from pacmirror.sync.supplies import CatalogView, DocumentSupply, PackSupply
    from pacstore.ledger.roster import Roster
    from pacstore.release import Release
    from pacstore.storage import Clock
    from pacstore.trust.targets import CatalogRelease

_log = logging.getLogger(__name__)
_THREAD = "pacball-sync"
_NOTHING_KNOWN = ()


class Announce(Protocol):
    """Tells who listens."""

    def __call__(self, release: Release, *, complete: bool) -> None:
        """A release is here whole from now on, or no more."""


class Syncing(Service):
    """The service `sync` of a mirror. `announce` is told of each release that has become complete, or was dropped.

    `roster` is what was to be done when it last looked; None before that.

    For use in one event loop; it starts after `books`.
    """

    def __init__(
        self,
        config: Config,
        books: Bookkeeping,
        catalog: CatalogView,
        documents: DocumentSupply,
        packs: PackSupply,
        *,
        announce: Announce,
        clock: Clock = time.time,
    ) -> None:
        self._limits = config.limits.sync
        self._parallel = config.sync.parallel
        self._books = books
        books.under_way = self.held_bytes
        self._catalog = catalog
        self._bringer = Bringer(documents, packs, self._limits)
        self._announce = announce
        self._clock = clock
        self._wake = asyncio.Event()
        self.roster: Roster | None = None
        self._changes = 0
        self._known: tuple[object, ...] = _NOTHING_KNOWN
        self._due: dict[Release, CatalogRelease] = {}
        self._next_at: float | None = None
        self._stale_at = 0.0
        self._transfers: dict[Release, Transfer] = {}
        self._running: dict[Release, asyncio.Task[None]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._fault = ""

    @property
    def name(self) -> str:
        """The section of /v1/status."""
        return "sync"

    async def start(self) -> None:
        """Begin."""
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._follow())]

    def stop(self) -> None:
        """Begin nothing new; releases on their way go on after the next start."""
        for task in (*self._tasks, *self._running.values()):
            task.cancel()

    async def end(self) -> None:
        """Wait for the tasks; what a thread still does is left to itself: it may be interrupted anywhere."""
        self.stop()
        tasks = [*self._tasks, *self._running.values()]
        if tasks:
            await asyncio.wait(tasks)

    def status(self) -> Mapping[str, object]:
        """What is on its way, and how far behind this mirror is."""
        standing, limits = self._books.standing, self._limits
        return standing.sync(
            list(self._transfers.values()), queued=self._queued(), now=self._clock(), listed=limits.listed
        )

    def metrics(self) -> Iterable[Metric]:
        """The same as numbers."""
        return self._books.standing.sync_metrics(
            queued=self._queued(), under_way=len(self._transfers), now=self._clock()
        )

    def warnings(self) -> Iterable[str]:
        """Why nothing is mirrored, if that is so."""
        if self._fault:
            yield f"what to mirror could not be found out: {self._fault}"

    def held_bytes(self, release: Release) -> int | None:
        """How many bytes of a release that is on its way are here; None for others."""
        transfer = self._transfers.get(release)
        return transfer.held_bytes if transfer is not None else None

    def _queued(self) -> int:
        return len(self._due) - sum(release in self._due for release in self._running)

    async def _follow(self) -> None:
        """Wake up when the catalog changes."""
        while True:
            self._changes = await self._catalog.changed(self._changes)
            self._wake.set()

    async def _run(self) -> None:
        keeping = self._books.keeping
        if keeping is None:
            return
        await self._catalog.loaded()
        # Until then, what was held before would look as if it had to be fetched.
        await self._books.settled()
        while True:
            self._wake.clear()
            try:
                await self._look(keeping)
                self._fault = ""
            except PacballError as error:
                if str(error) != self._fault:
                    _log.warning("what to mirror could not be found out: %s", error)
                self._fault, self._known = str(error), _NOTHING_KNOWN
            except Exception as error:  # noqa: BLE001 - whatever it is, the next look comes
                _log.exception("what to mirror could not be found out, unexpectedly")
                self._fault, self._known = f"unexpectedly: {error!r}", _NOTHING_KNOWN
            try:
                async with asyncio.timeout(self._limits.look_seconds):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _look(self, keeping: Keeping) -> None:
        """Do what has to be done now: nothing, if neither catalog nor subscriptions have changed and nothing is due.

        What is to be done is found out now and then all the same: others find releases damaged, and some lapse by time.
        """
        await self._write_progress(keeping)
        await self._books.look()
        version = self._catalog.version
        if version is None:
            return
        # The version alone says too little: it is known a moment before the releases are.
        known = (version, self._changes, self._books.standing.subscriptions)
        if known != self._known or self._is_time():
            catalog = self._catalog.releases()
            roster = await start_thread(lambda: keeping.update(catalog, version), name=_THREAD)
            self._known, self.roster = known, roster
            self._due = {entry.release: entry for entry in roster.due}
            self._next_at = roster.next_at
            self._stale_at = time.monotonic() + self._limits.roster_seconds
            for release in roster.dropped:
                _log.info("%s is no longer held", release)
                self._announce(release, complete=False)
                await asyncio.sleep(0)  # of many, listeners would be sent away who had no chance to read
            self._cut(roster)
        self._begin(keeping)

    def _is_time(self) -> bool:
        is_due = self._next_at is not None and self._next_at <= self._clock()
        return is_due or self.roster is None or time.monotonic() >= self._stale_at

    def _cut(self, roster: Roster) -> None:
        """End what nobody wants any longer."""
        for release, task in self._running.items():
            if release not in roster.wanted:
                task.cancel()

    def _begin(self, keeping: Keeping) -> None:
        waiting = (entry for entry in self._due.values() if entry.release not in self._running)
        while len(self._running) < self._parallel and (entry := next(waiting, None)) is not None:
            self._running[entry.release] = asyncio.create_task(self._bring(keeping, entry))

    async def _bring(self, keeping: Keeping, entry: CatalogRelease) -> None:
        release = entry.release
        transfer = self._transfers[release] = Transfer(release, since=self._clock())
        try:
            await self._bringer.bring(keeping, entry, transfer)
        except PacballError as error:
            await self._fail(keeping, entry, error, some_came=transfer.came_bytes > 0)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other releases go on
            _log.exception("%s could not be mirrored, unexpectedly", release)
            await self._fail(keeping, entry, PacballError(f"unexpectedly: {error!r}", place=str(release)))
        else:
            _log.info("%s is complete: %s bytes in its packs", release, transfer.total_bytes)
            self._ended(entry)
            self._announce(release, complete=True)
        finally:
            del self._transfers[release], self._running[release]
            self._wake.set()

    def _ended(self, entry: CatalogRelease) -> None:
        """Nothing more is to be done for it now. A look at all releases for each one would be too much where there are many."""
        if self._due.get(entry.release) == entry:
            del self._due[entry.release]

    async def _fail(
        self, keeping: Keeping, entry: CatalogRelease, error: PacballError, *, some_came: bool = False
    ) -> None:
        release = entry.release
        _log.warning("%s could not be mirrored, and is tried again: %s", release, error)
        try:
            next_at = await start_thread(lambda: keeping.fail(release, error, some_came=some_came), name=_THREAD)
        except PacballError as other:
            _log.warning("that could not be written down: %s", other)
            # It is due still.
            await asyncio.sleep(self._limits.backoff_seconds)
            return
        self._ended(entry)
        if next_at is not None:
            self._next_at = min(next_at, next_at if self._next_at is None else self._next_at)

    async def _write_progress(self, keeping: Keeping) -> None:
        held = {release: transfer.held_bytes for release, transfer in self._transfers.items() if transfer.total_bytes}
        if held:
            await start_thread(lambda: keeping.progress(held), name=_THREAD)
