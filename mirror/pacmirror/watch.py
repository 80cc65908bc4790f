"""Looks after the catalog while the daemon runs, whether anybody asks or not: verifies, refreshes, warns."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from pacmirror.catalog import ServedCatalog
from pacmirror.refreshing import Refresher
from pacmirror.service import Service
from pacmirror.status import Report
from pacstore.trust.warnings import expiry_warnings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.core import Metric

    from pacmirror.config import Config
    from pacmirror.files import PublicFiles

_log = logging.getLogger(__name__)


class Watch(Service):
    """The service `catalog`: what is served of it, and who refreshes it, if this daemon has keys."""

    def __init__(self, config: Config, files: PublicFiles) -> None:
        self.catalog = ServedCatalog(config, files)
        self._limits = config.limits
        self._refresher = Refresher(config, config.online_keys) if config.online_keys is not None else None
        self._task: asyncio.Task[None] | None = None
        self._deadline: float | None = None
        self._warned: list[str] = []

    @property
    def name(self) -> str:
        """The section of /v1/status."""
        return "catalog"

    def status(self) -> dict[str, object]:
        """What is served, as of the last look."""
        return self._report().section()

    def metrics(self) -> Iterable[Metric]:
        """The same as numbers."""
        return self._report().metrics()

    def warnings(self) -> list[str]:
        """What is wrong with the catalog, what expires soon."""
        return self._report().warnings()

    def unready(self) -> str:
        """Nothing can be told to clients while there is no catalog that may be served."""
        standing = self.catalog.standing
        return f"no catalog is served: {standing.fault}" if standing.served is None and standing.fault else ""

    def _report(self) -> Report:
        return Report(self.catalog.standing, self._refresher, self._limits.listed_roles, time.time())

    async def start(self) -> None:
        """Begin. Raises a PacballError if this daemon is to refresh the catalog and cannot."""
        if self._refresher is not None:
            await asyncio.to_thread(self._refresher.check)
        self._task = asyncio.create_task(self._keep_looking())

    def stop(self) -> None:
        """Begin nothing new; `end` may be called later."""
        self._deadline = asyncio.get_running_loop().time() + self._limits.drain_seconds
        if self._task is not None:
            self._task.cancel()

    async def end(self) -> None:
        """Wait for what has been begun, as long as the drain time since `stop` lasts."""
        if self._task is None:
            return
        if self._deadline is None:
            self.stop()
        await asyncio.wait({self._task})
        if self._refresher is not None and self._deadline is not None:
            await self._refresher.end(self._deadline - asyncio.get_running_loop().time())
        await self.catalog.close()

    async def _keep_looking(self) -> None:
        while True:
            try:
                await self._look()
            except Exception:  # noqa: BLE001 - it must go on
                _log.exception("looking after the catalog failed unexpectedly, and is tried again")
            # Not at once: who starts a daemon over an expired catalog may be about to refresh it.
            await asyncio.sleep(self._limits.watch_seconds)
            self._warn()

    async def _look(self) -> None:
        standing = await self.catalog.look()
        if self._refresher is not None and await self._refresher.look(standing):
            await self.catalog.look()

    def _warn(self) -> None:
        served = self.catalog.standing.served
        found = expiry_warnings(served.expires, now=time.time(), signed_at=served.signed_at) if served else []
        # The text says how many days are left: so each warning comes again when that changes, and no more often.
        for warning in found:
            if warning not in self._warned:
                _log.warning("%s", warning)
        self._warned = found
