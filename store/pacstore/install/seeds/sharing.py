"""Sharing: wanted files that a seed has whole get its blocks, or are further names of its files, instead of being copied.

A clone is verified as it lies in the new tree. A file of an installed release becomes a further name only after its content was
verified, and if its mode and owner are those that the new file would have; the time too where it matters: compiled Python is
stale once its source has another time. Nothing of such a file is ever changed.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pacstore.install.crew import Crew
from pacstore.install.jobs import jobs
from pacstore.install.seeds.copying import open_in_seed
from pacstore.install.seeds.seed import Seed, Seeds
from pacstore.install.tools import Tools
from pacstore.install.tree.directories import Directories
from pacstore.install.tree.paths import Layout, Numbers32, Paths
from pacstore.install.wanted import Flags, Wanted
from pacstore.install.writer import Writer, file_mode
from pacstore.progress import Progress

MOST_NAMES = 16_000
"""A file with so many names gets no more, long before a file system refuses: the new release may have several names for it."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What must be true of a file before it may become a further name in a new tree. `mtime` in whole seconds, None for any."""

    size: int
    mode: int
    owner: tuple[int, int]
    mtime: int | None

    def is_met(self, found: os.stat_result) -> bool:
        """Whether it is true of a file with this status."""
        return (
            stat.S_ISREG(found.st_mode)
            and found.st_size == self.size
            and stat.S_IMODE(found.st_mode) == self.mode
            and (found.st_uid, found.st_gid) == self.owner
            and (self.mtime is None or found.st_mtime_ns // 10**9 == self.mtime)
            and found.st_nlink < MOST_NAMES
        )


def needs_time(name: bytes) -> bool:
    """Whether a file of this name must have its own time."""
    return name.endswith(b".py")


class Expectations:
    """What must be true of a file before it may become a further name in the tree of what is wanted."""

    def __init__(self, wanted: Wanted, paths: Paths, owner: tuple[int, int]) -> None:
        self._tree = wanted.manifest.tree
        self._mtimes = wanted.mtimes
        self._paths = paths
        self._owner = owner

    def of(self, file: int) -> Expected:
        """What must be true of one that is to be the file number `file`."""
        entry = int(self._paths.file_entries[file])
        return Expected(
            size=int(self._tree.sizes[file]),
            mode=file_mode(self._tree, entry),
            owner=self._owner,
            mtime=int(self._mtimes[entry]) if needs_time(self._paths.name(entry)) else None,
        )

    def met(self, top: int, layout: Layout, files: Numbers32, theirs: Numbers32, *, limit: int) -> Flags:
        """For each of `files` whether the file of `theirs` below the open directory `top` can become it, by its status.

        Of several names of one file there, only one can: what are two files here must not become one.
        """
        met = np.zeros(len(files), dtype=bool)
        inodes = np.zeros(len(files), dtype=np.uint64)
        with contextlib.closing(Directories(top, layout, limit=limit)) as directories:
            for at in range(len(files)):
                file, entry = int(files[at]), int(layout.file_entries[theirs[at]])
                with contextlib.suppress(OSError):
                    directory = directories.open(int(layout.parents[entry]))
                    found = os.stat(layout.name(entry), dir_fd=directory, follow_symlinks=False)
                    met[at] = self.of(file).is_met(found)
                    inodes[at] = found.st_ino
        able = np.flatnonzero(met)
        first = able[np.unique(inodes[able], return_index=True)[1]]
        met[:] = False
        met[first] = True
        return met


class Sharing:
    """Takes what seeds have whole into the tree being written, without a copy."""

    def __init__(self, wanted: Wanted, writer: Writer, progress: Progress) -> None:
        self._wanted = wanted
        self._sizes = wanted.manifest.tree.sizes
        self._writer = writer
        self._progress = progress
        self._expectations = Expectations(wanted, writer.paths, writer.owner)

    def share(self, crew: Crew[Tools], seeds: Seeds) -> None:
        """Share all that the seeds should have whole; what cannot be shared is left to be copied. Raises Unavailable."""
        wholes = seeds.wholes
        if wholes is None:
            return
        waiting = wholes.taken & ~self._writer.done & ~self._writer.begun
        if not waiting.any():
            return
        self._progress.begin("sharing", int(self._sizes[waiting].sum()))
        for number, seed in enumerate(seeds.used):
            files, theirs = wholes.of(number)
            left = waiting[files]
            files, theirs = files[left], theirs[left]
            if len(files):
                layout = seed.contents.layout()
                for first, last in jobs(self._sizes[files]):
                    part = slice(first, last)
                    crew.give(self._job(seed, layout, files[part], theirs[part], wholes.links[files[part]]))
                crew.finish()
        self._wanted.have_files(self._writer.done)

    def _job(
        self, seed: Seed, layout: Layout, files: Numbers32, theirs: Numbers32, links: Flags
    ) -> Callable[[Tools], None]:
        def share(tools: Tools) -> None:
            for file, their, link in zip(files.tolist(), theirs.tolist(), links.tolist(), strict=True):
                self._share(tools, seed, layout, file, their, link=link)
            self._progress.advance(int(self._sizes[files].sum()))

        return share

    def _share(self, tools: Tools, seed: Seed, layout: Layout, file: int, their: int, *, link: bool) -> None:
        directories = tools.seed_tree(seed, layout)
        descriptor = open_in_seed(directories, layout, their)
        if descriptor is None:
            return
        try:
            done = False
            if link and self._expectations.of(file).is_met(os.fstat(descriptor)):
                entry = int(layout.file_entries[their])
                source = directories.open(int(layout.parents[entry]))
                done = self._writer.link(tools.tree, file, descriptor, source, layout.name(entry))
            if not done and seed.clones:
                self._writer.clone(tools.tree, file, descriptor)
        finally:
            os.close(descriptor)
