"""Wholes: wanted files that a seed has whole, which can share its disk instead of being copied."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pacstore.document import Column8, Numbers, row_keys
from pacstore.install.tree.paths import Layout, Numbers32
from pacstore.install.wanted import Flags, Wanted

NOWHERE = -1
_SEARCH_FILES = 32_768
NameSums = Callable[[Numbers32], Numbers]


class Wholes:
    """For each wanted file, by file number, the number of the seed that has it, NOWHERE for none, and its number there.

    `links`: whether it is to become a further name of the seed's file.
    """

    def __init__(self, wanted: Wanted) -> None:
        files = wanted.manifest.tree.files
        self.seeds: NDArray[np.int16] = np.full(files, NOWHERE, dtype=np.int16)
        self.files: Numbers32 = np.zeros(files, dtype=np.int32)
        self.links: Flags = np.zeros(files, dtype=bool)

    def offer(self, seed: int, files: Numbers32, theirs: Numbers32, *, links: bool = False) -> None:
        """Take from seed number `seed` those of the wanted `files` that no other has; `theirs` are their numbers in it.

        `links`: they are to become further names of its files.
        """
        free = ~self.taken[files]
        self.seeds[files[free]] = seed
        self.files[files[free]] = theirs[free]
        self.links[files[free]] = links

    @property
    def taken(self) -> Flags:
        """By file number, whether a seed has the file."""
        taken: Flags = self.seeds != NOWHERE
        return taken

    def of(self, seed: int) -> tuple[Numbers32, Numbers32]:
        """The wanted files to take from seed number `seed`, in its order, and their numbers in it."""
        files = np.flatnonzero(self.seeds == seed).astype(np.int32)
        theirs = self.files[files]
        order = np.argsort(theirs, kind="stable")
        return files[order], theirs[order]


class ContentIndex:
    """The wanted files that need content, by content."""

    def __init__(self, wanted: Wanted) -> None:
        tree = wanted.manifest.tree
        files = np.flatnonzero((tree.sizes > 0) & ~wanted.linked).astype(np.int32)
        keys = row_keys(tree.contents[files])
        order = np.argsort(keys, kind="stable").astype(np.int32)
        keys = keys[order]
        new = np.ones(len(keys), dtype=bool)
        new[1:] = keys[1:] != keys[:-1]
        self._files: Numbers32 = files[order]
        self._contents: Column8 = keys[new].view(np.uint8).reshape(-1, tree.contents.shape[1])
        self._groups: Numbers32 = (np.cumsum(new) - 1).astype(np.int32)

    def have(self, contents: Column8) -> tuple[Numbers32, Numbers32]:
        """The wanted files that a tree with these `contents` has, and for each the number of an equal one there."""
        groups, theirs = self._search(contents)
        first = np.full(len(self._contents), NOWHERE, dtype=np.int32)
        first[groups[::-1]] = theirs[::-1]
        found = first[self._groups]
        return self._files[found != NOWHERE], found[found != NOWHERE]

    def pair(self, contents: Column8, names: NameSums, their_names: NameSums) -> tuple[Numbers32, Numbers32]:
        """As `have`, but none of theirs is given twice: if it can be, each of ours gets one of its own name.

        `names` and `their_names` give the checksums of the names of files.
        """
        groups, theirs = self._search(contents)
        ours = np.flatnonzero(np.isin(self._groups, groups))
        named, also = _pairs(
            (self._groups[ours].astype(np.int64) << 32) | names(self._files[ours]),
            (groups.astype(np.int64) << 32) | their_names(theirs),
        )
        left, rest = np.delete(ours, named), np.delete(np.arange(len(theirs)), also)
        other, otherwise = _pairs(self._groups[left].astype(np.int64), groups[rest].astype(np.int64))
        chosen = np.concatenate([ours[named], left[other]])
        return self._files[chosen], theirs[np.concatenate([also, rest[otherwise]])]

    def _search(self, contents: Column8) -> tuple[Numbers32, Numbers32]:
        """Pairs of a group and a file of theirs, by the latter."""
        keys = row_keys(self._contents)
        groups, theirs = [np.zeros(0, dtype=np.int32)], [np.zeros(0, dtype=np.int32)]
        for first in range(0, len(contents) if len(keys) else 0, _SEARCH_FILES):
            part = contents[first : first + _SEARCH_FILES]
            at = np.minimum(np.searchsorted(keys, row_keys(part)), len(keys) - 1)
            same = np.flatnonzero((self._contents[at] == part).all(axis=1))
            groups.append(at[same].astype(np.int32))
            theirs.append((same + first).astype(np.int32))
        return np.concatenate(groups), np.concatenate(theirs)


def name_sums(layout: Layout) -> NameSums:
    """Gives the CRC-32 of the last component of the paths of files."""

    def sums(files: Numbers32) -> Numbers:
        found = np.zeros(len(files), dtype=np.int64)
        for first in range(0, len(files), _SEARCH_FILES):
            entries = layout.file_entries[files[first : first + _SEARCH_FILES]].tolist()
            found[first : first + len(entries)] = [zlib.crc32(layout.name(entry)) for entry in entries]
        return found

    return sums


def _pairs(ours: Numbers, theirs: Numbers) -> tuple[Numbers, Numbers]:
    """Positions of equal keys here and there: the first of a key with its first there, the second with its second, ..."""
    order, their_order = np.argsort(ours, kind="stable"), np.argsort(theirs, kind="stable")
    keys, their_keys = ours[order], theirs[their_order]
    ranks = np.arange(len(keys)) - np.searchsorted(keys, keys)
    at = np.searchsorted(their_keys, keys) + ranks
    found = at < len(their_keys)
    found[found] = their_keys[at[found]] == keys[found]
    return order[found], their_order[at[found]]
