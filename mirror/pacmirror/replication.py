"""Replication: keeps the catalog of a mirror up to date from its upstreams, and knows what it says.

All upstreams are followed, so that one which stands still, or lies, can withhold nothing while another one does not. What each
has, and when that was last known, is told in the status: so a mirror can prove how old it is.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from pacmirror.catalog_copy import CatalogCopy
from pacmirror.feed import Feed
from pacmirror.service import Service
from pacmirror.threads import start_thread
from pacstore.errors import Unavailable
from pacstore.trust.listing import Listing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from prometheus_client.core import Metric

    from pacmirror.catalog import ServedCatalog
    from pacmirror.config import Config
    from pacstore.release import Release
    from pacstore.source import Source
    from pacstore.trust.replica import Look
    from pacstore.trust.served import ServedState
    from pacstore.trust.targets import CatalogRelease

_log = logging.getLogger(__name__)


class Replication(Service):
    """The service `replication` of a mirror. `sources` are the upstreams, each by itself; whoever made them closes them.

    For use in one event loop.
    """

    def __init__(
        self,
        config: Config,
        served: ServedCatalog,
        sources: Sequence[Source],
    ) -> None:
        self.listing = Listing()
        self._config = config
        self._served = served
        self._limits = config.limits.replication
        poll = config.sync.poll_seconds
        self._feeds = [Feed(one, self._look, poll_seconds=poll, limits=self._limits) for one in sources]
        self._copy: CatalogCopy | None = None
        self._settled: ServedState | None = None
        self._root = ""
        self._changes = 0
        self._change = asyncio.Condition()
        self._settling = asyncio.Lock()
        self._loaded = asyncio.Event()
        self._stopped = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    # What others use

    @property
    def version(self) -> int | None:
        """That of the catalog here; None while there is none."""
        held = self._copy.held if self._copy is not None else None
        return held.version if held is not None else None

    @property
    def upstream_version(self) -> int | None:
        """The highest that any upstream was seen to have, signed by the online keys."""
        return max((feed.version for feed in self._feeds if feed.version is not None), default=None)

    def age_seconds(self) -> float | None:
        """How long ago it was last known what an upstream has; None if it never was since the start."""
        return min((age for feed in self._feeds if (age := feed.age_seconds()) is not None), default=None)

    def releases(self) -> Mapping[Release, CatalogRelease]:
        """Every release of the catalog here, withdrawn ones too; not to be changed."""
        return self.listing.releases

    def is_named(self, name: str) -> bool:
        """Whether `name` is that of a file of the catalog here, so that it must be here too."""
        return self._copy is not None and self._copy.is_named(name)

    def poke(self, name: str | None = None) -> None:
        """Look soon at the upstream of that name, or at all: there may be something new."""
        for feed in self._feeds:
            if name in (None, feed.source.name):
                feed.poke()

    async def refresh(self, *, whole: bool = False) -> bool:
        """Look at all upstreams now, until one brings something new; whether it did.

        `whole`: what is missing or damaged of the files here is fetched, too. The time is bounded by the limits of the sources;
        who cannot wait so long may be cancelled, and the looks go on. Raises Unavailable when the daemon stops.
        """
        changes = self._changes
        looks = [asyncio.create_task(feed.look(whole=whole)) for feed in self._feeds]
        others = [asyncio.create_task(self.changed(changes)), asyncio.create_task(self._stopped.wait())]
        try:
            waiting: set[asyncio.Task[object]] = {*looks, *others}
            while any(not look.done() for look in looks) and self._changes == changes and not self._stopped.is_set():
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*looks, *others):
                task.cancel()
        if self._stopped.is_set():
            raise Unavailable("the daemon stops", hint="try again later, or another source")
        return self._changes != changes

    async def changed(self, changes: int) -> int:
        """Return as soon as the catalog here has changed more than `changes` times since the start, and how often it has.

        What was here at the start counts for one, once it is known.
        """
        async with self._change:
            await self._change.wait_for(lambda: self._changes > changes)
        return self._changes

    async def loaded(self) -> None:
        """Return once it is known which catalog is here, if any."""
        await self._loaded.wait()

    # The service

    @property
    def name(self) -> str:
        """The section of /v1/status."""
        return "replication"

    async def start(self) -> None:
        """Begin. Raises Refused if the store has another root than the configured one, or cannot be written to."""
        self._copy = await start_thread(lambda: CatalogCopy(self._config, self._served), name="pacball-replica")
        self._task = asyncio.create_task(self._run())

    def stop(self) -> None:
        """Begin nothing new. What a thread still does is left to itself: it may be interrupted anywhere."""
        self._stopped.set()
        if self._task is not None:
            self._task.cancel()

    async def end(self) -> None:
        """Wait for the tasks."""
        self.stop()
        if self._task is not None:
            await asyncio.wait({self._task})

    def status(self) -> dict[str, object]:
        """What is here, what the upstreams have, and how long ago that was known."""
        limits, upstream, age = self._limits, self.upstream_version, self.age_seconds()
        return {
            "version": self.version,
            "upstream_version": upstream,
            "is_behind": None if upstream is None else upstream > (self.version or 0),
            "age_seconds": None if age is None else round(age, 1),
            "root": self._root,
            "root_is_pinned": self._config.trusted_root is not None,
            "releases": len(self.listing.releases),
            "faults": list(self.listing.faults[: limits.listed_faults]),
            "upstreams": [feed.section() for feed in self._feeds[: limits.listed_sources]],
        }

    def metrics(self) -> Iterable[Metric]:
        """The same as numbers."""
        upstream, age = self.upstream_version, self.age_seconds()
        if upstream is not None:
            yield GaugeMetricFamily("pacball_upstream_catalog_version", "The highest seen at any upstream", upstream)
        if age is not None:
            yield GaugeMetricFamily("pacball_upstream_catalog_age_seconds", "Since an upstream's was last known", age)
        failures = sum(feed.failures for feed in self._feeds)
        yield CounterMetricFamily(
            "pacball_replication_failures", "Looks at catalogs of upstreams that failed", failures
        )

    def warnings(self) -> Iterable[str]:
        """Upstreams whose catalogs cannot be followed, and releases that their signers described wrongly."""
        for feed in self._feeds[: self._limits.listed_sources]:
            if feed.error and not feed.is_outage:  # of those the service `upstreams` tells
                yield f"the catalog of {feed.name} could not be followed: {feed.error}"
        yield from self.listing.faults[: self._limits.listed_faults]

    def unready(self) -> str:
        """Without a catalog, clients find nothing here."""
        return "" if self.version is not None else "the catalog has not come from an upstream yet"

    # How it works

    async def _run(self) -> None:
        await self._load()
        if self._config.trusted_root is None:
            await self._begin()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_tidy())
            group.create_task(self._keep_whole())
            for feed in self._feeds:
                group.create_task(feed.run())

    async def _begin(self) -> None:
        """Which root is believed must not depend on who is fast: all are asked in their order, until one has a catalog."""
        while not self._has_catalog():
            for feed in self._feeds:
                await feed.step()
                if self._has_catalog():
                    break
            else:
                await self._feeds[0].pause()

    def _has_catalog(self) -> bool:
        return self.version is not None

    async def _load(self) -> None:
        copy = self._required()
        try:
            await start_thread(copy.load, name="pacball-replica")
            await self._settle(copy)
        except Exception as error:  # noqa: BLE001 - then all is fetched anew
            _log.warning("the catalog here could not be read, and is fetched anew: %s", error)
        self._loaded.set()

    async def _look(self, source: Source, whole: bool, saw: Callable[[int], None]) -> Look:
        copy, loop, is_first = self._required(), asyncio.get_running_loop(), self.version is None

        def tell(version: int) -> None:
            with suppress(RuntimeError):  # nobody is there to be told any more
                loop.call_soon_threadsafe(saw, version)

        def work() -> Look:
            return copy.refresh(source, whole=whole, progress=tell)

        look = await start_thread(work, name="pacball-replica")
        await self._settle(copy)
        if is_first and self._config.trusted_root is None:
            message = "the first root of %s is believed, since no trusted root is configured: %s"
            _log.warning(message, source.name, self._root)
        return look

    async def _settle(self, copy: CatalogCopy) -> None:
        """Let the catalog that is here now be served, and known to all who wait for it, if it is another one than before."""
        async with self._settling:
            held = copy.held
            if held is None or held == self._settled:
                return
            served = asyncio.create_task(self._served.look())
            self.listing, self._root = await start_thread(lambda: copy.read(self.listing), name="pacball-listing")
            await served
            self._settled = held
        async with self._change:
            self._changes += 1
            self._change.notify_all()

    async def _keep_tidy(self) -> None:
        copy = self._required()
        while True:
            try:
                await start_thread(copy.tidy, name="pacball-tidy")
            except Exception as error:  # noqa: BLE001 - it is done again
                _log.warning("superseded files of the catalog could not be removed: %s", error)
            await asyncio.sleep(self._limits.tidy_seconds)

    async def _keep_whole(self) -> None:
        while True:
            await asyncio.sleep(self._limits.whole_seconds)
            for feed in self._feeds:
                feed.poke(whole=True)

    def _required(self) -> CatalogCopy:
        if self._copy is None:
            raise Unavailable("the daemon has not started yet")
        return self._copy
