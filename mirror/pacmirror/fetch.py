"""Fetches a public file or a range of one over HTTP: strict about answers, bounded in time, in bytes and in attempts.

Nothing here believes a server more than HTTP requires; whether the bytes are the right ones is for the caller to verify.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING, NoReturn, TypeVar

import aiohttp

from pacstore.errors import Corrupt, NotFound, Refused, TooLarge, Unavailable, printable
from pacstore.source import Traffic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from yarl import URL

    from pacmirror.limits import ClientLimits

T = TypeVar("T")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/(?:[0-9]{1,18}|\*)\Z")
_PASSING = frozenset({408, 425, 429})
_GONE = frozenset({404, 410})
_FORBIDDEN = frozenset({401, 403, 407})
_WEB_PAGES = frozenset({"text/html", "application/xhtml+xml"})
_ANOTHER = "use another source, and tell the operator of this one"
_ASK = "ask its operator for access, or use another source"
_random = random.SystemRandom()


class Meter:
    """Counts traffic; the loop's thread writes, any thread reads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._traffic = Traffic()

    def add(self, *, bytes_downloaded: int = 0, requests: int = 0, retries: int = 0) -> None:
        """Add to the counters."""
        with self._lock:
            self._traffic.bytes_downloaded += bytes_downloaded
            self._traffic.requests += requests
            self._traffic.retries += retries

    def read(self) -> Traffic:
        """The counters as they are now."""
        with self._lock:
            return replace(self._traffic)


class _TryLater(Unavailable):
    """The server asks for a pause of `seconds`."""

    def __init__(self, message: str, *, place: str, seconds: float) -> None:
        super().__init__(message, place=place)
        self.seconds = seconds


class Fetcher:
    """Fetches in one event loop, through one session that follows no redirects and decodes nothing."""

    def __init__(self, session: aiohttp.ClientSession, limits: ClientLimits, meter: Meter) -> None:
        self._session = session
        self._limits = limits
        self._meter = meter

    async def whole(self, url: URL, *, limit: int, fresh: bool) -> bytes:
        """The file at `url`, at most `limit` bytes; `fresh` asks caches to look again.

        Raises NotFound, Corrupt, TooLarge, Refused, or, after all attempts, Unavailable.
        """
        headers = {"Cache-Control": "no-cache"} if fresh else {}
        return await self._persist(url, lambda: self._whole_once(url, limit, headers))

    async def part(self, url: URL, *, offset: int, length: int) -> bytearray:
        """Exactly `length` bytes at `offset` of the file at `url`. Raises as `whole`."""
        if not 0 <= length <= self._limits.range_bytes or offset < 0:
            raise Refused(f"no range of {length} bytes at {offset} can be asked for", place=str(url))
        if length == 0:
            return bytearray()
        return await self._persist(url, lambda: self._part_once(url, offset, length))

    async def _persist(self, url: URL, attempt: Callable[[], Awaitable[T]]) -> T:
        """The result of the first attempt that is not Unavailable, with growing, jittered pauses between them.

        aiohttp by itself asks once more where a connection ends without a single answer, as kept-alive ones may.
        """
        for number in range(self._limits.attempts):
            try:
                return await attempt()
            except Unavailable as error:
                if number + 1 == self._limits.attempts:
                    raise Unavailable(
                        f"{error.message}, {number + 1} times",
                        place=str(url),
                        hint="try again later, or another source",
                    ) from error
                await asyncio.sleep(self._pause(number, error))
                self._meter.add(retries=1)
        raise Unavailable("no attempt is allowed", place=str(url))

    def _pause(self, number: int, error: Unavailable) -> float:
        if isinstance(error, _TryLater):
            return min(error.seconds, self._limits.retry_after_seconds)
        longest = min(self._limits.backoff_seconds * (1 << number), self._limits.backoff_max_seconds)
        return longest * _random.uniform(0.5, 1.0)

    async def _whole_once(self, url: URL, limit: int, headers: dict[str, str]) -> bytes:
        async with self._ask(url, headers) as (response, deadline):
            if response.status != 200:
                raise Corrupt(f"answered {response.status} to a plain request", place=str(url), hint=_ANOTHER)
            length = _announced_length(response, limit)
            self._extend(deadline, limit if length is None else length)
            data = bytearray()
            await self._receive(response, limit, data.extend)
            return bytes(data)

    async def _part_once(self, url: URL, offset: int, length: int) -> bytearray:
        headers = {"Range": f"bytes={offset}-{offset + length - 1}"}
        async with self._ask(url, headers) as (response, deadline):
            _check_part(response, offset, length)
            self._extend(deadline, length)
            data = bytearray(length)
            at = 0

            def place(piece: bytes) -> None:
                nonlocal at
                data[at : at + len(piece)] = piece
                at += len(piece)

            await self._receive(response, length, place)
            if at != length:
                raise Unavailable(f"ended after {at} of {length} bytes", place=str(url))
            return data

    @contextlib.asynccontextmanager
    async def _ask(
        self, url: URL, headers: dict[str, str]
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, asyncio.Timeout]]:
        """A checked answer, and the deadline under which all of the request stands."""
        self._meter.add(requests=1)
        try:
            async with (
                asyncio.timeout(self._limits.answer_seconds) as deadline,
                self._session.get(url, headers=headers, allow_redirects=False) as response,
            ):
                _check_answer(response, url)
                yield response, deadline
        except TimeoutError as error:
            raise Unavailable("answered too slowly", place=str(url)) from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(_reason(error), place=str(url)) from error

    def _extend(self, deadline: asyncio.Timeout, length: int) -> None:
        seconds = self._limits.answer_seconds + length / self._limits.min_bytes_per_second
        deadline.reschedule(asyncio.get_running_loop().time() + seconds)

    async def _receive(self, response: aiohttp.ClientResponse, limit: int, take: Callable[[bytes], None]) -> None:
        """Hand the body to `take` piece by piece; raises TooLarge before it would be more than `limit` bytes."""
        received = 0
        try:
            async for piece in response.content.iter_any():
                received += len(piece)
                if received > limit:
                    message = f"sends more than the {limit} bytes allowed"
                    raise TooLarge(message, place=str(response.url), hint=_ANOTHER)
                take(piece)
        finally:
            self._meter.add(bytes_downloaded=received)


def _check_answer(response: aiohttp.ClientResponse, url: URL) -> None:
    """Raise unless the status is a success and the body is sent plainly."""
    if response.status >= 300:
        _refuse_status(response, url)
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.strip().lower() not in ("", "identity"):
        message = f"was sent with the Content-Encoding {printable(encoding[:40])}"
        raise Corrupt(message, place=str(url), hint=_ANOTHER)
    if response.content_type in _WEB_PAGES:
        message = "answered with a web page; is this the base URL of a pacball store?"
        raise Corrupt(message, place=str(url), hint="check the URL, or use another source")


def _refuse_status(response: aiohttp.ClientResponse, url: URL) -> NoReturn:
    status, place = response.status, str(url)
    if status in _GONE:
        raise NotFound(f"is not there (status {status})", place=place, hint="use another source")
    if status < 400:
        target = printable(response.headers.get("Location", "")[:200])
        raise Refused(f"redirects to '{target}', which is not followed", place=place, hint="give the final URL")
    if status == 416:
        raise Corrupt("is shorter than the range asked for", place=place, hint=_ANOTHER)
    if status in _FORBIDDEN:
        raise Refused(f"denies access (status {status})", place=place, hint=_ASK)
    if status < 500 and status not in _PASSING:
        raise Refused(f"refused the request with status {status}", place=place, hint=_ASK)
    wait = response.headers.get("Retry-After", "")
    if re.fullmatch(r"[0-9]{1,9}", wait):
        raise _TryLater(f"answered with status {status}", place=place, seconds=int(wait))
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


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return "shows no certificate that is trusted here (SSL_CERT_FILE names others)"
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno or 0
        return f"cannot be connected to: {os.strerror(number) if number > 0 else printable(str(error.os_error))}"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the connection ended before the body did"
    if isinstance(error, aiohttp.ServerDisconnectedError | OSError):
        return "the connection was lost"
    return f"did not answer in HTTP ({type(error).__name__})"
