"""Standing: how a store's releases do, as the ledger said last; what /v1/status, /v1/releases and /metrics show of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily

from pacstore.ledger.packs import KeptFor
from pacstore.ledger.releases import ReleaseRow, ReleaseState
from pacstore.ledger.schema import Total
from pacstore.trust.clock import date

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from pacstore.release import Release
    from pacstore.subscription import Subscription

_NOTHING = Total()


@dataclass
class Transfer:
    """A release on its way: bytes of all its packs (0 while that is not known) and of those that are here; since when.

    `came_bytes`: of those that have come since then.
    """

    release: Release
    since: float
    total_bytes: int = 0
    held_bytes: int = 0
    came_bytes: int = 0


@dataclass(frozen=True)
class Standing:
    """What the ledger says: sums by state, and since when something wanted has been missing.

    `troubles`: how many releases are not here as they should be, `troubled` the first of them; `stuck`: those that were tried so
    often that somebody should look after them. `subscriptions`: those of the configuration, then those of the ledger.
    """

    releases: Mapping[ReleaseState, Total] = field(default_factory=dict)
    packs: Mapping[KeptFor, Total] = field(default_factory=dict)
    behind_since: float | None = None
    troubles: int = 0
    troubled: tuple[ReleaseRow, ...] = ()
    stuck: int = 0
    first_stuck: ReleaseRow | None = None
    subscriptions: tuple[Subscription, ...] = ()

    def count(self, state: ReleaseState) -> int:
        """How many releases are in `state`."""
        return self.releases.get(state, _NOTHING).items

    @property
    def held_bytes(self) -> int:
        """Of all packs that are here."""
        return sum(total.bytes for total in self.packs.values())

    def lag_seconds(self, now: float) -> float:
        """For how long something that is wanted has been missing; 0 if nothing is."""
        return 0.0 if self.behind_since is None else max(now - self.behind_since, 0.0)

    def held(self) -> dict[str, object]:
        """The section `held` of /v1/status."""
        return {
            "releases": {state.value: self.count(state) for state in ReleaseState},
            "packs": {kept.value: self.packs.get(kept, _NOTHING).items for kept in KeptFor},
            "bytes": {kept.value: self.packs.get(kept, _NOTHING).bytes for kept in KeptFor},
            "bytes_held": self.held_bytes,
            "troubles": self.troubles,
            "troubled": [describe(row) for row in self.troubled],
        }

    def held_metrics(self) -> Iterator[Metric]:
        """The same as numbers."""
        states = GaugeMetricFamily("pacball_releases", "Releases that are to be kept whole", labels=["state"])
        for state in ReleaseState:
            states.add_metric([state.value], self.count(state))
        yield states
        held = GaugeMetricFamily("pacball_held_bytes", "Bytes of packs that are here", labels=["kept_for"])
        count = GaugeMetricFamily("pacball_held_packs", "Packs of which something is here", labels=["kept_for"])
        for kept in KeptFor:
            total = self.packs.get(kept, _NOTHING)
            held.add_metric([kept.value], total.bytes)
            count.add_metric([kept.value], total.items)
        yield held
        yield count

    def sync(self, transfers: Iterable[Transfer], *, queued: int, now: float, listed: int) -> dict[str, object]:
        """The section `sync` of /v1/status. No list of what others may make long has more than `listed` entries."""
        return {
            "queued": queued,
            "lag_seconds": round(self.lag_seconds(now), 1),
            "transfers": [_transfer(one) for one in transfers],
            "subscriptions": [{"releases": one.pattern, "keep": one.keep} for one in self.subscriptions[:listed]],
        }

    def sync_metrics(self, *, queued: int, under_way: int, now: float) -> Iterator[Metric]:
        """The same as numbers."""
        yield GaugeMetricFamily("pacball_sync_queued", "Releases that wait for their turn", queued)
        yield GaugeMetricFamily("pacball_sync_transfers", "Releases that are being fetched", under_way)
        yield GaugeMetricFamily(
            "pacball_sync_lag_seconds", "For how long something that is wanted has been missing", self.lag_seconds(now)
        )


def describe(row: ReleaseRow) -> dict[str, object]:
    """A release as /v1/status and /v1/releases show it."""
    is_waiting = row.state is not ReleaseState.COMPLETE and bool(row.attempts)
    return {
        "release": str(row.release),
        "state": row.state.value,
        "placement": row.placement_number or None,
        "bytes_total": row.total_bytes,
        "bytes_held": row.held_bytes,
        "since": date(row.since),
        "reason": row.reason,
        "attempts": row.attempts,
        "next_attempt": date(row.next_at) if is_waiting else None,
        "leaves": date(row.leaves_at) if row.leaves_at is not None else None,
    }


def _transfer(transfer: Transfer) -> dict[str, object]:
    return {
        "release": str(transfer.release),
        "bytes_total": transfer.total_bytes,
        "bytes_held": transfer.held_bytes,
        "since": date(transfer.since),
    }
