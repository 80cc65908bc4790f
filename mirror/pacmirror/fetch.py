"""Fetches a public file or a range of one over HTTP: strict about answers, bounded in time, in bytes and in attempts.

Nothing here believes a server more than HTTP requires; whether the bytes are the right ones is for the caller to verify.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import time
from typing import TYPE_CHECKING, NoReturn, TypeVar

import aiohttp

from pacmirror.peers import via_header
from pacmirror.reasons import explain
from pacmirror.verdict import CIRCLE_HINT, InCircle, TryLater
from pacstore.errors import Corrupt, NotFound, Refused, TooLarge, Unavailable, printable
from pacstore.source import PerhapsAbsent, Tail

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from yarl import URL

    from pacmirror.limits import ClientLimits
    from pacmirror.meter import Meter
    from pacmirror.part import Arrival
    from pacmirror.throttle import Throttle

T = TypeVar("T")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)\Z")
_PASSING = frozenset({408, 425, 429})
_GONE = frozenset({404, 410})
_FORBIDDEN = frozenset({401, 403, 407})
_WEB_PAGES = frozenset({"text/html", "application/xhtml+xml"})
_ANOTHER = "use another source, and tell the operator of this one"
_ASK = "ask its operator for access, and name the token that you get in config.toml; or use another source"
_TLS = "if its port speaks TLS, write https://; else use another source"
_LOGIN = "log in to this network in a browser, if it wants that"
_FINAL = f"give the final URL; or {_LOGIN}"
_OF_MIRRORS: dict[int, tuple[type[PerhapsAbsent], str, str]] = {
    504: (PerhapsAbsent, "does not get it from where it would", ""),
    508: (InCircle, "would have to ask mirrors that ask it", CIRCLE_HINT),
}
"""What a mirror says of what it does not hold; the rest of it may be had all the same."""
_random = random.SystemRandom()


class Fetcher:
    """Fetches in one event loop, through one session that follows no redirects and decodes nothing."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        limits: ClientLimits,
        meter: Meter,
        throttle: Throttle | None = None,
        *,
        proxy: str = "",
        alias: str = "",
    ) -> None:
        """`alias`: of the mirror that asks, if one does."""
        self._session = session
        self._limits = limits
        self._meter = meter
        self._throttle = throttle
        self._proxy = proxy
        self._alias = alias

    async def whole(self, url: URL, *, limit: int, fresh: bool, arrival: Arrival) -> bytes:
        """The file at `url`, at most `limit` bytes; `fresh` asks caches to look again. `arrival` is told what comes.

        What breaks off in the middle continues where it stopped, unless it is to be fresh. Raises NotFound, Corrupt,
        TooLarge, Refused, or, after all attempts, Unavailable.
        """
        data = bytearray()
        length = 0

        def take(piece: bytes) -> None:
            data.extend(piece)
            arrival.advance(len(piece))

        async def attempt() -> bytes:
            nonlocal length
            kept = len(data)
            try:
                if kept:
                    await self._part_once(url, kept, length - kept, take, arrival)
                else:
                    async with self._ask_whole(url, limit, fresh=fresh) as (response, deadline):
                        length = response.content_length or 0
                        await self._receive(response, limit, take, deadline, arrival)
            except Unavailable as error:
                worth = self._is_continued(error, len(data) - kept) and not fresh and length
                del data[len(data) if worth else kept :]
                raise
            return bytes(data)

        return await self._persist(url, attempt, lambda: len(data))

    async def part(self, url: URL, *, offset: int, length: int, arrival: Arrival) -> bytearray:
        """Exactly `length` bytes at `offset` of the file at `url`. Raises as `whole`; continues as it does."""
        if not 0 <= length <= self._limits.range_bytes or offset < 0:
            raise Refused(f"no range of {length} bytes at {offset} can be asked for", place=str(url))
        if length == 0:
            return bytearray()
        data = arrival.buffer = bytearray(length)
        here = 0

        def take(piece: bytes) -> None:
            nonlocal here
            data[here : here + len(piece)] = piece
            here += len(piece)
            arrival.filled = max(arrival.filled, here)
            arrival.advance(len(piece))

        async def attempt() -> bytearray:
            nonlocal here
            kept = here
            try:
                await self._part_once(url, offset + kept, length - kept, take, arrival)
            except Unavailable as error:
                here = here if self._is_continued(error, here - kept) else kept
                raise
            return data

        whole = await self._persist(url, attempt, lambda: here)
        arrival.buffer = None
        return whole

    async def tail(self, url: URL, *, length: int, arrival: Arrival) -> Tail:
        """The last `length` bytes of the file at `url`, or all of a shorter one, and its length. Raises as `whole`.

        A server that knows no such range but tells the length of the whole is asked once more, for the range.
        """
        data = bytearray()

        def take(piece: bytes) -> None:
            data.extend(piece)
            arrival.advance(len(piece))

        async def attempt() -> Tail | int:
            data.clear()
            async with self._ask(url, {"Range": f"bytes=-{length}"}) as (response, deadline):
                whole = _check_tail(response, length)
                if response.status == 200 and whole > length:
                    return whole
                wanted = min(whole, length)
                self._extend(deadline, wanted)
                received = await self._receive(response, wanted, take, deadline, arrival)
                if received != wanted:
                    raise Unavailable(f"ended after {received} of {wanted} bytes", place=str(url))
            return Tail(whole, bytes(data))

        tail = await self._persist(url, attempt, lambda: 0)
        if isinstance(tail, Tail):
            return tail
        return Tail(tail, await self.part(url, offset=tail - length, length=length, arrival=arrival))

    def _is_continued(self, error: Unavailable, gained_bytes: int) -> bool:
        """Whether what has come so far is kept. A few bytes are not worth a request that is not the same as the first."""
        if isinstance(error.__cause__, TimeoutError) and not self._limits.continues_after_stall:
            return False
        return gained_bytes >= self._limits.continued_bytes

    async def _persist(self, url: URL, attempt: Callable[[], Awaitable[T]], gained: Callable[[], int]) -> T:
        """The result of the first attempt that is not Unavailable, with growing, jittered pauses between them.

        An attempt after which more is `gained` than before is none of those that are counted. aiohttp by itself asks once
        more where a connection ends without a single answer, as kept-alive ones may.
        """
        failures = before = 0
        while True:
            try:
                return await attempt()
            except Unavailable as error:
                failures = failures + 1 if gained() == before else 0
                before = gained()
                if failures >= self._limits.attempts:
                    if failures == 1:  # whoever asks counts, and knows what to do next
                        raise
                    hint = "; ".join(filter(None, (error.hint, "try again later, or another source")))
                    raise Unavailable(f"{error.message}, {failures} times", place=str(url), hint=hint) from error
                await asyncio.sleep(self._pause(max(failures - 1, 0), error))
                self._meter.add(retries=1)

    def _pause(self, number: int, error: Unavailable) -> float:
        if isinstance(error, TryLater):
            return min(error.seconds, self._limits.retry_after_seconds)
        longest = min(self._limits.backoff_seconds * (1 << number), self._limits.backoff_max_seconds)
        return longest * _random.uniform(0.5, 1.0)

    @contextlib.asynccontextmanager
    async def _ask_whole(
        self, url: URL, limit: int, *, fresh: bool
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, asyncio.Timeout]]:
        headers = {"Cache-Control": "no-cache"} if fresh else {}
        async with self._ask(url, headers) as (response, deadline):
            if response.status != 200:
                raise Corrupt(f"answered {response.status} to a plain request", place=str(url), hint=_ANOTHER)
            length = _announced_length(response, limit)
            self._extend(deadline, limit if length is None else length)
            yield response, deadline

    async def _part_once(
        self, url: URL, offset: int, length: int, take: Callable[[bytes], None], arrival: Arrival
    ) -> None:
        headers = {"Range": f"bytes={offset}-{offset + length - 1}"}
        async with self._ask(url, headers) as (response, deadline):
            _check_part(response, offset, length)
            self._extend(deadline, length)
            received = await self._receive(response, length, take, deadline, arrival)
            if received != length:
                raise Unavailable(f"ended after {received} of {length} bytes", place=str(url))

    @contextlib.asynccontextmanager
    async def _ask(
        self, url: URL, headers: dict[str, str]
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, asyncio.Timeout]]:
        """A checked answer, and the deadline under which all of the request stands."""
        self._meter.add(requests=1)
        self._meter.begin()
        if self._alias:
            headers = {**headers, **via_header(self._alias)}
        try:
            async with (
                asyncio.timeout(self._limits.answer_seconds) as deadline,
                self._session.get(url, headers=headers, allow_redirects=False) as response,
            ):
                check_answer(response, url)
                yield response, deadline
        except (aiohttp.ClientError, OSError) as error:
            raise explain(error, place=str(url), proxy=self._proxy) from error
        finally:
            self._meter.end()

    def _extend(self, deadline: asyncio.Timeout, length: int) -> None:
        seconds = self._limits.answer_seconds + length / self._limits.min_bytes_per_second
        deadline.reschedule(asyncio.get_running_loop().time() + seconds)

    async def _receive(
        self,
        response: aiohttp.ClientResponse,
        limit: int,
        take: Callable[[bytes], None],
        deadline: asyncio.Timeout,
        arrival: Arrival,
    ) -> int:
        """Hand the body to `take` piece by piece; raises TooLarge before it would be more than `limit` bytes."""
        received = 0
        async for piece in response.content.iter_any():
            received += len(piece)
            self._meter.add(bytes_downloaded=len(piece))
            if received > limit:
                message = f"sends more than the {limit} bytes allowed"
                raise TooLarge(message, place=str(response.url), hint=_ANOTHER)
            take(piece)
            if self._throttle is not None:
                await self._hold(self._throttle.take(len(piece)), deadline, arrival)
        return received

    async def _hold(self, seconds: float, deadline: asyncio.Timeout, arrival: Arrival) -> None:
        """Wait as our own limit on the rate demands, which is no fault of the server's."""
        when = deadline.when()
        if not seconds or when is None:
            return
        deadline.reschedule(when + seconds)
        arrival.held = True
        self._meter.end()
        try:
            await asyncio.sleep(seconds)
        finally:
            self._meter.begin()
            arrival.held, arrival.at = False, time.monotonic()


def check_answer(response: aiohttp.ClientResponse, url: URL) -> None:
    """Raise unless the status is a success and the body is sent plainly."""
    if response.status >= 300:
        _refuse_status(response, url)
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.strip().lower() not in ("", "identity"):
        message = f"was sent with the Content-Encoding {printable(encoding[:40])}"
        raise Corrupt(message, place=str(url), hint=_ANOTHER)
    if response.content_type in _WEB_PAGES:
        message = "answered with a web page; is this the base URL of a pacball store?"
        raise Corrupt(message, place=str(url), hint=f"check the URL; or {_LOGIN}")


def _refuse_status(response: aiohttp.ClientResponse, url: URL) -> NoReturn:
    status, place = response.status, str(url)
    if status in _GONE:
        raise NotFound(f"is not there (status {status})", place=place, hint="use another source")
    if status < 400:
        target = printable(response.headers.get("Location", "")[:200])
        raise Refused(f"redirects to '{target}', which is not followed", place=place, hint=_FINAL)
    if status == 416:
        raise Corrupt("is shorter than the range asked for", place=place, hint=_ANOTHER)
    if status in _OF_MIRRORS:
        kind, message, hint = _OF_MIRRORS[status]
        raise kind(f"{message} (status {status})", place=place, hint=hint)
    if status == 511:
        raise Refused("this network wants a login first (status 511)", place=place, hint=_LOGIN)
    if status in _FORBIDDEN:
        raise Refused(f"denies access (status {status})", place=place, hint=_ASK)
    if status == 400 and url.scheme == "http":
        raise Refused("refused the request with status 400", place=place, hint=_TLS)
    if status < 500 and status not in _PASSING:
        raise Refused(f"refused the request with status {status}", place=place, hint=_ASK)
    wait = response.headers.get("Retry-After", "")
    if re.fullmatch(r"[0-9]{1,9}", wait):
        raise TryLater(f"answered with status {status}", place=place, seconds=int(wait))
    raise Unavailable(f"answered with status {status}", place=place)


def _announced_length(response: aiohttp.ClientResponse, limit: int) -> int | None:
    """The length of the whole body, or None if it comes in chunks, which have an end of their own."""
    length, place = response.content_length, str(response.url)
    if length is not None and length > limit:
        raise TooLarge(f"has {length} bytes; at most {limit} are allowed", place=place, hint=_ANOTHER)
    if length is None and "Transfer-Encoding" not in response.headers:
        message = "does not say how long it is, so its end could not be told from a lost connection"
        raise Corrupt(message, place=place, hint=_ANOTHER)
    return length


def _check_part(response: aiohttp.ClientResponse, offset: int, length: int) -> None:
    """Raise Corrupt unless the body to come is exactly the range that was asked for."""
    place = str(response.url)
    announced = response.content_length
    if response.status == 200:
        if offset or announced != length:
            raise Corrupt(
                "the server ignores ranges", place=place, hint="serve the store with a server that knows them"
            )
        return
    match = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    if response.status != 206 or not match or (int(match[1]), int(match[2])) != (offset, offset + length - 1):
        message = f"answered with another range than the {length} bytes at {offset} asked for"
        raise Corrupt(message, place=place, hint=_ANOTHER)
    if announced is not None and announced != length:
        raise Corrupt(f"announces {announced} bytes for a range of {length}", place=place, hint=_ANOTHER)


def _check_tail(response: aiohttp.ClientResponse, length: int) -> int:
    """The length of the whole file. Raises Corrupt unless the body to come is that, or exactly its last `length` bytes."""
    place = str(response.url)
    announced = response.content_length
    if response.status == 200:
        if announced is None:
            raise Corrupt("does not say how long it is", place=place, hint=_ANOTHER)
        return announced
    match = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    if response.status == 206 and match and match[3] != "*":
        whole = int(match[3])
        first = max(whole - length, 0)
        if (int(match[1]), int(match[2])) == (first, whole - 1) and announced in (None, whole - first):
            return whole
    raise Corrupt(f"answered with another range than the last {length} bytes asked for", place=place, hint=_ANOTHER)
