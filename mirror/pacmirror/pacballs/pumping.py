"""Pumping: a thread decodes frames and writes them to the client's socket itself, piece after piece, without a copy.

What it has decoded and not yet sent is one batch: the socket is the queue. The event loop only waits for its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import time
from threading import BoundedSemaphore, Event
from typing import TYPE_CHECKING

from pacmirror.request_keys import add_sent
from pacmirror.sending import corked, cutting
from pacmirror.threads import start_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aiohttp import web

    from pacmirror.limits import ServerLimits
    from pacstore.digest import Bytes
    from pacstore.errors import PacballError

_THREAD = "pacball-assembly"
_FLUSH_SECONDS = 0.01


async def send_batches(
    request: web.Request,
    response: web.StreamResponse,
    batches: Iterator[list[Bytes]],
    *,
    length: int,
    limits: ServerLimits,
    turns: BoundedSemaphore,
    rest: Callable[[], None],
    failed: Callable[[PacballError], object],
) -> None:
    """Send `response` with the `length` bytes of the `batches`, which are made in a thread. What cannot be completed is cut off.

    Raises what the first batch raises, before anything is sent; `failed` is told what is raised after that. `rest` is called
    while a slow reader is waited for.
    """
    pump = _Pump(batches, limits, turns, rest)
    first = await start_thread(pump.next_batch, name=_THREAD)
    response.content_length = length
    with cutting(request, failed):
        await response.prepare(request)
        await _flush(request, limits)
        transport = request.transport
        found = transport.get_extra_info("socket") if transport is not None else None
        if transport is None or found is None:
            raise ConnectionResetError("the client has gone")
        # The event loop closes its own descriptor when it likes, and the number may then be another file's.
        pump.take(socket.socket(fileno=os.dup(found.fileno())), transport.is_closing)
        try:
            with corked(transport):
                await start_thread(lambda: pump.run(first, length), name=_THREAD)
        finally:
            pump.stop.set()
            add_sent(request, pump.sent)


async def _flush(request: web.Request, limits: ServerLimits) -> None:
    """Wait until the header, and what went before it, has left the event loop's buffer."""
    async with asyncio.timeout(limits.write_seconds):
        while request.transport is not None and request.transport.get_write_buffer_size():  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(_FLUSH_SECONDS)


class _Pump:
    """One body on its way. `sent`: bytes of it that the kernel took."""

    def __init__(
        self,
        batches: Iterator[list[Bytes]],
        limits: ServerLimits,
        turns: BoundedSemaphore,
        rest: Callable[[], None],
    ) -> None:
        self.sent = 0
        self.stop = Event()
        self._batches = batches
        self._limits = limits
        self._turns = turns
        self._rest = rest
        self._socket: socket.socket | None = None
        self._is_gone: Callable[[], bool] = lambda: False

    def take(self, own: socket.socket, is_gone: Callable[[], bool]) -> None:
        """Send to this socket, which is closed at the end, unless the connection `is_gone`."""
        self._socket, self._is_gone = own, is_gone

    def next_batch(self) -> list[Bytes]:
        """The next pieces; none at the end."""
        with self._turns:
            return next(self._batches, [])

    def run(self, batch: list[Bytes], length: int) -> None:
        """Send everything. Raises OSError, EOFError or what the batches raise."""
        assert self._socket is not None
        with contextlib.closing(self._socket) as own:
            own.setblocking(False)
            poll = select.poll()
            poll.register(own, select.POLLOUT)
            while batch:
                self._send(own, poll, batch)
                batch = self.next_batch()
            if self.sent != length:
                raise EOFError("less was put together than was announced")

    def _send(self, own: socket.socket, poll: select.poll, batch: list[Bytes]) -> None:
        limits = self._limits
        parts = -(-sum(map(len, batch)) // limits.write_bytes)
        deadline = time.monotonic() + limits.write_seconds * parts
        while batch:
            if self.stop.is_set() or self._is_gone():
                raise ConnectionResetError("the client has gone, or the daemon stops")
            try:
                count = own.sendmsg(batch)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError("the client reads too slowly") from None
                if not poll.poll(limits.pacballs.tick_seconds * 1000):
                    self._rest()
                continue
            self.sent += count
            batch = _without(batch, count)


def _without(batch: list[Bytes], count: int) -> list[Bytes]:
    """What is left of the pieces when the first `count` bytes are gone."""
    for number, piece in enumerate(batch):
        if count < len(piece):
            return [memoryview(piece)[count:], *batch[number + 1 :]]
        count -= len(piece)
    return []
