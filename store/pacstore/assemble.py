"""Assembling: the bytes of any range of any file of a release, from its manifest, a placement and the packs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from blake3 import blake3

from pacstore.digest import Bytes
from pacstore.document import starts
from pacstore.errors import Corrupt, NotFound, Refused
from pacstore.frames import CACHED_FRAMES, FrameReader
from pacstore.manifest import Manifest
from pacstore.pack import Frame
from pacstore.placement import Placement
from pacstore.storage import ObjectStorage

_CHUNKS_AT_ONCE = 4_096


class Assembler:
    """Reads files of one release from `storage`. Not for several threads at once. Every byte is verified.

    `is_proven`: every chunk was compared with its id before, as this very placement finds it. Then the digests of frames, which
    it names and which are compared always, say as much, and hashing what was decoded once more would find nothing. `cached`: how
    many decoded frames are kept.
    """

    def __init__(
        self,
        manifest: Manifest,
        placement: Placement,
        storage: ObjectStorage,
        *,
        is_proven: bool = False,
        cached: int = CACHED_FRAMES,
    ) -> None:
        self._manifest = manifest
        self._placement = placement
        self._is_proven = is_proven
        self._ends = starts(manifest.chunk_lengths)
        self.frames = FrameReader(storage, cached=cached)
        self._last_frame = -1
        self._last_plain = b""

    def rest(self) -> bool:
        """Release memory, for who will go on much later; whether there was any."""
        self._last_frame, self._last_plain = -1, b""
        return self.frames.forget()

    def find(self, path: str) -> int:
        """The file number of `path`. Raises NotFound, or Refused where it is no file."""
        for entry in self._manifest.tree.walk():
            if entry.path == path:
                if not entry.kind.is_file:
                    raise Refused("is not a file", place=path)
                return entry.file_number
        raise NotFound("is not in this release", place=path)

    def read(self, file: int, offset: int, length: int) -> Iterator[Bytes]:
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
        ends = self._ends[first : last + 1]
        chunk = int(np.searchsorted(ends, begin, side="right")) - 1 + first
        skip = begin - int(self._ends[chunk])
        for data in self.chunks(chunk, int(np.searchsorted(ends, end)) + first):
            piece = data[skip : skip + end - begin] if skip or len(data) > end - begin else data
            yield piece
            begin += len(piece)
            skip = 0

    def whole(self, file: int) -> Iterator[Bytes]:
        """All bytes of file number `file`. Raises as `read`."""
        first_chunks = self._manifest.first_chunks
        return self.chunks(int(first_chunks[file]), int(first_chunks[file + 1]))

    def chunks(self, first: int, last: int) -> Iterator[memoryview]:
        """The bytes of the chunks `first` to `last` of the manifest, the latter excluded, each verified against its id.

        Those that lie side by side in a frame are one piece.
        """
        placement, manifest = self._placement, self._manifest
        read, begin, end = -1, 0, 0
        plain = memoryview(b"")
        for at in range(first, last, _CHUNKS_AT_ONCE):
            part = slice(at, min(at + _CHUNKS_AT_ONCE, last))
            rows = zip(
                range(at, part.stop),
                placement.chunk_frames[part].tolist(),
                placement.chunk_offsets[part].tolist(),
                manifest.chunk_lengths[part].tolist(),
                strict=True,
            )
            for chunk, frame, offset, length in rows:
                if frame != read or offset != end:
                    if begin < end:
                        yield plain[begin:end]
                    if frame != read:
                        plain, read = memoryview(self._plain(frame)), frame
                    begin = offset
                end = offset + length
                if not self._is_proven:
                    self._check(chunk, plain[offset:end])
        if begin < end:
            yield plain[begin:end]

    def _check(self, chunk: int, data: memoryview) -> None:
        if blake3(data).digest() != self._manifest.chunk_ids[chunk].tobytes():
            raise Corrupt("the placement names a wrong place for a chunk", place=self._placement.document_name)

    def _plain(self, frame: int) -> bytes:
        if frame != self._last_frame:
            pack = self._placement.pack(int(self._placement.frame_packs[frame]))
            self._last_plain = self.frames.plain(pack, placed_frame(self._placement, frame))
            self._last_frame = frame
        return self._last_plain


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
