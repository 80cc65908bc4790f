"""Seats: how many may be sent what is put together at once, in all and of each address."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pacstore.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pacmirror.limits import PacballLimits


class Seats:
    """For use in one event loop. `taken`: how many there are now; `refused`: since the start."""

    def __init__(self, limits: PacballLimits) -> None:
        self.taken = 0
        self.refused = 0
        self._limits = limits
        self._of: Counter[str] = Counter()

    @contextmanager
    def seat(self, who: str) -> Iterator[None]:
        """One for the address `who`, empty for one that is not counted. Raises Unavailable if there is none."""
        limits = self._limits
        if self.taken >= limits.assemblies or (who and self._of[who] >= limits.assemblies_per_address):
            self.refused += 1
            raise Unavailable("too much is being put together here at once", hint="try again in a moment")
        self.taken += 1
        self._of[who] += 1
        try:
            yield
        finally:
            self.taken -= 1
            self._of[who] -= 1
            self._of += Counter()
