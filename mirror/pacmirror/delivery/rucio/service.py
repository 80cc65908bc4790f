"""The service `rucio` of the daemon: the agent of an RSE, in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from pacmirror.delivery.rucio.agent import Agent, AgentConfig
from pacmirror.delivery.rucio.catalogue import RucioCatalogue
from pacmirror.delivery.rucio.trusting import make_trust
from pacmirror.service import Service
from pacmirror.threads import start_thread
from pacstore.backends.directory import read_bounded
from pacstore.errors import PacballError
from pacstore.limits import MIB

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prometheus_client.core import Metric

    from pacmirror.config import Config

_log = logging.getLogger(__name__)
_ROOT_BYTES = MIB
_AGAIN_SECONDS = 60.0


class RucioAgent(Service):
    """What [delivery.rucio] of the configuration asks for. What the daemon serves never waits for it, nor for Rucio."""

    def __init__(self, config: Config) -> None:
        told = config.delivery.rucio
        wanted = AgentConfig(
            told.rse,
            config.store,
            told.scope,
            told.poll_seconds,
            told.grace_seconds,
            subscriptions=config.sync.subscriptions,
        )
        root = read_bounded(config.trusted_root, _ROOT_BYTES) if config.trusted_root is not None else None
        account = told.account or None
        self._agent = Agent(
            wanted, connect=lambda: RucioCatalogue.connect(account=account), trust=make_trust(root), clock=time.time
        )
        self._ended: asyncio.Future[None] | None = None

    @property
    def name(self) -> str:
        """The section of /v1/status."""
        return "rucio"

    async def start(self) -> None:
        """Begin."""
        self._ended = start_thread(self._run, name="pacball-rucio")

    def stop(self) -> None:
        """Begin nothing new; what is on its way goes on after the next start."""
        self._agent.stop()

    async def end(self) -> None:
        """Wait for the thread. Cut off, it is as if it had been killed, which it may be anywhere."""
        self.stop()
        if self._ended is not None:
            await self._ended

    def status(self) -> Mapping[str, object]:
        """How the agent does."""
        return self._agent.standing.document()

    def metrics(self) -> Iterable[Metric]:
        """The same as numbers."""
        return self._agent.standing.metrics()

    def warnings(self) -> Iterable[str]:
        """What somebody should look after."""
        return self._agent.standing.warnings()

    def _run(self) -> None:
        while not self._agent.stopped:
            try:
                self._agent.run()
            except PacballError as error:
                # The store itself: the daemon serves what it can all the same.
                if self._agent.standing.fail("refused", str(error), time.time()):
                    _log.warning("the agent of the RSE %s cannot work: %s", self._agent.config.rse, error)
                self._agent.wait(_AGAIN_SECONDS)
