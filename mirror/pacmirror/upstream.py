"""Upstream: where a mirror gets what it does not hold: its upstreams and peers as one source, and our limits on the rate."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from pacmirror.base_url import parse_base_url
from pacmirror.hours import rate_at
from pacmirror.limits import LIST_LIMITS, UPSTREAM_LIMITS
from pacmirror.mirrors import MirrorList
from pacmirror.peers import HELD_ONLY, make_alias
from pacmirror.service import Service
from pacmirror.source import HttpSource
from pacmirror.threads import start_thread
from pacmirror.throttle import Throttle
from pacstore.source import Condition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prometheus_client.core import Metric

    from pacmirror.config import UpstreamConfig
    from pacmirror.limits import ClientLimits, MirrorLimits
    from pacmirror.mirrors import Single
    from pacmirror.part import Part
    from pacstore.source import SourceState

USER_AGENT = "pacball-mirror"
_HOUR_MINUTES = 60
_LOOK_SECONDS = 20.0


class Upstream(Service):
    """The service `upstreams`. `mirrors`: all upstreams, in their order, then the peers, as one source.

    `alias`: what this mirror calls itself to them (`pacmirror.peers`).
    """

    def __init__(
        self,
        config: UpstreamConfig,
        *,
        each: ClientLimits = LIST_LIMITS,
        limits: MirrorLimits = UPSTREAM_LIMITS,
        local_time: Callable[[], time.struct_time] = time.localtime,
    ) -> None:
        """Nothing is sent yet. Raises Refused for URLs, proxies, certificates or tokens that cannot be used."""
        self.alias = make_alias()
        self._config = config
        self._local_time = local_time
        limited = config.rate_bytes_per_second is not None or config.hours
        self._throttle = Throttle(None) if limited else None
        self.is_closed = False
        """Whether nothing may be fetched at this hour."""
        self.mirrors = MirrorList(self._open_parts(each), limits=limits, throttle=self._throttle)
        self._task: asyncio.Task[None] | None = None
        self._set_rate()

    @property
    def name(self) -> str:
        """The section of /v1/status."""
        return "upstreams"

    def catalog_sources(self) -> list[Single]:
        """The upstreams without the peers, each by itself: those whose catalogs are followed."""
        names = {parse_base_url(url) for url in self._config.urls}
        return [single for single in self.mirrors.singles() if single.name in names]

    async def start(self) -> None:
        """Let the rate follow the hours of the day."""
        self._task = asyncio.create_task(self._keep_rate())

    def stop(self) -> None:
        """The rate follows nothing more; what is under way may end."""
        if self._task is not None:
            self._task.cancel()

    async def end(self) -> None:
        """Close all connections."""
        if self._task is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await start_thread(self.mirrors.close, name="pacball-close")

    def status(self) -> dict[str, object]:
        """How each does."""
        rate = self._throttle.bytes_per_second if self._throttle is not None else None
        return {
            "rate_bytes_per_second": 0 if self.is_closed else rate,
            "sources": [self._describe(state) for state in self.mirrors.states()],
        }

    def metrics(self) -> Iterable[Metric]:
        """The same as numbers, by the source's name."""
        states = self.mirrors.states()
        yield _by_source("upstream_good", "1 unless the source fails, is slow or gave wrong bytes",
                         [(one.name, float(one.state in _WELL)) for one in states])  # fmt: skip
        yield _by_source("upstream_bytes_per_second", "What the source brought when it was last at work",
                         [(one.name, one.bytes_per_second) for one in states])  # fmt: skip
        for name, text, values in (
            ("upstream_received_bytes", "Bytes received", [(one.name, one.bytes_downloaded) for one in states]),
            ("upstream_requests", "Requests sent", [(one.name, one.requests) for one in states]),
            ("upstream_failures", "What did not come, or came wrong", [(one.name, one.failures) for one in states]),
        ):
            counter = CounterMetricFamily(f"pacball_{name}", text, labels=["source"])
            for source, value in values:
                counter.add_metric([source], value)
            yield counter

    def warnings(self) -> list[str]:
        """Which sources do not do well."""
        bad = [one for one in self.mirrors.states() if one.state not in _WELL]
        return [f"the upstream {one.name} is {_WORDS.get(one.state, one.state)}: {one.error}" for one in bad]

    def _open_parts(self, each: ClientLimits) -> list[Part]:
        config = self._config
        with contextlib.ExitStack() as opened:
            parts: list[Part] = [
                *(opened.enter_context(self._open_part(url, each, {})) for url in config.urls),
                *(opened.enter_context(self._open_part(url, each, {HELD_ONLY: "1"})) for url in config.peers),
            ]
            opened.pop_all()
        return parts

    def _open_part(self, url: str, each: ClientLimits, headers: Mapping[str, str]) -> HttpSource:
        surroundings = self._config.surroundings
        return HttpSource(
            url,
            limits=each,
            user_agent=USER_AGENT,
            surroundings=surroundings,
            throttle=self._throttle,
            headers=headers,
            alias=self.alias,
        )

    async def _keep_rate(self) -> None:
        while True:
            self._set_rate()
            await asyncio.sleep(_LOOK_SECONDS)

    def _set_rate(self) -> None:
        if self._throttle is None:
            return
        now = self._local_time()
        rate = rate_at(
            now.tm_hour * _HOUR_MINUTES + now.tm_min, self._config.hours, usual=self._config.rate_bytes_per_second
        )
        self.is_closed = rate == 0
        if rate not in (0, self._throttle.bytes_per_second):
            self._throttle.change(rate)

    @staticmethod
    def _describe(state: SourceState) -> dict[str, object]:
        return {
            "name": state.name,
            "state": state.state.value,
            "bytes_per_second": round(state.bytes_per_second),
            "bytes_received": state.bytes_downloaded,
            "requests": state.requests,
            "failures": state.failures,
            "error": state.error,
        }


_WELL = frozenset((Condition.UNUSED, Condition.GOOD))
_WORDS = {Condition.WRONG: "in quarantine: it gave wrong bytes", Condition.REFUSED: "refusing us"}


def _by_source(name: str, text: str, values: list[tuple[str, float]]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"pacball_{name}", text, labels=["source"])
    for source, value in values:
        family.add_metric([source], value)
    return family
