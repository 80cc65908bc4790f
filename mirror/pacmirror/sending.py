"""Sends a part of a file as an answer's body: by sendfile, and with a deadline for readers that stop reading.

aiohttp's own FileResponse makes entity tags of times, prefers `.gz` files beside the one asked for, says 404 for most errors
and waits for ever for a stuck reader; so the file is opened and described by us, and sent here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, BinaryIO

from aiohttp import web

from pacmirror.request_keys import add_sent
from pacstore.errors import PacballError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pacmirror.limits import ServerLimits

_log = logging.getLogger(__name__)


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
    while offset < end:
        if request.transport is None:
            raise ConnectionResetError("the client has gone")
        count = min(limits.write_bytes, end - offset)
        async with asyncio.timeout(limits.write_seconds):
            sent = await loop.sendfile(request.transport, file, offset, count)
        add_sent(request, sent)
        if sent != count:
            raise EOFError("the file became shorter while it was sent")
        offset += count
