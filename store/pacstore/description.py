"""A directory described as a release: tree, times, hard links and chunks, whatever store its chunks are in.

Filled from batches, encoded at the end. Digests and names go to spools, so that each of a million files takes some 50 bytes
of memory.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pacstore.attributes import encode_attributes
from pacstore.digest import DIGEST_BYTES, Digest
from pacstore.document import U32, column_bytes
from pacstore.manifest import encode_manifest_beginning
from pacstore.original import Original
from pacstore.progress import Progress
from pacstore.reader import Batch, Contents, Linked, batches
from pacstore.spool import Spool
from pacstore.tree import EntryKind, TreeBuilder

_FILES = (EntryKind.FILE, EntryKind.EXECUTABLE)


@dataclass(frozen=True, slots=True)
class Run:
    """Chunks that follow in a description: `begin` to `end` of the batch, or, if `repeated`, of the description itself."""

    repeated: bool
    begin: int
    end: int


class Description:
    """Everything of a release but where its chunks are."""

    def __init__(self, directory: Path | None = None) -> None:
        self._tree = TreeBuilder(directory)
        self._mtimes = array("q")
        self._file_entries = array("I")
        self._links: dict[int, list[int]] = {}
        self._first_chunks = array("I", [0])
        self._ids = Spool(directory)
        self.lengths = array("I")
        """The lengths of all chunks, in the order of the manifest."""
        self.original: Original | None = None
        """What it was taken in from; `absorb_residue` follows."""

    @property
    def files(self) -> int:
        return len(self._tree.sizes)

    @property
    def total_bytes(self) -> int:
        """The sum of all file sizes; hard links count each."""
        return self._tree.total_bytes

    def chunk_id(self, position: int) -> bytes:
        """The id of the chunk at this position of the manifest."""
        return self._ids.read(position * DIGEST_BYTES, DIGEST_BYTES)

    def absorb(self, batch: Batch) -> list[Run]:
        """Take in a batch; which chunks that adds to the manifest, in order."""
        entries = batch.entries
        kinds = [found.kind for found in entries]
        number = len(self._mtimes)
        self._file_entries.extend([n for n, kind in enumerate(kinds, number) if kind in _FILES])
        self._mtimes.extend([found.status.st_mtime_ns // 10**9 for found in entries])
        self._tree.add_all([found.depth for found in entries], [found.name for found in entries], kinds)
        for found in entries:
            if found.target:
                self._tree.add_target(found.target)
        runs = []
        done = 0
        for end in batch.ends:
            if isinstance(end, Linked):
                upto = done + self._first_chunks[-1] - len(self.lengths)
                runs += [self._append(batch, done, upto), self._repeat(end.earlier)]
                done = upto
            else:
                self._tree.add_content(end.size, end.content)
                self._first_chunks.append(self._first_chunks[-1] + end.chunks)
        return [*runs, self._append(batch, done, len(batch.ids))]

    def absorb_residue(self, batch: Batch) -> list[Run]:
        """Take in chunks that belong to no file, after all others; which chunks that adds to the manifest."""
        return [self._append(batch, 0, len(batch.ids))]

    def _append(self, batch: Batch, begin: int, end: int) -> Run:
        self._ids.append(b"".join(batch.ids[begin:end]))
        self.lengths.extend([len(data) for data in batch.data[begin:end]])
        return Run(repeated=False, begin=begin, end=end)

    def _repeat(self, earlier: int) -> Run:
        entries = self._file_entries
        self._links.setdefault(earlier, [entries[earlier]]).append(entries[self.files])
        begin, end = self._first_chunks[earlier], self._first_chunks[earlier + 1]
        self._ids.append(self._ids.read(begin * DIGEST_BYTES, (end - begin) * DIGEST_BYTES))
        self.lengths.extend(self.lengths[begin:end])
        self._tree.add_content(self._tree.sizes[earlier], self._tree.content(earlier))
        self._first_chunks.append(len(self.lengths))
        return Run(repeated=True, begin=begin, end=end)

    def tree_digest(self) -> Digest:
        """The tree digest."""
        return Digest.of_all(self._tree.blocks())

    def manifest(self) -> Iterator[bytes]:
        """The canonical manifest, in pieces."""
        counts = column_bytes(np.diff(np.asarray(self._first_chunks)), U32)
        lengths = column_bytes(self.lengths, U32)
        tree_length = sum(map(len, self._tree.blocks()))
        columns = [tree_length, len(counts), len(lengths), len(self._ids)]
        rows = [self.original.literal_lengths, self.original.literal_files] if self.original else []
        yield encode_manifest_beginning(self.tree_digest(), columns + [row.nbytes for row in rows], self.original)
        yield from self._tree.blocks()
        yield counts
        yield lengths
        yield from self._ids.blocks()
        yield from (row.tobytes() for row in rows)

    def attributes(self) -> bytes:
        """The canonical attributes."""
        return encode_attributes(self.tree_digest(), self._mtimes, list(self._links.values()))


def describe(contents: Path | Contents, *, progress: Progress, spools: Path | None = None) -> Description:
    """The release in a directory, or in other contents; reads every file, stores nothing. Spools grow in `spools`.

    Raises Refused for what no release may contain and for files that change meanwhile, Unavailable when the disk fails.
    """
    description = Description(spools)
    with batches(contents, progress) as stream:
        for batch in stream:
            description.absorb(batch)
    return description
