"""Gathering: packs that a store lacks come from elsewhere, several at once, each verified and durable by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

from pacstore.digest import Digest
from pacstore.errors import PacballError, Unavailable
from pacstore.holding import has_pack
from pacstore.ledger import packs
from pacstore.ledger.packs import PackState
from pacstore.transfer import Fault, fetch_pack

if TYPE_CHECKING:
    from pacstore.progress import Progress
    from pacstore.source import Source
    from pacstore.storage import Clock
    from pacstore.store import Store

PACKS_AT_ONCE = 3
"""Each may have 32 MiB in memory: more packs bring no more, and with a large manifest would take more than 256 MiB."""
_HINT = "what came is kept: run the same command again, or name other sources"
Arrived = Callable[[Digest, int], None]
"""Told a pack that is durable now, and its length in bytes."""


def gather(
    source: Source, store: Store, wanted: Mapping[Digest, int], *, clock: Clock, progress: Progress, arrived: Arrived
) -> dict[Digest, int]:
    """Fetch the packs `wanted`, of these lengths, into `store`: those that came, with their lengths. All are there then.

    Raises what went wrong first, of the source or of the store's own disk, after all that could be fetched then was: a pack that
    is wrong keeps nobody from the others; where nothing comes, all give up. Killed anywhere, the same call goes on.
    """
    progress.begin("fetching", sum(wanted.values()))
    gathering = _Gathering(source, store, clock, progress, arrived, iter(wanted.items()))
    with ThreadPoolExecutor(PACKS_AT_ONCE, thread_name_prefix="pacball-gather") as threads:
        workers = [threads.submit(gathering.work) for _ in range(min(PACKS_AT_ONCE, len(wanted)))]
        try:
            for worker in workers:
                worker.result()
        finally:
            gathering.stop()
    if gathering.errors:
        raise gathering.errors[0]
    return gathering.came


class _Stopped(Exception):
    """Another thread failed, or was interrupted."""


@dataclass
class _Gathering:
    source: Source
    store: Store
    clock: Clock
    progress: Progress
    arrived: Arrived
    left: Iterator[tuple[Digest, int]]
    came: dict[Digest, int] = field(default_factory=dict)
    errors: list[PacballError] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)
    _stopped: bool = False

    def stop(self) -> None:
        """Go on with no pack any more."""
        self._stopped = True

    def begin(self, phase: str, total_bytes: int | None) -> None:
        """As of any Progress."""
        self.progress.begin(phase, total_bytes)

    def advance(self, count_bytes: int) -> None:
        """As of any Progress; who must stop, is stopped here."""
        if self._stopped:
            raise _Stopped
        self.progress.advance(count_bytes)

    def warn(self, message: str) -> None:
        """As of any Progress."""
        self.progress.warn(message)

    def work(self) -> None:
        """Fetch packs until there are no more. Raises what is wrong with the store."""
        while (one := self._next()) is not None:
            pack, length = one
            try:
                if self._is_here(pack, length):
                    self.progress.advance(length)
                    continue
                fetch_pack(self.source, self.store.storage, pack, length, progress=self)
            except Fault as fault:
                fault.error.hint = fault.error.hint or _HINT
                self._add(fault.error)
                continue
            except _Stopped:
                return
            except BaseException:
                self.stop()
                raise
            with self.store.ledger.writing() as connection:
                packs.record(
                    connection, pack, length=length, held_bytes=length, state=PackState.WHOLE, now=self.clock()
                )
            with self._lock:
                self.came[pack] = length
            self.arrived(pack, length)

    def _next(self) -> tuple[Digest, int] | None:
        with self._lock:
            return None if self._stopped else next(self.left, None)

    def _is_here(self, pack: Digest, length: int) -> bool:
        """Whether somebody else has brought it meanwhile."""
        with self.store.ledger.reading() as connection:
            row = packs.find(connection, pack)
        return row is not None and row.state is PackState.WHOLE and has_pack(self.store.storage, pack, length)

    def _add(self, error: PacballError) -> None:
        with self._lock:
            self.errors.append(error)
            self._stopped |= isinstance(error, Unavailable)
