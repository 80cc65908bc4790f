"""Plan: what an installation will move, take from local trees, need of the disk, and switch; made before anything is begun."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pacstore.declaration import declares
from pacstore.digest import Digest
from pacstore.errors import Unavailable
from pacstore.install.options import ActionState, InstallOptions
from pacstore.install.planning import plan_fetch
from pacstore.install.seeds.seed import Seeds
from pacstore.install.seeds.wholes import Wholes
from pacstore.install.tree.disk import Free
from pacstore.install.wanted import Wanted
from pacstore.placement import Placement
from pacstore.release import Release
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

    `requests` (as many as on a fast line; on a slow one they are smaller) and `bytes_to_download` (compressed, as they travel)
    are of packs alone; `bytes_of_documents` come on top.
    `disk_bytes` and `inodes` must be free for it to begin; `disk_bytes_after` is what the installed release takes up, without
    the `disk_bytes_shared` that it has in common with other trees.
    `disk_bytes_free` and `inodes_free` are what this user may still use there, None where that is not known or not limited.
    `actions` says whether the release has commands of its own, and whether they will be run.
    `switched_from` is the release that `current` leads to now, empty for none; `switched` whether it will lead elsewhere.
    """

    release: Release
    tree_digest: Digest
    already_installed: bool
    switched_from: str
    switched: bool
    bytes_total: int
    bytes_to_download: int = 0
    bytes_of_documents: int = 0
    bytes_reused: int = 0
    reuse: tuple[Reuse, ...] = ()
    requests: int = 0
    disk_bytes: int = 0
    disk_bytes_after: int = 0
    disk_bytes_shared: int = 0
    disk_bytes_free: int | None = None
    inodes: int = 0
    inodes_free: int | None = None
    actions: ActionState = ActionState.NONE

    @property
    def fits(self) -> bool:
        """Whether as much as it needs is free, as far as is known."""
        enough_bytes = self.disk_bytes_free is None or self.disk_bytes <= self.disk_bytes_free
        return enough_bytes and (self.inodes_free is None or self.inodes <= self.inodes_free)


def make_plan(
    release: CatalogRelease,
    wanted: Wanted,
    placement: Placement,
    seeds: Seeds,
    *,
    free: Free,
    switched_from: str,
    options: InstallOptions,
) -> Plan:
    """The plan for an installation that takes from `seeds` all that they should have, on a file system with so much `free`."""
    disk_bytes, inodes = disk_needed(wanted, free.block_bytes)
    shared, names = _shared(wanted, seeds.wholes, free.block_bytes)
    fetch = plan_fetch(wanted, placement, seeds.uncovered(), options)
    reuse = tuple(Reuse(name, count) for name, count in seeds.reuse())
    return Plan(
        release=release.release,
        tree_digest=release.tree_digest,
        already_installed=False,
        switched_from=switched_from,
        switched=options.switch and switched_from != str(release.release),
        bytes_total=wanted.manifest.tree.total_bytes,
        bytes_to_download=fetch.bytes,
        bytes_of_documents=release.manifest.length + release.attributes.length + release.placement.length,
        bytes_reused=sum(seed.bytes for seed in reuse),
        reuse=reuse,
        requests=fetch.requests,
        disk_bytes=max(disk_bytes - shared - seeds.bytes_taken_over, 0),
        disk_bytes_after=disk_bytes - shared,
        disk_bytes_shared=shared,
        disk_bytes_free=free.bytes,
        inodes=inodes - names,
        inodes_free=free.inodes,
        actions=_actions(wanted, options),
    )


def _actions(wanted: Wanted, options: InstallOptions) -> ActionState:
    if not declares(wanted.manifest.tree):
        return ActionState.NONE
    return ActionState.NOT_RUN if options.actions is None else ActionState.RUN


def nothing_to_do(release: CatalogRelease, switched_from: str, options: InstallOptions, actions: ActionState) -> Plan:
    """The plan for a release that is installed: at most the switch."""
    return Plan(
        release=release.release,
        tree_digest=release.tree_digest,
        already_installed=True,
        switched_from=switched_from,
        switched=options.switch and switched_from != str(release.release),
        bytes_total=release.total_bytes,
        actions=actions,
    )


def disk_needed(wanted: Wanted, block_bytes: int) -> tuple[int, int]:
    """Bytes and inodes that the tree and its kept documents take on a file system with blocks of `block_bytes`."""
    tree = wanted.manifest.tree
    blocks = -(-tree.sizes[~wanted.linked].astype(np.int64) // block_bytes)
    others = tree.entries - tree.files
    inodes = tree.entries - int(wanted.linked.sum()) + _BOOKKEEPING_INODES
    return (int(blocks.sum()) + others) * block_bytes + 2 * wanted.manifest.length, inodes


def _shared(wanted: Wanted, wholes: Wholes | None, block_bytes: int) -> tuple[int, int]:
    """Of what `disk_needed` says: the bytes of files that share those of a seed, and the inodes that further names spare."""
    if wholes is None:
        return 0, 0
    sizes = wanted.manifest.tree.sizes[wholes.taken].astype(np.int64)
    return int((-(-sizes // block_bytes)).sum()) * block_bytes, int(wholes.links.sum())


def check_space(plan: Plan, place: str) -> None:
    """Raise Unavailable unless what `plan` needs is free."""
    if plan.disk_bytes_free is not None and plan.disk_bytes > plan.disk_bytes_free:
        raise Unavailable(
            f"has {plan.disk_bytes_free:,} bytes free, but {plan.release} needs {plan.disk_bytes:,}",
            place=place,
            hint="free some space, or install elsewhere; nothing was begun",
        )
    if plan.inodes_free is not None and plan.inodes > plan.inodes_free:
        raise Unavailable(
            f"has {plan.inodes_free:,} inodes free, but {plan.release} needs {plan.inodes:,}",
            place=place,
            hint="remove some files, or install elsewhere; nothing was begun",
        )
