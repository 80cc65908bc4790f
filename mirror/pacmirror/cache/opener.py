"""Opener: finds each pack that is asked for once for all who ask: what is open, what is here in part, or its table upstream."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from pacmirror.cache.filling import Filling
from pacmirror.cache.opening import OpenedPack, begin, is_public, open_here
from pacmirror.cache.turns import Turns
from pacmirror.threads import start_thread
from pacmirror.verdict import InCircle, as_gateway
from pacstore.errors import Corrupt, PacballError, Unavailable

if TYPE_CHECKING:
    from pacmirror.cache.figures import Figures
    from pacmirror.cache.health import Health
    from pacmirror.cache.passing import Passing
    from pacmirror.cache.shelf import Shelf
    from pacmirror.limits import CacheLimits
    from pacmirror.tasks import Tasks
    from pacmirror.upstream import Upstream
    from pacstore.digest import Digest
    from pacstore.partial import PartialPacks
    from pacstore.storage import ObjectStorage

_THREAD = "pacball-open"


class Opener:
    """Puts packs on the shelf. `storage` has the public packs, beside the partial ones."""

    def __init__(
        self, partials: PartialPacks, storage: ObjectStorage, upstream: Upstream, shelf: Shelf, tasks: Tasks,
        *, health: Health, figures: Figures, passing: Passing, limits: CacheLimits,
    ) -> None:  # fmt: skip
        self._partials = partials
        self._storage = storage
        self._upstream = upstream
        self._shelf = shelf
        self._tasks = tasks
        self._health = health
        self._figures = figures
        self._passing = passing
        self._limits = limits
        self._opening: dict[Digest, asyncio.Task[bool]] = {}
        self._asked: Counter[str] = Counter()
        self._turns = Turns(limits.openings)

    async def open(self, pack: Digest, *, who: str) -> Filling | None:
        """The pack, for the address `who`, or for the daemon itself, which is empty; None if it is public.

        Whoever stops waiting stops nothing. Raises NotFound if that is definite, otherwise Unavailable or Corrupt.
        """
        while True:
            found = self._shelf.get(pack)
            if found is not None:
                if found.partial is not None or not self._health.may_write():
                    return found
                self.begin_anew(found)
            task = begun = self._opening.get(pack)
            if task is None:
                self._make_room(who)
                self._asked[who] += 1
                task = self._opening[pack] = self._tasks.begin(self._open(pack, who))
            try:
                if not await asyncio.shield(task):
                    return None
            except InCircle:
                if begun is None:
                    raise
                # Whoever began it came through mirrors that this one would have asked.

    def _make_room(self, who: str) -> None:
        if who and self._asked[who] >= self._limits.openings_per_address:
            raise Unavailable("too many packs are asked for at once from this address", hint="try again in a moment")
        self._shelf.make_room(len(self._opening))

    def begin_anew(self, filling: Filling) -> None:
        """The pack was opened where there was no room for it: for those who use it, it passes through memory to the end.

        Whoever comes from now on opens it again, on disk. What nobody waits for does not come into memory, where it would stay
        wanted for ever.
        """
        self._shelf.remove(filling)
        filling.fail(Unavailable("could not be kept", place=filling.pack.hex, hint="it is begun anew"), bulk=True)

    async def _open(self, pack: Digest, who: str) -> bool:
        """Put the pack on the shelf; False if it is public."""
        try:
            made = await start_thread(lambda: open_here(self._partials, pack), name=_THREAD)
            if made is None:
                # In this order: a pack has its public name before it loses the private one.
                if await start_thread(lambda: is_public(self._storage, pack), name=_THREAD):
                    return False
                made = await self._begin(pack, who)
        finally:
            del self._opening[pack]
            self._asked -= Counter({who: 1})
        if made.disk_error is not None:
            self._health.disk_failed(made.disk_error)
        self._shelf.put(
            Filling(pack, made.frames, made.partial, ending=made.ending, passing=self._passing, limits=self._limits)
        )
        return True

    async def _begin(self, pack: Digest, who: str) -> OpenedPack:
        async with self._turns.take(who):
            if (refusal := self._health.refusal(pack)) is not None:
                raise refusal
            began = self._health.now
            work = partial(begin, self._partials, self._upstream.mirrors, pack, self._limits)
            try:
                made = await start_thread(work, name=_THREAD)
            except PacballError as error:
                self._figures.fetches_failed += 1
                self._figures.verify_failures += isinstance(error, Corrupt)
                self._health.failed(pack, error, began)
                raise as_gateway(error) from error
            self._health.came()
            return made
