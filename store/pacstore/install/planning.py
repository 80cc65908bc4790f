"""Planning: which frames bring the chunks that are missing, and which ranges of packs bring these frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pacstore.document import Numbers
from pacstore.install.options import InstallOptions
from pacstore.install.tree.paths import Numbers32
from pacstore.install.wanted import Flags, Wanted
from pacstore.placement import Placement
from pacstore.source import PackRange


@dataclass(frozen=True, slots=True)
class Cut:
    """A range, which holds the frames at the positions `first` to `last`, the latter excluded."""

    range: PackRange
    first: int
    last: int


@dataclass(frozen=True, eq=False)
class Fetch:
    """Frames in pack order, and what is wanted of each: the chunks `numbers[c:d]`, by frame and offset.

    `by_frame[f]` to `by_frame[f + 1]` are the positions of the chunks of frame f. `apart`: whether a frame must not be asked
    for together with the one before it, because it is in another pack or too far away.
    """

    placement: Placement
    frames: Numbers32
    numbers: Numbers32
    by_frame: Numbers
    apart: Flags
    options: InstallOptions

    @cached_property
    def bytes(self) -> int:
        """How many bytes the ranges have together, if all of them are as long as they may be."""
        return sum(cut.range.length for cut in self.cut(lambda: self.options.range_bytes))

    @cached_property
    def requests(self) -> int:
        """How many ranges there are then."""
        return sum(1 for _ in self.cut(lambda: self.options.range_bytes))

    @property
    def frame_bytes(self) -> int:
        """How many bytes the frames have, without what lies between them."""
        return int(self.placement.frame_lengths[self.frames].sum(dtype=np.int64))

    def cut(self, range_bytes: Callable[[], int]) -> Iterator[Cut]:
        """The ranges, each cut only when it is asked for, about as long as `range_bytes` says then, of at least one frame."""
        begins, ends = self._extents()
        first = 0
        while first < len(self.frames):
            most = int(begins[first]) + min(range_bytes(), self.options.range_bytes)
            last = first + 1
            while last < len(self.frames) and not self.apart[last] and ends[last] <= most:
                last += 1
            yield Cut(self.placement.range_of(int(self.frames[first]), int(self.frames[last - 1])), first, last)
            first = last

    def _extents(self) -> tuple[Numbers, Numbers]:
        begins = self.placement.frame_offsets[self.frames].astype(np.int64)
        return begins, begins + self.placement.frame_lengths[self.frames]


def plan_fetch(wanted: Wanted, placement: Placement, missing: Numbers32, options: InstallOptions) -> Fetch:
    """How to fetch the chunks `missing`."""
    examples = wanted.examples[missing]
    order = np.lexsort((placement.chunk_offsets[examples], placement.chunk_frames[examples]))
    numbers = missing[order]
    found, by_frame = np.unique(placement.chunk_frames[examples[order]], return_index=True)
    frames = found.astype(np.int32)
    begins = placement.frame_offsets[frames].astype(np.int64)
    ends = begins + placement.frame_lengths[frames]
    packs = placement.frame_packs[frames]
    apart = np.ones(len(frames), dtype=bool)
    apart[1:] = (packs[1:] != packs[:-1]) | (begins[1:] - ends[:-1] > options.gap_bytes)
    return Fetch(placement, frames, numbers, np.append(by_frame, len(numbers)), apart, options)
