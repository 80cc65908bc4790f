"""Shelf: the packs that are open: those that are being filled or read, and some that were last used."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from pacstore.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pacmirror.cache.filling import Filling
    from pacmirror.limits import CacheLimits
    from pacstore.digest import Digest


class Shelf:
    """Owns the open files of all fillings."""

    def __init__(self, limits: CacheLimits) -> None:
        self._limits = limits
        self._fillings: dict[Digest, Filling] = {}
        self._idle: OrderedDict[Digest, None] = OrderedDict()

    def __iter__(self) -> Iterator[Filling]:
        return iter(list(self._fillings.values()))

    @property
    def in_use(self) -> int:
        """How many packs somebody uses, or wants something of."""
        return len(self._fillings) - len(self._idle)

    def get(self, pack: Digest) -> Filling | None:
        """The pack, if it is open."""
        return self._fillings.get(pack)

    def put(self, filling: Filling) -> None:
        """One more, which nobody uses yet."""
        self._fillings[filling.pack] = filling
        self._idle[filling.pack] = None

    def take(self, filling: Filling) -> None:
        """Somebody uses it."""
        filling.users += 1
        self._idle.pop(filling.pack, None)

    def give_back(self, filling: Filling) -> None:
        """That somebody does not use it any more."""
        filling.users -= 1
        self.rest(filling)

    def rest(self, filling: Filling) -> None:
        """Perhaps nobody needs it now. Those that were used last stay open; what is over, or has no file, does not."""
        if not filling.is_idle:
            return
        if filling.is_over or filling.partial is None:
            self.close(filling)
            return
        self._idle[filling.pack] = None
        self._idle.move_to_end(filling.pack)
        if len(self._idle) > self._limits.idle_packs:
            self._close_idle()

    def make_room(self, opening: int) -> None:
        """One more pack may be opened, beside so many that are being opened. Raises Unavailable if too many are in use."""
        if len(self._fillings) + opening >= self._limits.packs and not self._close_idle():
            raise Unavailable("too many packs are asked for at once", hint="try again in a moment")

    def remove(self, filling: Filling) -> None:
        """It is not to be found any more; its file stays open for those who use it."""
        if self._fillings.get(filling.pack) is filling:
            del self._fillings[filling.pack]
            self._idle.pop(filling.pack, None)

    def close(self, filling: Filling) -> None:
        """Close its file."""
        self.remove(filling)
        if filling.partial is not None:
            filling.partial.close()

    def _close_idle(self) -> bool:
        for pack in self._idle:
            filling = self._fillings[pack]
            if filling.is_idle:
                self.close(filling)
                return True
        return False
