"""Packs: immutable files of frames, named by the digest of their table (FORMAT.md sections 4.4 and 5)."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, cast

import numpy as np
from blake3 import blake3

from pacstore.digest import Bytes, Digest
from pacstore.document import (
    U8,
    U32,
    Column8,
    Column32,
    Document,
    Layout,
    Numbers,
    check_magic,
    column_bytes,
    decode,
    encode,
    starts,
)
from pacstore.errors import Corrupt, TooLarge
from pacstore.limits import LIMITS

HEADER = b"PBPACK01"
FOOTER_MAGIC = b"PBPEND01"
_FOOTER = struct.Struct("<Q8s")
FOOTER_BYTES = _FOOTER.size
FRAMES_BEGIN = len(HEADER)

LAYOUT = Layout(
    letters="TABL",
    title="pack table",
    keys=("chunks", "frames"),
    sections=("kinds", "lengths", "digests", "chunk_counts", "chunk_lengths", "chunk_ids"),
    limit_bytes=LIMITS.table_bytes,
    extensible=True,
)


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a pack: `offset` and compressed `length` in bytes, `digest` of the compressed bytes."""

    number: int
    kind: int
    offset: int
    length: int
    plain_length: int
    digest: bytes


@dataclass(frozen=True, eq=False)
class Table:
    """A parsed table. Frame f lies at `offsets[f]`; its chunks are `first_chunks[f]` to `first_chunks[f + 1]`."""

    id: Digest
    length: int
    kinds: Column8
    lengths: Column32
    digests: Column8
    chunk_lengths: Column32
    chunk_ids: Column8
    offsets: Numbers
    first_chunks: Numbers
    plain_lengths: Numbers

    @classmethod
    def parse(cls, data: Bytes, *, place: str) -> Table:
        """The table in `data`. Raises Corrupt, TooLarge or NewerFormat for all that FORMAT.md does not allow."""
        document = decode(LAYOUT, data, place=place)
        frames = document.number("frames", LIMITS.pack_frames)
        chunks = document.number("chunks", frames * LIMITS.frame_chunks)
        counts = cast(Column32, document.column("chunk_counts", U32, frames))
        lengths = cast(Column32, document.column("lengths", U32, frames))
        chunk_lengths = cast(Column32, document.column("chunk_lengths", U32, chunks))
        first_chunks = starts(counts)
        _check_counts(document, counts, chunk_lengths)
        ends = starts(chunk_lengths)
        table = cls(
            id=Digest.of(data),
            length=memoryview(data).nbytes,
            kinds=cast(Column8, document.column("kinds", U8, frames)),
            lengths=lengths,
            digests=document.digests("digests", frames),
            chunk_lengths=chunk_lengths,
            chunk_ids=document.digests("chunk_ids", chunks),
            offsets=starts(lengths) + FRAMES_BEGIN,
            first_chunks=first_chunks,
            plain_lengths=ends[first_chunks[1:]] - ends[first_chunks[:-1]],
        )
        if ((lengths == 0) | (lengths > LIMITS.frame_bytes)).any():
            raise document.corrupt("a frame's compressed length is out of bounds")
        if (table.plain_lengths > LIMITS.frame_plain_bytes).any():
            raise document.corrupt("a frame's plain length is out of bounds")
        return table

    @property
    def pack_length(self) -> int:
        """The length that the whole pack file must have, in bytes."""
        return int(self.offsets[-1]) + self.length + FOOTER_BYTES

    def frames(self) -> Iterator[Frame]:
        """Every frame, in order."""
        for number in range(len(self.lengths)):
            yield self.frame(number)

    def runs(self, most_bytes: int, *, first: int = 0) -> Iterator[range]:
        """The numbers of the frames from `first` on, cut where more than `most_bytes` would come together."""
        for number in range(first + 1, len(self.lengths)):
            if int(self.offsets[number + 1] - self.offsets[first]) > most_bytes:
                yield range(first, number)
                first = number
        if first < len(self.lengths):
            yield range(first, len(self.lengths))

    def bad_frames(self, run: range, data: Bytes) -> list[int]:
        """Which frames of `run` are not what the table says, in the bytes `data` from the first one's offset on."""
        view = memoryview(data)
        bounds = (self.offsets[run.start : run.stop + 1] - self.offsets[run.start]).tolist()
        return [
            number
            for number, begin, end in zip(run, bounds, bounds[1:], strict=False)
            if blake3(view[begin:end]).digest() != self.digests[number].tobytes()
        ]

    def frame(self, number: int) -> Frame:
        """Frame `number`."""
        return Frame(
            number,
            int(self.kinds[number]),
            int(self.offsets[number]),
            int(self.lengths[number]),
            int(self.plain_lengths[number]),
            self.digests[number].tobytes(),
        )


def _check_counts(document: Document, counts: Column32, chunk_lengths: Column32) -> None:
    if ((counts == 0) | (counts > LIMITS.frame_chunks)).any():
        raise document.corrupt("a frame has no chunk or too many")
    if int(counts.sum(dtype=np.int64)) != len(chunk_lengths):
        raise document.corrupt("the chunk counts do not add up to 'chunks'")
    if ((chunk_lengths == 0) | (chunk_lengths > LIMITS.frame_plain_bytes)).any():
        raise document.corrupt("a chunk's length is out of bounds")


@dataclass
class TableBuilder:
    """Collects the frames of a pack being written and encodes its table."""

    kinds: bytearray = field(default_factory=bytearray)
    lengths: array[int] = field(default_factory=lambda: array("I"))
    digests: bytearray = field(default_factory=bytearray)
    chunk_counts: array[int] = field(default_factory=lambda: array("I"))
    chunk_lengths: array[int] = field(default_factory=lambda: array("I"))
    chunk_ids: bytearray = field(default_factory=bytearray)
    end: int = FRAMES_BEGIN

    def add(self, kind: int, compressed: bytes, ids: bytes, chunk_lengths: list[int]) -> None:
        """The next frame: its compressed bytes and its chunks (`ids`: 32 bytes each)."""
        self.add_row(kind, len(compressed), blake3(compressed).digest(), ids, chunk_lengths)

    def add_row(self, kind: int, length: int, digest: bytes, ids: bytes, chunk_lengths: list[int]) -> None:
        """The next frame, of which only compressed `length` in bytes and digest are known, and its chunks."""
        self.kinds.append(kind)
        self.lengths.append(length)
        self.digests += digest
        self.chunk_counts.append(len(chunk_lengths))
        self.chunk_lengths.extend(chunk_lengths)
        self.chunk_ids += ids
        self.end += length

    def encode(self) -> bytes:
        """The table document; the digest of it is the pack's id."""
        header = {"frames": len(self.lengths), "chunks": len(self.chunk_lengths)}
        return encode(
            LAYOUT,
            header,
            [
                self.kinds,
                column_bytes(self.lengths, U32),
                self.digests,
                column_bytes(self.chunk_counts, U32),
                column_bytes(self.chunk_lengths, U32),
                self.chunk_ids,
            ],
        )


def ending(table: bytes) -> bytes:
    """What follows a pack's frames: its table and footer."""
    return table + _FOOTER.pack(len(table), FOOTER_MAGIC)


def read_table(file: BinaryIO, *, place: str) -> Table:
    """The table of the pack in `file`, checked against the file's length but not against an expected id.

    Raises Corrupt, TooLarge or NewerFormat. The frames are not read.
    """
    length = file.seek(0, 2)
    if length > LIMITS.pack_bytes:
        raise TooLarge(f"has {length} bytes, more than the limit for a pack", place=place)
    if length < FRAMES_BEGIN + FOOTER_BYTES:
        raise Corrupt("is not a pack: it is truncated", place=place)
    check_magic(_read_at(file, 0, FRAMES_BEGIN, place), HEADER, "pack", place)
    footer = _read_at(file, length - FOOTER_BYTES, FOOTER_BYTES, place)
    table_length = parse_footer(footer, length, limit=LIMITS.table_bytes, place=place)
    data = _read_at(file, length - FOOTER_BYTES - table_length, table_length, place)
    table = Table.parse(data, place=f"the table of {place}")
    if table.pack_length != length:
        raise Corrupt(f"has {length} bytes, but its table implies {table.pack_length}", place=place)
    return table


def parse_footer(data: Bytes, pack_length: int, *, limit: int, place: str) -> int:
    """The length of the table of a pack of `pack_length` bytes, which ends in the footer `data`.

    Raises Corrupt, or TooLarge for more than `limit`.
    """
    if not FRAMES_BEGIN + FOOTER_BYTES <= pack_length <= LIMITS.pack_bytes:
        raise Corrupt(f"cannot be a pack: it would have {pack_length} bytes", place=place)
    table_length, magic = _FOOTER.unpack(data)
    if magic != FOOTER_MAGIC or table_length > pack_length - FRAMES_BEGIN - FOOTER_BYTES:
        raise Corrupt("is not a whole pack: its last bytes are not a pack's", place=place)
    if table_length > limit:
        raise TooLarge(f"has a table of {table_length} bytes, more than the limit", place=place)
    return int(table_length)


def read_frame(file: BinaryIO, offset: int, length: int, digest: bytes, *, place: str) -> bytes:
    """The compressed bytes of one frame, checked against `digest` (32 bytes). Raises Corrupt."""
    data = _read_at(file, offset, length, place)
    check_frame(data, digest, place=f"{place}, frame at {offset}")
    return data


def check_frame(data: Bytes, digest: bytes, *, place: str) -> None:
    """Raise Corrupt unless `data` is a frame's compressed bytes with this digest."""
    if blake3(data).digest() != digest:
        raise Corrupt("the bytes of a frame are not those that its digest says", place=place)


def _read_at(file: BinaryIO, offset: int, length: int, place: str) -> bytes:
    file.seek(offset)
    parts = []
    while length:
        part = file.read(length)
        if not part:
            raise Corrupt(f"ends before offset {offset + length}", place=place)
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
