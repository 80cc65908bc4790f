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
    `drain_seconds`: how long requests in progress, and a refresh of the catalog, may take to end when the daemon stops.
    `catalog_pause_seconds`: the least time between two verifications of the catalog, however often it changes.
    `catalog_wait_seconds`: how long who asks for a catalog that has just changed waits for its verification, before the
    state before is the answer; `catalog_first_wait_seconds`: the same while there is no state yet.
    `catalog_retry_seconds`: when to look again at a catalog that did not verify and has not changed since.
    `watch_seconds`: the time between looks at the catalog, and at whether it is to be refreshed, if nobody asks.
    `refresh_backoff_seconds`: the pause after a refresh that failed; each further failure doubles it, up to
    `refresh_backoff_max_seconds`.
    `listed_roles`: how many roles status and metrics show, those that expire first.
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
    catalog_pause_seconds: float = 1.0
    catalog_wait_seconds: float = 2.5
    catalog_first_wait_seconds: float = 30.0
    catalog_retry_seconds: float = 5.0
    watch_seconds: float = 60.0
    refresh_backoff_seconds: float = 60.0
    refresh_backoff_max_seconds: float = 3600.0
    listed_roles: int = 1_000


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
