"""Passing: frames in memory, for those who wait for them, where the disk is full or fails. Bounded; the oldest go first."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pacstore.digest import Digest


class Passing:
    """Verified frames, by pack and number, together at most `most_bytes` and one frame."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._frames: OrderedDict[tuple[Digest, int], memoryview] = OrderedDict()
        self.held_bytes = 0

    def get(self, pack: Digest, number: int) -> memoryview | None:
        """The frame, if it is here."""
        return self._frames.get((pack, number))

    def put(self, pack: Digest, number: int, data: memoryview) -> None:
        """Hold the frame for a while."""
        while self._frames and self.held_bytes + len(data) > self._most_bytes:
            self.held_bytes -= len(self._frames.popitem(last=False)[1])
        self.drop(pack, number)
        self._frames[pack, number] = data
        self.held_bytes += len(data)

    def clear(self) -> None:
        """Let go of all."""
        self._frames.clear()
        self.held_bytes = 0

    def drop(self, pack: Digest, number: int) -> None:
        """Let go of the frame, if it is here."""
        self.held_bytes -= len(self._frames.pop((pack, number), memoryview(b"")))
