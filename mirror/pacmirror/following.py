"""Following: listens to the events of the upstreams, so that what is new there comes at once; without them, polling remains.

An event is only a reason to look: what an upstream says in it is not believed. A stream that is silent for longer than its
keep-alive is dead; another one is begun after a pause that grows, and differs by chance, so that mirrors do not come all at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from typing import TYPE_CHECKING

import aiohttp
from prometheus_client.core import GaugeMetricFamily
from yarl import URL

from pacmirror.base_url import parse_base_url
from pacmirror.event_stream import MEDIA_TYPE, EventReader, decode_data
from pacmirror.events import CATALOG
from pacmirror.reasons import explain
from pacmirror.resolver import Resolver
from pacmirror.service import Service
from pacstore.errors import Corrupt, NotFound, PacballError, Unavailable, printable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from prometheus_client.core import Metric

    from pacmirror.limits import EventLimits
    from pacmirror.surroundings import Surroundings

_ID_CHARACTERS = 200
EVENTS_PATH = "v1/events"
_log = logging.getLogger(__name__)
_random = random.SystemRandom()


class Following(Service):
    """The service `following` of a mirror. `heard` is called with the base URL of an upstream that may have something new.

    Raises Refused for a URL that is none, and as `Surroundings.access`.
    """

    def __init__(
        self,
        urls: Sequence[str],
        surroundings: Surroundings,
        heard: Callable[[str], None],
        *,
        user_agent: str,
        limits: EventLimits,
    ) -> None:
        self._limits = limits
        self._streams = [_Stream(parse_base_url(url), surroundings, heard, user_agent, self._limits) for url in urls]
        self._task: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """The section of /v1/status."""
        return "following"

    async def start(self) -> None:
        """Begin to listen."""
        self._task = asyncio.create_task(self._run())

    def stop(self) -> None:
        """Listen no more."""
        if self._task is not None:
            self._task.cancel()

    async def end(self) -> None:
        """Wait for the connections to be closed."""
        self.stop()
        if self._task is not None:
            await asyncio.wait({self._task})

    def status(self) -> dict[str, object]:
        """To whom this mirror listens, and whom it polls."""
        return {"upstreams": [stream.section() for stream in self._streams]}

    def metrics(self) -> Iterable[Metric]:
        """How many upstreams are listened to."""
        count = sum(stream.is_open for stream in self._streams)
        yield GaugeMetricFamily("pacball_followed_upstreams", "Upstreams whose events are listened to now", count)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for stream in self._streams:
                group.create_task(stream.run())


class _Stream:
    """The events of one upstream."""

    def __init__(
        self, base: str, surroundings: Surroundings, heard: Callable[[str], None], user_agent: str, limits: EventLimits
    ) -> None:
        self.is_open = False
        self._base = base
        self._access = surroundings.access(base)
        self._heard = heard
        self._user_agent = user_agent
        self._limits = limits
        self._has_none = False
        self._error = ""
        self._failures = 0
        self._events = 0
        self._last_id = ""
        self._last_at: float | None = None

    def section(self) -> dict[str, object]:
        """What /v1/status says of it."""
        age = None if self._last_at is None else round(time.monotonic() - self._last_at, 1)
        state = "listening" if self.is_open else "polling" if self._has_none else "connecting"
        return {
            "name": printable(self._base),
            "state": state,
            "events": self._events,
            "last_event_age_seconds": age,
            "error": self._error,
        }

    async def run(self) -> None:
        """Listen until cancelled."""
        while True:
            began = time.monotonic()
            try:
                await self._listen()
                self._ended("they ended")
            except (NotFound, Corrupt) as error:
                self._has_none = True
                self._ended(str(error))
            except PacballError as error:
                self._ended(str(error))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again
                _log.debug("listening to %s failed", self._base, exc_info=True)
                self._ended(f"unexpectedly: {error!r}")
            finally:
                self.is_open = False
            # One that held for long, and was cut, begins anew with short pauses.
            if time.monotonic() - began > self._limits.backoff_max_seconds:
                self._failures = 1
            await asyncio.sleep(self._pause())

    def _ended(self, reason: str) -> None:
        self._failures += 1
        # Each reason once: who is gone for days must not fill the log.
        if self.is_open or reason != self._error:
            now = "is polled" if self._has_none else "is polled until they come again"
            _log.info("%s sends no events, and %s: %s", printable(self._base), now, reason)
        self._error = reason

    def _pause(self) -> float:
        limits = self._limits
        pause = min(limits.backoff_seconds * 2.0 ** min(self._failures - 1, 30), limits.backoff_max_seconds)
        if self._has_none:
            pause = limits.no_events_seconds
        return pause * _random.uniform(0.5, 1.0)

    async def _listen(self) -> None:
        """Listen until the stream ends. Raises NotFound or Corrupt if there are no events there, else what is the matter."""
        url = URL(f"{self._base}/{EVENTS_PATH}", encoded=True)
        headers = {"Accept": MEDIA_TYPE, "Cache-Control": "no-store"}
        if self._last_id:
            headers["Last-Event-ID"] = self._last_id
        try:
            async with self._session() as session, self._open(session, url, headers) as response:
                _check_stream(response, url)
                await self._read(response, url)
        except (aiohttp.ClientError, OSError) as error:
            raise explain(error, place=str(url), proxy=self._access.route.proxy_name) from error

    def _session(self) -> aiohttp.ClientSession:
        limits = self._limits
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=1, resolver=Resolver(), ssl=self._access.context or True),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity", "User-Agent": self._user_agent, **self._access.headers},
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=limits.connect_seconds, sock_read=limits.silence_seconds
            ),
            auto_decompress=False,
            proxy=self._access.route.proxy,
        )

    @contextlib.asynccontextmanager
    async def _open(
        self, session: aiohttp.ClientSession, url: URL, headers: dict[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        async with asyncio.timeout(self._limits.silence_seconds) as deadline:
            async with session.get(url, headers=headers, allow_redirects=False) as response:
                deadline.reschedule(None)  # from here on, silence is what ends it
                yield response

    async def _read(self, response: aiohttp.ClientResponse, url: URL) -> None:
        limits, began, received = self._limits, time.monotonic(), 0
        reader = EventReader(limit=limits.event_characters)
        async for piece in response.content.iter_any():
            received += len(piece)
            if received > limits.stream_bytes + limits.stream_bytes_per_second * (time.monotonic() - began):
                raise Unavailable("sends more than events can need", place=str(url))
            self._has_something()
            try:
                for event in reader.feed(piece):
                    self._events += 1
                    self._last_id = event.id[:_ID_CHARACTERS] if event.id.isascii() and event.id.isprintable() else ""
                    self._last_at = time.monotonic()
                    if event.kind == CATALOG and decode_data(event):
                        self._heard(self._base)
            except Corrupt as error:
                raise Unavailable(error.message, place=str(url)) from error

    def _has_something(self) -> None:
        if not self.is_open:
            _log.info("the events of %s are listened to", printable(self._base))
        self.is_open, self._has_none, self._error = True, False, ""


def _check_stream(response: aiohttp.ClientResponse, url: URL) -> None:
    """Raise NotFound or Corrupt unless the answer is a stream of events; Unavailable for what may pass."""
    if response.status >= 500 or response.status == 429:
        raise Unavailable(f"answered with status {response.status}", place=str(url))
    if response.status != 200:
        raise NotFound(f"there are no events here (status {response.status})", place=str(url))
    if response.content_type != MEDIA_TYPE or response.headers.get("Content-Encoding", "identity") != "identity":
        raise Corrupt("there are no events here: this is something else", place=str(url))
