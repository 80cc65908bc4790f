"""Sends a part of a file as an answer's body: by sendfile, and with a deadline for readers that stop reading.

aiohttp's own FileResponse makes entity tags of times, prefers `.gz` files beside the one asked for, says 404 for most errors
and waits for ever for a stuck reader; so the file is opened and described by us, and sent here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import TYPE_CHECKING, BinaryIO

from aiohttp import web

from pacmirror.request_keys import add_sent
from pacstore.errors import PacballError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pacmirror.limits import ServerLimits

_log = logging.getLogger(__name__)
_PIECES = 4
"""Times the bytes of the limit that are sent at once to who took so many in `_QUICK_SHARE` of the seconds of the limit."""
_QUICK_SHARE = 1 / 64


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
def cutting(request: web.Request) -> Iterator[None]:
    """If the body cannot be completed, the connection is cut.

    Once a header with a length is out, nothing may follow it but these bytes, no error message either.
    """
    try:
        yield
    except (OSError, RuntimeError, EOFError, PacballError) as error:
        gone = isinstance(error, ConnectionError | TimeoutError | PacballError)
        _log.log(logging.INFO if gone else logging.ERROR, "%s was not sent to its end: %r", request.path, error)
        if request.transport is not None:
            request.transport.abort()


async def send_bytes(request: web.Request, file: BinaryIO, offset: int, end: int, limits: ServerLimits) -> None:
    """Send the bytes of `file` from `offset` to `end`. Raises OSError or EOFError if that cannot be done in time."""
    loop = asyncio.get_running_loop()
    piece = limits.write_bytes
    with _corked(request.transport):
        while offset < end:
            if request.transport is None:
                raise ConnectionResetError("the client has gone")
            count, began = min(piece, end - offset), loop.time()
            async with asyncio.timeout(limits.write_seconds * (piece // limits.write_bytes)):
                sent = await loop.sendfile(request.transport, file, offset, count)
            add_sent(request, sent)
            if sent != count:
                raise EOFError("the file became shorter while it was sent")
            offset += count
            # Larger pieces cost less; who reads slowly is looked at as often as ever.
            is_quick = loop.time() - began < limits.write_seconds * _QUICK_SHARE
            piece = limits.write_bytes * (_PIECES if is_quick else 1)


@contextlib.contextmanager
def _corked(transport: asyncio.BaseTransport | None) -> Iterator[None]:
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
