"""Events: who listens at /v1/events is told at once when another catalog is served, or a release is complete or dropped.

Events only say that it is worth looking: nobody has to believe them. Who reads too slowly, or comes when there are too many,
is sent away, and finds out by looking now and then, as where there are no events at all.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from pacmirror.event_stream import KEEP_ALIVE, MEDIA_TYPE, Event, encode_data, encode_event, encode_retry
from pacmirror.listener import counted_as
from pacmirror.request_keys import add_sent, client_address
from pacmirror.service import Service
from pacstore.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prometheus_client.core import Metric

    from pacmirror.catalog import ServedCatalog
    from pacmirror.config import Network
    from pacmirror.limits import EventLimits
    from pacstore.release import Release

CATALOG = "catalog"
RELEASE = "release"
COMPLETE = "complete"
DROPPED = "dropped"
_HEADERS = {
    "Content-Type": f"{MEDIA_TYPE}; charset=utf-8",
    "Cache-Control": "no-store, no-transform",
    "X-Accel-Buffering": "no",  # nginx in front would keep events until they fill a buffer
}
_log = logging.getLogger(__name__)


class Events(Service):
    """The service `events`: whoever listens, and what they were told last. For use in one event loop.

    `trusted`: networks of proxies whose word about the client's address is believed.
    """

    def __init__(self, served: ServedCatalog, limits: EventLimits, *, trusted: Sequence[Network] = ()) -> None:
        self._served = served
        self._trusted = trusted
        self._limits = limits
        self._listeners: set[_Listener] = set()
        # Ids tell listeners of this run from those of one before, whose numbers mean nothing here.
        self._run = secrets.token_hex(4)
        self._count = 0
        self._past: deque[Event] = deque(maxlen=self._limits.remembered)
        self._version: int | None = None
        self._cut = 0
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()

    # What others use

    def announce_release(self, release: Release, *, complete: bool) -> None:
        """Tell all that a release is here whole from now on, or no more."""
        self._tell(RELEASE, {"release": str(release), "state": COMPLETE if complete else DROPPED})

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Send events until the client has gone, reads too slowly, or the daemon stops. Raises Unavailable for one too many."""
        if request.method == "HEAD":
            return web.Response(headers=_HEADERS)
        address = counted_as(client_address(request, self._trusted), self._trusted)
        self._refuse(address)
        response = web.StreamResponse(headers=_HEADERS)
        listener = _Listener(self._limits.queued, address)
        listener.put(encode_retry(self._limits.retry_seconds))
        for event in self._missed(request.headers.get("Last-Event-ID", "")):
            listener.put(encode_event(event))
        self._listeners.add(listener)
        self._wanted.set()
        try:
            await response.prepare(request)
            await self._send(request, response, listener)
        except (OSError, RuntimeError, TimeoutError):
            listener.is_cut = True
        finally:
            self._listeners.discard(listener)
        if listener.is_cut and request.transport is not None:
            request.transport.abort()  # what it has not read would be waited for
        return response

    # The service

    @property
    def name(self) -> str:
        """The section of /v1/status."""
        return "events"

    async def start(self) -> None:
        """Begin to look after what is served, while anybody listens."""
        self._served.when_changed(self._catalog)
        self._task = asyncio.create_task(self._keep_looking())

    def stop(self) -> None:
        """End all streams."""
        self._stopping = True
        if self._task is not None:
            self._task.cancel()
        for listener in self._listeners:
            listener.end()

    async def end(self) -> None:
        """Wait for the task."""
        self.stop()
        if self._task is not None:
            await asyncio.wait({self._task})

    def status(self) -> dict[str, object]:
        """How many listen."""
        return {"listeners": len(self._listeners), "sent": self._count, "cut": self._cut}

    def metrics(self) -> Iterable[Metric]:
        """The same as numbers."""
        yield GaugeMetricFamily("pacball_event_listeners", "Who listens for events now", len(self._listeners))
        yield CounterMetricFamily("pacball_events", "Events since the start", self._count)
        yield CounterMetricFamily("pacball_event_listeners_cut", "Listeners that read too slowly", self._cut)

    # How it works

    def _refuse(self, address: str) -> None:
        """Raise why nobody more of that address may listen."""
        limits, of_address = self._limits, sum(one.address == address for one in self._listeners)
        if self._stopping:
            why = "the server stops"
        elif len(self._listeners) >= limits.listeners:
            why = "too many listen already"
        elif address and of_address >= limits.listeners_per_address:
            why = "too many listen from this address already"
        else:
            return
        raise Unavailable(why, place="/v1/events", hint="look at /catalog/timestamp.json now and then instead")

    def _catalog(self, version: int) -> None:
        if version != self._version:
            self._version = version
            self._tell(CATALOG, {"version": version})

    def _tell(self, kind: str, fields: dict[str, object]) -> None:
        self._count += 1
        event = Event(kind, encode_data(fields), f"{self._run}-{self._count}")
        self._past.append(event)
        data = encode_event(event)
        for listener in list(self._listeners):
            if not listener.put(data):
                self._cut += 1
                self._listeners.discard(listener)

    def _missed(self, last_id: str) -> list[Event]:
        """What was told after the event of that id, if that is still known; otherwise which catalog is served now."""
        past = list(self._past)
        for at, event in enumerate(past):
            if event.id == last_id:
                return past[at + 1 :]
        if self._version is None:
            return []
        return [Event(CATALOG, encode_data({"version": self._version}), f"{self._run}-{self._count}")]

    async def _send(self, request: web.Request, response: web.StreamResponse, listener: _Listener) -> None:
        limits = self._limits
        while not listener.has_ended():
            data = await listener.next(limits.keep_alive_seconds) or KEEP_ALIVE
            async with asyncio.timeout(limits.write_seconds):
                await response.write(data)
            add_sent(request, len(data))

    async def _keep_looking(self) -> None:
        """Where others write the catalog, as publishers do at the origin, it must be looked at for them to be noticed."""
        while True:
            if not self._listeners:
                self._wanted.clear()
                await self._wanted.wait()
            try:
                await self._served.look()
            except Exception:  # noqa: BLE001 - it must go on
                _log.exception("looking at the catalog failed unexpectedly, and is tried again")
            await asyncio.sleep(self._limits.look_seconds)


class _Listener:
    """What the client at `address` is still to be sent, at most `limit` pieces."""

    def __init__(self, limit: int, address: str) -> None:
        self.address = address
        self.is_cut = False
        self._limit = limit
        self._queue: deque[bytes] = deque()
        self._something = asyncio.Event()
        self._is_over = False

    def put(self, data: bytes) -> bool:
        """Send it next; False if too much waits already: then it ends, cut off."""
        if len(self._queue) >= self._limit:
            self.is_cut = True
            self._queue.clear()
            self.end()
            return False
        self._queue.append(data)
        self._something.set()
        return True

    def end(self) -> None:
        """Nothing more comes."""
        self._is_over = True
        self._something.set()

    def has_ended(self) -> bool:
        """Whether there is nothing left to send, and nothing will come."""
        return self._is_over and not self._queue

    async def next(self, seconds: float) -> bytes:
        """What is to be sent next, all at once; nothing after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._something.wait()
        except TimeoutError:
            return b""
        data = b"".join(self._queue)
        self._queue.clear()
        if not self._is_over:
            self._something.clear()
        return data
