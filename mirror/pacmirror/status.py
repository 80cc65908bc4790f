"""What people and monitors are told of a daemon: as JSON, and as metrics in the text format of Prometheus.

The roles of a catalog are the signers' words; no more than a bounded number of them is shown, those that expire first.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from pacstore.trust.clock import date
from pacstore.trust.warnings import expiry_warnings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from prometheus_client.core import Metric

    from pacmirror.catalog import Standing
    from pacmirror.refreshing import Refresher
    from pacmirror.service import Services

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_NOT_INSTALLED = "unknown"


@dataclass(frozen=True)
class Report:
    """All that is told, as of `now`, in seconds since 1970; `refresher` is None for a daemon without keys."""

    standing: Standing
    refresher: Refresher | None
    listed_roles: int
    now: float

    def warnings(self) -> list[str]:
        """A sentence for everything that somebody should look after."""
        standing, served, refresher = self.standing, self.standing.served, self.refresher
        found = [f"the catalog is not served as it lies in the store: {standing.fault}"] if standing.fault else []
        if refresher is not None and refresher.fault:
            found.append(f"the catalog could not be refreshed: {refresher.fault}")
        if standing.note:
            found.append(standing.note)
        if served is not None:
            found += expiry_warnings(served.expires, now=self.now, signed_at=served.signed_at)
        return found

    def expiries(self) -> list[tuple[str, float]]:
        """The roles that expire first, and when."""
        served = self.standing.served
        by_time = sorted(served.expires.items(), key=lambda item: (item[1], item[0])) if served else []
        return by_time[: self.listed_roles]

    def age_seconds(self) -> float | None:
        """How long ago the timestamp that is served was signed; None if that is not known."""
        served = self.standing.served
        return None if served is None or served.signed_at is None else self.now - served.signed_at

    def section(self) -> dict[str, object]:
        """The section `catalog` of /v1/status."""
        served, expiries, age = self.standing.served, self.expiries(), self.age_seconds()
        return {
            "version": served.version if served else None,
            "root_version": served.root_version if served else None,
            "signed_at": date(served.signed_at) if served and served.signed_at is not None else None,
            "age_seconds": round(age) if age is not None else None,
            "expires": {role: date(when) for role, when in expiries},
            "expires_first": date(expiries[0][1]) if expiries else None,
            "state": self.standing.name,
            "fault": self.standing.fault,
        }

    def metrics(self) -> Iterator[Metric]:
        """What /metrics shows of the catalog."""
        standing, age = self.standing, self.age_seconds()
        good = float(standing.name == "good")
        yield _gauge("catalog_state", "1 if the catalog is served as it lies in the store, otherwise 0", good)
        if standing.served is not None:
            yield _gauge("catalog_version", "Version of the timestamp that is served", standing.served.version)
        if age is not None:
            yield _gauge("catalog_timestamp_age_seconds", "Time since the served timestamp was signed", age)
        expiry = _family("catalog_expiry_timestamp_seconds", "When a role expires, in seconds since 1970", "role")
        for role, when in self.expiries():
            expiry.add_metric([role], when)
        yield expiry
        yield _counter("catalog_refused", "States of the catalog that were not served", standing.refused)
        failures = self.refresher.failures if self.refresher is not None else 0
        yield _counter("catalog_refresh_failures", "Attempts to sign the catalog anew that failed", failures)


def pacball_version() -> str:
    """The version of the installed distribution."""
    try:
        return version("pacball")
    except PackageNotFoundError:
        return _NOT_INSTALLED


def status_document(services: Services) -> dict[str, object]:
    """The answer to /v1/status: a section of each service."""
    return {"version": pacball_version(), **services.status(), "warnings": services.warnings()}


def encode_metrics(metrics: Sequence[Metric]) -> bytes:
    """The answer to /metrics."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected([*metrics, _build_info()]))
    ProcessCollector(registry=registry)  # memory, CPU and descriptors, where the system tells
    return generate_latest(registry)


class _Collected(Collector):
    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _build_info() -> Metric:
    build = _family("build_info", "Always 1; the version is a label", "version")
    build.add_metric([pacball_version()], 1)
    return build


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"pacball_{name}", text, value=value)


def _family(name: str, text: str, label: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"pacball_{name}", text, labels=[label])


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(f"pacball_{name}", text, value=value)
