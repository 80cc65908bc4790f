"""Damaged frames of a release: which ranges of its files, and of its pacball, have bytes that come from them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from pacstore.damage import WHOLE, DamagedPart
from pacstore.document import starts
from pacstore.pacball.stub import STUB_BYTES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pacstore.digest import Digest
    from pacstore.pacball.opened import OpenedRelease
    from pacstore.placement import Placement


class DamagedFrames:
    """Those of an opened release that lie in the damaged `parts` of packs."""

    def __init__(self, opened: OpenedRelease, parts: Iterable[DamagedPart]) -> None:
        placement, manifest = opened.placement, opened.manifest
        self._payload = opened.payload
        self._sizes = manifest.tree.sizes
        chunk_ends = starts(manifest.chunk_lengths)
        self._ends = chunk_ends
        self._begins = chunk_ends[manifest.first_chunks.astype(np.int64)]
        """In the content of all files in a row, hard links too, where each file begins."""
        is_damaged = _find(placement, parts)[placement.chunk_frames]
        self._damaged_before = starts(is_damaged.astype(np.int64))

    def in_file(self, file: int, begin: int, end: int) -> bool:
        """Whether any of the bytes from `begin` to `end` of file number `file` are damaged."""
        size = int(self._sizes[file])
        first = int(self._begins[file])
        return self._between(first + min(begin, size), first + min(end, size))

    def in_pacball(self, begin: int, end: int) -> bool:
        """Likewise of the pacball; of a hard link it may say so for nothing."""
        contents = self._payload.contents
        begin, end = max(begin - STUB_BYTES, 0), end - STUB_BYTES
        first = max(int(np.searchsorted(contents, begin, side="right")) - 1, 0)
        last = int(np.searchsorted(contents, end, side="left")) - 1
        if last < first:
            return False
        low = int(self._begins[first]) + min(max(begin - int(contents[first]), 0), int(self._sizes[first]))
        high = int(self._begins[last]) + min(end - int(contents[last]), int(self._sizes[last]))
        return self._between(low, high)

    def _between(self, begin: int, end: int) -> bool:
        if begin >= end:
            return False
        first = int(np.searchsorted(self._ends, begin, side="right")) - 1
        last = int(np.searchsorted(self._ends, end, side="left"))
        return bool(self._damaged_before[last] > self._damaged_before[first])


def _find(placement: Placement, parts: Iterable[DamagedPart]) -> NDArray[np.bool_]:
    """For each frame of a placement whether it is damaged. What is wrong with a pack as a whole is wrong with every frame."""
    offsets: dict[Digest, set[int]] = defaultdict(set)
    for part in parts:
        if part.pack is not None:
            offsets[part.pack].add(part.offset)
    found = np.zeros(len(placement.frame_packs), dtype=np.bool_)
    for number in range(len(placement.pack_lengths)):
        damaged = offsets.get(placement.pack(number))
        if damaged:
            frames = placement.frame_packs == number
            is_all = WHOLE in damaged
            found |= (
                frames if is_all else frames & np.isin(placement.frame_offsets, np.array(sorted(damaged), np.uint64))
            )
    return found
