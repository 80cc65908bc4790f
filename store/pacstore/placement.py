"""Placements: where a manifest's chunks are now (FORMAT.md section 4.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO, cast

import numpy as np

from pacstore.digest import DIGEST_BYTES, Bytes, Digest
from pacstore.document import (
    BEGINNING_BYTES,
    U8,
    U32,
    U64,
    Column8,
    Column32,
    Column64,
    Document,
    Layout,
    Numbers,
    Value,
    column_bytes,
    decode,
    encode,
    row_keys,
    section_extents,
)
from pacstore.errors import Corrupt, Refused
from pacstore.limits import LIMITS
from pacstore.manifest import Manifest
from pacstore.pack import FOOTER_BYTES, FRAMES_BEGIN
from pacstore.release import Release
from pacstore.source import PackRange

LAYOUT = Layout(
    letters="PLAC",
    title="placement",
    keys=("chunks", "frames", "manifest", "number", "packs", "release"),
    sections=(
        "pack_ids",
        "pack_lengths",
        "frame_packs",
        "frame_kinds",
        "frame_offsets",
        "frame_lengths",
        "frame_plain_lengths",
        "frame_digests",
        "chunk_frames",
        "chunk_offsets",
    ),
    limit_bytes=LIMITS.placement_bytes,
    extensible=True,
)


def largest_pack(data: Bytes, *, place: str) -> PackRange | None:
    """The whole of the largest pack that a placement names, without a look at its manifest; None if it names none."""
    document = decode(LAYOUT, data, place=place)
    packs = document.number("packs", LIMITS.manifest_chunks)
    if not packs:
        return None
    lengths = cast(Column64, document.column("pack_lengths", U64, packs))
    largest = int(np.argmax(lengths))
    pack = Digest(document.digests("pack_ids", packs)[largest].tobytes())
    return PackRange(pack, 0, int(lengths[largest]))


def packs_of(data: Bytes, *, place: str) -> Column8:
    """The ids of all packs that a placement names, in rows of 32 bytes, without a look at its manifest. Raises Corrupt."""
    document = decode(LAYOUT, data, place=place)
    return document.digests("pack_ids", document.number("packs", LIMITS.manifest_chunks))


@dataclass(frozen=True, eq=False)
class FramesUsed:
    """The frames that a placement names: f has `lengths[f]` bytes at `offsets[f]` of pack `packs[f]`, a row of `pack_ids`."""

    pack_ids: Column8
    packs: Column32
    offsets: Column64
    lengths: Column32


def frames_of(data: Bytes, *, place: str) -> FramesUsed:
    """The frames that a placement names, without a look at its manifest. Raises Corrupt."""
    document = decode(LAYOUT, data, place=place)
    frames = document.number("frames", LIMITS.manifest_chunks)
    used = FramesUsed(
        document.digests("pack_ids", document.number("packs", LIMITS.manifest_chunks)),
        cast(Column32, document.column("frame_packs", U32, frames)),
        cast(Column64, document.column("frame_offsets", U64, frames)),
        cast(Column32, document.column("frame_lengths", U32, frames)),
    )
    if (used.packs >= len(used.pack_ids)).any() or (used.offsets >= LIMITS.pack_bytes).any():
        raise document.corrupt("a frame lies in a pack that is not listed, or outside of it")
    return used


def read_packs(file: BinaryIO, *, place: str) -> dict[Digest, int]:
    """The packs that the placement in `file` names, with their lengths in bytes, from its first part alone.

    Neither its digest nor its manifest is looked at. Raises Corrupt, TooLarge, NewerFormat or OSError.
    """
    beginning = file.read(BEGINNING_BYTES)
    extents = section_extents(LAYOUT, beginning, place=place)
    ids, lengths = extents.get("pack_ids", range(0)), extents.get("pack_lengths", range(0))
    ids_bytes, lengths_bytes = (_section(file, extent) for extent in (ids, lengths))
    if len(ids_bytes) != len(ids) or len(lengths_bytes) != len(lengths) or len(ids) != 4 * len(lengths):
        raise Corrupt("is not a valid placement: it is truncated", place=place)
    packs = (Digest(ids_bytes[at : at + DIGEST_BYTES]) for at in range(0, len(ids), DIGEST_BYTES))
    return dict(zip(packs, np.frombuffer(lengths_bytes, dtype=U64).tolist(), strict=True))


def _section(file: BinaryIO, extent: range) -> bytes:
    if extent.stop > file.seek(0, 2):
        return b""
    file.seek(extent.start)
    return file.read(len(extent))


@dataclass(frozen=True, eq=False)
class Placement:
    """A placement's columns (FORMAT.md section 4.5 says what each is); `pack_ids`, `frame_digests` have 32-byte rows."""

    release: Release
    manifest: Digest
    number: int
    pack_ids: Column8
    pack_lengths: Column64
    frame_packs: Column32
    frame_kinds: Column8
    frame_offsets: Column64
    frame_lengths: Column32
    frame_plain_lengths: Column32
    frame_digests: Column8
    chunk_frames: Column32
    chunk_offsets: Column32

    @classmethod
    def parse(cls, data: Bytes, manifest: Manifest, *, place: str) -> Placement:
        """The placement in `data`, which must be one of `manifest`. Raises Corrupt, TooLarge or NewerFormat."""
        document = decode(LAYOUT, data, place=place)
        packs = document.number("packs", manifest.chunks)
        frames = document.number("frames", manifest.chunks)
        chunks = document.number("chunks", LIMITS.manifest_chunks)
        if document.digest("manifest") != manifest.digest or chunks != manifest.chunks:
            raise document.corrupt("it belongs to another manifest")
        try:
            release = Release.parse(document.text("release"))
        except Refused as error:
            raise document.corrupt("its release has no valid name") from error

        def column32(section: str, count: int) -> Column32:
            return cast(Column32, document.column(section, U32, count))

        placement = cls(
            release=release,
            manifest=manifest.digest,
            number=document.number("number", 2**63 - 1),
            pack_ids=document.digests("pack_ids", packs),
            pack_lengths=cast(Column64, document.column("pack_lengths", U64, packs)),
            frame_packs=column32("frame_packs", frames),
            frame_kinds=cast(Column8, document.column("frame_kinds", U8, frames)),
            frame_offsets=cast(Column64, document.column("frame_offsets", U64, frames)),
            frame_lengths=column32("frame_lengths", frames),
            frame_plain_lengths=column32("frame_plain_lengths", frames),
            frame_digests=document.digests("frame_digests", frames),
            chunk_frames=column32("chunk_frames", chunks),
            chunk_offsets=column32("chunk_offsets", chunks),
        )
        _check_packs(placement, document)
        _check_frames(placement, document)
        _check_chunks(placement, manifest, document)
        return placement

    def encode(self) -> bytes:
        """The bytes of this placement."""
        header: dict[str, Value] = {
            "release": str(self.release),
            "manifest": self.manifest.raw,
            "number": self.number,
            "packs": len(self.pack_ids),
            "frames": len(self.frame_packs),
            "chunks": len(self.chunk_frames),
        }
        return encode(
            LAYOUT,
            header,
            [
                self.pack_ids.tobytes(),
                column_bytes(self.pack_lengths, U64),
                column_bytes(self.frame_packs, U32),
                column_bytes(self.frame_kinds, U8),
                column_bytes(self.frame_offsets, U64),
                column_bytes(self.frame_lengths, U32),
                column_bytes(self.frame_plain_lengths, U32),
                self.frame_digests.tobytes(),
                column_bytes(self.chunk_frames, U32),
                column_bytes(self.chunk_offsets, U32),
            ],
        )

    @property
    def frames(self) -> int:
        return len(self.frame_packs)

    def pack(self, number: int) -> Digest:
        """The id of pack `number`."""
        return Digest(self.pack_ids[number].tobytes())

    def range_of(self, first: int, last: int) -> PackRange:
        """The bytes from frame `first` to frame `last`, both in one pack, and what lies between them."""
        begin = int(self.frame_offsets[first])
        end = int(self.frame_offsets[last]) + int(self.frame_lengths[last])
        return PackRange(self.pack(int(self.frame_packs[first])), begin, end - begin)

    @property
    def document_name(self) -> str:
        """Its name among the store's placements."""
        return placement_name(self.release, self.number)


def placement_name(release: Release, number: int) -> str:
    """The document name of placement `number` of `release`."""
    return f"{release}.{number}"


def _check_packs(placement: Placement, document: Document) -> None:
    if placement.number < 1:
        raise document.corrupt("placements are numbered from 1")
    lengths = placement.pack_lengths
    if ((lengths < FRAMES_BEGIN + FOOTER_BYTES) | (lengths > LIMITS.pack_bytes)).any():
        raise document.corrupt("a pack is too short or too long")
    if len(np.unique(row_keys(placement.pack_ids))) != len(lengths):
        raise document.corrupt("a pack is listed twice")
    used = np.zeros(len(lengths), dtype=bool)
    if (placement.frame_packs >= len(lengths)).any():
        raise document.corrupt("a frame lies in a pack that is not listed")
    used[placement.frame_packs] = True
    if not used.all():
        raise document.corrupt("a pack is listed but not used")


def _check_frames(placement: Placement, document: Document) -> None:
    lengths, plain = placement.frame_lengths, placement.frame_plain_lengths
    if ((lengths == 0) | (lengths > LIMITS.frame_bytes)).any():
        raise document.corrupt("a frame's compressed length is out of bounds")
    if ((plain == 0) | (plain > LIMITS.frame_plain_bytes)).any():
        raise document.corrupt("a frame's plain length is out of bounds")
    packs, offsets = placement.frame_packs.astype(np.int64), placement.frame_offsets
    ends_at_most = placement.pack_lengths[packs] - FOOTER_BYTES
    if ((offsets < FRAMES_BEGIN) | (offsets > ends_at_most) | (offsets + lengths > ends_at_most)).any():
        raise document.corrupt("a frame does not lie inside its pack")
    ends: Numbers = (offsets + lengths).astype(np.int64)
    begins: Numbers = offsets.astype(np.int64)
    step = np.diff(packs)
    if ((step < 0) | ((step == 0) & (begins[1:] < ends[:-1]))).any():
        raise document.corrupt("frames overlap or are not in order")


def _check_chunks(placement: Placement, manifest: Manifest, document: Document) -> None:
    frames = placement.chunk_frames
    if (frames >= placement.frames).any():
        raise document.corrupt("a chunk lies in a frame that is not listed")
    ends = placement.chunk_offsets.astype(np.int64) + manifest.chunk_lengths
    if (ends > placement.frame_plain_lengths[frames]).any():
        raise document.corrupt("a chunk does not lie inside its frame")
    used = np.zeros(placement.frames, dtype=bool)
    used[frames] = True
    if not used.all():
        raise document.corrupt("a frame is listed but not used")
