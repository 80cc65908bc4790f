"""Room: how much may be in memory, or under way, at once."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Room:
    """Room for at most `count` things with `limit_bytes` together; one that is larger may be alone. For one event loop."""

    def __init__(self, limit_bytes: int, count: int) -> None:
        self._limit_bytes = limit_bytes
        self._count = count
        self._taken_bytes = 0
        self._taken = 0
        self._line: deque[object] = deque()
        self._freed = asyncio.Condition()

    @asynccontextmanager
    async def take(self, length: int) -> AsyncIterator[None]:
        """Wait until there is room for `length` bytes; it is free again at the end of the context.

        Who came first is first, since otherwise much would never find room beside little.
        """
        place = object()
        async with self._freed:
            self._line.append(place)
            try:
                await self._freed.wait_for(lambda: self._line[0] is place and self._has_room(length))
                self._taken += 1
                self._taken_bytes += length
            finally:
                self._line.remove(place)
                self._freed.notify_all()
        try:
            yield
        finally:
            self._taken -= 1
            self._taken_bytes -= length
            async with self._freed:
                self._freed.notify_all()

    def _has_room(self, length: int) -> bool:
        if not self._taken:
            return True
        return self._taken < self._count and self._taken_bytes + length <= self._limit_bytes


class SharedRoom:
    """Room of which each has at most a share: who wants more waits behind himself, and not before others."""

    def __init__(self, limit_bytes: int, count: int, *, share_bytes: int, share_count: int) -> None:
        self._all = Room(limit_bytes, count)
        self._share = share_bytes, share_count
        self._of: dict[str, tuple[Room, list[None]]] = {}

    @asynccontextmanager
    async def take(self, who: str, length: int) -> AsyncIterator[None]:
        """Likewise, for `who`."""
        own, users = self._of.setdefault(who, (Room(*self._share), []))
        users.append(None)
        try:
            async with own.take(length), self._all.take(length):
                yield
        finally:
            users.pop()
            if not users:
                del self._of[who]
