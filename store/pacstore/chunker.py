"""The chunker `fastcdc-2020`: where files are cut (FORMAT.md section 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pyfastcdc import FastCDC

from pacstore.limits import KIB

if TYPE_CHECKING:
    from pacstore.document import Value


@dataclass(frozen=True)
class ChunkerParameters:
    """What a manifest's header says of its chunker; sizes in bytes."""

    name: str
    min_bytes: int
    avg_bytes: int
    max_bytes: int
    normalization: Literal[0, 1, 2, 3]

    def header(self) -> dict[str, Value]:
        """The map `chunker` of a manifest's header."""
        return {
            "name": self.name,
            "min": self.min_bytes,
            "avg": self.avg_bytes,
            "max": self.max_bytes,
            "normalization": self.normalization,
        }

    @classmethod
    def from_header(cls, value: object) -> ChunkerParameters | None:
        """The parameters in a header's map, or None where it is no such map."""
        if not isinstance(value, dict) or type(value.get("name")) is not str:
            return None
        numbers = [value.get(key) for key in ("min", "avg", "max", "normalization")]
        if any(type(n) is not int for n in numbers):
            return None
        return cls(value["name"], value["min"], value["avg"], value["max"], value["normalization"])


CHUNKER = ChunkerParameters("fastcdc-2020", 16 * KIB, 64 * KIB, 256 * KIB, 1)
"""The only chunker of format version 1."""


class Chunker:
    """Cuts one file's bytes, given in pieces. Not for several threads at once; reusable from file to file."""

    def __init__(self) -> None:
        self._cdc = FastCDC(
            CHUNKER.avg_bytes,
            min_size=CHUNKER.min_bytes,
            max_size=CHUNKER.max_bytes,
            normalized_chunking=CHUNKER.normalization,
        )

    def cut(self, data: memoryview, *, last: bool) -> list[int]:
        """The lengths of the chunks at the start of `data`, a run that begins at a chunk's start.

        Unless this is the `last` of the file, what is too near the end of `data` for its boundary to be certain (fewer than
        `max` bytes) is left over: the caller gives it again before the bytes that follow.
        """
        if last and len(data) <= CHUNKER.min_bytes:
            return [len(data)] if len(data) else []
        lengths: list[int] = []
        left = len(data)
        for chunk in self._cdc.cut_buf(data):
            if not last and left < CHUNKER.max_bytes:
                break
            lengths.append(chunk.length)
            left -= chunk.length
        return lengths
