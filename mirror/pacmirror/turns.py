"""Turns: one at a time for each thing, by its name; nothing is kept of things that nobody waits for."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Hashable


class Turns:
    """For one event loop."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, tuple[asyncio.Lock, list[None]]] = {}

    @asynccontextmanager
    async def take(self, name: Hashable) -> AsyncIterator[None]:
        """Wait until nobody else is at `name`; others wait until the end of the context."""
        lock, users = self._locks.setdefault(name, (asyncio.Lock(), []))
        users.append(None)
        try:
            async with lock:
                yield
        finally:
            users.pop()
            if not users:
                del self._locks[name]

    def is_taken(self, name: Hashable) -> bool:
        """Whether somebody is there, or waits to be."""
        return name in self._locks
