"""HttpSource: the public files of a store behind any web server, for synchronous callers."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import re
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Self

import aiohttp
from yarl import URL

from pacmirror.background import BackgroundLoop
from pacmirror.fetch import Fetcher, Meter
from pacmirror.limits import ClientLimits
from pacmirror.proxies import find_proxy
from pacstore.errors import Refused, Unavailable, printable
from pacstore.storage import STORE_MARKER, ObjectKind, object_path

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    from pacstore.digest import Bytes
    from pacstore.source import PackRange, Traffic

USER_AGENT = "pacball"
_PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*\Z")
_CHANGING = re.compile(r"holdings/|catalog/(?![0-9])")
_EXAMPLE = "write for example https://mirror.example.org/pacball"


class HttpSource:
    """A store at a base URL, as the protocol `pacstore.source.Source` demands.

    `http_proxy`, `https_proxy`, `no_proxy` and `SSL_CERT_FILE` are taken from the environment. Redirects, cookies and
    content encodings are refused. Any number of threads may use it; it owns one thread with an event loop, until `close`.
    """

    def __init__(self, base_url: str, *, limits: ClientLimits | None = None, user_agent: str = USER_AGENT) -> None:
        """Nothing is sent yet. Raises Refused if `base_url`, or the proxy for it, is not a plain http or https URL."""
        self._base = parse_base_url(base_url)
        self._limits = limits or ClientLimits()
        self._user_agent = user_agent
        self._meter = Meter()
        self._proxy = find_proxy(URL(self._base))
        self._loop = BackgroundLoop(self._session())

    @contextlib.asynccontextmanager
    async def _session(self) -> AsyncIterator[None]:
        limits = self._limits
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=limits.connect_seconds, sock_read=limits.stall_seconds)
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=limits.parallel + 4),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity", "User-Agent": self._user_agent},
            timeout=timeout,
            auto_decompress=False,
            proxy=self._proxy,
            read_bufsize=limits.read_buffer_bytes,
        ) as session:
            self._fetcher = Fetcher(session, limits, self._meter)
            yield
        await asyncio.sleep(0)  # closed transports give back their sockets in the next turn of the loop

    @property
    def name(self) -> str:
        """The base URL."""
        return self._base

    @property
    def traffic(self) -> Traffic:
        """The counters as they are now."""
        return self._meter.read()

    def read(self, path: str, *, limit: int) -> bytes:
        """The whole file at `path` below the base URL, at most `limit` bytes.

        Raises NotFound, Corrupt, TooLarge, Refused or Unavailable, as the protocol says.
        """
        fresh = path == STORE_MARKER or bool(_CHANGING.match(path))
        return self._loop.call(self._fetcher.whole(self._url(path), limit=limit, fresh=fresh))

    def ranges(self, wanted: Iterable[PackRange]) -> Iterator[tuple[PackRange, Bytes]]:
        """The bytes of each range in any order; fetching begins with the first `next`.

        At most `parallel` ranges are being fetched or wait to be taken. Raises as `read`.
        """
        mailbox: queue.SimpleQueue[tuple[PackRange, bytearray] | None] = queue.SimpleQueue()
        slots = asyncio.Semaphore(self._limits.parallel)
        job = self._loop.start(self._deliver(wanted, slots, mailbox.put))
        job.add_done_callback(lambda _: mailbox.put(None))
        try:
            while (item := mailbox.get()) is not None:
                self._loop.soon(slots.release)
                yield item
            job.result()
        except CancelledError as error:
            raise Unavailable("the source was closed", place=self.name) from error
        finally:
            job.cancel()

    async def _deliver(
        self,
        wanted: Iterable[PackRange],
        slots: asyncio.Semaphore,
        put: Callable[[tuple[PackRange, bytearray]], None],
    ) -> None:
        waiting = iter(wanted)

        async def work() -> None:
            for one in waiting:
                await slots.acquire()
                url = self._url(object_path(ObjectKind.PACK, one.pack))
                put((one, await self._fetcher.part(url, offset=one.offset, length=one.length)))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._limits.parallel):
                    group.create_task(work())
        except ExceptionGroup as group_of_errors:
            raise group_of_errors.exceptions[0] from None  # the others failed, or were cancelled, with it

    def _url(self, path: str) -> URL:
        if not _PATH.match(path):
            raise Refused("is no path of a pacball store", place=printable(path[:200]))
        return URL(f"{self._base}/{path}", encoded=True)

    def close(self) -> None:
        """Cancel what is under way, close the connections and end the thread. May be repeated."""
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def parse_base_url(text: str) -> str:
    """A base URL in its normal form, without a slash at the end. Raises Refused, which says what is wrong with it."""
    try:
        url = URL(text)
        port = url.port
    except ValueError:
        url, port = URL(), None
    if url.scheme not in ("http", "https") or not url.host or not port or not text.isprintable():
        raise Refused("is not an http or https URL", place=printable(text[:200]), hint=_EXAMPLE)
    if url.user is not None or url.password is not None:
        raise Refused("the base URL may not hold a user or password", place=str(url.origin()), hint=_EXAMPLE)
    if "?" in text or "#" in text:
        raise Refused("a base URL has no '?' or '#'", place=printable(text[:200]), hint=_EXAMPLE)
    return str(url).rstrip("/")
