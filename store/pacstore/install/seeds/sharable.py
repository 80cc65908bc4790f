"""Shared: which wanted files the seeds in use have whole, and how each can be shared; found before anything is begun."""

from __future__ import annotations

import os
import stat
from dataclasses import replace

import numpy as np

from pacstore.install.options import InstallOptions, Share
from pacstore.install.root.layout import Root
from pacstore.install.root.record import let_go
from pacstore.install.seeds.copying import open_in_seed
from pacstore.install.seeds.foreign import Finds
from pacstore.install.seeds.seed import Recorded, Seed, Seeds
from pacstore.install.seeds.sharing import Expectations
from pacstore.install.seeds.wholes import ContentIndex, Wholes, name_sums
from pacstore.install.tree.cloning import can_clone
from pacstore.install.tree.directories import Directories
from pacstore.install.tree.paths import Numbers32, Paths
from pacstore.install.wanted import Wanted

_PROBES = 3
"""How many files of a seed are tried before it is taken for one that cannot be cloned from."""


def find_wholes(root: Root, seeds: Seeds, wanted: Wanted, options: InstallOptions) -> Wholes | None:
    """What of the wanted can be shared with the seeds in use; which of them can be cloned from is noted in them."""
    cloning = options.share is not Share.NONE and can_clone(root.staging)
    if not cloning and options.share is not Share.HARDLINK:
        return None
    index, wholes = ContentIndex(wanted), Wholes(wanted)
    if options.share is Share.HARDLINK:
        _find_links(root, seeds, wanted, index, wholes, options)
    if cloning:
        _find_clones(root, seeds, wanted, index, wholes, options)
    return wholes if wholes.taken.any() else None


def _find_links(
    root: Root, seeds: Seeds, wanted: Wanted, index: ContentIndex, wholes: Wholes, options: InstallOptions
) -> None:
    """Files of installed releases that can become further names, as far as their status tells."""
    paths = Paths(wanted.manifest.tree)
    expectations = Expectations(wanted, paths, options.owner or _own(root.staging))
    for number, seed in enumerate(seeds.used):
        if seed.attempt or not isinstance(seed.contents, Recorded):
            continue
        layout = seed.contents.layout()
        contents = seed.contents.manifest.tree.contents
        files, theirs = index.pair(contents, name_sums(paths), name_sums(layout))
        free = ~wholes.taken[files]
        files, theirs = files[free], theirs[free]
        met = expectations.met(seed.top, layout, files, theirs, limit=options.open_directories)
        wholes.offer(number, files[met], theirs[met], links=True)
        let_go(seed.contents.manifest)


def _find_clones(
    root: Root, seeds: Seeds, wanted: Wanted, index: ContentIndex, wholes: Wholes, options: InstallOptions
) -> None:
    large = wanted.manifest.tree.sizes >= options.clone_bytes
    # What is installed is more certain to be whole than what an attempt wrote.
    for number in sorted(range(len(seeds.used)), key=lambda number: bool(seeds.used[number].attempt)):
        seed = seeds.used[number]
        files, theirs = _clonable(seed, index, wanted)
        free = large[files] & ~wholes.taken[files]
        if free.any() and _can_clone(root, seed, theirs[free]):
            seeds.used[number] = replace(seed, clones=True)
            wholes.offer(number, files[free], theirs[free])


def _clonable(seed: Seed, index: ContentIndex, wanted: Wanted) -> tuple[Numbers32, Numbers32]:
    """The wanted files that a seed should have whole, and their numbers in it."""
    if seed.attempt:
        # Those of one that ended are moved instead; of one at another release not even the lengths are known.
        if not seed.ended and len(seed.lengths):
            whole = (seed.lengths == wanted.manifest.tree.sizes) & ~wanted.linked
            files = np.flatnonzero(whole).astype(np.int32)
            return files, files
        return np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int32)
    if isinstance(seed.contents, Finds):
        files, positions = index.have(seed.contents.whole_contents)
        return files, seed.contents.whole_files[positions]
    if isinstance(seed.contents, Recorded):
        files, theirs = index.have(seed.contents.manifest.tree.contents)
        let_go(seed.contents.manifest)
        return files, theirs
    return np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int32)


def _can_clone(root: Root, seed: Seed, files: Numbers32) -> bool:
    """Whether new files under `root` can be clones of these files of a seed; tried with some."""
    layout = seed.contents.layout()
    directories = Directories(seed.top, layout, limit=2)
    try:
        for file in files[:_PROBES].tolist():
            descriptor = open_in_seed(directories, layout, file)
            if descriptor is not None:
                try:
                    if can_clone(root.staging, descriptor):
                        return True
                finally:
                    os.close(descriptor)
    finally:
        directories.close()
    return False


def _own(directory: int) -> tuple[int, int]:
    """The user and group id of what this process makes in an open directory."""
    found = os.fstat(directory)
    return os.geteuid(), found.st_gid if found.st_mode & stat.S_ISGID else os.getegid()
