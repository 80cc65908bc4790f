"""Feed: the catalog of one upstream, looked at at once when it says that there is something new, and by polling.

Each upstream has a feed of its own, so that one that is dead, slow or hostile keeps nobody from hearing of what another one has.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING

from pacstore.errors import PacballError, Unavailable, printable
from pacstore.trust.incoming import StoreFailed
from pacstore.trust.replica import Outcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pacmirror.limits import ReplicationLimits
    from pacstore.source import Source
    from pacstore.trust.replica import Look

_log = logging.getLogger(__name__)
_random = random.SystemRandom()


class Feed:
    """Follows one upstream by `look`, which is told whether all files are to be looked at, and whom to tell a version.

    `version` is the highest of its catalog that its online keys were seen to have signed; `error` why the last look failed, empty
    if it did not, and `is_outage` whether it could just not be reached; `failures` counts those since the start.
    """

    def __init__(
        self,
        source: Source,
        look: Callable[[Source, bool, Callable[[int], None]], Awaitable[Look]],
        *,
        poll_seconds: float,
        limits: ReplicationLimits,
    ) -> None:
        self.source = source
        self.name = printable(source.name)
        self.outcome: Outcome | None = None
        self.version: int | None = None
        self.error = ""
        self.is_outage = False
        self.failures = 0
        self.begun = self.ended = 0
        self._look = look
        self._poll_seconds = poll_seconds
        self._limits = limits
        self._wake = asyncio.Event()
        self._whole = False
        self._in_a_row = 0
        self._good_at: float | None = None
        self._waiting: set[asyncio.Future[None]] = set()

    def poke(self, *, whole: bool = False) -> None:
        """Look soon."""
        self._whole = self._whole or whole
        self._wake.set()

    async def look(self, *, whole: bool = False) -> None:
        """Return when a look has ended that was begun after this was called."""
        begun = self.begun
        self.poke(whole=whole)
        while self.ended <= begun:
            ended = asyncio.get_running_loop().create_future()
            self._waiting.add(ended)
            try:
                await ended
            finally:
                self._waiting.discard(ended)

    def age_seconds(self) -> float | None:
        """How long ago it was last known what it has; None if it never was."""
        return None if self._good_at is None else time.monotonic() - self._good_at

    def section(self) -> dict[str, object]:
        """What /v1/status says of it."""
        age = self.age_seconds()
        return {
            "name": self.name,
            "state": "failing" if self.error else self.outcome.value if self.outcome else "unknown",
            "version": self.version,
            "age_seconds": None if age is None else round(age, 1),
            "failures": self.failures,
            "error": self.error,
        }

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.step()
            await self.pause()

    async def step(self) -> None:
        """Look once. Raises nothing: how it ended is told by `error`."""
        self._wake.clear()
        self.begun += 1
        try:
            await self._look_once()
        finally:
            self.ended = self.begun
            for waiting in self._waiting:
                if not waiting.done():
                    waiting.set_result(None)

    async def _look_once(self) -> None:
        whole, self._whole = self._whole, False
        try:
            look = await self._look(self.source, whole, self._saw)
        except PacballError as error:
            self._failed(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next look comes
            _log.debug("looking at the catalog of %s failed", self.name, exc_info=True)
            self._failed(PacballError(f"unexpectedly: {error!r}"))
        else:
            self._saw(look.version)
            if self.error:
                _log.warning("the catalog of %s is followed again", self.name)
            self.outcome, self.error, self._in_a_row, self._good_at = look.outcome, "", 0, time.monotonic()

    def _failed(self, error: PacballError) -> None:
        self.failures += 1
        self._in_a_row += 1
        self.is_outage = isinstance(error, Unavailable) and not isinstance(error, StoreFailed)
        reason = str(error)
        # Each reason once: who fails for days must not fill the log.
        if reason != self.error:
            _log.warning("the catalog of %s could not be followed: %s", self.name, reason)
        self.error = reason

    def _saw(self, version: int) -> None:
        self.version = max(version, self.version or 0)

    async def pause(self) -> None:
        """Return when it is time for the next look, or somebody wants one."""
        limits = self._limits
        await asyncio.sleep(limits.least_seconds)
        pause = self._poll_seconds
        if self._in_a_row:
            pause = min(limits.backoff_seconds * 2.0 ** min(self._in_a_row - 1, 30), pause)
        try:
            async with asyncio.timeout(pause * _random.uniform(1 - limits.jitter, 1 + limits.jitter)):
                await self._wake.wait()
        except TimeoutError:
            return
