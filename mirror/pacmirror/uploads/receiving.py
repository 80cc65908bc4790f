"""Receiving: one piece of an upload, written down as it comes, and acknowledged when it is durable.

Whatever ends a piece (its end, a broken line, silence, another request that asks how far the upload is), what has come of it
until then counts: nothing that was received is asked for again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiofiles
from aiohttp import ClientError
from aiohttp.http_exceptions import HttpProcessingError

from pacmirror.threads import start_thread
from pacstore.durable import unavailable
from pacstore.errors import TooLarge, Unavailable

if TYPE_CHECKING:
    from aiofiles.threadpool.binary import AsyncFileIO
    from aiohttp import StreamReader

    from pacmirror.limits import UploadLimits
    from pacstore.incoming.spool import Upload, UploadSpool

_THREAD = "pacball-upload"


class Interrupted(Unavailable):
    """The client has gone, is silent, or asks anew: what came is acknowledged, and the rest is to be sent."""


class Piece:
    """A piece that is being received. `interrupt` ends it at once, for whoever wants to know how far the upload is."""

    def __init__(self, spool: UploadSpool, upload: Upload, limits: UploadLimits) -> None:
        self._spool = spool
        self._limits = limits
        self._interrupted = False
        self._stall: asyncio.Timeout | None = None
        self.upload = upload
        """As far as it is acknowledged."""

    def interrupt(self) -> None:
        """End it as if the line had broken."""
        self._interrupted = True
        if self._stall is not None:
            self._stall.reschedule(0)

    async def receive(self, content: StreamReader, *, most: int) -> Upload:
        """Write down what `content` brings, at most `most` bytes; the upload after that.

        Raises TooLarge for more, Interrupted for a piece that ended too early, and Unavailable where the disk fails. In each case
        `upload` says what is acknowledged.
        """
        begin = self.upload.offset
        try:
            async with aiofiles.open(self.upload.path, "r+b", buffering=0) as file:
                await file.seek(begin)
                received, fault = await self._write(file, content, most)
        except OSError as error:
            raise unavailable(error, self.upload.path) from error
        if received:
            upload = self.upload
            work = start_thread(lambda: self._spool.acknowledge(upload, begin + received), name=_THREAD)
            self.upload = await asyncio.shield(work)
        if fault is not None:
            raise fault
        return self.upload

    async def _write(
        self, file: AsyncFileIO, content: StreamReader, most: int
    ) -> tuple[int, Unavailable | TooLarge | None]:
        """How many bytes were written, and why it were not more."""
        end = asyncio.get_running_loop().time() + self._limits.stall_seconds + most / self._limits.min_bytes_per_second
        written, kept = 0, bytearray()
        fault: Unavailable | TooLarge | None = None
        while fault is None:
            data, fault = await self._next(content, end)
            if len(data) > most - written - len(kept):
                fault = TooLarge(f"sends more than the {most} bytes that are left", hint="send what was announced")
                data = b""
            kept += data
            if len(kept) >= self._limits.write_bytes or fault is not None or not data:
                await _write_all(file, kept)
                written += len(kept)
                kept.clear()
            if not data:
                break
        return written, fault

    async def _next(self, content: StreamReader, end: float) -> tuple[bytes, Unavailable | None]:
        """What comes next; nothing at the end, or where it fails."""
        until = min(asyncio.get_running_loop().time() + self._limits.stall_seconds, end)
        try:
            async with asyncio.timeout_at(0 if self._interrupted else until) as self._stall:
                # What is here already is read without a look at the time.
                return b"" if self._interrupted else await content.readany(), self._fault()
        except TimeoutError:
            reason = "another request asked how far it is" if self._interrupted else "nothing came for too long"
        except (ClientError, HttpProcessingError, OSError) as error:
            reason = f"the line broke: {type(error).__name__}"
        finally:
            self._stall = None
        return b"", _ended_early(reason)

    def _fault(self) -> Unavailable | None:
        return _ended_early("another request asked how far it is") if self._interrupted else None


def _ended_early(reason: str) -> Interrupted:
    return Interrupted(f"this piece has ended too early, since {reason}", hint="ask how far it is, and continue")


async def _write_all(file: AsyncFileIO, data: bytearray) -> None:
    left = memoryview(bytes(data))
    while left:
        left = left[await file.write(left) :]
