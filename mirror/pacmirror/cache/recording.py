"""Recording: tells the ledger, now and then, which packs the cache completed, began, and sent: so that a quota can be kept.

What is lost in a crash is found again when the daemon starts, except when packs were used last, of which seconds are lost.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from pacmirror.service import Service
from pacmirror.tasks import keep_doing
from pacmirror.threads import start_thread
from pacstore.errors import NotFound, PacballError
from pacstore.ledger import packs
from pacstore.ledger.packs import PackState
from pacstore.storage import ObjectKind

if TYPE_CHECKING:
    from pacmirror.cache.changes import Changes
    from pacmirror.cache.filler import Filler
    from pacmirror.sync.bookkeeping import Bookkeeping
    from pacstore.partial import PartialPacks
    from pacstore.storage import Clock
    from pacstore.store import Store

_log = logging.getLogger(__name__)


class Recording(Service):
    """The service `recording`, which has no section: `books` has the ledger, the filler the news."""

    def __init__(self, books: Bookkeeping, filler: Filler, *, clock: Clock = time.time) -> None:
        self._books = books
        self._filler = filler
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._failed = False

    @property
    def name(self) -> str:
        """Of no section."""
        return "recording"

    async def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._keep_writing())

    def stop(self) -> None:
        """The last batch is written at the end."""
        if self._task is not None:
            self._task.cancel()

    async def end(self) -> None:
        """Write the last batch."""
        if self._task is not None:
            with suppress(asyncio.CancelledError):
                await self._task
            await self.write()

    async def write(self) -> None:
        """Write what is new. If the ledger cannot be written, it is tried again with the next batch."""
        keeping, changes = self._books.keeping, self._filler.changes.take()
        if keeping is None or not changes:
            return
        try:
            await start_thread(lambda: _write(keeping.store, self._filler.partials, changes, self._clock()),
                               name="pacball-record")  # fmt: skip
            self._failed = False
        except PacballError as error:
            self._filler.changes.put_back(changes)
            if not self._failed:
                _log.warning("the ledger could not be told what the cache holds: %s", error)
            self._failed = True

    async def _keep_writing(self) -> None:
        await keep_doing(
            self.write, every_seconds=self._filler.limits.record_seconds, what="telling the ledger what the cache holds"
        )


def _write(store: Store, partials: PartialPacks, changes: Changes, now: float) -> None:
    with store.ledger.writing() as connection:
        for pack in changes.completed:
            with suppress(NotFound):
                # One that was found damaged since it came stays so until it is healed.
                packs.adopt(connection, {pack: store.storage.size(ObjectKind.PACK, pack)}, now=now)
        for pack, length in changes.begun.items():
            # One that was completed meanwhile is not partial any more.
            with suppress(NotFound):
                held = min(partials.occupied(pack), length)
                packs.record(connection, pack, length=length, held_bytes=held, state=PackState.PARTIAL, now=now)
        packs.touch(connection, changes.used)
