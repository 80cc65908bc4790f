"""Jobs: rows of chunks, or of files, cut into pieces of work of a bounded size."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pacstore.document import Column, starts
from pacstore.limits import MIB

_JOB_BYTES = 16 * MIB
_JOB_CHUNKS = 4_096


def jobs(lengths: Column, *, most: int = _JOB_CHUNKS) -> Iterator[tuple[int, int]]:
    """Cut a row of chunks, or of files, into jobs of bounded bytes and at most so many: first and last position of each."""
    ends = starts(lengths)
    first = 0
    while first < len(lengths):
        last = int(np.searchsorted(ends, ends[first] + _JOB_BYTES, side="right")) - 1
        last = max(first + 1, min(last, first + most))
        yield first, last
        first = last
