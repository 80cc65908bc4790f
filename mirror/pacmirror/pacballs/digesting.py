"""Digesting: takes the digests of whole pacballs once, one after another in a thread, and keeps them in the ledger.

Whoever is waited for comes first; otherwise, if that is wanted, every release that is whole here, the newest first.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from contextlib import suppress
from threading import Event, get_native_id
from typing import TYPE_CHECKING

from pacmirror.threads import start_thread
from pacstore.errors import PacballError
from pacstore.ledger import pacballs
from pacstore.pacball.digests import PacballDigests, PacballKey
from pacstore.pacball.recording import record_digests
from pacstore.progress import Silent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pacmirror.limits import PacballLimits
    from pacmirror.pacballs.offer import Offer
    from pacmirror.sync.bookkeeping import Bookkeeping
    from pacstore.pacball.opened import OpenedRelease
    from pacstore.trust.targets import CatalogRelease

_log = logging.getLogger(__name__)
_THREAD = "pacball-digests"
_NICENESS = 10
_REMEMBERED = 256


class _Stopped(Exception):
    """The daemon stops."""


class Digesting:
    """For use in one event loop. `damaged` is told what was found wrong of a release. Without a ledger, memory keeps them."""

    def __init__(
        self,
        offer: Offer,
        books: Bookkeeping,
        limits: PacballLimits,
        *,
        ahead: bool,
        damaged: Callable[[PacballError, CatalogRelease], Awaitable[None]],
    ) -> None:
        self.under_way = ""
        self.taken = 0
        self.failures = 0
        self.lacking = 0
        self._offer = offer
        self._books = books
        self._limits = limits
        self._ahead = ahead
        self._damaged = damaged
        self._kept: dict[PacballKey, PacballDigests] = {}
        self._wanted: dict[PacballKey, tuple[CatalogRelease, asyncio.Event]] = {}
        self._not_before: dict[PacballKey, float] = {}
        self._wake = asyncio.Event()
        self._stop = Event()

    async def find(self, entry: CatalogRelease) -> PacballDigests | None:
        """The digests of a release's pacball, if they were taken."""
        key = PacballKey.of(entry)
        if key not in self._kept:
            found = await start_thread(lambda: self._load(key), name=_THREAD)
            if found is None:
                return None
            self._keep(key, found)
        return self._kept[key]

    async def want(self, entry: CatalogRelease) -> PacballDigests | None:
        """The same, taken as soon as it can be, if that is within the time that one waits for it."""
        found = await self.find(entry)
        if found is None:
            _, ready = self._wanted.setdefault(PacballKey.of(entry), (entry, asyncio.Event()))
            self._wake.set()
            with suppress(TimeoutError):
                await asyncio.wait_for(ready.wait(), self._limits.digests_wait_seconds)
            found = await self.find(entry)
        return found

    async def run(self) -> None:
        """Take digests until cancelled."""
        while True:
            self._wake.clear()
            entry = await self._next()
            if entry is None:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), self._limits.look_seconds)
            else:
                await self._take(entry)

    def stop(self) -> None:
        """Let the thread end soon."""
        self._stop.set()

    async def _next(self) -> CatalogRelease | None:
        now = time.monotonic()
        for entry, _ in self._wanted.values():
            if self._may_try(entry, now):
                return entry
        # Before that, what the store says to hold may not be here.
        if not self._ahead or self._books.keeping is None or not self._books.is_settled:
            return None
        held = await self._offer.held()
        every = {PacballKey.of(entry) for entry in (await self._offer.releases()).values()}
        known = await start_thread(lambda: self._known(every), name=_THREAD)
        lacking = [entry for entry in held if PacballKey.of(entry) not in known]
        self.lacking = len(lacking)
        able = [entry for entry in lacking if self._may_try(entry, now)]
        return max(able, key=lambda entry: entry.published, default=None)

    def _may_try(self, entry: CatalogRelease, now: float) -> bool:
        return self._not_before.get(PacballKey.of(entry), 0.0) <= now

    async def _take(self, entry: CatalogRelease) -> None:
        key = PacballKey.of(entry)
        self.under_way = str(entry.release)
        try:
            opened = await self._offer.open(entry)
            digests = await start_thread(lambda: self._compute(opened), name=_THREAD)
            self._keep(key, digests)
            self.taken += 1
            _log.info("the digests of the pacball of %s were taken", entry.release)
        except _Stopped:
            return
        except PacballError as error:
            self.failures += 1
            self._not_before[key] = time.monotonic() + self._limits.failed_seconds
            _log.warning("the digests of the pacball of %s could not be taken: %s", entry.release, error)
            await self._damaged(error, entry)
        finally:
            self.under_way = ""
            if key in self._wanted:
                self._wanted.pop(key)[1].set()

    def _compute(self, opened: OpenedRelease) -> PacballDigests:
        with suppress(OSError):  # who waits for bytes goes before
            os.setpriority(os.PRIO_PROCESS, get_native_id(), _NICENESS)
        keeping, progress = self._books.keeping, _Stoppable(self._stop)
        if keeping is None:
            return opened.take_digests(progress)
        return record_digests(keeping.store, opened.entry, progress, opened=opened)

    def _load(self, key: PacballKey) -> PacballDigests | None:
        keeping = self._books.keeping
        if keeping is None:
            return None
        with keeping.store.ledger.reading() as connection:
            return pacballs.find(connection, key)

    def _known(self, every: set[PacballKey]) -> set[PacballKey]:
        """Whose digests were taken. Those of releases that the catalog names no longer are forgotten."""
        keeping = self._books.keeping
        if keeping is None:
            return set(self._kept)
        with keeping.store.ledger.reading() as connection:
            known = pacballs.known(connection)
        gone = known - every
        if gone and every:
            with keeping.store.ledger.writing() as connection:
                pacballs.forget(connection, gone)
        return known

    def _keep(self, key: PacballKey, digests: PacballDigests) -> None:
        self._kept[key] = digests
        while len(self._kept) > _REMEMBERED:
            self._kept.pop(next(iter(self._kept)))


class _Stoppable(Silent):
    """Ends the work when the daemon stops."""

    def __init__(self, stop: Event) -> None:
        self._stop = stop

    def advance(self, count_bytes: int) -> None:  # noqa: ARG002 - only that it was called counts
        if self._stop.is_set():
            raise _Stopped
