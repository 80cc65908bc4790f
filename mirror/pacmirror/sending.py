"""Sends a part of a file as an answer's body: by sendfile, and with a deadline for readers that stop reading.

aiohttp's own FileResponse makes entity tags of times, prefers `.gz` files beside the one asked for, says 404 for most errors
and waits for ever for a stuck reader; so the file is opened and described by us, and sent here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from typing import TYPE_CHECKING, BinaryIO

from aiohttp import web

from pacmirror.request_keys import add_sent
from pacstore.errors import PacballError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pacmirror.limits import ServerLimits

_log = logging.getLogger(__name__)
_SHORTER = "the file became shorter while it was sent"
_QUICK_BYTES = 8 << 20
"""The most that is sent without a look at anybody else: two or three milliseconds, of what is in memory."""
_QUICK_SECONDS = 0.01


async def send_part(
    request: web.Request,
    response: web.StreamResponse,
    file: BinaryIO,
    *,
    offset: int,
    length: int,
    limits: ServerLimits,
) -> None:
    """Send `response`, with `length` bytes of `file` from `offset` unless this is a HEAD. What cannot be completed is cut off."""
    response.content_length = length
    with cutting(request):
        await response.prepare(request)
        if request.method != "HEAD":
            await send_bytes(request, file, offset, offset + length, limits)


@contextlib.contextmanager
def cutting(request: web.Request, failed: Callable[[PacballError], object] = lambda _: None) -> Iterator[None]:
    """If the body cannot be completed, the connection is cut; `failed` is told if that is a fault of what is sent.

    Once a header with a length is out, nothing may follow it but these bytes, no error message either.
    """
    try:
        yield
    except (OSError, RuntimeError, EOFError, PacballError) as error:
        gone = isinstance(error, ConnectionError | TimeoutError | PacballError)
        why = "the client has gone" if isinstance(error, ConnectionError) else repr(error)
        _log.log(logging.INFO if gone else logging.ERROR, "%s was not sent to its end: %s", request.path, why)
        if request.transport is not None:
            request.transport.abort()
        if isinstance(error, PacballError):
            failed(error)


async def send_bytes(request: web.Request, file: BinaryIO, offset: int, end: int, limits: ServerLimits) -> None:
    """Send the bytes of `file` from `offset` to `end`. Raises OSError or EOFError if that cannot be done in time."""
    clock, piece = asyncio.get_running_loop().time, _QUICK_BYTES
    with corked(request.transport):
        while offset < end:
            if request.transport is None or request.transport.is_closing():
                raise ConnectionResetError("the client has gone")
            began, wanted = clock(), min(piece, end - offset)
            sent = _send_at_once(request.transport, file, offset, wanted)
            # A slow disk keeps everybody else waiting, so it is asked for less.
            piece = _QUICK_BYTES if clock() - began < _QUICK_SECONDS else min(limits.write_bytes, _QUICK_BYTES)
            if sent == wanted:
                await asyncio.sleep(0)
            elif offset + sent < end:
                # Not tried at once again, for whatever little has room by then.
                sent += await _send_waiting(request.transport, file, offset + sent, end, limits)
            add_sent(request, sent)
            offset += sent


def _send_at_once(transport: asyncio.Transport, file: BinaryIO, offset: int, count: int) -> int:
    """Send as much as there is room for now, up to `count` bytes; how many. Waiting only where that must be costs much less."""
    found = transport.get_extra_info("socket")
    if found is None or transport.get_extra_info("sslcontext") is not None or transport.get_write_buffer_size():
        return 0
    try:
        sent = os.sendfile(found.fileno(), file.fileno(), offset, count)
    except ConnectionError:
        raise
    except OSError:
        # No room, or no file system for that: who waits finds out which, and has other means.
        return 0
    if not sent:
        raise EOFError(_SHORTER)
    return sent


async def _send_waiting(
    transport: asyncio.Transport, file: BinaryIO, offset: int, end: int, limits: ServerLimits
) -> int:
    """Send up to `write_bytes` in the time for that; how many."""
    count = min(limits.write_bytes, end - offset)
    async with asyncio.timeout(limits.write_seconds):
        sent = await asyncio.get_running_loop().sendfile(transport, file, offset, count)
    if sent != count:
        raise EOFError(_SHORTER)
    return sent


@contextlib.contextmanager
def corked(transport: asyncio.BaseTransport | None) -> Iterator[None]:
    """Let the kernel fill packets while a body is sent, which is a tenth of the cost; at the end the rest goes out at once."""
    found = transport.get_extra_info("socket") if transport is not None else None
    if found is None or found.family not in (socket.AF_INET, socket.AF_INET6) or not hasattr(socket, "TCP_CORK"):
        yield
        return
    try:
        with contextlib.suppress(OSError):
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        yield
    finally:
        with contextlib.suppress(OSError):
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
