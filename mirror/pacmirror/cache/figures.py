"""Figures: what the pull-through cache counts, for /v1/status and /metrics."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric


@dataclass
class Figures:
    """Counters since the daemon started, only ever growing.

    Requests for packs: `hits` were answered with what was here, `misses` had to wait for an upstream, of these `joins` for
    something that others had asked for before. Bytes of packs sent: `disk_bytes`, and `memory_bytes` where the disk is full;
    `fetched_bytes` were received of packs. `verify_failures`: frames and tables that were wrong. `packs_completed` became public.
    """

    hits: int = 0
    misses: int = 0
    joins: int = 0
    disk_bytes: int = 0
    memory_bytes: int = 0
    fetched_bytes: int = 0
    verify_failures: int = 0
    packs_completed: int = 0
    fetches_failed: int = 0

    def document(self) -> dict[str, int]:
        """All of them."""
        return asdict(self)

    def metrics(self) -> Iterator[Metric]:
        """All of them; bytes by where they came from."""
        for name, text in _TEXTS.items():
            yield CounterMetricFamily(f"pacball_cache_{name}", text, value=getattr(self, name))
        sent = CounterMetricFamily("pacball_cache_bytes", "Bytes of packs, by where they came from", labels=["source"])
        for source in ("disk", "memory", "fetched"):
            sent.add_metric(["upstream" if source == "fetched" else source], getattr(self, f"{source}_bytes"))
        yield sent


_TEXTS = {
    "hits": "Requests for packs that were answered with what was here",
    "misses": "Requests for packs that had to wait for an upstream",
    "joins": "Requests that waited for what others had asked for before",
    "verify_failures": "Frames and tables of packs that came wrong",
    "packs_completed": "Packs that became whole and public",
    "fetches_failed": "Fetches from upstreams that failed",
}
