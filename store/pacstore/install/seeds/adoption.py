"""Adoption: files of attempts that ended, moved into the tree being written instead of copied.

So an interrupted installation continues without room for a second copy. A whole file is verified before it is moved; of one that
is not whole, or large, the chunks are verified where they stand, when it is their turn to be copied.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np

from pacstore.install.crew import Crew
from pacstore.install.jobs import jobs
from pacstore.install.root.layout import Root
from pacstore.install.root.staging import take_over
from pacstore.install.seeds.seed import Seed, Seeds
from pacstore.install.seeds.wholes import Wholes
from pacstore.install.tools import Tools
from pacstore.install.tree.paths import Numbers32
from pacstore.install.wanted import Wanted
from pacstore.install.writer import Writer
from pacstore.limits import MIB
from pacstore.progress import Progress

_AT_ONCE_BYTES = 16 * MIB
"""Up to this size a file is verified as a whole."""


class Adoption:
    """Takes over what attempts that ended have written."""

    def __init__(self, root: Root, wanted: Wanted, writer: Writer, progress: Progress) -> None:
        self._root = root
        self._wanted = wanted
        self._writer = writer
        self._progress = progress

    def adopt(self, crew: Crew[Tools], seeds: Seeds) -> None:
        """Take over the files of all ended attempts. Raises OSError."""
        ended = [seed for seed in seeds.used if seed.ended]
        if not ended:
            return
        self._progress.begin("checking", sum(int(self._at_once(seed).sum()) for seed in ended))
        for seed in ended:
            if take_over(self._root, seed.attempt, seed.top):
                self._adopt_all(crew, seed, seeds.wholes)
        self._wanted.have_files(self._writer.done)

    def _at_once(self, seed: Seed) -> Numbers32:
        """By file number, how many bytes are read to verify it as a whole."""
        sizes = self._wanted.manifest.tree.sizes
        whole = (seed.lengths == sizes) & (sizes <= _AT_ONCE_BYTES)
        found: Numbers32 = np.where(whole, sizes, 0).astype(np.int32)
        return found

    def _adopt_all(self, crew: Crew[Tools], seed: Seed, shared: Wholes | None) -> None:
        there = (seed.lengths > 0) & (seed.lengths <= self._wanted.manifest.tree.sizes) & ~self._wanted.linked
        read = self._at_once(seed)
        if shared is not None:
            there &= (read > 0) | ~shared.taken
        files = np.flatnonzero(there & ~self._writer.done & ~self._writer.begun).astype(np.int32)
        read = read[files]
        for first, last in jobs(read):
            crew.give(self._job(seed, files[first:last], read[first:last]))
        crew.finish()

    def _job(self, seed: Seed, files: Numbers32, read: Numbers32) -> Callable[[Tools], None]:
        return lambda tools: self._adopt(tools, seed, files, read)

    def _adopt(self, tools: Tools, seed: Seed, files: Numbers32, read: Numbers32) -> None:
        paths = self._writer.paths
        theirs = tools.seed_tree(seed, paths)
        for file, whole in zip(files.tolist(), read.tolist(), strict=True):
            entry = int(paths.file_entries[file])
            parent = int(paths.parents[entry])
            # What cannot be moved is copied.
            with contextlib.suppress(OSError):
                source, target = theirs.open(parent), tools.tree.open(parent)
                seed.moved[file] = (whole and self._writer.adopt(file, source, target)) or self._writer.adopt_part(
                    file, source, target
                )
        self._progress.advance(int(read.sum()))
