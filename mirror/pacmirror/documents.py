"""Documents: what a mirror does not hold comes from its upstreams: only what the catalog names, verified, once for all who ask.

Manifests, attributes, provenances, placements, and the links of these, are kept. What an upstream says of holding a release is
compared with the catalog and passed on, never kept: only what is here whole is said to be here. Packs are `pacmirror.cache`.
"""

from __future__ import annotations

import asyncio
import io
import logging
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from pacmirror.files import OpenFile, parse_public
from pacmirror.flights import Flights
from pacmirror.room import Room
from pacmirror.service import Service
from pacmirror.statements import PREFIX as HOLDINGS
from pacmirror.statements import Statements
from pacmirror.threads import start_thread
from pacmirror.unkept import Unkept
from pacmirror.verdict import NotReached
from pacstore.digest import Digest
from pacstore.documents import fetch_signed, is_document_here, keep_document
from pacstore.errors import NotFound, PacballError, Unavailable
from pacstore.links import links_of
from pacstore.storage import DocumentKind, TargetLink
from pacstore.store import Store
from pacstore.trust.listing import Named

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prometheus_client.core import Metric

    from pacmirror.config import Config
    from pacmirror.files import PublicFile, PublicFiles
    from pacmirror.replication import Replication
    from pacmirror.upstream import Upstream
    from pacstore.trust.targets import CatalogRelease

_PLACEMENTS = f"{DocumentKind.PLACEMENT.value}/"
_CATALOG = f"{DocumentKind.CATALOG.value}/"
_ABSENT = "ask another source"
_log = logging.getLogger(__name__)


class Documents(Service):
    """The service `documents` of a mirror, and a `pacmirror.sync.supplies.DocumentSupply`. For use in one event loop."""

    def __init__(self, config: Config, files: PublicFiles, replication: Replication, upstream: Upstream) -> None:
        limits = self._limits = config.limits.documents
        self._config = config
        self._files = files
        self._replication = replication
        self._upstream = upstream
        self._room = Room(limits.flight_bytes, limits.parallel)
        self._unkept = Unkept(limits.unkept_bytes)
        self._flights: Flights[bytes | None] = Flights(limits)
        self._statements = Statements(upstream.mirrors, replication.releases, self._refresh, limits)
        self._refreshed_at = float("-inf")
        self._refreshing: asyncio.Task[None] | None = None
        self._fetched = self._fetched_bytes = 0
        self._disk_error = ""

    # What others use

    async def open(self, public: PublicFile) -> OpenFile:
        """The public file, which is not here, once it is. Raises NotFound if it is definitely absent, NotReached, Corrupt."""
        path = public.path
        await self._known()
        if path.startswith(_CATALOG):
            return await self._restored(public)
        if path.startswith(HOLDINGS):
            self._refuse_by_hour(path)
            data = await self._statements.get(path)
            return _in_memory(io.BytesIO(data), len(data), Digest.of(data), public)
        named = await self._named(path)
        unkept = await self._bring(named, is_trusted=True)
        if unkept is not None:
            digest = await start_thread(lambda: Digest.of(unkept), name="pacball-hash")
            return _in_memory(self._unkept.open(named.path, unkept), len(unkept), digest, public)
        return await start_thread(lambda: self._open_kept(public, named), name="pacball-open")

    async def fetch(self, entry: CatalogRelease) -> None:
        """Return when all documents of the release are here, with their links: verified, durable, public.

        What is here already is read and compared first. Raises NotFound if all upstreams say that one is absent, NotReached,
        Corrupt, or Unavailable if it cannot be kept.
        """
        links = links_of(entry)
        for link, signed in zip(links, entry.documents(), strict=True):
            if await self._bring(Named(link.file, signed), is_trusted=False) is not None:
                raise Unavailable(f"could not be kept: {self._disk_error}", place=link.file)
        await start_thread(lambda: self._link(links), name="pacball-link")

    def no_catalog(self) -> PacballError:
        """What to tell those who ask before there is any catalog."""
        return NotReached("the catalog has not come from the upstreams yet", hint="try again later, or another source")

    # The service

    @property
    def name(self) -> str:
        """The section of /v1/status."""
        return "documents"

    def stop(self) -> None:
        """Fetch nothing new."""
        self._flights.stop()
        self._statements.flights.stop()

    async def end(self) -> None:
        """Wait until nobody waits any more."""
        await self._flights.end()
        await self._statements.flights.end()
        if self._refreshing is not None:
            await asyncio.wait({self._refreshing})

    def status(self) -> dict[str, object]:
        """What came, and what is on its way."""
        return {
            "fetched": self._fetched,
            "fetched_bytes": self._fetched_bytes,
            "joined": self._flights.joined,
            "failures": self._flights.failures,
            "fetching": len(self._flights),
        }

    def metrics(self) -> Iterable[Metric]:
        """The same as numbers."""
        flights = self._flights
        yield CounterMetricFamily("pacball_documents_fetched", "Documents that came from upstreams", self._fetched)
        yield CounterMetricFamily("pacball_documents_fetched_bytes", "Their bytes", self._fetched_bytes)
        yield CounterMetricFamily(
            "pacball_documents_joined", "Requests that waited for another's fetch", flights.joined
        )
        yield CounterMetricFamily("pacball_documents_failures", "Documents that did not come", flights.failures)
        yield GaugeMetricFamily("pacball_documents_fetching", "Documents on their way now", len(flights))

    def warnings(self) -> Iterable[str]:
        """That what comes cannot be kept."""
        if self._disk_error:
            yield f"documents are passed on, but cannot be kept: {self._disk_error}"

    # What the catalog says

    async def _named(self, path: str) -> Named:
        """What the document at `path` must be. Raises NotFound if the catalog does not name it; nobody is asked then."""
        listing = self._replication.listing
        named = listing.named(path)
        if named is None and path.startswith(_PLACEMENTS) and _number(path) > (listing.newest_placement(path) or 0):
            # Who asks has a newer catalog than this one: that was read elsewhere, or comes in this moment.
            await self._refresh()
            named = self._replication.listing.named(path)
            if named is None and not self._is_fresh():
                message = "the catalog here may be older than the one that names it, and no upstream can be asked"
                raise NotReached(message, place=path, hint="try again later, or another source")
        if named is None:
            raise NotFound("is not here, and the catalog does not name it", place=path, hint=_ABSENT)
        return named

    async def _known(self) -> None:
        """Wait, after a start, until it is known what is here at all. Raises NotReached if there is no catalog."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.wait_seconds):
                await self._replication.loaded()
        if self._replication.version is None:
            raise self.no_catalog()

    async def _refresh(self, *, whole: bool = False) -> None:
        """Look at the catalogs of the upstreams, unless that was just done; for a bounded time, and once for all who want it."""
        now = asyncio.get_running_loop().time()
        if self._refreshing is None or (
            self._refreshing.done() and now >= self._refreshed_at + self._limits.refresh_pause_seconds
        ):
            self._refreshed_at = now
            self._refreshing = asyncio.create_task(self._look(whole=whole))
        await asyncio.wait({self._refreshing})

    async def _look(self, *, whole: bool) -> None:
        with suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(self._limits.refresh_seconds):
                await self._replication.refresh(whole=whole)

    def _is_fresh(self) -> bool:
        """Whether it was known a moment ago what the upstreams have."""
        age = self._replication.age_seconds()
        return age is not None and age <= self._limits.refresh_pause_seconds + self._limits.refresh_seconds

    async def _restored(self, public: PublicFile) -> OpenFile:
        """A file of the catalog that is named and yet gone, after it was fetched anew."""
        if not self._replication.is_named(public.path.removeprefix(_CATALOG)):
            raise NotFound("is not here", place=public.path, hint=_ABSENT)
        await self._refresh(whole=True)
        try:
            return await asyncio.to_thread(self._files.open, public)
        except NotFound as error:
            raise NotReached("is gone, and did not come again yet", place=public.path, hint=_ABSENT) from error

    # Fetching

    async def _bring(self, named: Named, *, is_trusted: bool) -> bytes | None:
        """Let the document be here; its bytes only if it cannot be kept. `is_trusted`: if it is there, it is right."""
        key = named.path if is_trusted else f"{named.path} compared"
        return await self._flights.share(key, lambda: self._fly(key, named, is_trusted=is_trusted))

    async def _fly(self, key: str, named: Named, *, is_trusted: bool) -> bytes | None:
        if named.signed.length > self._limits.document_bytes:
            raise NotReached("is too large to be fetched", place=named.path, hint=_ABSENT)
        async with self._room.take(named.signed.length):
            return await self._flights.work(key, lambda: self._fetch_kept(named, is_trusted=is_trusted))

    def _refuse_by_hour(self, path: str) -> None:
        if self._upstream.is_closed:
            raise NotReached("nothing may be fetched from the upstreams at this hour", place=path, hint="try later")

    # In threads

    def _fetch_kept(self, named: Named, *, is_trusted: bool) -> bytes | None:
        with Store.open(self._config.store, writable=False) as store:
            if is_document_here(store.storage, named.path, named.signed, is_trusted=is_trusted):
                return None
        self._refuse_by_hour(named.path)
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
                self._link([TargetLink(public.path, named.path)])
            except PacballError:
                # The disk is full, or gone: then the document itself is given, which has the same bytes.
                return replace(self._files.open(parse_public(named.path)), public=public)
        return self._files.open(public)

    def _link(self, links: Sequence[TargetLink]) -> None:
        with Store.open(self._config.store, writable=True) as store:
            store.storage.link(links)


def _in_memory(file: BinaryIO, length: int, digest: Digest, public: PublicFile) -> OpenFile:
    return OpenFile(file, length, f'"b3-{digest.hex}"', public)


def _number(path: str) -> int:
    """The number of the placement at `path`, which `parse_public` took."""
    return int(path.rpartition(".")[2])
