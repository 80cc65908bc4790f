"""Standing: how an agent does, as it said last; what /v1/status, /metrics and `--json` show of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from pacstore.trust.clock import date

LISTED = 20
"""No list in the status has more entries."""
_FIRST_PAUSE_SECONDS, _DOUBLED, _LONGEST_PAUSE_SECONDS = 60.0, 6, 3600.0


@dataclass
class OnTheWay:
    """A dataset that is being brought: bytes of the present phase, and of those that are done; told from any thread."""

    dataset: str
    since: float
    phase: str = ""
    total_bytes: int = 0
    done_bytes: int = 0

    def begin(self, phase: str, total_bytes: int | None) -> None:
        """As `pacstore.progress.Progress`."""
        self.phase, self.total_bytes, self.done_bytes = phase, total_bytes or 0, 0

    def advance(self, count_bytes: int) -> None:
        """As `pacstore.progress.Progress`."""
        self.done_bytes += count_bytes

    def warn(self, message: str) -> None:
        """As `pacstore.progress.Progress`."""


@dataclass(frozen=True)
class Trouble:
    """Why a dataset is not here whole, or cannot leave: after `attempts`, the last of which was at `tried_at`, and the next of
    which is at `next_at`, in seconds since 1970.
    """

    dataset: str
    reason: str
    attempts: int
    tried_at: float
    next_at: float

    @classmethod
    def after(cls, before: Self | None, dataset: str, reason: str, now: float) -> Self:
        """That one attempt more has failed at `now`; the pauses grow."""
        attempts = before.attempts + 1 if before is not None else 1
        pause = min(_FIRST_PAUSE_SECONDS * 2.0 ** min(attempts - 1, _DOUBLED), _LONGEST_PAUSE_SECONDS)
        return cls(dataset, reason, attempts, now, now + pause)

    def is_due(self, now: float) -> bool:
        """Whether it is time for the next attempt; if the clock was set back, it is."""
        return not self.tried_at <= now < self.next_at


@dataclass
class Standing:
    """`state`: `starting`, `waiting` (another agent works here), `working`, `idle`, `away` (Rucio cannot be asked) or `refused`.

    `fault`: why it cannot work, since `fault_since`; `asked_at`: when Rucio said last what it wants. `wanted` datasets, of which
    `whole` are here; `leaving`: those that nobody wants any more, `held_back` because so many are, `staying` since they cannot.
    The rest counts from the start on.
    """

    rse: str
    state: str = "starting"
    fault: str = ""
    fault_since: float | None = None
    asked_at: float | None = None
    wanted: int = 0
    whole: int = 0
    leaving: int = 0
    leaves_first_at: float | None = None
    held_back: bool = False
    on_the_way: OnTheWay | None = None
    troubles: Mapping[str, Trouble] = field(default_factory=dict)
    staying: Mapping[str, Trouble] = field(default_factory=dict)
    delivered: int = 0
    let_go: int = 0
    reported: int = 0
    bytes_came: int = 0
    failures: int = 0

    def fail(self, state: str, fault: str, now: float) -> bool:
        """Remember that it cannot work; whether that is news."""
        is_news = (self.state, self.fault) != (state, fault)
        if not self.fault:
            self.fault_since = now
        self.state, self.fault = state, fault
        self.failures += is_news
        return is_news

    def recover(self, state: str) -> bool:
        """It works; whether it did not before."""
        had = bool(self.fault)
        self.state, self.fault, self.fault_since = state, "", None
        return had

    def document(self) -> dict[str, object]:
        """The section `rucio` of /v1/status."""
        way = self.on_the_way
        return {
            "rse": self.rse,
            "state": self.state,
            "fault": self.fault,
            "fault_since": _date(self.fault_since),
            "asked": _date(self.asked_at),
            "datasets": {
                "wanted": self.wanted,
                "whole": self.whole,
                "troubled": len(self.troubles),
                "leaving": self.leaving,
            },
            "leaves_first": _date(self.leaves_first_at),
            "held_back": self.held_back,
            "on_the_way": _way(way) if way is not None else None,
            "troubled": [_trouble(one) for one in list(self.troubles.values())[:LISTED]],
            "delivered": self.delivered,
            "let_go": self.let_go,
            "files_reported": self.reported,
            "bytes_came": self.bytes_came,
        }

    def metrics(self) -> Iterator[Metric]:
        """The same as numbers."""
        up = float(self.state in ("working", "idle"))
        for name, text, value in (
            ("rucio_up", "1 if the agent knows what Rucio wants, otherwise 0", up),
            ("rucio_asked_timestamp_seconds", "When Rucio said last what it wants, 0 if never", self.asked_at or 0.0),
            ("rucio_datasets_wanted", "Datasets that rules want at this RSE", self.wanted),
            ("rucio_datasets_whole", "Those of them that are here whole", self.whole),
            (
                "rucio_datasets_troubled",
                "Those of them that could not be delivered when it was tried last",
                len(self.troubles),
            ),
            ("rucio_datasets_leaving", "Datasets here that nobody wants any more", self.leaving),
        ):
            yield GaugeMetricFamily(f"pacball_{name}", text, value=float(value))
        for name, text, count in (
            ("rucio_datasets_delivered", "Datasets delivered since the start", self.delivered),
            ("rucio_datasets_let_go", "Datasets let go since the start", self.let_go),
            ("rucio_files_reported", "Files reported as available since the start", self.reported),
            ("rucio_received_bytes", "Bytes that came for datasets since the start", self.bytes_came),
            ("rucio_failures", "How often the agent could not go on", self.failures),
        ):
            yield CounterMetricFamily(f"pacball_{name}", text, value=float(count))

    def warnings(self) -> Iterator[str]:
        """What somebody should look after."""
        if self.fault:
            yield f"the agent of the RSE {self.rse} cannot go on: {self.fault}"
        for one in list(self.troubles.values())[:1]:
            more = f", and {len(self.troubles) - 1} more" if len(self.troubles) > 1 else ""
            yield f"a dataset that Rucio wants at {self.rse} could not be delivered{more}: {one.dataset}: {one.reason}"
        yield from self.leaving_warnings()

    def leaving_warnings(self) -> Iterator[str]:
        """Those about what no rule wants any more."""
        for one in list(self.staying.values())[:1]:
            more = f", and {len(self.staying) - 1} more" if len(self.staying) > 1 else ""
            yield f"a dataset that no rule wants at {self.rse} could not be let go{more}: {one.dataset}: {one.reason}"
        if self.held_back:
            yield (
                f"Rucio wants more than half of the datasets at {self.rse} no longer, all at once: they stay for longer than "
                "others, until somebody has looked whether that is meant"
            )


def _way(way: OnTheWay) -> dict[str, object]:
    values = {"dataset": way.dataset, "phase": way.phase, "since": date(way.since)}
    return {**values, "bytes_total": way.total_bytes, "bytes_done": way.done_bytes}


def _trouble(one: Trouble) -> dict[str, object]:
    return {"dataset": one.dataset, "reason": one.reason, "attempts": one.attempts, "next_attempt": date(one.next_at)}


def _date(when: float | None) -> str | None:
    return None if when is None else date(when)
