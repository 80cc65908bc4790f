"""Foreign directories as seeds: trees that pacball never made, such as an unpacked archive or a checkout.

Nothing says what such a tree holds: its files are read and cut as a publisher cuts them, likely ones first, until nothing is
wanted any more. What is found is only remembered by place; it is read and verified again when it is copied.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from pacstore.chunker import CHUNKER, Chunker
from pacstore.digest import DIGEST_BYTES
from pacstore.document import Column8, Numbers, row_keys, starts
from pacstore.errors import printable
from pacstore.install.crew import Crew
from pacstore.install.jobs import jobs
from pacstore.install.seeds.listing import Listing, Skipped, list_files
from pacstore.install.tree.directories import Directories
from pacstore.install.tree.paths import Layout, Numbers32, Paths
from pacstore.install.wanted import Flags, Wanted
from pacstore.limits import MIB
from pacstore.progress import Progress

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_SEGMENT_BYTES = 4 * MIB
_JOB_FILES = 1_024
_JOB_CHUNKS = 4_096


class Finds:
    """What a foreign directory holds: find i lies in file `files[i]` at `offsets[i]`. Contents of a seed (seeds.py).

    `whole_contents` are the content digests, one a row, of the files `whole_files`, which may be wanted whole.
    """

    def __init__(
        self, listing: Listing, files: Numbers32, offsets: Numbers, whole_files: Numbers32, whole_contents: Column8
    ) -> None:
        self.whole_files = whole_files
        self.whole_contents = whole_contents
        self._listing = listing
        self._files = files
        self._offsets = offsets

    def layout(self) -> Layout:
        """Where the files are."""
        return self._listing

    def places(self) -> Finds:
        """Where the finds are."""
        return self

    def files(self, chunks: Numbers32) -> Numbers32:
        """The file number of each of the finds `chunks`."""
        return self._files[chunks]

    def offsets(self, chunks: Numbers32, files: Numbers32) -> Numbers:  # noqa: ARG002 - what other contents need
        """The offset of each of the finds `chunks` in its file, in bytes."""
        return self._offsets[chunks]


def search_directory(
    where: Path, top: int, wanted: Wanted, missing: Flags, *, workers: int, open_directories: int, progress: Progress
) -> tuple[Numbers32, Finds]:
    """Which of the `missing` chunks the open directory `top`, named `where`, holds, and where."""
    skipped = Skipped()
    progress.begin("listing seed", None)
    listing = list_files(top, skipped)
    search = _Search(wanted, missing, listing, skipped, progress)
    order = _by_promise(wanted, missing, listing)
    progress.begin("reading seed", int(listing.sizes.sum()))
    with Crew(workers, lambda: _Reader(Directories(top, listing, limit=open_directories))) as crew:
        for first, last in jobs(listing.sizes[order], most=_JOB_FILES):
            if search.complete:
                break
            crew.give(search.job(order[first:last]))
        crew.finish()
    if skipped.count:
        progress.warn(f"{printable(str(where))}: {skipped.count} files or directories cannot be used; {skipped.first}")
    return search.found()


class _Reader:
    """What each thread has for itself."""

    def __init__(self, directories: Directories) -> None:
        self.directories = directories
        self._chunker = Chunker()
        self._buffer = memoryview(bytearray(_SEGMENT_BYTES + CHUNKER.max_bytes))

    def close(self) -> None:
        """Close the directories."""
        self.directories.close()

    def chunks(self, descriptor: int, size: int, hasher: blake3 | None) -> Iterator[tuple[int, list[int], bytes]]:
        """The chunks of an open file, some megabytes at a time: offset of the first, lengths and ids. Raises OSError.

        `hasher` is given all that is read.
        """
        begin = held = 0
        while begin + held < size:
            space = min(len(self._buffer), size - begin)
            count = os.preadv(descriptor, [self._buffer[held:space]], begin + held)
            if hasher is not None:
                hasher.update(self._buffer[held : held + count])
            held += count
            # Of a file that became shorter, the end is where it ends now.
            size = size if count else begin + held
            lengths = self._chunker.cut(self._buffer[:held], last=begin + held == size)
            yield begin, lengths, b"".join(self._ids(lengths))
            used = sum(lengths)
            self._buffer[: held - used] = self._buffer[used:held]
            begin += used
            held -= used

    def _ids(self, lengths: list[int]) -> Iterator[bytes]:
        at = 0
        for length in lengths:
            yield blake3(self._buffer[at : at + length]).digest()
            at += length


class _Search:
    """One search, by several threads."""

    def __init__(self, wanted: Wanted, missing: Flags, listing: Listing, skipped: Skipped, progress: Progress) -> None:
        self._ids = wanted.ids()
        self._keys = row_keys(self._ids)
        self._missing = missing.copy()
        self._left = int(missing.sum())
        self._listing = listing
        self._skipped = skipped
        self._progress = progress
        self._lock = threading.Lock()
        self._found: list[tuple[Numbers32, Numbers32, Numbers]] = []
        self._wholes: list[tuple[int, bytes]] = []
        self._whole_sizes = np.unique(wanted.manifest.tree.sizes.astype(np.int64))

    @property
    def complete(self) -> bool:
        """Whether nothing is missing any more."""
        return not self._left

    def job(self, files: Numbers32) -> Callable[[_Reader], None]:
        """The reading of some files."""
        return lambda reader: self._read(reader, files)

    def _read(self, reader: _Reader, files: Numbers32) -> None:
        batch = _Batch()
        sizes = self._listing.sizes[files]
        alike = np.isin(sizes, self._whole_sizes).tolist()
        for file, size, whole in zip(files.tolist(), sizes.tolist(), alike, strict=True):
            if self.complete:
                return
            try:
                for offset, lengths, ids in self._chunks(reader, file, size, whole=whole):
                    batch.add(file, offset, lengths, ids)
                    if batch.chunks >= _JOB_CHUNKS:
                        self._look_up(batch)
                        batch = _Batch()
            except OSError as error:
                with self._lock:
                    self._skipped.add(self._path(file), error.strerror or "cannot be read")
            self._progress.advance(size)
        self._look_up(batch)

    def _path(self, file: int) -> bytes:
        return self._listing.path(int(self._listing.file_entries[file]))

    def _chunks(self, reader: _Reader, file: int, size: int, *, whole: bool) -> Iterator[tuple[int, list[int], bytes]]:
        entry = int(self._listing.file_entries[file])
        directory = reader.directories.open(int(self._listing.parents[entry]))
        descriptor = os.open(self._listing.name(entry), _READ, dir_fd=directory)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_size != size:
                raise OSError(errno.ESTALE, "it changes while it is read")
            hasher = blake3() if whole else None
            for piece in reader.chunks(descriptor, size, hasher):
                yield piece
                if self.complete:
                    return
            if hasher is not None:
                self._wholes.append((file, hasher.digest()))
        finally:
            os.close(descriptor)

    def _look_up(self, batch: _Batch) -> None:
        """Remember where those of the chunks are that are missing."""
        if not batch.chunks:
            return
        ids, files, offsets = batch.columns()
        at = np.minimum(np.searchsorted(self._keys, row_keys(ids)), len(self._keys) - 1).astype(np.int32)
        same = np.flatnonzero((self._ids[at] == ids).all(axis=1))
        numbers, first = np.unique(at[same], return_index=True)
        with self._lock:
            new = self._missing[numbers]
            numbers, places = numbers[new], same[first[new]]
            self._missing[numbers] = False
            self._left -= len(numbers)
            self._found.append((numbers, files[places], offsets[places]))

    def found(self) -> tuple[Numbers32, Finds]:
        """The numbers of the chunks that were found, and where, by file and offset."""
        none = (np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int64))
        found = [none, *self._found]
        numbers, files = (np.concatenate([one[column] for one in found]) for column in (0, 1))
        offsets = np.concatenate([offsets for _, _, offsets in found])
        order = np.lexsort((offsets, files))
        kept, by_kept = np.unique(files[order], return_inverse=True)
        return numbers[order], Finds(
            self._listing.only(kept), by_kept.astype(np.int32), offsets[order], *self._whole(kept)
        )

    def _whole(self, kept: Numbers32) -> tuple[Numbers32, Column8]:
        """Of the files `kept` those that may be wanted whole, numbered as they are there, and their content digests."""
        files = np.array([file for file, _ in self._wholes], dtype=np.int32)
        contents = np.frombuffer(b"".join(content for _, content in self._wholes), dtype=np.uint8)
        among = np.isin(files, kept)
        return np.searchsorted(kept, files[among]).astype(np.int32), contents.reshape(-1, DIGEST_BYTES)[among]


class _Batch:
    """Chunks that were read but not yet looked up."""

    def __init__(self) -> None:
        self._ids: list[bytes] = []
        self._files: list[int] = []
        self._offsets: list[int] = []
        self._lengths: list[list[int]] = []
        self.chunks = 0

    def add(self, file: int, offset: int, lengths: list[int], ids: bytes) -> None:
        """Some chunks of the file, the first of them at `offset`."""
        self._ids.append(ids)
        self._files.append(file)
        self._offsets.append(offset)
        self._lengths.append(lengths)
        self.chunks += len(lengths)

    def columns(self) -> tuple[NDArray[np.uint8], Numbers32, Numbers]:
        """Ids, file numbers and offsets of all."""
        ids = np.frombuffer(b"".join(self._ids), dtype=np.uint8).reshape(-1, DIGEST_BYTES)
        counts = [len(lengths) for lengths in self._lengths]
        ends = starts(np.array([length for lengths in self._lengths for length in lengths], dtype=np.int64))
        runs = starts(np.array(counts, dtype=np.int64))
        shifts = np.array(self._offsets, dtype=np.int64) - ends[runs[:-1]]
        return ids, np.repeat(np.array(self._files, dtype=np.int32), counts), ends[:-1] + np.repeat(shifts, counts)


def _by_promise(wanted: Wanted, missing: Flags, listing: Listing) -> Numbers32:
    """The file numbers in the order of reading: as wanted by name and size, then by name, then the others."""
    tree = wanted.manifest.tree
    files = wanted.files_with(missing)
    paths = Paths(tree)
    names = np.array([zlib.crc32(paths.name(entry)) for entry in paths.file_entries[files].tolist()], dtype=np.uint32)
    by_name = np.isin(listing.name_sums, names)
    by_both = np.isin(_key(listing.name_sums, listing.sizes), _key(names, tree.sizes[files].astype(np.int64)))
    order: Numbers32 = np.argsort(2 - by_name.astype(np.int8) - by_both, kind="stable").astype(np.int32)
    return order


def _key(sums: NDArray[np.uint32], sizes: Numbers) -> Numbers:
    """Name and size as one number."""
    key: Numbers = (sums.astype(np.int64) << 32) ^ sizes
    return key
