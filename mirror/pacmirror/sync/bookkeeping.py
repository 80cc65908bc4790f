"""Bookkeeping: holds a store and its ledger together, for origins and mirrors alike, and tells how its releases do.

At the start, ledger and store are made to say the same. What the store says to hold and the ledger does not know, since the store
is older or was restored, is verified by its tables and documents one after the other, and taken back where that fails.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from pacmirror.service import Service
from pacmirror.sync.keeping import Keeping
from pacmirror.sync.standing import Standing
from pacmirror.tasks import keep_doing
from pacmirror.threads import start_thread
from pacstore import reserve
from pacstore.errors import NotFound, PacballError, Refused, Unavailable
from pacstore.ledger import orders
from pacstore.store import Store
from pacstore.trust.listing import Listing, list_releases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prometheus_client.core import Metric

    from pacmirror.catalog import ServedCatalog
    from pacmirror.config import Config
    from pacmirror.sync.supplies import CatalogView
    from pacstore.ledger.releases import ReleaseRow, ReleaseState
    from pacstore.release import Release
    from pacstore.storage import Clock
    from pacstore.trust.targets import CatalogRelease

T = TypeVar("T")
_log = logging.getLogger(__name__)
_THREAD = "pacball-ledger"
_RESERVE_SECONDS = 60.0


class Bookkeeping(Service):
    """The service `held`. `keeping` is there once it has started; None where the store cannot be written: then it does nothing.

    `standing` is never older than the look seconds of the limits, unless the ledger cannot be read.
    """

    def __init__(
        self,
        config: Config,
        catalog: CatalogView,
        *,
        clock: Clock = time.time,
    ) -> None:
        self.keeping: Keeping | None = None
        self.standing = Standing()
        self._config = config
        self._catalog = catalog
        self.limits = config.limits.sync
        self.under_way: Callable[[Release], int | None] = lambda _: None
        """How many bytes of a release that is on its way are here, as who brings it knows; None for others."""
        self._clock = clock
        self._fault = ""
        self._mended = ""
        self._unknown: list[Release] = []
        self._settled = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def name(self) -> str:
        """The section of /v1/status."""
        return "held"

    async def start(self) -> None:
        """Make ledger and store say the same; a damaged ledger is made anew before. A mirror raises Refused, Unavailable."""
        try:
            keeping = await start_thread(self._open, name=_THREAD)
        except (Refused, Unavailable, NotFound) as error:
            if self._config.is_mirror:
                raise
            _log.info("no ledger is kept: %s", error)
            self._settled.set()
            return
        found = await start_thread(lambda: _in_room(keeping.store, keeping.reconcile), name=_THREAD)
        for release in found.withdrawn:
            _log.warning("%s was not held as the store said: it is looked at again", release)
        if found.gone:
            _log.warning("%s packs that the ledger knew are gone", found.gone)
        self._unknown = found.unknown
        self.keeping = keeping
        await self.look()
        work = [self._adopt(keeping), self._watch()]
        if self._config.is_mirror:
            work.append(self._keep_reserve(keeping))
        self._tasks = [asyncio.create_task(one) for one in work]

    def stop(self) -> None:
        """Begin nothing new."""
        for task in self._tasks:
            task.cancel()

    async def end(self) -> None:
        """Wait for the tasks; what a thread still does is left to itself."""
        self.stop()
        if self._tasks:
            await asyncio.wait(self._tasks)

    @property
    def store(self) -> Store:
        """The store, to be written to. Raises Unavailable where there is no ledger, or the daemon has not started."""
        if self.keeping is None:
            raise Unavailable("keeps no ledger", place=str(self._config.store), hint="its store cannot be written")
        return self.keeping.store

    async def settled(self) -> None:
        """Return once everything that the store said to hold is in the ledger, or was taken back."""
        await self._settled.wait()

    @property
    def is_settled(self) -> bool:
        """Whether that is so."""
        return self._settled.is_set()

    async def look(self) -> None:
        """Bring `standing` up to date."""
        if self.keeping is not None:
            try:
                self.standing = await start_thread(self.keeping.standing, name=_THREAD)
                self._fault = ""
            except PacballError as error:
                self._fault = str(error)

    async def page(self, *, after: str, limit: int, state: ReleaseState | None) -> list[ReleaseRow]:
        """The releases of the ledger, page by page. Raises Unavailable where there is no ledger."""
        keeping = self.keeping
        if keeping is None:
            raise Unavailable("keeps no ledger", place=str(self._config.store), hint="its store cannot be written")
        return await start_thread(lambda: keeping.page(after=after, limit=limit, state=state), name=_THREAD)

    def status(self) -> Mapping[str, object]:
        """Releases by state, packs and bytes."""
        return self.standing.held() if self.keeping is not None else {}

    def metrics(self) -> Iterable[Metric]:
        """The same as numbers."""
        return self.standing.held_metrics() if self.keeping is not None else ()

    def warnings(self) -> Iterable[str]:
        """Releases that are not what they should be, and what happened to the ledger."""
        if self._mended:
            yield self._mended
        if self._fault:
            yield f"the ledger cannot be read: {self._fault}"
        first, count = self.standing.first_stuck, self.standing.stuck
        if first is not None:
            more = f", and {count - 1} more" if count > 1 else ""
            yield f"{first.release}{more} cannot be held whole: {first.reason}"

    def _open(self) -> Keeping:
        config = self._config
        store = Store.open(config.store, writable=True)
        aside = _in_room(store, store.mend_ledger)
        if aside is not None:
            self._mended = f"the ledger was damaged: it was put aside as {aside}, and made anew from what is here"
            _log.error("%s", self._mended)
        _in_room(store, lambda: orders.save(store.ledger))
        grace, subscriptions = config.sync.grace_seconds, config.sync.subscriptions
        return Keeping(
            store, subscriptions, grace_seconds=grace, limits=self.limits, clock=self._clock, retries=config.is_mirror
        )

    async def _watch(self) -> None:
        await keep_doing(self.look, every_seconds=self.limits.look_seconds, what="looking into the ledger")

    async def _keep_reserve(self, keeping: Keeping) -> None:
        """A mirror on a full disk must be able to start, since it makes room; an origin starts without a ledger."""
        directory = keeping.store.state_dir

        async def keep() -> None:
            await start_thread(lambda: reserve.keep(directory), name=_THREAD)

        await keep_doing(keep, every_seconds=_RESERVE_SECONDS, what="keeping a reserve for the ledger")

    async def _adopt(self, keeping: Keeping) -> None:
        try:
            await self._adopt_unknown(keeping)
        except Exception:  # noqa: BLE001 - others wait until this has ended, however it did
            _log.exception("what the store says to hold could not be compared with the ledger, unexpectedly")
        self._settled.set()

    async def _adopt_unknown(self, keeping: Keeping) -> None:
        await self._catalog.loaded()
        changes = 0
        # Not the version: that is known a moment before the releases are.
        while self._unknown and not self._catalog.releases():
            changes = await self._catalog.changed(changes)
        for release in self._unknown:
            entry = self._catalog.releases().get(release)
            if entry is None:
                _log.warning("%s is held here, but the catalog does not name it", release)
                continue
            await self._adopt_one(keeping, entry)

    async def _adopt_one(self, keeping: Keeping, entry: CatalogRelease) -> None:
        try:
            fault = await start_thread(lambda: keeping.adopt(entry), name=_THREAD)
        except PacballError as error:
            _log.warning("%s could not be looked at: %s", entry.release, error)
            return
        if fault:
            _log.warning("%s is not held any more: %s", entry.release, fault)


class OwnCatalog:
    """The catalog of an origin, as `pacmirror.sync.supplies.CatalogView` asks for it: as it was at the start."""

    def __init__(self, config: Config, served: ServedCatalog) -> None:
        self._config = config
        self._served = served
        self._listing = Listing()
        self.version: int | None = None

    def releases(self) -> Mapping[Release, CatalogRelease]:
        """Every release."""
        return self._listing.releases

    async def loaded(self) -> None:
        """Return once it is known which catalog is here."""
        standing = await self._served.look()
        state = standing.served
        if state is not None:
            storage = Store(self._config.store, writable=False).storage
            with suppress(PacballError):
                self._listing = await start_thread(lambda: list_releases(storage, state, Listing()), name=_THREAD)
                self.version = state.version

    async def changed(self, changes: int) -> int:
        """Never returns: an origin's catalog is looked at once."""
        await asyncio.Event().wait()
        return changes


def _in_room(store: Store, work: Callable[[], T]) -> T:
    """What `work` returns, which uses the ledger; where the disk is full for that, the reserve is given up for it."""
    try:
        return work()
    except Unavailable as error:
        # Of a ledger that was not closed, some of what SQLite needs may be there: then only the first write fails.
        if not reserve.give_up(store.state_dir):
            raise
        _log.warning("the reserve beside the ledger is given up to start on a full disk: %s", error)
        return work()
