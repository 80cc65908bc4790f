"""Which packs are worth repacking, and which of their frames go where: from numbers alone, nothing is read or written here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pacstore.digest import Digest
from pacstore.document import Numbers
from pacstore.limits import LIMITS, PackSizes

LIVE_SHARE = 0.5
"""So each byte that is written again gives back at least one; while both are there, the room needed is at most half of theirs."""
_PACK_CHUNKS = 64 * 1024
"""A pack of more chunks is full, however short, so that its table stays small: of small files frames have thousands each."""


@dataclass(frozen=True, slots=True)
class PackUse:
    """A pack of `length` bytes, of which frames with `live_bytes` are referred to. `reason`: why it must be left alone, if so."""

    pack: Digest
    length: int
    live_bytes: int
    reason: str = ""

    @property
    def dead_bytes(self) -> int:
        """What would be won without it: its dead frames, and the part of its table and footer that is not worth keeping."""
        return self.length - self.live_bytes

    def is_mostly_dead(self, live_share: float) -> bool:
        """Whether something in it is alive, but no more than that share of its bytes."""
        return 0 < self.live_bytes <= live_share * self.length


def mostly_dead(uses: Sequence[PackUse], live_share: float) -> tuple[list[PackUse], list[PackUse]]:
    """The packs to be repacked, and those that would be, but must be left alone. What is wholly dead is for the collection."""
    found = [use for use in uses if use.is_mostly_dead(live_share)]
    return [use for use in found if not use.reason], [use for use in found if use.reason]


@dataclass(frozen=True, eq=False)
class Frames:
    """Frames on their way, a row each: they lie in pack `packs` (numbers of packs) at `offsets`, with `lengths` in bytes.

    `newest`: the newest release that needs it, 0 being the newest of all.
    """

    packs: Numbers
    offsets: Numbers
    lengths: Numbers
    newest: Numbers

    def __len__(self) -> int:
        return len(self.packs)

    def take(self, rows: Numbers) -> Frames:
        """Only these rows, in this order."""
        return Frames(self.packs[rows], self.offsets[rows], self.lengths[rows], self.newest[rows])

    def ordered(self) -> Frames:
        """In the order in which they are to be stored: what will die together lies together, and the order of files is kept.

        A frame dies with the newest release that needs it, since older ones are dropped before. Packs are numbered in the order
        in which releases list them, which is that of their files.
        """
        return self.take(np.lexsort((self.offsets, self.packs, self.newest)))


def cut(lengths: Numbers, chunks: Numbers, sizes: PackSizes) -> Iterator[range]:
    """The rows of the frames with these lengths, and numbers of chunks, that go into each new pack, in order."""
    first = size = count = 0
    for row, (length, more) in enumerate(zip(lengths.tolist(), chunks.tolist(), strict=True)):
        size, count = size + length, count + more
        if size >= sizes.pack_bytes or count >= _PACK_CHUNKS or row + 1 - first >= LIMITS.pack_frames:
            yield range(first, row + 1)
            first, size, count = row + 1, 0, 0
    if first < len(lengths):
        yield range(first, len(lengths))
