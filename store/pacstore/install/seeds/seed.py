"""Seeds: local trees that may hold wanted chunks, and from which of them each chunk is to be taken.

What a seed is said to hold is a guess until it is read and verified; a seed that cannot be used costs nothing but its bytes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pacstore.document import Numbers
from pacstore.install.seeds.wholes import Wholes
from pacstore.install.tree.paths import Layout, Numbers32, Paths
from pacstore.install.wanted import ChunkPlaces, Flags, Wanted
from pacstore.manifest import Manifest

NOWHERE = -1


class Places(Protocol):
    """Where the chunks of a seed lie."""

    def files(self, chunks: Numbers32) -> Numbers32:
        """The file number of each of `chunks`."""

    def offsets(self, chunks: Numbers32, files: Numbers32) -> Numbers:
        """The offset of each of `chunks` in its file, in bytes; `files` are theirs."""


class Contents(Protocol):
    """What a seed should hold; chunks and files are numbered. What takes much memory is made when it is asked for."""

    def layout(self) -> Layout:
        """Where its files are."""

    def places(self) -> Places:
        """Where its chunks are."""


class Recorded:
    """The contents that a manifest tells."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest

    def layout(self) -> Layout:
        """Where the files are."""
        return Paths(self.manifest.tree)

    def places(self) -> Places:
        """Where the chunks are."""
        return ChunkPlaces(self.manifest)


@dataclass(frozen=True, eq=False)
class Seed:
    """A local tree: what to call it, its open top directory, what it should hold.

    If it is an attempt, `attempt` is its name; if it is one at the wanted release, `ended` says that nobody is at work on it any
    more, and by file number
    `lengths` are those of its files (-1: none), `allocated` the bytes of disk that they take, and `moved` says which were
    moved away to the tree that is being written. `foreign`: pacball did not make it. `clones`: its files can be cloned.
    """

    name: str
    top: int
    contents: Contents
    attempt: str = ""
    ended: bool = False
    lengths: Numbers = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    allocated: Numbers = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    moved: Flags = field(default_factory=lambda: np.zeros(0, dtype=bool))
    foreign: bool = False
    clones: bool = False


class _Claims:
    """For each wanted chunk the number of a seed, and the chunk's number in it."""

    def __init__(self, chunks: int) -> None:
        self.seeds: NDArray[np.int16] = np.full(chunks, NOWHERE, dtype=np.int16)
        self.chunks: Numbers32 = np.zeros(chunks, dtype=np.int32)

    def add(self, seed: int, numbers: Numbers32, chunks: Numbers32) -> None:
        self.seeds[numbers] = seed
        self.chunks[numbers] = chunks


class Seeds:
    """The seeds in use, and for each wanted chunk the one to take it from. Holds directories open.

    An attempt may turn out to have a hole where its file is long enough: its chunks may have a second seed.
    """

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self.used: list[Seed] = []
        self.wholes: Wholes | None = None
        """What can be shared rather than copied; None where nothing can."""
        self._first = _Claims(wanted.chunks)
        self._second = _Claims(0)

    def offer(self, seed: Seed, numbers: Numbers32, chunks: Numbers32) -> bool:
        """Take from `seed` those of the wanted chunks `numbers` that nothing else has for certain; `chunks` are theirs in it.

        False, and it is not used, where there are none. An attempt at the same release is offered before all others.
        """
        free = self._first.seeds[numbers] == NOWHERE
        spare = self._unsure()[numbers] & ~free
        if not free.any() and not spare.any():
            return False
        self._first.add(len(self.used), numbers[free], chunks[free])
        if spare.any():
            self._second.add(len(self.used), numbers[spare], chunks[spare])
        self.used.append(seed)
        if seed.attempt and not len(self._second.seeds):
            self._second = _Claims(self._wanted.chunks)
        return True

    def _unsure(self) -> Flags:
        """The chunks that nothing has, or attempts alone."""
        attempts = [number for number, seed in enumerate(self.used) if seed.attempt]
        nothing: Flags = self._first.seeds == NOWHERE
        if not attempts:
            return nothing
        unsure: Flags = np.isin(self._first.seeds, attempts) & (self._second.seeds == NOWHERE)
        return nothing | unsure

    def from_seed(self, seed: Seed, *, second: bool = False) -> tuple[Numbers32, Numbers32]:
        """The missing chunks to take from `seed`, in its order, and their numbers in its contents.

        `second`: those that another should have had, and had not.
        """
        claims = self._second if second else self._first
        numbers = np.flatnonzero(claims.seeds == self.used.index(seed)).astype(np.int32)
        numbers = numbers[~self._wanted.have[numbers]]
        chunks = claims.chunks[numbers]
        order = np.argsort(chunks, kind="stable")
        return numbers[order], chunks[order]

    @property
    def missing(self) -> Flags:
        """By chunk number, those that no seed has."""
        missing: Flags = self._first.seeds == NOWHERE
        return missing

    def uncovered(self) -> Numbers32:
        """The wanted chunks that no seed has."""
        return np.flatnonzero(self.missing).astype(np.int32)

    @property
    def complete(self) -> bool:
        """Whether nothing is left to look for."""
        return not self._unsure().any()

    @property
    def bytes_taken_over(self) -> int:
        """How many bytes of disk the files of attempts that ended take, which need no new space, but for shared files."""
        most = np.zeros(self._wanted.manifest.tree.files, dtype=np.int64)
        for seed in self.used:
            if seed.ended:
                np.maximum(most, seed.allocated, out=most)
        counted = ~self._wanted.linked
        if self.wholes is not None:
            counted &= ~self.wholes.taken
        return int(most[counted].sum())

    def reuse(self) -> list[tuple[str, int]]:
        """For each seed its name and how many bytes of the release should come from it."""
        found = ((seed.name, self._wanted.bytes_of(self.from_seed(seed)[0])) for seed in self.used)
        return [(name, count) for name, count in found if count]

    def close(self) -> None:
        """Let go of the directories, and of all that is known of the seeds. May be repeated."""
        while self.used:
            os.close(self.used.pop().top)
        self.wholes = None
        self._first = self._second = _Claims(0)
