"""Scrubbing: the service that has everything held read again and again, and damage repaired, and tells how that goes."""

from __future__ import annotations

import asyncio
from threading import Event
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from pacmirror.scrubber import Scrubber
from pacmirror.service import Service
from pacmirror.threads import start_thread
from pacstore.ledger.damage import DamageState
from pacstore.trust.clock import date

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from prometheus_client.core import Metric

    from pacmirror.config import Config
    from pacmirror.upstream import Upstream
    from pacstore.damage import DamagedPart
    from pacstore.ledger.damage import DamageRow
    from pacstore.source import Source


class Scrubbing(Service):
    """The service `scrub`. `upstream` is None for an origin without peers. What is read, repaired and served is never awaited."""

    def __init__(self, config: Config, upstream: Upstream | None) -> None:
        self._config = config
        self._upstream = upstream
        self._stop = Event()
        self._scrubber = Scrubber(config, self._sources)
        self._ended: asyncio.Future[None] | None = None

    @property
    def name(self) -> str:
        """The section of /v1/status."""
        return "scrub"

    async def start(self) -> None:
        """Tell at once what was known of damage, and begin."""
        await asyncio.to_thread(self._scrubber.look)
        self._ended = start_thread(lambda: self._scrubber.run(self._stop), name="pacball-scrub")

    def stop(self) -> None:
        """Read no further; a repair that was begun may end."""
        self._stop.set()

    async def end(self) -> None:
        """Wait until the thread has written how far it was. Cut off, it loses some seconds of reading and nothing else."""
        self._stop.set()
        if self._ended is not None:
            await self._ended

    async def report(self, parts: Sequence[DamagedPart]) -> None:
        """Write down what others found damaged: it is offered no longer, and repaired soon. Raises nothing."""
        await start_thread(lambda: self._scrubber.report(parts), name="pacball-damage")

    def status(self) -> Mapping[str, object]:
        """Where it is, when everything was read last, and what is damaged."""
        standing = self._scrubber.standing
        now, counts = standing.pass_, {state.value: total.items for state, total in standing.damage.items()}
        return {
            "state": standing.doing if self._config.scrub.enabled else "off",
            "fault": standing.fault,
            "pass": {
                "begun": _date(now.begun_at),
                "position": now.path,
                "objects": now.objects,
                "bytes": now.bytes_read,
                "unread": now.unread,
            },
            "last_full": {
                "begun": _date(now.last_begun_at),
                "ended": _date(now.last_ended_at),
                "objects": now.last_objects,
                "bytes": now.last_bytes,
            },
            "damaged": standing.unrepaired,
            "withdrawn": counts.get(DamageState.WITHDRAWN.value, 0),
            "repaired": counts.get(DamageState.REPAIRED.value, 0),
            "releases_waiting": standing.waiting,
            "listed": [_listed(row) for row in standing.listed],
        }

    def metrics(self) -> Iterable[Metric]:
        """The same as numbers."""
        standing = self._scrubber.standing
        for name, text, count in (
            ("scrub_read_bytes", "Bytes read by the scrub since the start", standing.bytes_read),
            ("scrub_repaired_parts", "Damaged parts that were repaired since the start", standing.repaired),
            ("scrub_repaired_bytes", "Bytes that others gave for repairs since the start", standing.bytes_got),
            ("scrub_failures", "How often the scrub could not go on", standing.failures),
        ):
            yield CounterMetricFamily(f"pacball_{name}", text, value=float(count))
        now = standing.pass_
        for name, text, value in (
            ("damaged_parts", "Parts of the store that are damaged and not repaired", standing.unrepaired),
            ("damaged_releases", "Releases not offered until they are repaired", standing.waiting),
            ("scrub_pass_bytes", "Bytes read in the pass under way", now.bytes_read),
            ("scrub_last_full_timestamp_seconds", "When everything was read last, 0 if never", now.last_ended_at or 0),
        ):
            yield GaugeMetricFamily(f"pacball_{name}", text, value=float(value))

    def warnings(self) -> Iterable[str]:
        """Damage that nobody could repair, and a scrub that cannot go on."""
        standing = self._scrubber.standing
        if standing.fault:
            yield f"the scrub cannot go on: {standing.fault}"
        if standing.unrepaired:
            first = standing.listed[0].part if standing.listed else ""
            count = standing.unrepaired
            what = "a part of the store is" if count == 1 else f"{count} parts of the store are"
            yield f"{what} damaged, and could not be repaired yet: {first}"

    def _sources(self) -> list[Source]:
        """Who may be asked now."""
        return [self._upstream.mirrors] if self._upstream is not None and not self._upstream.is_closed else []


def _listed(row: DamageRow) -> dict[str, object]:
    part = row.part
    offset = part.offset if part.offset >= 0 else None
    return {
        "path": part.path,
        "frame_offset": offset,
        "fault": part.fault,
        "state": row.state.value,
        "found": date(row.found_at),
        "tried": _date(row.tried_at),
    }


def _date(when: float | None) -> str | None:
    return None if when is None else date(when)
