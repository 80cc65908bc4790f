"""Copying: wanted chunks from seeds, each verified as it is read; what fails is left for the download."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass

from blake3 import blake3

from pacstore.errors import printable
from pacstore.install.crew import Crew
from pacstore.install.jobs import jobs
from pacstore.install.seeds.seed import Places, Seed, Seeds
from pacstore.install.tools import Tools
from pacstore.install.tree.directories import Directories
from pacstore.install.tree.paths import Layout, Numbers32
from pacstore.install.wanted import Batch, Wanted
from pacstore.install.writer import NO_PLACE, Writer
from pacstore.progress import Progress

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, eq=False)
class _Reading:
    """One seed being read."""

    seed: Seed
    layout: Layout
    places: Places


class Copying:
    """Takes what seeds should hold into the tree being written."""

    def __init__(self, wanted: Wanted, writer: Writer, progress: Progress) -> None:
        self._wanted = wanted
        self._writer = writer
        self._progress = progress

    def copy(self, crew: Crew[Tools], seeds: Seeds) -> None:
        """Copy all that the seeds should have. Raises Unavailable, and Corrupt for a manifest that contradicts itself."""
        if not seeds.used:
            return
        self._progress.begin("copying", sum(count for _, count in seeds.reuse()))
        for second in (False, True):
            for seed in seeds.used:
                self._copy_seed(crew, seed, *seeds.from_seed(seed, second=second))

    def _copy_seed(self, crew: Crew[Tools], seed: Seed, numbers: Numbers32, chunks: Numbers32) -> None:
        if not len(numbers):
            return
        reading = _Reading(seed, seed.contents.layout(), seed.contents.places())
        for first, last in jobs(self._wanted.lengths[numbers]):
            crew.give(self._job(reading, numbers[first:last], chunks[first:last]))
        crew.finish()
        left = int((~self._wanted.have[numbers]).sum())
        if left and not seed.attempt:
            since = "read" if seed.foreign else "installed"
            self._progress.warn(
                f"{printable(seed.name)} is not what it was when it was {since}: {left} of its chunks will be downloaded"
            )

    def _job(self, reading: _Reading, numbers: Numbers32, chunks: Numbers32) -> Callable[[Tools], None]:
        return lambda tools: self._copy(tools, reading, numbers, chunks)

    def _copy(self, tools: Tools, reading: _Reading, numbers: Numbers32, chunks: Numbers32) -> None:
        files = reading.places.files(chunks)
        offsets = reading.places.offsets(chunks, files).tolist()
        batch = self._wanted.batch(numbers)
        directories = tools.seed_tree(reading.seed, reading.layout)
        moved = reading.seed.moved
        at = 0
        for file, group in itertools.groupby(files.tolist()):
            end = at + sum(1 for _ in group)
            own = bool(len(moved) and moved[file])
            descriptor = open_in_seed(tools.tree if own else directories, reading.layout, file)
            if descriptor is not None:
                try:
                    self._copy_file(tools, batch, range(at, end), descriptor, offsets, standing=file if own else None)
                finally:
                    os.close(descriptor)
            at = end
        done = numbers[self._wanted.have[numbers]]
        self._progress.advance(self._wanted.bytes_of(done))

    def _copy_file(
        self,
        tools: Tools,
        batch: Batch,
        positions: range,
        descriptor: int,
        offsets: list[int],
        *,
        standing: int | None,
    ) -> None:
        """Copy chunks out of an open file; `standing`: its number where it is one of the tree that is being written."""
        for at in positions:
            data = tools.buffer[: batch.lengths[at]]
            if _read(descriptor, data, offsets[at]) and blake3(data).digest() == batch.id(at):
                place = NO_PLACE if standing is None else (standing, offsets[at])
                self._writer.put(tools.tree, batch, at, data, standing=place)
                self._wanted.have[batch.numbers[at]] = True


def open_in_seed(directories: Directories, layout: Layout, file: int) -> int | None:
    """The file number `file` of a seed, open for reading; None where it cannot be opened."""
    entry = int(layout.file_entries[file])
    try:
        return os.open(layout.name(entry), _READ, dir_fd=directories.open(int(layout.parents[entry])))
    except OSError:
        return None


def _read(descriptor: int, buffer: memoryview, offset: int) -> bool:
    """Fill `buffer`; False where there is less."""
    try:
        return os.preadv(descriptor, [buffer], offset) == len(buffer)
    except OSError:
        return False
