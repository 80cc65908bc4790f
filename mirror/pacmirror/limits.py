"""Bounds of the daemon and of the client: what a stranger can make long, many or slow."""

from __future__ import annotations

from dataclasses import dataclass

from pacstore.limits import KIB, MIB


@dataclass(frozen=True)
class ServerLimits:
    """Bounds of the daemon.

    `connections`: open at once; further ones are told 503 and closed (a burst may pass it by `backlog`).
    `header_seconds`: from the opening of a connection, or the end of a request, until the next request's header is
    complete; it bounds idle connections and half-sent headers alike.
    `body_seconds`: how long the rest of an unasked-for request body is read and dropped before the connection is closed.
    `write_seconds`: the longest that a reader may take for each `write_bytes`, and that the kernel waits for a reader
    which acknowledges nothing.
    `drain_seconds`: how long requests in progress may take to end when the daemon stops.
    """

    connections: int = 2_000
    backlog: int = 128
    header_seconds: float = 60.0
    body_seconds: float = 5.0
    header_line_bytes: int = 8 * KIB - 2
    header_fields: int = 100
    write_bytes: int = 1 * MIB
    write_seconds: float = 120.0
    drain_seconds: float = 30.0
    cached_digests: int = 4_096
    hashed_each_time_bytes: int = 64 * KIB


@dataclass(frozen=True)
class ClientLimits:
    """Bounds of `HttpSource`.

    `parallel`: ranges fetched at once by one iterator, and held in memory before the caller takes them.
    `connect_seconds`: for one connection; `stall_seconds`: without a single byte.
    `answer_seconds`: until an answer's header is there; its body then has as long again plus its length divided by
    `min_bytes_per_second`.
    `attempts`: requests for one thing before it is Unavailable, with pauses of about `backoff_seconds`, twice as long
    each time, at most `backoff_max_seconds`; a server may ask for at most `retry_after_seconds`.
    """

    parallel: int = 4
    connect_seconds: float = 15.0
    stall_seconds: float = 30.0
    answer_seconds: float = 60.0
    min_bytes_per_second: int = 64 * KIB
    attempts: int = 4
    backoff_seconds: float = 0.5
    backoff_max_seconds: float = 10.0
    retry_after_seconds: float = 60.0
    range_bytes: int = 256 * MIB
    read_buffer_bytes: int = 1 * MIB
