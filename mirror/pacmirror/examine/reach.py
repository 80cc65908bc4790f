"""Reach: the addresses of a source, or of the proxy before it, and which of them answer."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import time
from typing import TYPE_CHECKING

from pacmirror.reasons import connecting
from pacmirror.resolver import look_up
from pacmirror.threads import start_thread
from pacstore.finding import Finding, Level

if TYPE_CHECKING:
    from pacmirror.examine.examination import Examination

_MOST_ADDRESSES = 8
_CONNECT_SECONDS = 5.0


async def examine_names(one: Examination) -> list[Finding]:
    """Look up the host; fills `one.addresses`."""
    host, port = one.next_hop
    began = time.monotonic()
    try:
        found = await start_thread(lambda: look_up(host, port), name="pacball-resolver")
    except OSError as error:
        message, hint = connecting(error)
        whose = "the proxy" if one.access.route.proxy is not None else "the source"
        return [Finding("names", Level.FAIL, f"{whose} {host} {message}", hint)]
    seconds = time.monotonic() - began
    one.addresses = list(dict.fromkeys(address for _, _, address in found))
    values = {"host": host, "addresses": one.addresses, "seconds": round(seconds, 4)}
    slow = seconds > 1
    message = f"{host} is {', '.join(one.addresses[:_MOST_ADDRESSES])} ({_milliseconds(seconds)})"
    if one.addresses == [host]:
        message = f"{host} is an address; there is no name to look up"
    hint = "every new connection waits for the name servers: check /etc/resolv.conf" if slow else ""
    return [Finding("names", Level.WARN if slow else Level.OK, message, hint, values)]


async def examine_connections(one: Examination) -> list[Finding]:
    """Connect to each of the addresses, all at once."""
    port = one.next_hop[1]
    tried = await asyncio.gather(*(_connect(address, port) for address in one.addresses[:_MOST_ADDRESSES]))
    working = [finding for finding in tried if finding.level is Level.OK]
    if working or not tried:
        return list(tried)
    return [Finding(f.step, Level.FAIL, f.message, f.hint, f.values) for f in tried]


async def _connect(address: str, port: int) -> Finding:
    family = f"IPv{ipaddress.ip_address(address.partition('%')[0]).version}"
    values: dict[str, object] = {"address": address, "port": port, "family": family, "seconds": None}
    began = time.monotonic()
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(address, port)
    except TimeoutError:
        message, hint = f"does not answer within {_CONNECT_SECONDS:.0f} s", "a firewall may drop it: check the network"
    except OSError as error:
        message, hint = connecting(error)
    else:
        seconds = time.monotonic() - began
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        message = f"{address} port {port} answers in {_milliseconds(seconds)} ({family})"
        return Finding("connections", Level.OK, message, values={**values, "seconds": round(seconds, 4)})
    return Finding("connections", Level.WARN, f"{address} port {port} {message} ({family})", hint, values)


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
