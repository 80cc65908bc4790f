"""Tools: what each thread of an installation holds for itself."""

from __future__ import annotations

from pacstore.chunker import CHUNKER
from pacstore.install.seeds.seed import Seed
from pacstore.install.tree.directories import Directories
from pacstore.install.tree.paths import Layout, Paths


class Tools:
    """Open directories of the tree being written and of the seed being read, and a `buffer` that takes any chunk."""

    def __init__(self, top: int, paths: Paths, *, open_directories: int) -> None:
        self.tree = Directories(top, paths, limit=open_directories)
        self.buffer = memoryview(bytearray(CHUNKER.max_bytes))
        self._limit = open_directories
        self._seed: Seed | None = None
        self._seed_tree: Directories | None = None

    def seed_tree(self, seed: Seed, paths: Layout) -> Directories:
        """The directories of `seed`, whose paths are `paths`; those of the seed before it are closed."""
        if self._seed is not seed or self._seed_tree is None:
            self._close_seed()
            self._seed, self._seed_tree = seed, Directories(seed.top, paths, limit=self._limit)
        return self._seed_tree

    def _close_seed(self) -> None:
        if self._seed_tree is not None:
            self._seed_tree.close()

    def close(self) -> None:
        """Close them all."""
        self._close_seed()
        self.tree.close()
