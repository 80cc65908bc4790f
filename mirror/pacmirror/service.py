"""Service: a part of the daemon that lives as long as it does, and what the daemon asks of each.

The daemon starts its services in their order before it accepts connections. When it is told to stop, it calls `stop` of
all, in the opposite order, lets the requests in progress end, and then awaits `end` of each, in the opposite order, all
within the drain time.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence

from prometheus_client.core import Metric

_log = logging.getLogger(__name__)
_LEAST_END_SECONDS = 1.0


class Service(ABC):
    """What a part of the daemon offers; whoever inherits this needs to write only what it does differently.

    Everything is called in the daemon's event loop. `name` is that of the section of /v1/status.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """One word, the same for ever: programs read it."""

    async def start(self) -> None:  # noqa: B027 - most need nothing of this
        """Begin. Raises a PacballError if it cannot: then the daemon does not start."""

    def stop(self) -> None:  # noqa: B027
        """Begin nothing new from now on. May be called more than once, and without a start."""

    async def end(self) -> None:  # noqa: B027
        """Return when nothing is going on any more. It is cancelled when the drain time is over: then end at once."""

    def status(self) -> Mapping[str, object]:
        """The section of /v1/status, in JSON's types; empty for none. In constant time, without a look at the disk."""
        return {}

    def metrics(self) -> Iterable[Metric]:
        """What /metrics shows; names begin with `pacball_`. In constant time, without a look at the disk."""
        return ()

    def warnings(self) -> Iterable[str]:
        """A sentence for everything that somebody should look after, for /v1/status."""
        return ()

    def unready(self) -> str:
        """Why clients should not be sent here yet, as /readyz says it; empty if they may be."""
        return ""


class Services:
    """The services of one daemon, in the order in which they start."""

    def __init__(self, services: Sequence[Service], *, drain_seconds: float) -> None:
        self._services = tuple(services)
        self._drain_seconds = drain_seconds
        self._started: list[Service] = []
        self._deadline: float | None = None

    @property
    def stopping(self) -> bool:
        """Whether the daemon was told to stop."""
        return self._deadline is not None

    async def start(self) -> None:
        """Start all; if one fails, end those that were started, and raise what it raised."""
        for service in self._services:
            self._started.append(service)
            try:
                await service.start()
            except BaseException:
                self.stop()
                await self.end()
                raise

    def stop(self) -> None:
        """Let nothing new begin; the drain time starts. May be repeated."""
        if self._deadline is not None:
            return
        self._deadline = asyncio.get_running_loop().time() + self._drain_seconds
        for service in reversed(self._started):
            try:
                service.stop()
            except Exception:  # noqa: BLE001 - the others are to be stopped all the same
                _log.exception("the service %s could not be stopped in order", service.name)

    async def end(self) -> None:
        """Wait for what goes on, as long as the drain time lasts, and a moment for each that is cancelled then."""
        self.stop()
        while self._started:
            service = self._started.pop()
            try:
                await asyncio.wait_for(service.end(), self._seconds_left())
            except TimeoutError:
                _log.warning("the service %s did not end in time, and was cut off", service.name)
            except Exception:  # noqa: BLE001 - the others are to end all the same
                _log.exception("the service %s failed while it ended", service.name)

    def status(self) -> dict[str, object]:
        """The sections of all, by name, those left out that have nothing to say."""
        sections = {service.name: dict(service.status()) for service in self._services}
        return {name: section for name, section in sections.items() if section}

    def metrics(self) -> list[Metric]:
        """The metrics of all."""
        return [metric for service in self._services for metric in service.metrics()]

    def warnings(self) -> list[str]:
        """The warnings of all."""
        return [warning for service in self._services for warning in service.warnings()]

    def unready(self) -> list[str]:
        """Why clients should not be sent here, a sentence for each reason."""
        if self.stopping:
            return ["the daemon is stopping"]
        return [reason for service in self._services if (reason := service.unready())]

    def _seconds_left(self) -> float:
        left = (self._deadline or 0.0) - asyncio.get_running_loop().time()
        return max(left, _LEAST_END_SECONDS)
