"""Rebuilding: files of an installed release anew in a staging tree, from whatever still has their chunks.

Looked through in this order, until nothing is missing: interrupted repairs of the release; its own files that are whole; the
damaged ones, most of whose chunks are as they were; other releases; the source.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pacstore.errors import NotFound, PacballError, Refused
from pacstore.install.crew import Crew
from pacstore.install.documents import Documents, fetch_placement, refreshed
from pacstore.install.downloading import Downloading
from pacstore.install.options import InstallOptions
from pacstore.install.root.layout import Root
from pacstore.install.root.staging import Attempt
from pacstore.install.seeds.copying import Copying
from pacstore.install.seeds.seed import Recorded, Seed, Seeds
from pacstore.install.seeds.seeking import common_chunks, seek_attempts
from pacstore.install.tools import Tools
from pacstore.install.tree.directories import Directories
from pacstore.install.tree.disk import DIRECTORY_FLAGS, DIRECTORY_MODE
from pacstore.install.tree.paths import TOP, Paths
from pacstore.install.wanted import Flags, Wanted
from pacstore.install.writer import Writer
from pacstore.manifest import Manifest
from pacstore.placement import Placement
from pacstore.progress import Progress
from pacstore.release import Release
from pacstore.source import PerhapsAbsent, Source
from pacstore.trust.targets import CatalogRelease


class Supply(Protocol):
    """Where a repair gets what no local tree has. Nothing is asked of it before something is missing."""

    @property
    def source(self) -> Source:
        """The source, opened when it is first asked for. Raises as opening it does."""

    @property
    def bytes_downloaded(self) -> int:
        """What the source has moved so far; 0 while it is not opened."""

    def entry(self, release: Release) -> CatalogRelease:
        """What the verified catalog says of `release`. Raises NotFound, and as opening does."""

    def refresh(self, release: Release) -> CatalogRelease:
        """The same, asked for again."""


class OtherRecord(Exception):
    """The kept manifest is not the one that the catalog names, though its tree is."""


@dataclass(frozen=True)
class Rebuilt:
    """By file number which files stand whole in the staging tree; bytes that came from local trees, and over the network."""

    files: Flags
    bytes_reused: int
    bytes_downloaded: int


class _Muted:
    """Progress without the warnings: that damaged files lack chunks is what a repair is for."""

    def __init__(self, progress: Progress) -> None:
        self.begin = progress.begin
        self.advance = progress.advance

    def warn(self, message: str) -> None:
        """Not told."""


@dataclass
class Rebuilding:
    """Rebuilds files of `release`, whose tree is open as `top`, in the open `attempt`."""

    root: Root
    release: Release
    documents: Documents
    paths: Paths
    top: int
    attempt: Attempt
    supply: Supply | None
    options: InstallOptions
    progress: Progress

    def rebuild(self, files: Flags, damaged: Flags) -> Rebuilt:
        """Rebuild `files`, flags by file number; those that are `damaged` are there, but not to be relied on.

        Without a supply, files of which something is missing are left out. Raises Unavailable, Corrupt, OtherRecord, and what
        the supply and its source raise.
        """
        manifest = self.documents.manifest
        wanted = Wanted(manifest, self.documents.attributes, files)
        writer = Writer(
            wanted,
            self.documents.attributes,
            self.paths,
            top=self.attempt.top,
            open_files=self.options.open_files,
            exact_modes=self.attempt.exact_modes,
            owner=self.options.owner,
        )
        limit = self.options.open_directories
        tools = Tools(self.attempt.top, self.paths, open_directories=limit)
        with contextlib.closing(tools), contextlib.closing(writer):
            self._make_directories(tools.tree, files)
            with Crew(
                self.options.workers, lambda: Tools(self.attempt.top, self.paths, open_directories=limit)
            ) as crew:
                self._copy(crew, wanted, writer, damaged)
                reused = wanted.bytes_of(np.flatnonzero(wanted.have).astype(np.int32))
                downloaded = self._download(crew, wanted, writer)
            for file in np.flatnonzero(files & (manifest.tree.sizes == 0)).tolist():
                writer.whole(tools.tree, file, b"")
        whole = files.copy()
        whole[wanted.files_with(~wanted.have)] = False
        return Rebuilt(whole, reused, downloaded)

    def _make_directories(self, staged: Directories, files: Flags) -> None:
        """The directories of the staging tree that the files lie in."""
        needed: set[int] = set()
        for entry in self.paths.file_entries[files].tolist():
            parent = int(self.paths.parents[entry])
            while parent != TOP and parent not in needed:
                needed.add(parent)
                parent = int(self.paths.parents[parent])
        for entry in sorted(needed):
            with contextlib.suppress(FileExistsError):
                above = staged.open(int(self.paths.parents[entry]))
                os.mkdir(self.paths.name(entry), DIRECTORY_MODE, dir_fd=above)

    def _copy(self, crew: Crew[Tools], wanted: Wanted, writer: Writer, damaged: Flags) -> None:
        for seeds, progress in self._seeds(wanted, damaged):
            with contextlib.closing(seeds):
                Copying(wanted, writer, progress).copy(crew, seeds)
            if wanted.have.all():
                return

    def _seeds(self, wanted: Wanted, damaged: Flags) -> Iterator[tuple[Seeds, Progress]]:
        manifest = self.documents.manifest
        muted = _Muted(self.progress)
        yield seek_attempts(self.root, wanted, self.release), muted
        for files in (~damaged, damaged):
            yield self._seed(wanted, str(self.release), os.dup(self.top), manifest, files), muted
        others = [other for other in self.root.installed() if other != self.release]
        others.sort(key=lambda other: (other.project, other.platform) != (self.release.project, self.release.platform))
        for other in others:
            try:
                record = self.root.record(other)
                top = os.open(str(other), DIRECTORY_FLAGS, dir_fd=self.root.releases)
            except (PacballError, OSError):
                continue  # it says so itself when it is verified
            yield self._seed(wanted, str(other), top, record), muted

    def _seed(self, wanted: Wanted, name: str, top: int, manifest: Manifest, files: Flags | None = None) -> Seeds:
        """One tree as the only seed of what is still missing; of its files only `files`."""
        seeds = Seeds(wanted)
        contents = Recorded(manifest)
        numbers, chunks = common_chunks(manifest, wanted)
        chosen = ~wanted.have[numbers]
        if files is not None:
            chosen &= files[contents.places().files(chunks)]
        if not seeds.offer(Seed(name, top, contents), numbers[chosen], chunks[chosen]):
            os.close(top)
        return seeds

    def _download(self, crew: Crew[Tools], wanted: Wanted, writer: Writer) -> int:
        if wanted.have.all() or self.supply is None:
            return 0
        entry = check_entry(self.supply.entry(self.release), self.documents.manifest)
        source = self.supply.source
        before = source.traffic.bytes_downloaded
        downloading = Downloading(
            wanted, writer.take, source, replaced=self._replaced(entry), progress=self.progress, options=self.options
        )
        try:
            placement = fetch_placement(source, entry, wanted.manifest)
        except NotFound as error:
            placement = self._replaced(entry)(error)
        downloading.download(crew, placement)
        return source.traffic.bytes_downloaded - before

    def _replaced(self, entry: CatalogRelease) -> Callable[[NotFound | PerhapsAbsent], Placement]:
        supply = self.supply
        latest = [entry]

        def replaced(error: NotFound | PerhapsAbsent) -> Placement:
            if supply is None:
                raise error
            latest[0] = refreshed(latest[0], lambda: supply.refresh(self.release), error)
            return fetch_placement(supply.source, latest[0], self.documents.manifest)

        return replaced


def check_entry(entry: CatalogRelease, manifest: Manifest) -> CatalogRelease:
    """`entry`, which must be of the same tree as `manifest`. Raises Refused, OtherRecord."""
    if entry.tree_digest != manifest.tree.digest:
        raise Refused(
            f"is installed with another tree ({manifest.tree.digest}); the catalog says {entry.tree_digest}",
            place=str(entry.release),
            hint="a release never changes: find out which of the two is genuine; nothing was repaired",
        )
    if entry.manifest.digest != manifest.digest:
        raise OtherRecord
    return entry
