"""Finding the table of a pack that does not show it any more: in what is left of the pack, and in releases that use it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pacstore.digest import Digest
from pacstore.document import BEGINNING_BYTES, row_keys, section_extents
from pacstore.errors import PacballError
from pacstore.limits import LIMITS, MIB
from pacstore.pack import FRAMES_BEGIN, LAYOUT, TableBuilder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pacstore.disk import DiskFile
    from pacstore.manifest import Manifest
    from pacstore.placement import Placement

_WINDOW = 2 * MIB
_MOST_CANDIDATES = 1_000
_MOST_HASHED_BYTES = 2 * LIMITS.table_bytes


def search_table(file: DiskFile, pack: Digest) -> bytes | None:
    """The table of `pack`, wherever in the file it stands whole, whatever became of the bytes around it.

    What cannot be read is passed over. The work that hostile bytes can make is bounded.
    """
    hashed = 0
    for number, at in enumerate(_candidates(file)):
        if number == _MOST_CANDIDATES or hashed > _MOST_HASHED_BYTES:
            break
        try:
            extents = section_extents(LAYOUT, _read(file, at, BEGINNING_BYTES), place="")
            length = max((extent.stop for extent in extents.values()), default=0)
            data = _read(file, at, length) if at + length <= file.length else b""
        except (PacballError, OSError):
            continue
        hashed += len(data)
        if Digest.of(data) == pack:
            return data
    return None


def _candidates(file: DiskFile) -> Iterator[int]:
    """Where a table may begin, from the end of the file on, since it stands there in a pack that is whole."""
    magic = LAYOUT.magic
    end = file.length
    while end > 0:
        begin = max(end - _WINDOW, 0)
        try:
            data = bytes(file.bytes_at(begin, end - begin + len(magic) - 1))
        except OSError:
            data = b""
        at = data.rfind(magic)
        while at >= 0:
            yield begin + at
            at = data.rfind(magic, 0, at + len(magic) - 1)
        end = begin


def _read(file: DiskFile, offset: int, length: int) -> bytes:
    parts = []
    while length > 0 and (part := bytes(file.bytes_at(offset, length))):
        parts.append(part)
        offset += len(part)
        length -= len(part)
    return b"".join(parts)


@dataclass
class _FrameRow:
    kind: int
    length: int
    plain_length: int
    digest: bytes
    chunks: dict[int, tuple[bytes, int]] = field(default_factory=dict)


def rebuild_table(pack: Digest, users: Iterable[tuple[Placement, Manifest]]) -> bytes | None:
    """The table of `pack` made from releases that use it, if together they use every chunk in it; compared with the pack's id."""
    frames: dict[int, _FrameRow] = {}
    for placement, manifest in users:
        _collect(pack, placement, manifest, frames)
        table = _encode(frames)
        if table and Digest.of(table) == pack:
            return table
    return None


def _collect(pack: Digest, placement: Placement, manifest: Manifest, frames: dict[int, _FrameRow]) -> None:
    """Add what a release tells of the pack."""
    wanted = row_keys(np.frombuffer(pack.raw, dtype=np.uint8).reshape(1, -1))
    found = np.flatnonzero(row_keys(placement.pack_ids) == wanted)
    for number in np.flatnonzero(np.isin(placement.frame_packs, found)).tolist():
        row = frames.setdefault(
            int(placement.frame_offsets[number]),
            _FrameRow(
                int(placement.frame_kinds[number]),
                int(placement.frame_lengths[number]),
                int(placement.frame_plain_lengths[number]),
                placement.frame_digests[number].tobytes(),
            ),
        )
        for chunk in np.flatnonzero(placement.chunk_frames == number).tolist():
            offset = int(placement.chunk_offsets[chunk])
            row.chunks[offset] = manifest.chunk_ids[chunk].tobytes(), int(manifest.chunk_lengths[chunk])


def _encode(frames: dict[int, _FrameRow]) -> bytes:
    """The table of these frames; nothing where they, or the chunks in one, do not lie back to back."""
    builder = TableBuilder()
    at = FRAMES_BEGIN
    for offset, row in sorted(frames.items()):
        chunks = [chunk for _, chunk in sorted(row.chunks.items())]
        ends = np.cumsum([0, *(length for _, length in chunks)]).tolist()
        if offset != at or ends != [*sorted(row.chunks), row.plain_length]:
            return b""
        ids, lengths = b"".join(chunk for chunk, _ in chunks), [length for _, length in chunks]
        builder.add_row(row.kind, row.length, row.digest, ids, lengths)
        at += row.length
    return builder.encode() if frames else b""
