"""Wanted: the distinct chunks of a release, and every place in its files where each belongs.

Chunks are numbered 0 to U - 1 by ascending id. Everything is a column: nothing grows by an object a chunk or a file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pacstore.attributes import Attributes, file_numbers_of
from pacstore.digest import DIGEST_BYTES
from pacstore.document import Column8, Column32, Numbers, row_keys, starts
from pacstore.install.tree.paths import Numbers32
from pacstore.manifest import Manifest

Flags = NDArray[np.bool_]


class ChunkPlaces:
    """Where each chunk of a manifest lies: file number and offset in bytes."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._starts = starts(manifest.chunk_lengths)

    def files(self, chunks: Numbers32) -> Numbers32:
        """The file number of each of `chunks`."""
        found = np.searchsorted(self._manifest.first_chunks, chunks, side="right") - 1
        return found.astype(np.int32)

    def offsets(self, chunks: Numbers32, files: Numbers32) -> Numbers:
        """The offset of each of `chunks` in its file, in bytes."""
        offsets: Numbers = self._starts[chunks] - self._starts[self._manifest.first_chunks[files]]
        return offsets


@dataclass(frozen=True, eq=False)
class Batch:
    """Some wanted chunks as plain lists, for a loop: chunk i goes to the places `firsts[i]` to `firsts[i + 1]`."""

    numbers: list[int]
    ids: bytes
    lengths: list[int]
    firsts: list[int]
    files: list[int]
    offsets: list[int]

    def id(self, at: int) -> bytes:
        """The id of the chunk at position `at`."""
        return self.ids[DIGEST_BYTES * at : DIGEST_BYTES * (at + 1)]


class Wanted:
    """The chunks that an installed release needs. Files that are hard links to an earlier one need none.

    `only`: flags by file number; other files need none either.
    """

    def __init__(self, manifest: Manifest, attributes: Attributes, only: Flags | None = None) -> None:
        self.manifest = manifest
        self.mtimes = attributes.mtimes
        self.places = ChunkPlaces(manifest)
        self.linked = linked_files(manifest, attributes)
        positions = _positions(manifest, self.linked if only is None else self.linked | ~only)
        all_ids = manifest.chunk_ids if len(positions) == manifest.chunks else manifest.chunk_ids[positions]
        self._order = positions[np.argsort(row_keys(all_ids), kind="stable")]
        keys = row_keys(manifest.chunk_ids[self._order])
        new = np.ones(len(keys), dtype=bool)
        new[1:] = keys[1:] != keys[:-1]
        self._firsts = np.append(np.flatnonzero(new), len(keys)).astype(np.int32)
        self.examples: Numbers32 = self._order[self._firsts[:-1]]
        self.lengths: Column32 = manifest.chunk_lengths[self.examples]
        self.have: Flags = np.zeros(len(self.examples), dtype=bool)

    @property
    def chunks(self) -> int:
        return len(self.examples)

    def ids(self, numbers: Numbers32 | None = None) -> Column8:
        """The ids of all chunks, ascending, or of these: gathered anew each time, since they are as large as the manifest's."""
        return self.manifest.chunk_ids[self.examples if numbers is None else self.examples[numbers]]

    def bytes_of(self, numbers: Numbers32) -> int:
        """How many bytes of the release's files these chunks make up, counted wherever they occur."""
        times = self._firsts[numbers + 1] - self._firsts[numbers]
        return int((times.astype(np.int64) * self.lengths[numbers]).sum())

    def missing(self) -> Numbers32:
        """The chunks that are not in place yet."""
        return np.flatnonzero(~self.have).astype(np.int32)

    def have_files(self, done: Flags) -> None:
        """Count the chunks as in place that belong only to files that are `done` (by file number)."""
        if self.chunks:
            in_place = done[self.places.files(self._order)]
            self.have |= np.logical_and.reduceat(in_place, self._firsts[:-1])

    def have_positions(self, in_place: Flags) -> None:
        """Count the chunks as in place that are so wherever they belong (flags by position in the manifest)."""
        if self.chunks:
            self.have |= np.logical_and.reduceat(in_place[self._order], self._firsts[:-1])

    def files_with(self, chunks: Flags) -> Numbers32:
        """The numbers of the files that have any of `chunks` (flags by chunk number), but for hard links."""
        found = np.zeros(len(self.linked), dtype=bool)
        found[self.places.files(self._order[np.repeat(chunks, np.diff(self._firsts))])] = True
        return np.flatnonzero(found).astype(np.int32)

    def batch(self, numbers: Numbers32) -> Batch:
        """These chunks, with all their places."""
        first = self._firsts[numbers]
        counts = self._firsts[numbers + 1] - first
        ends = starts(counts)
        spread = np.repeat(first - ends[:-1], counts) + np.arange(int(ends[-1]))
        positions = self._order[spread]
        files = self.places.files(positions)
        return Batch(
            numbers.tolist(),
            self.ids(numbers).tobytes(),
            self.lengths[numbers].tolist(),
            ends.tolist(),
            files.tolist(),
            self.places.offsets(positions, files).tolist(),
        )


def linked_files(manifest: Manifest, attributes: Attributes) -> Flags:
    """For each file whether it will be a hard link to one that comes before it."""
    linked = np.zeros(len(manifest.chunk_counts), dtype=bool)
    if len(attributes.group_sizes):
        follows = np.ones(len(attributes.group_members), dtype=bool)
        follows[starts(attributes.group_sizes)[:-1]] = False
        linked[file_numbers_of(manifest.tree)[attributes.group_members[follows]]] = True
    return linked


def _positions(manifest: Manifest, left_out: Flags) -> Numbers32:
    if not left_out.any():
        return np.arange(manifest.tree_chunks, dtype=np.int32)
    return np.flatnonzero(~np.repeat(left_out, manifest.chunk_counts)).astype(np.int32)
