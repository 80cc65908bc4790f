"""Adoption: whole files of an attempt that certainly ended, moved into the tree being written instead of copied.

So an interrupted installation continues without room for a second copy. Every file's content is verified before it is moved.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from pacstore.install.copying import jobs
from pacstore.install.crew import Crew
from pacstore.install.paths import Numbers32
from pacstore.install.seeds import Seed, Seeds
from pacstore.install.tools import Tools
from pacstore.install.wanted import Wanted
from pacstore.install.writer import Writer
from pacstore.progress import Progress


class Adoption:
    """Takes over what attempts that ended have finished."""

    def __init__(self, wanted: Wanted, writer: Writer, progress: Progress) -> None:
        self._wanted = wanted
        self._writer = writer
        self._progress = progress

    def adopt(self, crew: Crew[Tools], seeds: Seeds) -> None:
        """Take over the whole files of all ended attempts."""
        if not seeds.bytes_taken_over:
            return
        sizes = self._wanted.manifest.tree.sizes
        self._progress.begin("checking", seeds.bytes_taken_over)
        for seed in seeds.used:
            if seed.ended:
                files = seed.whole[~self._writer.done[seed.whole]]
                for first, last in jobs(sizes[files]):
                    crew.give(self._job(seed, files[first:last]))
                crew.finish()
        self._wanted.have_files(self._writer.done)

    def _job(self, seed: Seed, files: Numbers32) -> Callable[[Tools], None]:
        return lambda tools: self._adopt(tools, seed, files)

    def _adopt(self, tools: Tools, seed: Seed, files: Numbers32) -> None:
        paths = self._writer.paths
        theirs = tools.seed_tree(seed, paths)
        for file in files.tolist():
            entry = int(paths.file_entries[file])
            parent = int(paths.parents[entry])
            # What cannot be moved is written again.
            with contextlib.suppress(OSError):
                self._writer.adopt(file, paths.name(entry), theirs.open(parent), tools.tree.open(parent))
        self._progress.advance(int(self._wanted.manifest.tree.sizes[files].sum()))
