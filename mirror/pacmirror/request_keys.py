"""What is known of a request beside what the client sent: who asked, its id, and how it was served."""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Sequence
from contextvars import ContextVar

from aiohttp import web

from pacmirror.config import Network

REQUEST_ID = web.RequestKey("REQUEST_ID", str)
SERVED = web.RequestKey("SERVED", str)
"""One word for logs and metrics, which a handler sets: `held` where nothing is said; of a mirror also `partial` for packs of
which a part is held, and `fetched` where an upstream was waited for. What it says of errors does not count."""
SENT = web.RequestKey("SENT", int)
"""Bytes of the body that went out; a handler that sends piece by piece counts them (`add_sent`)."""
REQUEST_ID_HEADER = "X-Request-Id"
request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request that is being answered, for log lines and error bodies; empty outside of requests."""
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=-]{3,127}\Z")
_HOPS = 20


def choose_request_id(given: Sequence[str]) -> str:
    """The id that the client, or a proxy in front, gave in its only X-Request-Id, if it is well-formed; otherwise a new one."""
    if len(given) == 1 and _ID.match(given[0]):
        return given[0]
    return secrets.token_hex(8)


def add_sent(request: web.BaseRequest, count_bytes: int) -> None:
    """Count bytes of the body that have gone out."""
    request[SENT] = request.get(SENT, 0) + count_bytes


def client_address(request: web.BaseRequest, trusted: Sequence[Network]) -> str:
    """The address of the client: of the connection, or what the trusted proxies in front say in X-Forwarded-For.

    Of its hops, the last that is no trusted proxy counts: those before it are words of strangers. "unknown" if that is no
    address: it must not count as the proxy, which may be allowed more.
    """
    remote = request.remote or ""
    # What could not be parsed has headers of another kind, and none of them.
    if "X-Forwarded-For" not in request.headers or not is_in(remote, trusted):
        return remote
    forwarded = ",".join(request.headers.getall("X-Forwarded-For")).split(",")
    for hop in reversed(forwarded[-_HOPS:]):
        try:
            remote = str(ipaddress.ip_address(hop.strip()))
        except ValueError:
            return "unknown"
        if not is_in(remote, trusted):
            break
    return remote


def is_in(address: str, networks: Sequence[Network]) -> bool:
    """Whether `address` is in one of the networks; an IPv4 address may be written as IPv6."""
    parsed = parse_peer(address)
    return parsed is not None and any(parsed in network for network in networks)


def parse_peer(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address of a peer; an IPv4 address that came in through an IPv6 socket is one of IPv4. None for what is none."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed
