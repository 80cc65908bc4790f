"""Planning: which ranges of which packs bring the chunks that are missing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pacstore.document import Numbers
from pacstore.install.options import InstallOptions
from pacstore.install.paths import Numbers32
from pacstore.install.wanted import Wanted
from pacstore.placement import Placement
from pacstore.source import PackRange


@dataclass(frozen=True, eq=False)
class Fetch:
    """Ranges in pack order, and what is wanted of each: frames `frames[a:b]`, chunks `numbers[c:d]` by frame and offset.

    `by_range[r]` to `by_range[r + 1]` are the positions of range r's frames; `by_frame` likewise those of a frame's chunks.
    """

    ranges: list[PackRange]
    frames: Numbers32
    numbers: Numbers32
    by_range: list[int]
    by_frame: Numbers

    @property
    def bytes(self) -> int:
        """How many bytes all ranges have together."""
        return sum(wanted.length for wanted in self.ranges)


def plan_fetch(wanted: Wanted, placement: Placement, missing: Numbers32, options: InstallOptions) -> Fetch:
    """How to fetch the chunks `missing`."""
    examples = wanted.examples[missing]
    order = np.lexsort((placement.chunk_offsets[examples], placement.chunk_frames[examples]))
    numbers = missing[order]
    frames, by_frame = np.unique(placement.chunk_frames[examples[order]], return_index=True)
    by_range = _cut(placement, frames.astype(np.int64), options)
    ends = by_range[1:]
    ranges = [placement.range_of(int(frames[a]), int(frames[b - 1])) for a, b in zip(by_range, ends, strict=False)]
    return Fetch(ranges, frames.astype(np.int32), numbers, by_range, np.append(by_frame, len(numbers)))


def _cut(placement: Placement, frames: Numbers, options: InstallOptions) -> list[int]:
    """Where ranges begin among `frames`: at a new pack, after a wide gap, and where one would become too long."""
    begins = placement.frame_offsets[frames].astype(np.int64)
    ends = begins + placement.frame_lengths[frames]
    packs = placement.frame_packs[frames].astype(np.int64)
    apart = np.ones(len(frames), dtype=bool)
    apart[1:] = (packs[1:] != packs[:-1]) | (begins[1:] - ends[:-1] > options.gap_bytes)
    cuts: list[int] = []
    first = 0
    for at, (new, begin, end) in enumerate(zip(apart.tolist(), begins.tolist(), ends.tolist(), strict=True)):
        if new or end - first > options.range_bytes:
            cuts.append(at)
            first = begin
    return [*cuts, len(frames)]
