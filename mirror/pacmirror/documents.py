"""Documents: what a mirror does not hold comes from its upstreams: only what the catalog names, verified, once for all who ask.

Manifests, attributes, provenances, placements, and the links of these, are kept. What an upstream says of holding a release is
compared with the catalog and passed on, never kept: only what is here whole is said to be here. Packs are `pacmirror.cache`.
"""

from __future__ import annotations

import asyncio
import io
import logging
from collections import OrderedDict
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from pacmirror.files import OpenFile, parse_public
from pacmirror.room import Room
from pacmirror.service import Service
from pacmirror.threads import start_thread
from pacmirror.verdict import NotReached, as_gateway
from pacstore.digest import Digest
from pacstore.documents import fetch_signed, keep_document
from pacstore.errors import Corrupt, NotFound, PacballError, Unavailable
from pacstore.holding import holdings_of
from pacstore.holdings import Holdings
from pacstore.limits import LIMITS
from pacstore.release import Release
from pacstore.source import blame
from pacstore.storage import DocumentKind, TargetLink
from pacstore.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from prometheus_client.core import Metric

    from pacmirror.config import Config
    from pacmirror.files import PublicFile, PublicFiles
    from pacmirror.replication import Replication
    from pacmirror.upstream import Upstream
    from pacstore.source import Source
    from pacstore.trust.listing import Named

_HOLDINGS = f"{DocumentKind.HOLDINGS.value}/"
_PLACEMENTS = f"{DocumentKind.PLACEMENT.value}/"
_CATALOG = f"{DocumentKind.CATALOG.value}/"
_ABSENT = "ask another source"
_HOLDINGS_ATTEMPTS = 2
T = TypeVar("T")
_log = logging.getLogger(__name__)


class Documents(Service):
    """The service `documents` of a mirror. For use in one event loop."""

    def __init__(self, config: Config, files: PublicFiles, replication: Replication, upstream: Upstream) -> None:
        self._config = config
        self._files = files
        self._replication = replication
        self._upstream = upstream
        self._limits = config.limits.documents
        self._room = Room(self._limits.flight_bytes, self._limits.parallel)
        self._flights: dict[str, asyncio.Task[bytes | None]] = {}
        self._failed: OrderedDict[str, tuple[float, PacballError]] = OrderedDict()
        self._said: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._refreshed_at = float("-inf")
        self._stopping = False
        self._fetched = self._fetched_bytes = self._joined = self._failures = 0
        self._disk_error = ""

    # What others use

    async def open(self, public: PublicFile) -> OpenFile:
        """The public file, which is not here, once it is. Raises NotFound if it is definitely absent, NotReached, Corrupt."""
        path = public.path
        if path.startswith(_CATALOG):
            return await self._restored(public)
        if path.startswith(_HOLDINGS):
            return _in_memory(await self._holdings(path), public)
        named = await self._named(path)
        data = await self._shared(named.path, lambda: self._fly(named))
        if data is not None:
            return _in_memory(data, public)
        return await start_thread(lambda: self._open_kept(public, named), name="pacball-open")

    async def fetch(self, path: str) -> None:
        """Return when the document at the public `path`, which the catalog names, is here, durably.

        Raises NotFound if the catalog, or all upstreams, do not have it; NotReached; Corrupt; Unavailable if it cannot be kept.
        """
        named = await self._named(path)
        if await self._shared(named.path, lambda: self._fly(named)) is not None:
            raise Unavailable(f"could not be kept: {self._disk_error}", place=path)

    def no_catalog(self) -> PacballError:
        """What to tell those who ask before there is any catalog."""
        return NotReached("the catalog has not come from the upstreams yet", hint="try again later, or another source")

    # The service

    @property
    def name(self) -> str:
        """The section of /v1/status."""
        return "documents"

    async def start(self) -> None:
        """Nothing is begun before somebody asks."""

    def stop(self) -> None:
        """Fetch nothing new."""
        self._stopping = True
        for flight in self._flights.values():
            flight.cancel()

    async def end(self) -> None:
        """Wait until nobody waits any more. What a thread still does may be interrupted anywhere."""
        self.stop()
        if self._flights:
            await asyncio.wait(set(self._flights.values()))

    def status(self) -> dict[str, object]:
        """What came, and what is on its way."""
        return {
            "fetched": self._fetched,
            "fetched_bytes": self._fetched_bytes,
            "joined": self._joined,
            "failures": self._failures,
            "fetching": len(self._flights),
        }

    def metrics(self) -> Iterable[Metric]:
        """The same as numbers."""
        yield CounterMetricFamily("pacball_documents_fetched", "Documents that came from upstreams", self._fetched)
        yield CounterMetricFamily("pacball_documents_fetched_bytes", "Their bytes", self._fetched_bytes)
        yield CounterMetricFamily("pacball_documents_joined", "Requests that waited for another's fetch", self._joined)
        yield CounterMetricFamily("pacball_documents_failures", "Documents that did not come", self._failures)
        yield GaugeMetricFamily("pacball_documents_fetching", "Documents on their way now", len(self._flights))

    def warnings(self) -> Iterable[str]:
        """That what comes cannot be kept."""
        if self._disk_error:
            yield f"documents are passed on, but cannot be kept: {self._disk_error}"

    # What is absent, and what it must be

    async def _named(self, path: str) -> Named:
        """What the document at `path` must be. Raises NotFound if the catalog does not name it; nobody is asked then."""
        await self._known()
        listing = self._replication.listing
        named = listing.named(path)
        if named is None and path.startswith(_PLACEMENTS) and _number(path) > (listing.newest_placement(path) or 0):
            # Who asks has a newer catalog than this one: that was read elsewhere, or comes in this moment.
            await self._refresh()
            named = self._replication.listing.named(path)
        if named is None:
            raise NotFound("is not here, and the catalog does not name it", place=path, hint=_ABSENT)
        return named

    async def _known(self) -> None:
        """Wait a moment for what is here at all, after a start. Raises NotReached."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.wait_seconds):
                await self._replication.loaded()
        if self._replication.version is None:
            raise self.no_catalog()

    async def _refresh(self, *, whole: bool = False) -> None:
        """Look at the catalogs of the upstreams once, unless that was just done; for a bounded time."""
        now = asyncio.get_running_loop().time()
        if now < self._refreshed_at + self._limits.refresh_pause_seconds:
            return
        self._refreshed_at = now
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.refresh_seconds):
                await self._replication.refresh(whole=whole)

    async def _restored(self, public: PublicFile) -> OpenFile:
        """A file of the catalog that is named and yet gone, after it was fetched anew."""
        name = public.path.removeprefix(_CATALOG)
        await self._known()
        if not self._replication.is_named(name):
            raise NotFound("is not here", place=public.path, hint=_ABSENT)
        await self._refresh(whole=True)
        try:
            return await asyncio.to_thread(self._files.open, public)
        except NotFound as error:
            raise NotReached("is gone, and did not come again yet", place=public.path, hint=_ABSENT) from error

    async def _holdings(self, path: str) -> bytes:
        """What an upstream says of holding a release, if that is what the catalog has of it."""
        await self._known()
        release = Release.parse(path.removeprefix(_HOLDINGS))
        for attempt in range(_HOLDINGS_ATTEMPTS):
            entry = self._replication.releases().get(release)
            if entry is None:
                raise NotFound("is not here, and the catalog does not name it", place=path, hint=_ABSENT)
            wanted = holdings_of(entry)
            found = Holdings.parse(await self._shared(path, lambda: self._ask(path)) or b"", place=path)
            if found == wanted:
                return wanted.encode()
            if attempt == 0 and found.placement_number > wanted.placement_number:
                await self._refresh()
        message = f"an upstream has it with placement {found.placement_number}, and the catalog names another one"
        raise NotReached(message, place=path, hint="try again later, or another source")

    async def _ask(self, path: str) -> bytes:
        now = asyncio.get_running_loop().time
        said = self._said.get(path)
        if said is not None and now() < said[0]:
            return said[1]
        data = await self._work(path, lambda: _read_holdings(self._upstream.mirrors, path))
        _remember(self._said, path, (now() + self._limits.holdings_seconds, data), self._limits.remembered)
        return data

    # Fetching

    async def _shared(self, path: str, fetch: Callable[[], Coroutine[None, None, bytes | None]]) -> bytes | None:
        """What `fetch` gives, which runs once for all who want the same at the same time."""
        flight = self._flights.get(path)
        if flight is None:
            self._refuse(path)
            flight = self._flights[path] = asyncio.create_task(fetch())
            flight.add_done_callback(lambda done: self._landed(path, done))
        else:
            self._joined += 1
        try:
            async with asyncio.timeout(self._limits.wait_seconds):
                # Who leaves does not stop it: others wait, or come back.
                return await asyncio.shield(flight)
        except TimeoutError as error:
            raise NotReached("takes too long to come", place=path, hint="try again later") from error
        except asyncio.CancelledError:
            if flight.cancelled():
                raise NotReached("the daemon stops", place=path, hint=_ABSENT) from None
            raise

    def _refuse(self, path: str) -> None:
        """Raise why nothing is to be asked of the upstreams now."""
        failed = self._failed.get(path)
        if failed is not None and asyncio.get_running_loop().time() < failed[0]:
            raise failed[1]
        if self._upstream.is_closed:
            raise NotReached("nothing may be fetched from the upstreams at this hour", place=path, hint="try later")
        if self._stopping or len(self._flights) >= self._limits.waiting:
            why = "the daemon stops" if self._stopping else "too much is fetched already"
            raise NotReached(why, place=path, hint="try again later, or another source")

    async def _fly(self, named: Named) -> bytes | None:
        """Let the document be here; its bytes only if it cannot be kept."""
        if named.signed.length > self._limits.document_bytes:
            raise NotReached("is too large to be fetched while a client waits", place=named.path, hint=_ABSENT)
        async with self._room.take(named.signed.length):
            return await self._work(named.path, lambda: self._fetch_kept(named))

    async def _work(self, path: str, work: Callable[[], T]) -> T:
        """The result of `work` in a thread; its errors as our clients are to see them."""
        try:
            return await start_thread(work, name="pacball-document")
        except PacballError as error:
            self._failures += not isinstance(error, NotFound)
            told = as_gateway(error)
            until = asyncio.get_running_loop().time() + self._limits.failed_seconds
            _remember(self._failed, path, (until, told), self._limits.remembered)
            raise told from error

    def _landed(self, path: str, flight: asyncio.Task[bytes | None]) -> None:
        del self._flights[path]
        if not flight.cancelled():
            flight.exception()  # it was told to all who waited, if anybody still did

    # In threads

    def _fetch_kept(self, named: Named) -> bytes | None:
        with suppress(NotFound):
            self._files.look(named.path)
            return None
        data = fetch_signed(self._upstream.mirrors, named.path, named.signed)
        self._fetched += 1
        self._fetched_bytes += len(data)
        try:
            with Store.open(self._config.store, writable=True) as store:
                keep_document(store.storage, named.path, data)
        except PacballError as error:
            if not self._disk_error:
                _log.warning("documents are passed on, but cannot be kept: %s", error)
            self._disk_error = str(error)
            return data
        self._disk_error = ""
        return None

    def _open_kept(self, public: PublicFile, named: Named) -> OpenFile:
        if public.path != named.path:
            try:
                with Store.open(self._config.store, writable=True) as store:
                    store.storage.link([TargetLink(public.path, named.path)])
            except PacballError:
                # The disk is full, or gone: then the document itself is given, which has the same bytes.
                return replace(self._files.open(parse_public(named.path)), public=public)
        return self._files.open(public)


def _read_holdings(source: Source, path: str) -> bytes:
    """What a source says of a release. One that says nonsense is blamed for it, and another one asked."""
    for _ in range(_HOLDINGS_ATTEMPTS):
        data = source.read(path, limit=LIMITS.holdings_bytes)
        try:
            Holdings.parse(data, place=path)
        except PacballError as error:
            fault = Corrupt(error.message, place=f"{blame(source, path, Corrupt(error.message, place=path))}: {path}")
            continue
        return data
    raise fault


def _in_memory(data: bytes, public: PublicFile) -> OpenFile:
    return OpenFile(io.BytesIO(data), len(data), f'"b3-{public.etag_id or Digest.of(data).hex}"', public)


def _number(path: str) -> int:
    """The number of the placement at `path`, which `parse_public` took."""
    return int(path.rpartition(".")[2])


def _remember(known: OrderedDict[str, T], key: str, value: T, most: int) -> None:
    known[key] = value
    known.move_to_end(key)
    while len(known) > most:
        known.popitem(last=False)
