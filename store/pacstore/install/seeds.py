"""Seeds: local trees that may hold wanted chunks: interrupted attempts at the same release, and installed releases.

What a seed is said to hold is a guess until it is read and verified; a seed that cannot be used costs nothing but its bytes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from pacstore.document import Numbers, row_keys
from pacstore.errors import PacballError
from pacstore.install.directories import Directories
from pacstore.install.disk import DIRECTORY_FLAGS
from pacstore.install.paths import Numbers32, Paths
from pacstore.install.root import Root
from pacstore.install.staging import TREE, attempts
from pacstore.install.wanted import ChunkPlaces, Wanted
from pacstore.manifest import Manifest
from pacstore.release import Release

NOWHERE = -1
_SEARCH_CHUNKS = 65_536


@dataclass(frozen=True, eq=False)
class Seed:
    """A local tree: what to call it, its open top directory, the manifest that says what it should hold.

    If it is an attempt, `attempt` is its name, `ended` says that its owner certainly has, and `whole` are the numbers
    of the files that have their full length.
    """

    name: str
    top: int
    manifest: Manifest
    attempt: str = ""
    ended: bool = False
    whole: Numbers32 = field(default_factory=lambda: np.zeros(0, dtype=np.int32))


class Seeds:
    """The seeds in use, and for each wanted chunk the one to take it from. Holds directories open."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self.used: list[Seed] = []
        self._seed: NDArray[np.int16] = np.full(wanted.chunks, NOWHERE, dtype=np.int16)
        self._chunk: Numbers32 = np.zeros(wanted.chunks, dtype=np.int32)

    def offer(self, seed: Seed, numbers: Numbers32, chunks: Numbers32) -> bool:
        """Take from `seed` those of the wanted chunks `numbers` that nothing else has; `chunks` are theirs in it."""
        free = self._seed[numbers] == NOWHERE
        if not free.any():
            return False
        self._seed[numbers[free]] = len(self.used)
        self._chunk[numbers[free]] = chunks[free]
        self.used.append(seed)
        return True

    def from_seed(self, seed: Seed) -> tuple[Numbers32, Numbers32]:
        """The missing chunks to take from `seed`, in its order, and their numbers in its manifest."""
        numbers = np.flatnonzero((self._seed == self.used.index(seed)) & ~self._wanted.have).astype(np.int32)
        chunks = self._chunk[numbers]
        order = np.argsort(chunks, kind="stable")
        return numbers[order], chunks[order]

    def uncovered(self) -> Numbers32:
        """The wanted chunks that no seed has."""
        return np.flatnonzero(self._seed == NOWHERE).astype(np.int32)

    @property
    def complete(self) -> bool:
        """Whether nothing is left to look for."""
        return not len(self.uncovered())

    @property
    def bytes_taken_over(self) -> int:
        """How many bytes of whole files stand in attempts that ended, and need no new space."""
        return sum(int(seed.manifest.tree.sizes[seed.whole].sum()) for seed in self.used if seed.ended)

    def reuse(self) -> list[tuple[str, int]]:
        """For each seed its name and how many bytes of the release should come from it."""
        return [(seed.name, self._wanted.bytes_of(self.from_seed(seed)[0])) for seed in self.used]

    def close(self) -> None:
        """Let go of the directories."""
        while self.used:
            os.close(self.used.pop().top)


def find_seeds(root: Root, wanted: Wanted, release: Release, *, most: int, warn: Callable[[str], None]) -> Seeds:
    """The seeds under `root` for what is wanted, at most `most` installed releases among them. Raises OSError."""
    seeds = Seeds(wanted)
    try:
        for seed in _attempts(root, wanted.manifest, release):
            _offer(seeds, *_standing(seed, wanted))
        for seed in _releases(root, release, most, warn):
            _offer(seeds, seed, *_common(seed.manifest, wanted))
            if seeds.complete:
                break
    except BaseException:
        seeds.close()
        raise
    return seeds


def _offer(seeds: Seeds, seed: Seed, numbers: Numbers32, chunks: Numbers32) -> None:
    if not seeds.offer(seed, numbers, chunks):
        os.close(seed.top)


def _attempts(root: Root, manifest: Manifest, release: Release) -> Iterator[Seed]:
    for name, owner in attempts(root):
        if (owner.release, owner.manifest_digest) != (str(release), manifest.digest.hex):
            continue
        try:
            attempt = os.open(name, DIRECTORY_FLAGS, dir_fd=root.staging)
            try:
                top = os.open(TREE, DIRECTORY_FLAGS, dir_fd=attempt)
            finally:
                os.close(attempt)
        except OSError:
            continue
        yield Seed("an interrupted attempt", top, manifest, name, owner.certainly_ended)


def _releases(root: Root, release: Release, most: int, warn: Callable[[str], None]) -> Iterator[Seed]:
    current = root.switched_to(release)

    def rank(other: Release) -> tuple[bool, bool, bool]:
        return (str(other) == current, other.project == release.project, other.platform == release.platform)

    installed = sorted(root.installed(), reverse=True)
    for other in sorted(installed, key=rank, reverse=True)[:most]:
        try:
            manifest = root.record(other)
            yield Seed(str(other), os.open(str(other), DIRECTORY_FLAGS, dir_fd=root.releases), manifest)
        except PacballError as error:
            warn(f"nothing is taken from {other}: {error}")
        except OSError as error:
            warn(f"nothing is taken from {other}: {error.strerror}")


def _common(manifest: Manifest, wanted: Wanted) -> tuple[Numbers32, Numbers32]:
    """The wanted chunks that `manifest` has too, and their numbers in it."""
    numbers, chunks = [np.zeros(0, dtype=np.int32)], [np.zeros(0, dtype=np.int32)]
    keys = row_keys(wanted.ids)
    for first in range(0, manifest.chunks if wanted.chunks else 0, _SEARCH_CHUNKS):
        ids = manifest.chunk_ids[first : first + _SEARCH_CHUNKS]
        at = np.minimum(np.searchsorted(keys, row_keys(ids)), wanted.chunks - 1)
        found = np.flatnonzero((wanted.ids[at] == ids).all(axis=1))
        numbers.append(at[found].astype(np.int32))
        chunks.append((found + first).astype(np.int32))
    return np.concatenate(numbers), np.concatenate(chunks)


def _standing(seed: Seed, wanted: Wanted) -> tuple[Seed, Numbers32, Numbers32]:
    """The wanted chunks that an interrupted attempt may hold, judged by the lengths of its files."""
    lengths = _lengths(seed.top, Paths(seed.manifest.tree))
    places = ChunkPlaces(seed.manifest)
    files = places.files(wanted.examples)
    ends = places.offsets(wanted.examples, files) + wanted.lengths
    numbers = np.flatnonzero(ends <= lengths[files]).astype(np.int32)
    sizes = seed.manifest.tree.sizes.astype(np.int64)
    whole = np.flatnonzero((lengths == sizes) & (sizes > 0) & ~wanted.linked).astype(np.int32)
    return replace(seed, whole=whole), numbers, wanted.examples[numbers]


def _lengths(top: int, paths: Paths) -> Numbers:
    lengths = np.full(paths.tree.files, -1, dtype=np.int64)
    directories = Directories(top, paths, limit=64)
    gone = None
    try:
        for file, entry in enumerate(paths.file_entries.tolist()):
            parent = int(paths.parents[entry])
            if parent == gone:
                continue
            try:
                directory = directories.open(parent)
            except OSError:
                gone = parent
                continue
            lengths[file] = _length(directory, paths.name(entry))
    finally:
        directories.close()
    return lengths


def _length(directory: int, name: bytes) -> int:
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return -1
    return found.st_size if stat.S_ISREG(found.st_mode) else -1
