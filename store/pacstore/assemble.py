"""Assembling: the bytes of any range of any file of a release, from its manifest, a placement and the packs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pacstore.digest import Digest
from pacstore.document import starts
from pacstore.errors import Corrupt, NotFound, Refused
from pacstore.frames import FrameReader
from pacstore.manifest import Manifest
from pacstore.pack import Frame
from pacstore.placement import Placement
from pacstore.storage import ObjectStorage


class Assembler:
    """Reads files of one release from `storage`. Not for several threads at once. Every chunk is verified."""

    def __init__(self, manifest: Manifest, placement: Placement, storage: ObjectStorage) -> None:
        self._manifest = manifest
        self._placement = placement
        self._ends = starts(manifest.chunk_lengths)
        self.frames = FrameReader(storage)

    def find(self, path: str) -> int:
        """The file number of `path`. Raises NotFound, or Refused where it is no file."""
        for entry in self._manifest.tree.walk():
            if entry.path == path:
                if not entry.kind.is_file:
                    raise Refused("is not a file", place=path)
                return entry.file_number
        raise NotFound("is not in this release", place=path)

    def read(self, file: int, offset: int, length: int) -> Iterator[bytes]:
        """The bytes of file number `file` from `offset`, `length` of them or up to its end, piece by piece.

        Raises NotFound, Unavailable, or Corrupt naming pack and frame; what was yielded before that is right.
        """
        if offset < 0:
            raise Refused("a file begins at offset 0", place=f"file {file}")
        first, last = (int(n) for n in self._manifest.first_chunks[file : file + 2])
        begin = int(self._ends[first]) + offset
        end = min(begin + length, int(self._ends[last]))
        if begin >= end:
            return
        chunk = int(np.searchsorted(self._ends[first : last + 1], begin, side="right")) - 1 + first
        while begin < end:
            data = self.chunk(chunk)
            skip = begin - int(self._ends[chunk])
            piece = data[skip : skip + end - begin]
            yield piece
            begin += len(piece)
            chunk += 1

    def chunk(self, number: int) -> bytes:
        """The bytes of chunk `number` of the manifest, verified against its id."""
        placement, manifest = self._placement, self._manifest
        frame = int(placement.chunk_frames[number])
        offset = int(placement.chunk_offsets[number])
        pack = placement.pack(int(placement.frame_packs[frame]))
        plain = self.frames.plain(pack, placed_frame(placement, frame))
        data = plain[offset : offset + int(manifest.chunk_lengths[number])]
        if Digest.of(data).raw != manifest.chunk_ids[number].tobytes():
            raise Corrupt("the placement names a wrong place for a chunk", place=placement.document_name)
        return data


def placed_frame(placement: Placement, number: int) -> Frame:
    """Frame `number` of a placement."""
    return Frame(
        number,
        int(placement.frame_kinds[number]),
        int(placement.frame_offsets[number]),
        int(placement.frame_lengths[number]),
        int(placement.frame_plain_lengths[number]),
        placement.frame_digests[number].tobytes(),
    )
