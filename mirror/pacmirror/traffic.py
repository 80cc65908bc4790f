"""Traffic: what clients asked and got, counted; and one line of the log for each request.

aiohttp tells a class of loggers when a request has ended, also one that was malformed or left by its client; so both happen
there.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from pacmirror.logs import FIELDS
from pacmirror.request_keys import REQUEST_ID, SENT, SERVED, client_address
from pacmirror.service import Service

if TYPE_CHECKING:
    from pacmirror.config import Config

_log = logging.getLogger("pacmirror.requests")
_BUCKETS = (0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0)
_KINDS = frozenset(
    {
        "packs",
        "rucio",
        "manifests",
        "attributes",
        "provenance",
        "bundles",
        "placements",
        "releases",
        "holdings",
        "catalog",
        "pacballs",
        "files",
        "v1",
        "metrics",
    }
)
_NO_FILES = frozenset({"v1", "metrics", "other"})


class Traffic(Service):
    """The service `requests`. `open_connections`: how many there are now, counted by the listener, as are those refused."""

    def __init__(self) -> None:
        self.open_connections = 0
        self.refused_connections: Counter[str] = Counter()
        self._requests: Counter[tuple[str, str]] = Counter()
        self._bytes: Counter[tuple[str, str]] = Counter()
        self._buckets = [0] * (len(_BUCKETS) + 1)
        self._seconds = 0.0

    @property
    def name(self) -> str:
        """The section of /v1/status."""
        return "requests"

    def count(self, kind: str, status: int, *, served: str, sent_bytes: int, seconds: float) -> None:
        """Count one request that has ended."""
        self._requests[kind, f"{status // 100}xx"] += 1
        self._bytes[kind, served] += sent_bytes
        self._buckets[bisect_left(_BUCKETS, seconds)] += 1
        self._seconds += seconds

    def status(self) -> dict[str, object]:
        """What there was since the daemon started."""
        failed = sum(count for (_, status), count in self._requests.items() if status == "5xx")
        return {
            "answered": self._requests.total(),
            "failed": failed,
            "sent_bytes": self._bytes.total(),
            "connections": self.open_connections,
            "connections_refused": self.refused_connections.total(),
        }

    def metrics(self) -> Iterable[Metric]:
        """The same by kind."""
        yield _counters(
            "requests", "Requests answered, by kind and class of status", ("kind", "status"), self._requests
        )
        yield _counters(
            "sent_bytes", "Bytes of bodies sent, by kind and by how they were served", ("kind", "served"), self._bytes
        )
        refused = Counter({(reason,): count for reason, count in self.refused_connections.items()})
        yield _counters(
            "connections_refused", "Connections that were told to come later, by limit", ("limit",), refused
        )
        yield GaugeMetricFamily("pacball_connections", "Connections of clients now", value=self.open_connections)
        yield self._durations()

    def _durations(self) -> Metric:
        below, buckets = 0, []
        for bound, count in zip((*map(str, _BUCKETS), "+Inf"), self._buckets, strict=True):
            below += count
            buckets.append((bound, float(below)))
        text = "Time from a request's header until the last byte of its answer was handed over"
        return HistogramMetricFamily("pacball_request_seconds", text, buckets=buckets, sum_value=self._seconds)


def _counters(
    name: str, text: str, labels: tuple[str, ...], values: Counter[tuple[str, str]] | Counter[tuple[str]]
) -> Metric:
    family = CounterMetricFamily(f"pacball_{name}", text, labels=labels)
    for label_values, value in sorted(values.items()):
        family.add_metric(label_values, value)
    return family


def make_request_log(config: Config, traffic: Traffic) -> type[AbstractAccessLogger]:
    """The class of loggers that aiohttp makes one of for each connection."""

    class RequestLog(AbstractAccessLogger):
        def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
            kind = _kind(request.path)
            served = _served(request, response, kind)
            sent_bytes = _sent_bytes(request, response)
            traffic.count(kind, response.status, served=served, sent_bytes=sent_bytes, seconds=time)
            if config.log.requests and _log.isEnabledFor(logging.INFO):
                client = client_address(request, config.access.trusted_proxies)
                _log_request(request, response, client=client, served=served, sent_bytes=sent_bytes, seconds=time)

    return RequestLog


def _kind(path: str) -> str:
    first = path[1:].partition("/")[0]
    return first if first in _KINDS else "other"


def _served(request: web.BaseRequest, response: web.StreamResponse, kind: str) -> str:
    if kind in _NO_FILES or response.status >= 400:
        return "other"
    return str(request.get(SERVED, "held"))


def _sent_bytes(request: web.BaseRequest, response: web.StreamResponse) -> int:
    """Of the body. What aiohttp counts is with the header, and without what sendfile sends."""
    if SENT in request or not isinstance(response, web.Response) or request.method == "HEAD":
        return int(request.get(SENT, 0))
    return response.content_length or 0


def _log_request(
    request: web.BaseRequest, response: web.StreamResponse, *, client: str, served: str, sent_bytes: int, seconds: float
) -> None:
    fields = {
        "request_id": request.get(REQUEST_ID, ""),
        "client": client,
        "method": request.method,
        "path": request.raw_path[:500],
        "status": response.status,
        "bytes": sent_bytes,
        "seconds": round(seconds, 4),
        "served": served,
    }
    asked = request.headers.get("Range", "")[:100]
    if asked:
        fields["range"] = asked
    text = "%s %s %s %d %d bytes %.3f s %s"
    words = (client, request.method, request.raw_path[:500], response.status, sent_bytes, seconds, served)
    _log.info(text, *words, extra={FIELDS: fields})
