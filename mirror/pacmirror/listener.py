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
        self._parting: set[asyncio.Transport] = set()

    def make_protocol(self) -> asyncio.Protocol:
        """The protocol of a new connection."""
        return _Connection(self)

    def enter(self, peer: str) -> tuple[asyncio.Protocol | None, bytes]:
        """What is to speak with the address `peer`; or None, and the answer that it gets."""
        key = counted_as(peer, self._trusted)
        if self._traffic.open_connections >= self._limits.connections:
            self._traffic.refused_connections["all"] += 1
            return None, _BUSY % b"503 Service Unavailable"
        if key and self._of_address[key] >= self._limits.connections_per_address:
            self._traffic.refused_connections["address"] += 1
            return None, _BUSY % b"429 Too Many Requests"
        self._traffic.open_connections += 1
        if key:
            self._of_address[key] += 1
        return self._make_inner(), b""

    def leave(self, peer: str) -> None:
        """A connection that was let in has ended."""
        self._traffic.open_connections -= 1
        key = counted_as(peer, self._trusted)
        if key:
            self._of_address[key] -= 1
            if not self._of_address[key]:
                del self._of_address[key]

    def refuse(self, transport: asyncio.Transport, answer: bytes) -> None:
        """Send `answer` and close, but a moment later, if not too many are waited for.

        What the client has sent meanwhile would make the system throw the answer away.
        """
        transport.write(answer)
        if len(self._parting) >= _PARTING:
            transport.close()
            return
        transport.write_eof()
        self._parting.add(transport)
        asyncio.get_running_loop().call_later(_PARTING_SECONDS, transport.close)

    def part(self, transport: asyncio.Transport) -> None:
        """A connection that was refused has ended."""
        self._parting.discard(transport)

    def close(self) -> None:
        """Close what was refused, at once."""
        for transport in tuple(self._parting):
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
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("peername")
        self._peer = str(peer[0]) if isinstance(peer, tuple) else ""
        inner, refusal = self._gate.enter(self._peer)
        if inner is None:
            if isinstance(transport, asyncio.Transport):
                self._transport = transport
                self._gate.refuse(transport, refusal)
            return
        self._inner = inner
        inner.connection_made(transport)

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
        if self._inner is not None:
            self._gate.leave(self._peer)
            self._inner.connection_lost(exc)
            self._inner = None
        elif self._transport is not None:
            self._gate.part(self._transport)
