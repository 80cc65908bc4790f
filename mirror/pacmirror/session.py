"""Session: connections to one base URL, with what is between here and there: proxies, authorities, tokens, dead lines."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING
from weakref import WeakSet

import aiohttp

from pacmirror.resolver import Resolver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from aiohappyeyeballs import AddrInfoType

    from pacmirror.limits import ClientLimits
    from pacmirror.surroundings import Access

_FAREWELL_TURNS = 5


@contextlib.asynccontextmanager
async def open_session(
    access: Access, limits: ClientLimits, *, headers: Mapping[str, str], throttled: bool
) -> AsyncIterator[aiohttp.ClientSession]:
    """A session that keeps no cookies and decodes nothing. `throttled`: little is taken in before it is read.

    Its token, if there is one, goes with every request: it is for one base URL.
    """
    sockets = _Sockets(limits, throttled=throttled)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=limits.connect_seconds, sock_read=limits.stall_seconds)
    connector = aiohttp.TCPConnector(
        limit=limits.parallel + 4, resolver=Resolver(), ssl=access.context or True, socket_factory=sockets.make
    )
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Accept-Encoding": "identity", **headers, **access.headers},
        timeout=timeout,
        auto_decompress=False,
        proxy=access.route.proxy,
        read_bufsize=limits.throttled_buffer_bytes if throttled else limits.read_buffer_bytes,
    ) as session:
        yield session
    await sockets.end()


class _Sockets:
    def __init__(self, limits: ClientLimits, *, throttled: bool) -> None:
        self._limits = limits
        self._throttled = throttled
        self._made: WeakSet[socket.socket] = WeakSet()

    def make(self, address: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, _ = address
        made = socket.socket(family, kind, protocol)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # A request on a kept connection over a line that is dead by now takes no longer to fail than a new connection.
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self._limits.connect_seconds * 1000))
        if self._throttled:
            # It takes in little before it is read: what the kernel has received is beyond our limit on the rate.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._limits.throttled_buffer_bytes)
        self._made.add(made)
        return made

    async def end(self) -> None:
        """A connection that was closed politely waits for the other side's farewell of TLS, session or not: not here."""
        for _ in range(_FAREWELL_TURNS):
            await asyncio.sleep(0)  # closed transports give back their sockets in the next turns of the loop
            for left in [one for one in self._made if one.fileno() >= 0]:
                with contextlib.suppress(OSError):
                    left.shutdown(socket.SHUT_RDWR)
