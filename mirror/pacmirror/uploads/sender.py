"""Sender: requests to an origin that takes releases, bounded in time and attempts; what broke off goes on where it stopped.

Every refusal comes with the origin's own words. A proxy in front that takes only small bodies gets small pieces.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
from typing import TYPE_CHECKING, TypeVar

import aiohttp
from yarl import URL

from pacmirror.reasons import explain
from pacmirror.uploads.wire import COMPLETE_HEADER, IDS_TYPE, LENGTH_HEADER, OFFSET_HEADER, PIECE_TYPE
from pacmirror.verdict import TryLater
from pacstore.durable import wrapped
from pacstore.errors import Corrupt, NotFound, PacballError, Refused, TooLarge, Unavailable, printable
from pacstore.incoming.publication import StillMissing
from pacstore.limits import KIB, MIB
from pacstore.trust.proposals import Outdated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path

    from pacmirror.limits import ClientLimits

T = TypeVar("T")
_ERROR_BYTES = 64 * KIB
_BLOCK_BYTES = 256 * KIB
_PIECE_BYTES = 8 * MIB
_LEAST_PIECE_BYTES = 64 * KIB
_WORK_SECONDS = 600.0
_MOST_STRAYS = 60
"""How often in a row an upload may be elsewhere than was thought, as while another command sends the same."""
_KINDS: Mapping[str, type[PacballError]] = {
    "NotFound": NotFound,
    "Corrupt": Corrupt,
    "TooLarge": TooLarge,
    "Refused": Refused,
    "Untrusted": Refused,
    "NewerFormat": Refused,
    "StillMissing": StillMissing,
    "Outdated": Outdated,
}
_random = random.SystemRandom()


class NotThere(Unavailable):
    """The origin has another part of an upload than was thought: it is to be asked how much."""


class Sender:
    """Sends through one session, in one event loop."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str, limits: ClientLimits, *, proxy: str = "") -> None:
        self._session = session
        self._base = base_url
        self._limits = limits
        self._proxy = proxy
        self._piece_bytes = _PIECE_BYTES
        self.pieces = asyncio.Semaphore(limits.parallel)
        """How many uploads go on at once."""

    def limit(self, piece_bytes: int) -> None:
        """Send no larger pieces than the origin takes."""
        self._piece_bytes = max(min(self._piece_bytes, piece_bytes), 1)

    async def ask(self, method: str, path: str, *, data: bytes | None = None, kind: str = IDS_TYPE, most: int) -> bytes:
        """The body of the answer, at most `most` bytes; tried again where that may help, for as long as work goes on there.

        Raises what the origin says.
        """
        url = self._url(path)

        async def attempt() -> bytes:
            headers = {"Content-Type": kind} if data is not None else {}
            async with self._request(method, url, headers, data, length=len(data or b"")) as response:
                return await _body(response, most)

        return await self._persist(url, attempt, lambda: 0)

    async def upload(self, path: str, file: Path, sent: Callable[[int], None]) -> None:
        """Send `file` as the upload at `path`, from where it is; when this returns it was verified there.

        `sent` is told how many bytes more were acknowledged.
        """
        url = self._url(path)
        with wrapped(file):
            length = os.path.getsize(file)  # noqa: ASYNC240 - of a file that this process has just written
        offset: int | None = None
        told = 0

        async def attempt() -> None:
            nonlocal offset, told
            try:
                if offset is None:
                    offset = await self._look(url, length)
                while offset is not None and offset >= 0:
                    # What was there before counts as sent once: how much is left is what people want to know.
                    sent(max(offset - told, 0))
                    told = max(offset, told)
                    offset = await self._piece(url, file, offset, length)
            except (Unavailable, NotThere):
                offset = None
                raise

        async with self.pieces:
            await self._persist(url, attempt, lambda: told)
        sent(length - told)

    async def _look(self, url: URL, length: int) -> int:
        """How much of an upload is there, which is begun if it was not; -1 if the object is there."""
        try:
            async with self._request("HEAD", url, {}, None, length=0) as response:
                return _offset(response, length)
        except NotFound:
            headers = {LENGTH_HEADER: str(length), COMPLETE_HEADER: "?0", "Content-Length": "0"}
            async with self._request("POST", url, headers, None, length=0) as response:
                return _offset(response, length)

    async def _piece(self, url: URL, file: Path, offset: int, length: int) -> int:
        """Send the next piece; how much is there then, -1 if the object is."""
        count = min(self._piece_bytes, length - offset)
        is_last = offset + count == length
        headers = {
            OFFSET_HEADER: str(offset),
            COMPLETE_HEADER: "?1" if is_last else "?0",
            "Content-Type": PIECE_TYPE,
            "Content-Length": str(count),
        }
        try:
            body = _blocks(file, offset, count)
            async with self._request("PATCH", url, headers, body, length=count) as response:
                there = _offset(response, length)
        except NotFound as error:
            # Another command of this user has finished or cancelled it meanwhile.
            raise NotThere(error.message, place=error.place, hint=error.hint) from error
        except TooLarge as error:
            if count <= _LEAST_PIECE_BYTES or not isinstance(error, _OfProxy):
                raise
            self._piece_bytes = max(min(self._piece_bytes, count) // 4, _LEAST_PIECE_BYTES)
            raise NotThere(error.message, place=error.place) from error
        if 0 <= there <= offset:
            raise NotThere(f"has {there} bytes after those from {offset} on were sent", place=str(url))
        return there

    def _request(self, method: str, url: URL, headers: Mapping[str, str], data: object, *, length: int) -> _Request:
        return _Request(self._session, self._limits, self._proxy, method, url, headers, data, length)

    async def _persist(self, url: URL, attempt: Callable[[], Awaitable[T]], gained: Callable[[], int]) -> T:
        """Try again after what may pass, unless nothing was gained several times in a row."""
        failures, strays, working = 0, 0, 0.0
        loop = asyncio.get_running_loop()
        while True:
            before, began = gained(), loop.time()
            try:
                return await attempt()
            except Unavailable as error:
                pause = self._pause(strays if isinstance(error, NotThere) else failures, error)
                strays = strays + 1 if isinstance(error, NotThere) and gained() == before else 0
                if isinstance(error, _GoesOn) and working < _WORK_SECONDS:
                    working += pause + loop.time() - began
                elif not isinstance(error, NotThere) or strays > _MOST_STRAYS:
                    failures = failures + 1 if gained() == before else 0
                if failures >= self._limits.attempts:
                    hint = "; ".join(
                        filter(None, (error.hint, "run the same command again: it goes on where it stopped"))
                    )
                    raise Unavailable(f"{error.message}, {failures} times", place=str(url), hint=hint) from error
                await asyncio.sleep(pause)

    def _pause(self, number: int, error: Unavailable) -> float:
        if isinstance(error, NotThere):
            return min(0.02 * (1 << min(number, 6)), 1.0) * _random.uniform(0.5, 1.0)
        if isinstance(error, TryLater):
            return min(error.seconds, self._limits.retry_after_seconds)
        longest = min(self._limits.backoff_seconds * (1 << min(number, 20)), self._limits.backoff_max_seconds)
        return longest * _random.uniform(0.5, 1.0)

    def _url(self, path: str) -> URL:
        return URL(f"{self._base}/{path}", encoded=True)


class _GoesOn(TryLater):
    """The origin is at work on what was asked."""


class _OfProxy(TooLarge):
    """Something in front of the origin takes no such bodies."""


class _Request:
    """One request as a context that gives a good answer, or raises what a bad one says."""

    def __init__(
        self, session: aiohttp.ClientSession, limits: ClientLimits, proxy: str,
        method: str, url: URL, headers: Mapping[str, str], data: object, length: int,
    ) -> None:  # fmt: skip
        seconds = 2 * limits.answer_seconds + length / limits.min_bytes_per_second
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=limits.connect_seconds)
        self._answer = session.request(method, url, headers=headers, data=data, allow_redirects=False, timeout=timeout)
        self._url = url
        self._proxy = proxy

    async def __aenter__(self) -> aiohttp.ClientResponse:
        try:
            response = await self._answer.__aenter__()
            try:
                await _check(response, self._url)
            except BaseException:
                response.close()
                raise
        except (aiohttp.ClientError, OSError) as error:
            raise explain(error, place=str(self._url), proxy=self._proxy) from error
        return response

    async def __aexit__(self, kind: object, error: BaseException | None, _: object) -> None:
        await self._answer.__aexit__(None, None, None)
        if isinstance(error, aiohttp.ClientError | OSError):
            raise explain(error, place=str(self._url), proxy=self._proxy) from error


async def _check(response: aiohttp.ClientResponse, url: URL) -> None:
    status, place = response.status, str(url)
    if status < 300:
        return
    if status < 400:
        target = printable(response.headers.get("Location", "")[:200])
        raise Refused(f"redirects to '{target}', which is not followed", place=place, hint="give the final URL")
    said = await _said(response)
    message = f"{said.get('message') or 'answered'} (status {status})"
    hint, kind = said.get("hint", ""), said.get("error", "")
    if status == 409 and kind == "OutOfStep":
        raise NotThere(message, place=place, hint=hint)
    if status in (401, 403):
        raise Refused(message, place=place, hint=hint or "name the token that you got in [tokens] of config.toml")
    if status == 413 and not said:
        hint = "its operator allows larger bodies (nginx: client_max_body_size)"
        raise _OfProxy("the proxy in front takes no bodies of this size (status 413)", place=place, hint=hint)
    if status == 404 and not said and response.method != "HEAD":
        raise Refused("takes no releases (status 404)", place=place, hint="check the URL; it must be an origin's")
    if status >= 500 or status in (408, 425, 429):
        wait = response.headers.get("Retry-After", "")
        seconds = int(wait) if re.fullmatch(r"[0-9]{1,6}", wait) else 0
        if said and "goes on" in said.get("message", ""):
            raise _GoesOn(message, place=place, seconds=seconds)
        raise (
            TryLater(message, place=place, seconds=seconds) if seconds else Unavailable(message, place=place, hint=hint)
        )
    if status == 404:
        raise NotFound(message, place=place, hint=hint)
    raise _KINDS.get(kind, Refused)(message, place=place, hint=hint)


async def _said(response: aiohttp.ClientResponse) -> dict[str, str]:
    """The words of the origin; none where something else has answered."""
    try:
        value = json.loads(await _body(response, _ERROR_BYTES) or b"{}")
    except (ValueError, RecursionError, TooLarge, aiohttp.ClientError, OSError):
        return {}
    if not isinstance(value, dict):
        return {}
    return {
        key: printable(text[:1000]) for key, text in value.items() if isinstance(key, str) and isinstance(text, str)
    }


async def _body(response: aiohttp.ClientResponse, most: int) -> bytes:
    data = bytearray()
    async for piece in response.content.iter_any():
        data += piece
        if len(data) > most:
            raise TooLarge(f"sends more than the {most} bytes allowed", place=str(response.url))
    return bytes(data)


def _offset(response: aiohttp.ClientResponse, length: int) -> int:
    """How much is there, as an answer says; -1 if the object is. Raises Corrupt for what cannot be."""
    if response.headers.get(COMPLETE_HEADER) == "?1":
        return -1
    text = response.headers.get(OFFSET_HEADER, "")
    if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) > length:
        raise Corrupt("does not say how far the upload is", place=str(response.url), hint="is it an origin of pacball?")
    return int(text)


async def _blocks(file: Path, offset: int, length: int) -> AsyncIterator[bytes]:
    with wrapped(file):
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        end = offset + length
        while offset < end:
            block = await asyncio.to_thread(os.pread, descriptor, min(_BLOCK_BYTES, end - offset), offset)
            if not block:
                raise Corrupt("has become shorter", place=str(file))
            yield block
            offset += len(block)
    finally:
        os.close(descriptor)
