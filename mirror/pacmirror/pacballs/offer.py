"""Offer: the releases that are whole here, and their documents, kept open for a while."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pacmirror.threads import start_thread
from pacstore.damage import WHOLE, DamagedPart
from pacstore.errors import NotFound, PacballError, Unavailable, printable
from pacstore.holding import is_held
from pacstore.ledger import damage
from pacstore.pacball.damaged_frames import DamagedFrames
from pacstore.pacball.opened import OpenedRelease
from pacstore.release import Release
from pacstore.storage import DocumentKind, document_path
from pacstore.trust.listing import Listing, list_releases

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pacmirror.catalog import ServedCatalog
    from pacmirror.limits import PacballLimits
    from pacmirror.sync.bookkeeping import Bookkeeping
    from pacstore.backends.directory import DirectoryStorage
    from pacstore.trust.served import ServedState
    from pacstore.trust.targets import CatalogRelease

DAMAGED = "a part of it is damaged here"
LATER = "ask another source, or again later: it is served as soon as it is repaired"
_MOST_DAMAGED = 10_000
"""Of a store with more damaged parts, releases that wait for their repair are not served at all."""
_ELSEWHERE = "ask another source"
_THREAD = "pacball-offer"


@dataclass(frozen=True, slots=True)
class Offered:
    """A release that is here: whole, or but for the `damaged` parts of packs, which are to be repaired."""

    entry: CatalogRelease
    damaged: frozenset[DamagedPart] = frozenset()

    def unavailable(self) -> Unavailable:
        """That what somebody wants of it is not to be had now."""
        return Unavailable(DAMAGED, place=str(self.entry.release), hint=LATER)


class Offer:
    """For use in one event loop. What a release was when it was opened is what it stays: its documents are in its key."""

    def __init__(
        self, catalog: ServedCatalog, storage: DirectoryStorage, books: Bookkeeping, limits: PacballLimits
    ) -> None:
        self.storage = storage
        self._catalog = catalog
        self._books = books
        self._limits = limits
        self._listing = Listing()
        self._listed: ServedState | None = None
        self._held: list[CatalogRelease] = []
        self._held_at = float("-inf")
        self._reading = asyncio.Lock()
        self._looking = asyncio.Lock()
        self._opening = asyncio.Semaphore(limits.opening)
        self._opened: OrderedDict[object, tuple[float, asyncio.Future[OpenedRelease]]] = OrderedDict()

    async def releases(self) -> Mapping[Release, CatalogRelease]:
        """Every release of the catalog that is served, held or not."""
        served = (await self._catalog.look()).served
        async with self._reading:
            if served is not None and served is not self._listed:
                before = self._listing
                self._listing = await start_thread(lambda: list_releases(self.storage, served, before), name=_THREAD)
                self._listed = served
        return self._listing.releases

    async def held(self) -> list[CatalogRelease]:
        """The releases that are whole here, by name, as they were a moment ago."""
        entries = list((await self.releases()).values())
        async with self._looking:
            if time.monotonic() > self._held_at + self._limits.held_seconds:
                held = await start_thread(lambda: sorted(filter(self._is_held, entries), key=_name), name=_THREAD)
                self._held, self._held_at = held, time.monotonic()
        return self._held

    async def find(self, text: str) -> Offered:
        """The release of that name. Raises NotFound for one that is not here, or Unavailable for one that will be again."""
        try:
            entry = (await self.releases()).get(Release.parse(text))
        except PacballError:
            entry = None
        if entry is None:
            place = printable(text[:200])
            raise NotFound(
                "is no release of the catalog here", place=place, hint="/pacballs/ lists those that are here"
            )
        damaged = await start_thread(lambda: self._require(entry), name=_THREAD)
        return Offered(entry, damaged)

    async def check(self, offered: Offered, opened: OpenedRelease, is_touched: Callable[[DamagedFrames], bool]) -> None:
        """Raise Unavailable if what is wanted of a release is damaged; `is_touched` says so of what is known to be."""
        if not offered.damaged:
            return
        if await start_thread(lambda: is_touched(DamagedFrames(opened, offered.damaged)), name=_THREAD):
            raise offered.unavailable()

    async def is_held(self, entry: CatalogRelease) -> bool:
        """Whether the release is whole here, in the packs that this entry's placement names."""
        return await start_thread(lambda: self._is_held(entry), name=_THREAD)

    async def open(self, entry: CatalogRelease) -> OpenedRelease:
        """Its documents. Raises Unavailable where they are damaged or gone."""
        key = entry.manifest.digest, entry.attributes.digest, entry.placement.digest, entry.release
        _, opened = self._opened.pop(key, (0.0, None))
        if opened is None:
            opened = asyncio.ensure_future(self._open(entry))
            opened.add_done_callback(lambda done: self._drop_failed(key, done))
        self._opened[key] = time.monotonic(), opened
        # Who leaves does not end it for the others.
        release = await asyncio.shield(opened)
        self._close_some()
        return release

    def close_idle(self) -> None:
        """Let go of what was not used for a while."""
        limit = time.monotonic() - self._limits.opened_seconds
        for key in [key for key, (used, opened) in self._opened.items() if used < limit and opened.done()]:
            del self._opened[key]

    async def _open(self, entry: CatalogRelease) -> OpenedRelease:
        async with self._opening:
            try:
                return await start_thread(lambda: OpenedRelease(entry, self.storage), name=_THREAD)
            except PacballError as error:
                raise Unavailable(f"{DAMAGED}: {error.message}", place=error.place, hint=LATER) from error

    def _drop_failed(self, key: object, opened: asyncio.Future[OpenedRelease]) -> None:
        if opened.cancelled() or opened.exception() is not None:
            self._opened.pop(key, None)

    def _close_some(self) -> None:
        """Keep within the limit, the one that was used last in any case."""
        done = [(key, one.result()) for key, (_, one) in self._opened.items() if one.done() and not one.exception()]
        total = sum(release.document_bytes for _, release in done)
        for key, release in done[:-1]:
            if total <= self._limits.opened_bytes:
                return
            self._opened.pop(key, None)
            total -= release.document_bytes

    def _as_it_is(self, part: DamagedPart) -> DamagedPart:
        """What cannot be repaired may have been taken away, and the rest of its pack with it."""
        is_there = part.pack is None or (self.storage.public / part.path).exists()
        return part if is_there else DamagedPart(part.path, WHOLE, part.fault)

    def _is_held(self, entry: CatalogRelease) -> bool:
        with suppress(PacballError):
            return is_held(self.storage, entry)
        return False

    def _require(self, entry: CatalogRelease) -> frozenset[DamagedPart]:
        """What is damaged of a release that is here. Whatever is read of it is verified, so all else may be sent."""
        if is_held(self.storage, entry):
            return frozenset()
        place = str(entry.release)
        keeping = self._books.keeping
        if keeping is not None:
            with keeping.store.ledger.reading() as connection:
                if entry.release in damage.waiting(connection):
                    rows = damage.unrepaired(connection, limit=_MOST_DAMAGED + 1)
                    if not rows or len(rows) > _MOST_DAMAGED:
                        raise Unavailable(DAMAGED, place=place, hint=LATER)
                    return frozenset(map(self._as_it_is, {row.part for row in rows}))
        if (self.storage.public / document_path(DocumentKind.HOLDINGS, place)).exists():
            raise Unavailable("is being brought up to date here", place=place, hint="ask again in a moment")
        raise NotFound("is not held whole here", place=place, hint=_ELSEWHERE)


def _name(entry: CatalogRelease) -> str:
    return str(entry.release)
