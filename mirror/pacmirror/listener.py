"""Connections: counted, in all and of each address, and refused beyond the limits before a byte of them is read.

This machine itself, where a proxy in front may be, and the trusted proxies elsewhere are not counted by address: behind one of
them are many clients.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pacmirror.request_keys import is_in, parse_peer

if TYPE_CHECKING:
    from pacmirror.config import Config, Network
    from pacmirror.traffic import Traffic

_BUSY = b"HTTP/1.1 %s\r\nRetry-After: 5\r\nCache-Control: no-store\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_PARTING = 100
_PARTING_SECONDS = 1.0
_END_SECONDS = 0.05
_IPV6_PREFIX = 64
"""A customer of a provider has that many addresses at least: they count as one."""


class Gate:
    """Lets connections in, and counts them. `make_inner` makes the protocol that speaks HTTP."""

    def __init__(self, config: Config, traffic: Traffic, make_inner: Callable[[], asyncio.Protocol]) -> None:
        self._limits = config.limits
        self._trusted = config.access.trusted_proxies
        self._traffic = traffic
        self._make_inner = make_inner
        self._of_address: Counter[str] = Counter()
        self._transports: set[asyncio.BaseTransport] = set()
        self._parting = 0
        self._ending = False

    def make_protocol(self) -> asyncio.Protocol:
        """The protocol of a new connection."""
        return _Connection(self)

    def enter(self, transport: asyncio.BaseTransport, peer: str) -> asyncio.Protocol | None:
        """What is to speak with the address `peer`; or None, if it was refused."""
        self._transports.add(transport)
        key = counted_as(peer, self._trusted)
        if self._ending:
            transport.close()
        elif self._traffic.open_connections >= self._limits.connections:
            self._refuse(transport, "all", _BUSY % b"503 Service Unavailable")
        elif key and self._of_address[key] >= self._limits.connections_per_address:
            self._refuse(transport, "address", _BUSY % b"429 Too Many Requests")
        else:
            self._traffic.open_connections += 1
            if key:
                self._of_address[key] += 1
            return self._make_inner()
        return None

    def leave(self, transport: asyncio.BaseTransport, peer: str, *, was_in: bool) -> None:
        """A connection has ended, which was let in or not."""
        self._transports.discard(transport)
        if not was_in:
            return
        self._traffic.open_connections -= 1
        key = counted_as(peer, self._trusted)
        if key:
            self._of_address[key] -= 1
            if not self._of_address[key]:
                del self._of_address[key]

    async def end(self) -> None:
        """Close all that is open still, such as what was accepted at the last moment, when others had been told to end."""
        self._ending = True
        for transport in tuple(self._transports):
            transport.close()
        await asyncio.sleep(_END_SECONDS)  # closed transports give back their sockets meanwhile

    def _refuse(self, transport: asyncio.BaseTransport, limit: str, answer: bytes) -> None:
        """Send `answer` and close, but a moment later, if not too many are waited for.

        What the client has sent meanwhile would make the system throw the answer away.
        """
        self._traffic.refused_connections[limit] += 1
        if isinstance(transport, asyncio.Transport):
            transport.write(answer)
        if self._parting >= _PARTING or not isinstance(transport, asyncio.Transport):
            transport.close()
            return
        transport.write_eof()
        self._parting += 1
        asyncio.get_running_loop().call_later(_PARTING_SECONDS, self._part, transport)

    def _part(self, transport: asyncio.BaseTransport) -> None:
        self._parting -= 1
        transport.close()


def counted_as(peer: str, trusted: Sequence[Network]) -> str:
    """What counts as one address with `peer`, for limits; empty for what is not counted: this machine, and trusted proxies."""
    address = parse_peer(peer)
    if address is None or address.is_loopback or is_in(peer, trusted):
        return ""
    if address.version == 6:
        return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))
    return str(address)


class _Connection(asyncio.Protocol):
    """Stands before the protocol that speaks HTTP, to be told of the connection's end."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._peer = ""
        self._inner: asyncio.Protocol | None = None
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("peername")
        self._peer = str(peer[0]) if isinstance(peer, tuple) else ""
        self._transport = transport
        self._inner = self._gate.enter(transport, self._peer)
        if self._inner is not None:
            self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._inner is not None else None

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        inner, self._inner = self._inner, None
        if self._transport is not None:
            self._gate.leave(self._transport, self._peer, was_in=inner is not None)
        if inner is not None:
            inner.connection_lost(exc)
