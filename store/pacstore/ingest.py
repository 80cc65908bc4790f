"""Ingest: the chunks of a directory, or of an archive, that a store lacks become packs; it becomes a description.

The one door through which a release's bytes come in. Packs are durable and indexed as they fill, so that an ingest that was
interrupted finds them again; nothing else is written here.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from pacstore.description import Description, Run
from pacstore.digest import Digest
from pacstore.document import Column32, Numbers
from pacstore.errors import Corrupt, NotFound
from pacstore.frames import FramePlace, FrameReader
from pacstore.index import ChunkIndex
from pacstore.original import Original
from pacstore.packing import NewPlace, Packer, PackingOptions
from pacstore.progress import Progress
from pacstore.reader import Batch, Contents, batches
from pacstore.storage import ObjectStorage

_OFFSET_BITS = 22
"""More than enough for an offset inside a frame; packs (frame, offset) into one integer."""


class Beside(Protocol):
    """What a release was taken in from."""

    @property
    def original(self) -> Original:
        """Its description."""

    def residue(self) -> Iterator[Batch]:
        """The chunks of its residue, some at a time."""


@dataclass(frozen=True)
class Ingested:
    """What was ingested, and where each chunk of its manifest is: the index's frame number, offset in its plain bytes.

    `new_bytes`: plain bytes of chunks that the store lacked; `rewritten_bytes`: of chunks stored again because their old
    frames would hardly be used; `stored_bytes`: length of the new packs; `beside_new_bytes`: new bytes of what was beside.
    """

    description: Description
    chunk_frames: Numbers
    chunk_offsets: Numbers
    new_bytes: int
    rewritten_bytes: int
    stored_bytes: int
    beside_new_bytes: int = 0


def ingest(
    contents: Path | Contents,
    storage: ObjectStorage,
    index: ChunkIndex,
    *,
    options: PackingOptions,
    progress: Progress,
    spools: Path | None = None,
    beside: Beside | None = None,
) -> Ingested:
    """Store the chunks of a directory, or of other contents, that the index does not know, and those of what is `beside`.

    When this returns they are durable and indexed. Spools grow in the directory `spools`. Raises Refused for what no release may
    contain and for files that change meanwhile, Unavailable when the disk fails or is full; packs that were finished before that
    remain and are used by the next attempt.
    """
    description, places = Description(spools), _Places()
    with Packer(storage, index, options) as packer:
        with batches(contents, progress) as stream:
            for batch in stream:
                located = places.locate(batch, packer, index)
                places.extend(description.absorb(batch), located)
        new_bytes = places.new_bytes
        if beside is not None:
            description.original = beside.original
            # In frames of their own: who installs the release needs none of them.
            packer.end_frame()
            for batch in beside.residue():
                located = places.locate(batch, packer, index)
                places.extend(description.absorb_residue(batch), located)
        frames, offsets = places.columns()
        moving = Moving(description, packer, storage, frames, offsets)
        rewritten = moving.rewrite(index, options.sizes.rewrite_share)
        moving.finish()
    beside_new = places.new_bytes - new_bytes
    return Ingested(description, frames, offsets, places.new_bytes, rewritten, packer.stored_bytes, beside_new)


class _Places:
    """Where the chunks of a description are, in its order; a place in a frame of this ingest is -1 - the frame's number."""

    def __init__(self) -> None:
        self._frames = array("q")
        self._offsets = array("I")
        self.new_bytes = 0

    def locate(self, batch: Batch, packer: Packer, index: ChunkIndex) -> list[tuple[int, int]]:
        """The place of each chunk of the batch; what is nowhere yet is given to the packer."""
        find = packer.find
        known = index.find([i for i in dict.fromkeys(batch.ids) if find(i) is None])
        places = []
        for chunk_id, data in zip(batch.ids, batch.data, strict=True):
            old = known.get(chunk_id)
            if old is not None:
                places.append((old.frame, old.offset))
                continue
            new = find(chunk_id)
            if new is None:
                new = packer.add(chunk_id, data)
                self.new_bytes += len(data)
            places.append((-1 - new.frame, new.offset))
        return places

    def extend(self, runs: list[Run], located: list[tuple[int, int]]) -> None:
        """Follow what the description took in."""
        for run in runs:
            part = slice(run.begin, run.end)
            if run.repeated:
                self._frames.extend(self._frames[part])
                self._offsets.extend(self._offsets[part])
            else:
                self._frames.extend([frame for frame, _ in located[part]])
                self._offsets.extend([offset for _, offset in located[part]])

    def columns(self) -> tuple[Numbers, Numbers]:
        """The frames and offsets of all chunks; they are kept here no longer."""
        frames, offsets = np.asarray(self._frames, dtype=np.int64), np.asarray(self._offsets, dtype=np.int64)
        self._frames, self._offsets = array("q"), array("I")
        return frames, offsets


class Chunks(Protocol):
    """The chunks of a release, in the order of its manifest: their lengths in bytes, and their ids."""

    @property
    def lengths(self) -> array[int] | Column32:
        """Of all chunks."""

    def chunk_id(self, position: int) -> bytes:
        """The id of the chunk at this position."""


@dataclass
class Moving:
    """Chunks on their way out of little-used frames. `frames` and `offsets` are changed in place, as in `ingest`."""

    chunks: Chunks
    packer: Packer
    storage: ObjectStorage
    frames: Numbers
    offsets: Numbers

    def rewrite(self, index: ChunkIndex, share: float) -> int:
        """Store chunks again whose old frames would be used for less than `share`; the number of plain bytes.

        Without this a release comes to lie in ever more frames of which it needs little, and a cold install fetches all of them.
        """
        frames, offsets, lengths = self.frames, self.offsets, np.asarray(self.chunks.lengths)
        # A copy: an array that shares its memory cannot grow, and the packer goes on.
        own = np.array(self.packer.index_numbers, dtype=np.int64)
        old = np.flatnonzero((frames > 0) & ~np.isin(frames, own))
        doomed = _little_used(frames[old], offsets[old], lengths[old], index, share)
        moved = old[np.isin(frames[old], list(doomed))]
        # In frames of their own: mixed with new chunks they would be worse placed for the next release.
        self.packer.end_frame()
        done: dict[tuple[int, int], NewPlace] = {}
        rewritten = 0
        with closing(FrameReader(self.storage)) as reader:
            for position in moved.tolist():
                key = (int(frames[position]), int(offsets[position]))
                if key not in done:
                    data = _plain(reader, doomed[key[0]])[key[1] : key[1] + int(lengths[position])]
                    done[key] = self._move(position, data, doomed[key[0]])
                    rewritten += len(data)
                frames[position], offsets[position] = -1 - done[key].frame, done[key].offset
        return rewritten

    def finish(self) -> None:
        """Make all that was added durable and known, and let `frames` say where it is by the index's numbers."""
        self.packer.finish()
        new = self.frames < 0
        self.frames[new] = np.array(self.packer.index_numbers, dtype=np.int64)[-1 - self.frames[new]]

    def _move(self, position: int, data: bytes, place: FramePlace) -> NewPlace:
        chunk_id = self.chunks.chunk_id(position)
        if Digest.of(data).raw != chunk_id:
            hint = "run: pacball store reindex"
            raise Corrupt("the index names a wrong place for a chunk", place=str(place.pack), hint=hint)
        return self.packer.add(chunk_id, data)


def _plain(reader: FrameReader, place: FramePlace) -> bytes:
    try:
        return reader.plain(place.pack, place.frame)
    except (Corrupt, NotFound) as error:
        hint = "run: pacball store reindex, which leaves damaged packs out, and the same command again"
        raise Corrupt(f"an old frame is needed but {error.message}", place=error.place, hint=hint) from error


def _little_used(
    frames: Numbers, offsets: Numbers, lengths: Column32, index: ChunkIndex, share: float
) -> dict[int, FramePlace]:
    """Those of `frames` of whose plain bytes less than `share` are used; a chunk that occurs twice counts once."""
    _, first = np.unique((frames << _OFFSET_BITS) | offsets, return_index=True)
    numbers, inverse = np.unique(frames[first], return_inverse=True)
    used = np.bincount(inverse, weights=lengths[first], minlength=len(numbers))
    places = zip(index.frames(numbers.tolist()), used.tolist(), strict=True)
    return {place.number: place for place, bytes_used in places if bytes_used < share * place.frame.plain_length}
