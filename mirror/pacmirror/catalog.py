"""The catalog as this daemon serves it: timestamp.json is answered from the last state that verified, never from the disk.

What lies in the store is looked at when somebody asks, and after each change it is verified once, in a thread
(`pacmirror.judging`); who asks meanwhile waits a moment, and then gets the state before. What does not verify, or is older
than what was served before, is not served: the last good state is, as long as its files are there.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pacmirror.judging import TIMESTAMP_PATH, Judge
from pacmirror.threads import start_thread
from pacstore.errors import NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from pacmirror.config import Config
    from pacmirror.files import PublicFiles
    from pacmirror.judging import Verdict
    from pacstore.trust.served import ServedState, VerifiedRoles

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Standing:
    """What is served now, if anything, and why that is not what lies in the store.

    `refused` counts the states that were not served since the daemon started; `note` says what is the matter with the
    memory of what was served.
    """

    served: ServedState | None = None
    fault: str = ""
    refused: int = 0
    note: str = ""

    @property
    def name(self) -> str:
        """`good`, `last-good` or `none`."""
        if self.served is None:
            return "none"
        return "last-good" if self.fault else "good"


class ServedCatalog:
    """The catalog of one store. For use in one event loop."""

    def __init__(self, config: Config, files: PublicFiles) -> None:
        self.standing = Standing(fault="it is still being verified for the first time")
        self._limits = config.limits
        self._judge = Judge(config, files)
        self._judged: object = None
        self._judging: asyncio.Task[None] | None = None
        self._begun = 0
        self._ended = 0
        self._not_before = 0.0
        self._again_at = 0.0
        self._listeners: list[Callable[[int], None]] = []

    def when_changed(self, tell: Callable[[int], None]) -> None:
        """Call `tell` with the version that is served, as soon as there is one and whenever it is another one."""
        self._listeners.append(tell)
        if self.standing.served is not None:
            tell(self.standing.served.version)

    @property
    def known(self) -> VerifiedRoles:
        """What was verified of it, for others who verify the same."""
        return self._judge.known

    async def timestamp(self) -> bytes:
        """The bytes of timestamp.json. Raises NotFound if there is no catalog, Unavailable if none may be served."""
        standing = await self.look()
        if standing.served is not None:
            return standing.served.timestamp
        if standing.fault:
            hint = "use another source; the server's log says more to its operator"
            raise Unavailable(f"cannot be served: {standing.fault}", place=TIMESTAMP_PATH, hint=hint)
        raise NotFound("is not here", place=TIMESTAMP_PATH, hint="ask another source")

    async def look(self) -> Standing:
        """What is served now. A change in the store is verified first, if that takes no longer than the limits say."""
        seen = await asyncio.to_thread(self._judge.look)
        loop, limits = asyncio.get_running_loop(), self._limits
        wait = limits.catalog_first_wait_seconds if self._judged is None else limits.catalog_wait_seconds
        deadline, begun = loop.time() + wait, self._begun
        # What was begun before may have looked before, too: then it takes one more.
        while seen != self._judged and self._ended <= begun:
            judging, left = self._begin(), deadline - loop.time()
            if left <= 0:
                break
            await asyncio.wait({judging}, timeout=left)
        # Damage may be repaired in files that timestamp.json names: then timestamp.json itself does not change.
        if self.standing.fault and loop.time() >= self._again_at:
            self._begin()
        return self.standing

    async def close(self) -> None:
        """Stop looking; a thread that still reads is left to itself."""
        if self._judging is not None:
            self._judging.cancel()
            await asyncio.wait({self._judging})

    def _begin(self) -> asyncio.Task[None]:
        if self._judging is None:
            self._begun += 1
            self._judging = asyncio.create_task(self._judge_once())
        return self._judging

    async def _judge_once(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await asyncio.sleep(max(self._not_before - loop.time(), 0))
            self._apply(await start_thread(self._judge.judge, name="pacball-catalog"))
        finally:
            self._not_before = loop.time() + self._limits.catalog_pause_seconds
            self._again_at = loop.time() + self._limits.catalog_retry_seconds
            self._ended, self._judging = self._begun, None

    def _apply(self, verdict: Verdict) -> None:
        before, first = self.standing, self._judged is None
        changed = verdict.seen != self._judged or verdict.fault != before.fault
        refused = before.refused + (changed and verdict.is_refusal)
        self._judged = verdict.seen
        self.standing = Standing(verdict.served, verdict.fault, refused, verdict.note)
        if verdict.served is not None and verdict.served != before.served:
            for tell in self._listeners:
                tell(verdict.served.version)
        if verdict.fault and changed:
            instead = f"version {verdict.served.version} still is" if verdict.served else "nothing is"
            _log.error("the catalog is not served as it lies in the store, %s: %s", instead, verdict.fault)
        elif before.fault and not verdict.fault and not first:
            _log.warning("the catalog is served as it lies in the store again")
        if verdict.note and verdict.note != before.note:
            _log.info("%s", verdict.note)
