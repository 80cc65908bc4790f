"""Planning: which ranges of which packs bring the chunks that are missing, and what an installation will cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pacstore.digest import Digest
from pacstore.document import Numbers
from pacstore.errors import Unavailable
from pacstore.install.disk import Free
from pacstore.install.options import InstallOptions
from pacstore.install.paths import Numbers32
from pacstore.install.seeds import Seeds
from pacstore.install.wanted import Wanted
from pacstore.placement import Placement
from pacstore.release import Release
from pacstore.source import PackRange
from pacstore.trust.targets import CatalogRelease

_BOOKKEEPING_INODES = 16


@dataclass(frozen=True, slots=True)
class Reuse:
    """Bytes of a release that should come from a local tree."""

    name: str
    bytes: int


@dataclass(frozen=True)
class Plan:
    """What an installation would do. `bytes_reused` and `bytes_total` are plain bytes of the release's files.

    `requests` and `bytes_to_download` (compressed, as they travel) are of packs alone, without documents. `disk_bytes`
    and `inodes` are what it needs while it runs and afterwards; `switched_from` is the release that `current` leads to now.
    """

    release: Release
    tree_digest: Digest
    already_installed: bool
    switched_from: str
    bytes_total: int
    bytes_to_download: int
    bytes_reused: int
    reuse: tuple[Reuse, ...]
    requests: int
    disk_bytes: int
    inodes: int


@dataclass(frozen=True, eq=False)
class Fetch:
    """Ranges in pack order, and what is wanted of each: frames `frames[a:b]`, chunks `numbers[c:d]` by frame and offset.

    `by_range[r]` to `by_range[r + 1]` are the positions of range r's frames; `by_frame` likewise those of a frame's chunks.
    """

    ranges: list[PackRange]
    frames: Numbers32
    numbers: Numbers32
    by_range: list[int]
    by_frame: Numbers

    @property
    def bytes(self) -> int:
        """How many bytes all ranges have together."""
        return sum(wanted.length for wanted in self.ranges)


def plan_fetch(wanted: Wanted, placement: Placement, missing: Numbers32, options: InstallOptions) -> Fetch:
    """How to fetch the chunks `missing`."""
    examples = wanted.examples[missing]
    order = np.lexsort((placement.chunk_offsets[examples], placement.chunk_frames[examples]))
    numbers = missing[order]
    frames, by_frame = np.unique(placement.chunk_frames[examples[order]], return_index=True)
    by_range = _cut(placement, frames.astype(np.int64), options)
    ends = by_range[1:]
    ranges = [placement.range_of(int(frames[a]), int(frames[b - 1])) for a, b in zip(by_range, ends, strict=False)]
    return Fetch(ranges, frames.astype(np.int32), numbers, by_range, np.append(by_frame, len(numbers)))


def _cut(placement: Placement, frames: Numbers, options: InstallOptions) -> list[int]:
    """Where ranges begin among `frames`: at a new pack, after a wide gap, and where one would become too long."""
    begins = placement.frame_offsets[frames].astype(np.int64)
    ends = begins + placement.frame_lengths[frames]
    packs = placement.frame_packs[frames].astype(np.int64)
    apart = np.ones(len(frames), dtype=bool)
    apart[1:] = (packs[1:] != packs[:-1]) | (begins[1:] - ends[:-1] > options.gap_bytes)
    cuts: list[int] = []
    first = 0
    for at, (new, begin, end) in enumerate(zip(apart.tolist(), begins.tolist(), ends.tolist(), strict=True)):
        if new or end - first > options.range_bytes:
            cuts.append(at)
            first = begin
    return [*cuts, len(frames)]


def make_plan(
    release: CatalogRelease,
    wanted: Wanted,
    placement: Placement,
    seeds: Seeds,
    *,
    options: InstallOptions,
    block_bytes: int = 4096,
    switched_from: str = "",
) -> Plan:
    """The plan for an installation that takes from `seeds` all that they should have."""
    disk_bytes, inodes = disk_needed(wanted, block_bytes)
    fetch = plan_fetch(wanted, placement, seeds.uncovered(), options)
    reuse = tuple(Reuse(name, count) for name, count in seeds.reuse())
    return Plan(
        release=release.release,
        tree_digest=release.tree_digest,
        already_installed=False,
        switched_from=switched_from,
        bytes_total=wanted.manifest.tree.total_bytes,
        bytes_to_download=fetch.bytes,
        bytes_reused=sum(seed.bytes for seed in reuse),
        reuse=reuse,
        requests=len(fetch.ranges),
        disk_bytes=max(disk_bytes - seeds.bytes_taken_over, 0),
        inodes=inodes,
    )


def nothing_to_do(release: CatalogRelease, switched_from: str) -> Plan:
    """The plan for a release that is installed."""
    return Plan(
        release=release.release,
        tree_digest=release.tree_digest,
        already_installed=True,
        switched_from=switched_from,
        bytes_total=release.total_bytes,
        bytes_to_download=0,
        bytes_reused=0,
        reuse=(),
        requests=0,
        disk_bytes=0,
        inodes=0,
    )


def disk_needed(wanted: Wanted, block_bytes: int) -> tuple[int, int]:
    """Bytes and inodes that the tree takes on a file system with blocks of `block_bytes`."""
    tree = wanted.manifest.tree
    blocks = -(-tree.sizes[~wanted.linked].astype(np.int64) // block_bytes)
    others = tree.entries - tree.files
    inodes = tree.entries - int(wanted.linked.sum()) + _BOOKKEEPING_INODES
    return (int(blocks.sum()) + others) * block_bytes + 2 * wanted.manifest.length, inodes


def check_space(plan: Plan, free: Free, place: str) -> None:
    """Raise Unavailable unless what `plan` needs is free."""
    if plan.disk_bytes > free.bytes:
        raise Unavailable(
            f"has {free.bytes:,} bytes free, but {plan.release} needs {plan.disk_bytes:,}",
            place=place,
            hint="free some space, or install elsewhere; nothing was begun",
        )
    if free.inodes is not None and plan.inodes > free.inodes:
        raise Unavailable(
            f"has {free.inodes:,} inodes free, but {plan.release} needs {plan.inodes:,}",
            place=place,
            hint="remove some files, or install elsewhere; nothing was begun",
        )
