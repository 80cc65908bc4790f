"""FrameList: where the frames of one pack lie, and their digests: what is kept in memory of a pack that is being filled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pacstore.digest import DIGEST_BYTES, Bytes
from pacstore.document import Numbers
from pacstore.errors import Corrupt
from pacstore.pack import FOOTER_BYTES, FRAMES_BEGIN, Table, check_frame


@dataclass(frozen=True, eq=False)
class FrameList:
    """`offsets`: N + 1 numbers, of each frame and of the end of the last one, where the table of `table_bytes` begins."""

    offsets: Numbers
    digests: bytes
    table_bytes: int

    @classmethod
    def of(cls, table: Table) -> FrameList:
        """That of a table, of which nothing else is kept."""
        return cls(table.offsets.copy(), table.digests.tobytes(), table.length)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def pack_length(self) -> int:
        """The length of the whole pack in bytes."""
        return int(self.offsets[-1]) + self.table_bytes + FOOTER_BYTES

    def begin(self, number: int) -> int:
        """The offset of frame `number` in the pack; for N, that of the table."""
        return int(self.offsets[number])

    def length(self, number: int) -> int:
        """The compressed length of frame `number`, in bytes."""
        return int(self.offsets[number + 1] - self.offsets[number])

    def covering(self, offset: int, length: int) -> range:
        """The frames that have any of the `length` bytes at `offset`; header, table and footer belong to none."""
        first, end = max(offset, FRAMES_BEGIN), min(offset + length, int(self.offsets[-1]))
        if first >= end:
            return range(0)
        return range(
            int(np.searchsorted(self.offsets, first, side="right")) - 1,
            int(np.searchsorted(self.offsets, end, side="left")),
        )

    def check(self, number: int, data: Bytes, *, place: str) -> None:
        """Raise Corrupt unless `data` are the compressed bytes of frame `number`."""
        where = f"{place}, frame at {self.begin(number)}"
        if memoryview(data).nbytes != self.length(number):
            raise Corrupt(f"is not the {self.length(number)} bytes of a frame", place=where)
        at = number * DIGEST_BYTES
        check_frame(data, self.digests[at : at + DIGEST_BYTES], place=where)
