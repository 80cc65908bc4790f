"""Seeking: which local trees may hold wanted chunks: interrupted attempts, installed releases, directories that were named."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from pacstore.document import Numbers, row_keys
from pacstore.errors import PacballError, printable
from pacstore.install.actions.cleansing import is_marked
from pacstore.install.actions.generated import changed_files, read_generated
from pacstore.install.options import InstallOptions
from pacstore.install.root.layout import Root
from pacstore.install.root.record import let_go
from pacstore.install.root.staging import MANIFEST, attempts, is_unsynced, open_tree
from pacstore.install.seeds.foreign import search_directory
from pacstore.install.seeds.seed import Recorded, Seed, Seeds
from pacstore.install.seeds.sharable import find_wholes
from pacstore.install.tree.directories import Directories
from pacstore.install.tree.disk import DIRECTORY_FLAGS
from pacstore.install.tree.paths import Numbers32, Paths
from pacstore.install.wanted import ChunkPlaces, Wanted
from pacstore.manifest import Manifest
from pacstore.progress import Progress
from pacstore.release import Release

_SEARCH_CHUNKS = 65_536


def find_seeds(
    root: Root | None, wanted: Wanted, release: Release, *, options: InstallOptions, progress: Progress
) -> Seeds:
    """The seeds for what is wanted: those under `root`, where there is one, and the directories that `options` name.

    A directory is read only if something would be missing without it. Raises OSError.
    """
    seeds = Seeds(wanted)
    try:
        if root is not None:
            _seek_in_root(seeds, root, wanted, release, options, progress)
        for where in options.seed_directories:
            if len(seeds.uncovered()):
                _seek_in_directory(seeds, where, wanted, options, progress)
        if root is not None and seeds.used:
            seeds.wholes = find_wholes(root, seeds, wanted, options)
    except BaseException:
        seeds.close()
        raise
    return seeds


def seek_attempts(root: Root, wanted: Wanted, release: Release) -> Seeds:
    """The attempts at `release` alone, as seeds. Raises OSError."""
    seeds = Seeds(wanted)
    for seed in _attempts(root, wanted.manifest, release):
        _offer(seeds, *_standing(seed, wanted))
    return seeds


def _seek_in_root(
    seeds: Seeds, root: Root, wanted: Wanted, release: Release, options: InstallOptions, progress: Progress
) -> None:
    for seed in _attempts(root, wanted.manifest, release):
        _offer(seeds, *_standing(seed, wanted))
    for seed, manifest in _releases(root, release, options.seeds, progress):
        _offer(seeds, seed, *_left_alone(root, seed, manifest, *common_chunks(manifest, wanted)))
        let_go(manifest)
        if seeds.complete:
            return
    for seed, manifest in _other_attempts(root, wanted.manifest, release, options.seeds):
        _offer(seeds, seed, *_standing_elsewhere(seed, manifest, wanted))
        let_go(manifest)


def _seek_in_directory(seeds: Seeds, where: Path, wanted: Wanted, options: InstallOptions, progress: Progress) -> None:
    try:
        top = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        progress.warn(f"nothing is taken from {printable(str(where))}: {error.strerror}")
        return
    try:
        numbers, finds = search_directory(
            where,
            top,
            wanted,
            seeds.missing,
            workers=options.workers,
            open_directories=options.open_directories,
            progress=progress,
        )
    except BaseException:
        os.close(top)
        raise
    _offer(seeds, Seed(str(where), top, finds, foreign=True), numbers, np.arange(len(numbers), dtype=np.int32))


def _offer(seeds: Seeds, seed: Seed, numbers: Numbers32, chunks: Numbers32) -> None:
    if not seeds.offer(seed, numbers, chunks):
        os.close(seed.top)


def _attempts(root: Root, manifest: Manifest, release: Release) -> Iterator[Seed]:
    for found in attempts(root):
        if (found.owner.release, found.owner.manifest_digest) != (str(release), manifest.digest.hex):
            continue
        with contextlib.suppress(OSError):
            top = open_tree(root, found.name)
            # Files that foreign commands were let at, or that a disk did not take, are copied, not taken over.
            ended = found.ended and not is_marked(root, found.name) and not is_unsynced(root, found.name)
            yield Seed("an interrupted attempt", top, Recorded(manifest), found.name, ended)


def _other_attempts(root: Root, wanted: Manifest, release: Release, most: int) -> Iterator[tuple[Seed, Manifest]]:
    """Attempts at other releases; they are only read, and left to who began them."""
    for found in attempts(root)[:most]:
        if (found.owner.release, found.owner.manifest_digest) == (str(release), wanted.digest.hex):
            continue
        with contextlib.suppress(OSError, PacballError):
            manifest = root.staged_record(found.name, MANIFEST)
            top = open_tree(root, found.name)
            name = f"an interrupted attempt at {found.owner.release}"
            yield Seed(name, top, Recorded(manifest), found.name), manifest


def _standing_elsewhere(seed: Seed, manifest: Manifest, wanted: Wanted) -> tuple[Numbers32, Numbers32]:
    """The wanted chunks that an attempt at another release may hold, judged by the lengths of its files, and theirs in it."""
    numbers, chunks = common_chunks(manifest, wanted)
    lengths, _ = _measure(seed.top, Paths(manifest.tree))
    places = ChunkPlaces(manifest)
    files = places.files(chunks)
    ends = places.offsets(chunks, files) + manifest.chunk_lengths[chunks]
    there = ends <= lengths[files]
    return numbers[there], chunks[there]


def _releases(root: Root, release: Release, most: int, progress: Progress) -> Iterator[tuple[Seed, Manifest]]:
    current = root.switched_to(release)

    def rank(other: Release) -> tuple[bool, bool, bool]:
        return (str(other) == current, other.project == release.project, other.platform == release.platform)

    installed = sorted(root.installed(), reverse=True)
    for other in sorted(installed, key=rank, reverse=True)[:most]:
        try:
            manifest = root.record(other)
            top = os.open(str(other), DIRECTORY_FLAGS, dir_fd=root.releases)
            yield Seed(str(other), top, Recorded(manifest)), manifest
        except PacballError as error:
            progress.warn(f"nothing is taken from {other}: {error}")
        except OSError as error:
            progress.warn(f"nothing is taken from {other}: {error.strerror}")


def _left_alone(
    root: Root, seed: Seed, manifest: Manifest, numbers: Numbers32, chunks: Numbers32
) -> tuple[Numbers32, Numbers32]:
    """Those of the chunks that lie in no file which the release's own commands changed."""
    generated = None
    with contextlib.suppress(PacballError):
        generated = read_generated(root, Release.parse(seed.name))
    if generated is None:
        return numbers, chunks
    changed = changed_files(generated, Paths(manifest.tree))
    kept = ~np.isin(ChunkPlaces(manifest).files(chunks), changed)
    return numbers[kept], chunks[kept]


def common_chunks(manifest: Manifest, wanted: Wanted) -> tuple[Numbers32, Numbers32]:
    """The wanted chunks that `manifest` has too, and their numbers in it."""
    numbers, chunks = [np.zeros(0, dtype=np.int32)], [np.zeros(0, dtype=np.int32)]
    wanted_ids = wanted.ids()
    keys = row_keys(wanted_ids)
    # Those of files: what else belongs to a release is not installed with it.
    for first in range(0, manifest.tree_chunks if wanted.chunks else 0, _SEARCH_CHUNKS):
        ids = manifest.chunk_ids[first : min(first + _SEARCH_CHUNKS, manifest.tree_chunks)]
        at = np.minimum(np.searchsorted(keys, row_keys(ids)), wanted.chunks - 1)
        found = np.flatnonzero((wanted_ids[at] == ids).all(axis=1))
        numbers.append(at[found].astype(np.int32))
        chunks.append((found + first).astype(np.int32))
    return np.concatenate(numbers), np.concatenate(chunks)


def _standing(seed: Seed, wanted: Wanted) -> tuple[Seed, Numbers32, Numbers32]:
    """The wanted chunks that an interrupted attempt may hold, judged by the lengths of its files."""
    lengths, allocated = _measure(seed.top, Paths(wanted.manifest.tree))
    files = wanted.places.files(wanted.examples)
    ends = wanted.places.offsets(wanted.examples, files) + wanted.lengths
    numbers = np.flatnonzero(ends <= lengths[files]).astype(np.int32)
    moved = np.zeros(len(lengths), dtype=bool)
    return replace(seed, lengths=lengths, allocated=allocated, moved=moved), numbers, wanted.examples[numbers]


def _measure(top: int, paths: Paths) -> tuple[Numbers, Numbers]:
    """Of each file its length (-1: there is none) and the bytes of disk that it takes."""
    lengths = np.full(paths.tree.files, -1, dtype=np.int64)
    allocated = np.zeros(paths.tree.files, dtype=np.int64)
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
            with contextlib.suppress(OSError):
                found = os.stat(paths.name(entry), dir_fd=directory, follow_symlinks=False)
                if stat.S_ISREG(found.st_mode):
                    lengths[file] = found.st_size
                    # What other trees have too may have to be copied.
                    allocated[file] = found.st_blocks * 512 if found.st_nlink == 1 else 0
    finally:
        directories.close()
    return lengths, allocated
