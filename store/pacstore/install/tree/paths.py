"""Paths: where the entries of a tree are, without an object an entry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pacstore.document import Numbers, starts
from pacstore.errors import printable
from pacstore.tree import EntryKind, Tree

Numbers32 = NDArray[np.int32]
TOP = -1
"""The number of the directory that holds the whole tree."""


class Layout(Protocol):
    """Where the files of a tree are: enough to open each through its directories, by descriptors."""

    @property
    def parents(self) -> Numbers32:
        """For each entry the number of its directory, TOP for the top."""

    @property
    def file_entries(self) -> Numbers32:
        """For each file the number of its entry."""

    def name(self, entry: int) -> bytes:
        """The last component of the entry's path."""

    def path(self, entry: int) -> bytes:
        """The entry's path from the top of the tree."""


class Paths:
    """Names, parents and paths of the entries of a tree, by entry number; 16 bytes an entry."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.parents = _parents(tree)
        self.file_entries = np.flatnonzero(_is_file(tree)).astype(np.int32)
        self._starts: Numbers = starts(tree.name_lengths)

    def name(self, entry: int) -> bytes:
        """The last component of the entry's path."""
        starts_of = self._starts
        return bytes(self.tree.names[int(starts_of[entry]) : int(starts_of[entry + 1])])

    def path(self, entry: int) -> bytes:
        """The entry's path from the top of the tree."""
        parts = []
        while entry != TOP:
            parts.append(self.name(entry))
            entry = int(self.parents[entry])
        return b"/".join(reversed(parts))

    def shown(self, entry: int) -> str:
        """The entry's path, safe to print."""
        return printable(self.path(entry).decode("utf-8", "backslashreplace"))

    def directories(self) -> Iterator[int]:
        """The entry numbers of all directories, each before what it holds."""
        yield from np.flatnonzero(self.tree.kinds == EntryKind.DIRECTORY).tolist()

    def symlinks(self) -> Iterator[tuple[int, bytes]]:
        """Every symbolic link: its entry number and target."""
        at = 0
        entries = np.flatnonzero(self.tree.kinds == EntryKind.SYMLINK)
        for entry, length in zip(entries.tolist(), self.tree.target_lengths.tolist(), strict=True):
            yield entry, bytes(self.tree.targets[at : at + length])
            at += length


class Children:
    """The entries that each directory holds."""

    def __init__(self, paths: Paths) -> None:
        self.order: Numbers32 = np.argsort(paths.parents, kind="stable").astype(np.int32)
        self.parents: Numbers32 = paths.parents[self.order]

    def of(self, directory: int) -> Numbers32:
        """The entry numbers of what lies directly in `directory` (TOP for the top), in order."""
        first, last = np.searchsorted(self.parents, [directory, directory + 1])
        return self.order[first:last]


def _is_file(tree: Tree) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (tree.kinds == EntryKind.FILE) | (tree.kinds == EntryKind.EXECUTABLE)
    return found


def _parents(tree: Tree) -> Numbers32:
    """For each entry the number of its directory: in preorder the nearest entry before it that is one level higher."""
    parents = np.full(tree.entries, TOP, dtype=np.int32)
    by_depth = np.argsort(tree.depths, kind="stable").astype(np.int32)
    ends = starts(np.bincount(tree.depths)) if tree.entries else np.zeros(1, dtype=np.int64)
    for depth in range(1, len(ends) - 1):
        above = by_depth[ends[depth - 1] : ends[depth]]
        level = by_depth[ends[depth] : ends[depth + 1]]
        parents[level] = above[np.searchsorted(above, level) - 1]
    return parents
