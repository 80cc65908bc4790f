"""HttpSource: the public files of a store behind any web server, for synchronous callers."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Self

from yarl import URL

from pacmirror.background import BackgroundLoop
from pacmirror.base_url import parse_base_url
from pacmirror.dispatch import Dispatch
from pacmirror.fetch import Fetcher
from pacmirror.limits import ClientLimits, alone
from pacmirror.member import Member
from pacmirror.meter import Meter
from pacmirror.part import Arrival, Transfer
from pacmirror.session import open_session
from pacmirror.surroundings import Surroundings
from pacstore.errors import Refused, printable
from pacstore.storage import STORE_MARKER, ObjectKind, object_path

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping

    from pacmirror.throttle import Throttle
    from pacstore.digest import Bytes, Digest
    from pacstore.source import PackRange, SourceState, Tail, Traffic

USER_AGENT = "pacball"
_PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*(?:\?[A-Za-z0-9._=&-]*)?\Z")
_CHANGING = re.compile(r"holdings/|catalog/(?![0-9])|v1/")


class HttpSource:
    """A store at a base URL, as the protocol `pacstore.source.Source` demands.

    `surroundings` say what is in between: proxies, authorities, tokens; by default what the environment names. Redirects,
    cookies and content encodings are refused. Any number of threads may use it; it owns one thread with an event loop,
    until `close`.
    """

    def __init__(
        self,
        base_url: str,
        *,
        limits: ClientLimits | None = None,
        user_agent: str = USER_AGENT,
        throttle: Throttle | None = None,
        surroundings: Surroundings | None = None,
        headers: Mapping[str, str] | None = None,
        alias: str = "",
        name: str = "",
        locate: Callable[[str], URL] | None = None,
    ) -> None:
        """Nothing is sent yet. Raises Refused if `base_url` is no http or https URL, and as `Surroundings.access`.

        `throttle` limits the rate; sources may share one. `headers` are sent with each request.
        `alias`: of the mirror that asks, if one does (`pacmirror.peers`).
        `locate` is for storage with another layout than a store's: it gives the URL, of the same scheme, host and port as
        `base_url`, of the file that a store has at a path, or raises NotFound. `name`: for messages, in place of the base URL.
        """
        self._base = parse_base_url(base_url)
        self._name = name or self._base
        self._locate = locate or self._below
        self._origin = URL(self._base).origin()
        self._limits = limits or ClientLimits()
        self._headers = {"User-Agent": user_agent, **(headers or {})}
        self._alias = alias
        self._meter = Meter()
        self._throttle = throttle
        self._access = (surroundings or Surroundings()).access(self._base)
        self._member = Member(self, alone(self._limits.parallel), throttle)
        self._dispatch = Dispatch([self._member])
        self._loop = BackgroundLoop(self._session())

    @contextlib.asynccontextmanager
    async def _session(self) -> AsyncIterator[None]:
        throttled = self._throttle is not None
        async with open_session(self._access, self._limits, headers=self._headers, throttled=throttled) as session:
            proxy = self._access.route.proxy_name
            self._fetcher = Fetcher(session, self._limits, self._meter, self._throttle, proxy=proxy, alias=self._alias)
            yield

    @property
    def name(self) -> str:
        """The base URL, unless it was given another name."""
        return self._name

    @property
    def traffic(self) -> Traffic:
        """The counters as they are now."""
        return self._meter.read()

    def progress(self) -> tuple[int, float]:
        """Bytes received so far, and for how many seconds at least one request was under way."""
        return self._meter.progress()

    def states(self) -> tuple[SourceState, ...]:
        """How this source does."""
        return (self._member.state(),)

    def range_bytes(self) -> int:
        """About how long the next range should be, by how fast the line has been."""
        return self._dispatch.range_bytes

    def read(self, path: str, *, limit: int) -> bytes:
        """The whole file at `path` below the base URL, at most `limit` bytes.

        Raises NotFound, Corrupt, TooLarge, Refused or Unavailable, as the protocol says.
        """
        with self._member.judged():
            return self._loop.call(self._whole(path, limit, Arrival()))

    def ranges(self, wanted: Iterable[PackRange]) -> Iterator[tuple[PackRange, Bytes]]:
        """The bytes of each range in any order; fetching begins with the first `next`. Raises as `read`."""
        return self._dispatch.ranges(wanted)

    def start_range(self, wanted: PackRange) -> Transfer[Bytes]:
        """Begin to fetch a range. Raises Unavailable after `close`."""
        arrival = Arrival()
        return Transfer(self._loop.start(self._part(wanted, arrival)), arrival)

    def start_read(self, path: str, *, limit: int) -> Transfer[bytes]:
        """Begin to read a file. Raises Unavailable after `close`."""
        arrival = Arrival()
        return Transfer(self._loop.start(self._whole(path, limit, arrival)), arrival)

    def start_tail(self, pack: Digest, *, length: int) -> Transfer[Tail]:
        """Begin to read the end of a pack of unknown length. Raises Unavailable after `close`."""
        arrival = Arrival()
        return Transfer(self._loop.start(self._tail(pack, length, arrival)), arrival)

    # That a file is not there by what `locate` says is an answer of the transfer, as a server's would be.

    async def _part(self, wanted: PackRange, arrival: Arrival) -> Bytes:
        url = self._url(object_path(ObjectKind.PACK, wanted.pack))
        return await self._fetcher.part(url, offset=wanted.offset, length=wanted.length, arrival=arrival)

    async def _tail(self, pack: Digest, length: int, arrival: Arrival) -> Tail:
        url = self._url(object_path(ObjectKind.PACK, pack))
        return await self._fetcher.tail(url, length=length, arrival=arrival)

    async def _whole(self, path: str, limit: int, arrival: Arrival) -> bytes:
        fresh = path == STORE_MARKER or bool(_CHANGING.match(path))
        return await self._fetcher.whole(self._url(path), limit=limit, fresh=fresh, arrival=arrival)

    def _url(self, path: str) -> URL:
        if not _PATH.match(path):
            raise Refused("is no path of a pacball store", place=printable(path[:200]))
        url = self._locate(path)
        if url.origin() != self._origin:
            # What the session has for its base URL, such as a token, is for no other.
            raise Refused(f"is not below {self._base}", place=printable(str(url)[:200]))
        return url

    def _below(self, path: str) -> URL:
        return URL(f"{self._base}/{path}", encoded=True)

    def close(self) -> None:
        """Cancel what is under way, close the connections and end the thread. May be repeated."""
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
