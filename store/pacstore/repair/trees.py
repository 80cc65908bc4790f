"""Local trees as givers of frames: installed releases, or any other files.

A tree has plain bytes. A frame is made of them again by compressing them, which gives the same bytes only with the version
and level of zstd that the publisher had: the levels are tried, and what comes out counts only if its digest is right.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from blake3 import blake3

from pacstore import codec
from pacstore.chunker import Chunker
from pacstore.document import row_keys, starts
from pacstore.errors import printable
from pacstore.install.tree.paths import Paths
from pacstore.limits import MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pacstore.digest import Digest
    from pacstore.manifest import Manifest
    from pacstore.pack import Table

_LEVELS = (codec.DEFAULT_LEVEL, *(level for level in range(1, 20) if level != codec.DEFAULT_LEVEL))
_VAIN_FRAMES = 3
"""After so many frames that came out otherwise at every level, no more are tried: this zstd is another one."""
_SEGMENT_BYTES = 4 * MIB
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Place = tuple[str, int]
"""A file and an offset in it."""


class TreeGiver:
    """The files below the directory `top`.

    `manifests` gives those of releases that use a pack, with their names: files are looked for where these have them. What is not
    found so is, if `searches`, looked for in all files, which are read for that.
    """

    def __init__(
        self, top: Path, manifests: Callable[[Digest], Iterable[tuple[str, Manifest]]], *, searches: bool
    ) -> None:
        self.name = printable(str(top))
        self.faults: list[str] = []
        self._top = top
        self._manifests = manifests
        self._searches = searches
        self._levels = _LEVELS
        self._vain = 0

    def table(self, pack: Digest, length: int) -> bytes | None:  # noqa: ARG002 - trees have none
        return None

    def frames(self, pack: Digest, table: Table, numbers: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        wanted = {chunk: length for number in numbers for chunk, length in _chunks(table, number)}
        found = self._known_places(pack, wanted)
        found |= self._search({chunk for chunk in wanted if chunk not in found})
        for number in numbers:
            plain = self._plain(table, number, found)
            data = self._compressed(table, number, plain) if plain is not None else None
            if data is not None:
                yield number, data

    def _plain(self, table: Table, number: int, places: dict[bytes, Place]) -> bytes | None:
        parts = []
        for chunk, length in _chunks(table, number):
            data = _read(places[chunk], chunk, length) if chunk in places else None
            if data is None:
                return None
            parts.append(data)
        return b"".join(parts)

    def _compressed(self, table: Table, number: int, plain: bytes) -> bytes | None:
        if int(table.kinds[number]) != codec.KIND_ZSTD or self._vain >= _VAIN_FRAMES:
            return None
        digest = table.digests[number].tobytes()
        for level in self._levels:
            data = codec.compress(plain, level)
            if blake3(data).digest() == digest:
                self._levels, self._vain = (level, *(other for other in _LEVELS if other != level)), 0
                return data
        self._vain += 1
        fault = f"{self.name}: has the bytes of frames, but zstd compresses them otherwise than the publisher's did"
        if fault not in self.faults:
            self.faults.append(fault)
        return None

    def _known_places(self, pack: Digest, wanted: dict[bytes, int]) -> dict[bytes, Place]:
        """Where releases have these chunks, as far as the files here have them there, too."""
        found: dict[bytes, Place] = {}
        for name, manifest in self._manifests(pack):
            for chunk, path, offset in _places_in(manifest, [chunk for chunk in wanted if chunk not in found]):
                for top in (self._top, self._top / "releases" / name, self._top / name):
                    place = (os.path.join(os.fsencode(top), path).decode(errors="surrogateescape"), offset)
                    if chunk not in found and _read(place, chunk, wanted[chunk]) is not None:
                        found[chunk] = place
        return found

    def _search(self, missing: set[bytes]) -> dict[bytes, Place]:
        """Where any file has these chunks, cut as publishers cut them."""
        found: dict[bytes, Place] = {}
        if not missing or not self._searches:
            return found
        for directory, _, names in os.walk(self._top):
            for name in names:
                path = os.path.join(directory, name)
                for chunk, offset in _cut_file(path):
                    if chunk in missing:
                        missing.discard(chunk)
                        found[chunk] = path, offset
                if not missing:
                    return found
        return found


def _chunks(table: Table, number: int) -> Iterator[tuple[bytes, int]]:
    """The ids and lengths of the chunks of a frame."""
    for chunk in range(int(table.first_chunks[number]), int(table.first_chunks[number + 1])):
        yield table.chunk_ids[chunk].tobytes(), int(table.chunk_lengths[chunk])


def _places_in(manifest: Manifest, wanted: Sequence[bytes]) -> Iterator[tuple[bytes, bytes, int]]:
    """Chunk, path and offset in the file of all places where a manifest has one of the `wanted` chunks."""
    if not wanted:
        return
    ids = row_keys(np.frombuffer(b"".join(wanted), dtype=np.uint8).reshape(len(wanted), -1))
    chunks = np.flatnonzero(np.isin(row_keys(manifest.chunk_ids[: manifest.tree_chunks]), ids))
    files = np.searchsorted(manifest.first_chunks, chunks, side="right") - 1
    ends = starts(manifest.chunk_lengths)
    offsets = ends[chunks] - ends[manifest.first_chunks[files]]
    paths = Paths(manifest.tree)
    for chunk, file, offset in zip(chunks.tolist(), files.tolist(), offsets.tolist(), strict=True):
        yield manifest.chunk_ids[chunk].tobytes(), paths.path(int(paths.file_entries[file])), offset


def _read(place: Place, chunk: bytes, length: int) -> bytes | None:
    """The bytes there, if they are that chunk."""
    path, offset = place
    try:
        descriptor = os.open(path, _OPEN)
    except (OSError, ValueError):
        return None
    try:
        data = os.pread(descriptor, length, offset)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return data if blake3(data).digest() == chunk else None


def _cut_file(path: str) -> Iterator[tuple[bytes, int]]:
    """The chunks of a file and where they begin; of one that cannot be read, those before that."""
    try:
        descriptor = os.open(path, _OPEN)
    except OSError:
        return
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            yield from _cut(descriptor)
    except OSError:
        return
    finally:
        os.close(descriptor)


def _cut(descriptor: int) -> Iterator[tuple[bytes, int]]:
    chunker = Chunker()
    begin, held = 0, b""
    while True:
        data = os.pread(descriptor, _SEGMENT_BYTES, begin + len(held))
        last = not data
        held += data
        view = memoryview(held)
        bounds = np.cumsum([0, *chunker.cut(view, last=last)]).tolist()
        for at, end in pairwise(bounds):
            yield blake3(view[at:end]).digest(), begin + at
        begin, held = begin + bounds[-1], held[bounds[-1] :]
        if last:
            return
