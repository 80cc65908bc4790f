"""Bringing one release: its documents, then its packs, some at once, then the proof that it is whole."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pacmirror.threads import start_thread
from pacstore.errors import PacballError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pacmirror.limits import SyncLimits
    from pacmirror.sync.keeping import Keeping
    from pacmirror.sync.standing import Transfer
    from pacmirror.sync.supplies import DocumentSupply, PackSupply
    from pacstore.digest import Digest
    from pacstore.trust.targets import CatalogRelease

_THREAD = "pacball-sync"


class Bringer:
    """Brings releases from the supplies of the daemon; all of them share the packs that are fetched at once."""

    def __init__(self, documents: DocumentSupply, packs: PackSupply, limits: SyncLimits) -> None:
        self._documents = documents
        self._packs = packs
        self._limits = limits
        self._slots = asyncio.Semaphore(limits.packs)

    async def bring(self, keeping: Keeping, entry: CatalogRelease, transfer: Transfer) -> None:
        """Return when the release is complete. Raises what went wrong first; all that could be fetched then was.

        Cancelled, it begins where it was the next time.
        """
        await start_thread(lambda: keeping.begin(entry.release), name=_THREAD)
        await self._documents.fetch(entry)
        plan = await start_thread(lambda: keeping.plan(entry), name=_THREAD)
        transfer.total_bytes, transfer.held_bytes = plan.total_bytes, plan.held_bytes
        errors: list[PacballError] = []
        missing = iter(plan.missing.items())
        workers = [
            asyncio.create_task(self._fetch(missing, transfer, errors))
            for _ in range(min(self._limits.packs, len(plan.missing)))
        ]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            if workers:
                await asyncio.wait(workers)
        if errors:
            raise errors[0]
        await start_thread(lambda: keeping.finish(entry), name=_THREAD)

    async def _fetch(
        self, missing: Iterator[tuple[Digest, int]], transfer: Transfer, errors: list[PacballError]
    ) -> None:
        """Fetch packs until there are no more. A bad one keeps nobody from the others; where nothing comes, all give up."""
        for pack, length in missing:
            async with self._slots:
                if any(isinstance(error, Unavailable) for error in errors):
                    return
                try:
                    await self._packs.fetch(pack, length=length, urgent=False)
                except PacballError as error:
                    errors.append(error)
                else:
                    transfer.held_bytes += length
                    transfer.came_bytes += length
