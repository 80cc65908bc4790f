"""Answering: a pack, or a range of it, to one client while it is still being filled.

Nothing is said before the first frame is here, so that an upstream that fails is told as an error; then each frame follows as
it arrives. Whatever happens in the middle cuts the connection: no client takes a part for the whole.
"""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import TYPE_CHECKING, BinaryIO

from pacmirror.beginning import begin_answer
from pacmirror.request_keys import SERVED, add_sent
from pacmirror.sending import cutting, send_bytes
from pacmirror.verdict import NotReached
from pacstore.limits import KIB

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from aiohttp import web

    from pacmirror.cache.filler import Filler
    from pacmirror.cache.filling import Filling
    from pacmirror.files import PublicFile
    from pacmirror.limits import ServerLimits

_WRITE_BYTES = 64 * KIB


async def answer_filling(
    request: web.Request, public: PublicFile, filler: Filler, filling: Filling, *, limits: ServerLimits
) -> web.StreamResponse:
    """The answer, sent. Raises NotFound, NotReached or Corrupt if the first frame cannot be had."""
    size = filling.frames.pack_length
    answer, response = begin_answer(request, public, size=size, etag=f'"b3-{public.etag_id}"')
    if not answer.has_body:
        return response
    response.content_length = answer.length
    frames = filling.frames.covering(answer.offset, answer.length)
    if request.method == "GET" and frames:
        end = answer.offset + answer.length
        request[SERVED] = "partial" if filling.on_disk_until(answer.offset, end) == end else "fetched"
        filler.ask(filling, frames)
        await _wait(filler, filling, frames[0])
    with cutting(request):
        await response.prepare(request)
        if request.method == "GET":
            sender = _Sender(request, response, filler, filling, limits)
            await sender.send(answer.offset, answer.offset + answer.length)
    return response


async def _wait(filler: Filler, filling: Filling, number: int) -> None:
    try:
        async with asyncio.timeout(filler.limits.wait_seconds):
            await filler.wait(filling, number, urgent=True)
    except TimeoutError:
        message = "did not come from the upstreams in time"
        raise NotReached(message, place=filling.pack.hex, hint="try again, or another source") from None


class _Sender:
    def __init__(
        self, request: web.Request, response: web.StreamResponse, filler: Filler, filling: Filling, limits: ServerLimits
    ) -> None:
        self._request = request
        self._response = response
        self._filler = filler
        self._filling = filling
        self._limits = limits

    async def send(self, offset: int, end: int) -> None:
        """Send the bytes from `offset` to `end` of the pack as they come."""
        filling, most = self._filling, self._limits.write_bytes
        with self._open() as file:
            while offset < end:
                if file is not None and (until := filling.on_disk_until(offset, min(end, offset + most))) > offset:
                    await send_bytes(self._request, file, offset, until, self._limits)
                    self._filler.figures.disk_bytes += until - offset
                    offset = until
                elif filling.bytes_in_memory(offset, end):
                    offset += await self._write(offset, end)
                else:
                    await _wait(self._filler, filling, filling.frames.covering(offset, 1)[0])

    async def _write(self, offset: int, end: int) -> int:
        """Send some bytes from memory; how many. Only so many do so at once, since each keeps a frame until it is sent."""
        # Each of both has its time: slow readers in all places must not keep others waiting for ever.
        async with asyncio.timeout(self._limits.write_seconds):
            await self._filler.writers.acquire()
        try:
            async with asyncio.timeout(self._limits.write_seconds):
                piece = self._filling.bytes_in_memory(offset, end)
                for at in range(0, len(piece), _WRITE_BYTES):
                    await self._response.write(piece[at : at + _WRITE_BYTES])
        finally:
            self._filler.writers.release()
        add_sent(self._request, len(piece))
        self._filler.figures.memory_bytes += len(piece)
        return len(piece)

    def _open(self) -> AbstractContextManager[BinaryIO | None]:
        partial = self._filling.partial
        return nullcontext() if partial is None else partial.open_file()
