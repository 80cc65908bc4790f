"""Pruning: of each project and platform, the current release and the newest others stay; the rest is removed, after its grace."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from pacstore.errors import NotFound, Refused
from pacstore.install.root.inventory import InstalledRelease, installed_releases
from pacstore.install.root.layout import Root
from pacstore.install.root.staging import sweep
from pacstore.install.root.timeline import Timeline
from pacstore.install.root.trash import Trash
from pacstore.install.tree.disk import disk_at
from pacstore.install.upkeep.removal import kept_until, remove_one
from pacstore.progress import Progress
from pacstore.release import Release
from pacstore.storage import Clock


class Reason(enum.StrEnum):
    """Why a release was kept, or that it was not."""

    CURRENT = "current"
    NEW = "new"
    GRACE = "grace"
    DAMAGED = "damaged"
    REMOVED = "removed"


@dataclass(frozen=True)
class Judged:
    """What became of a release. `until`: for GRACE, the time before which it is kept, in seconds since 1970.

    `bytes_freed`: of the disk; in a dry run, the bytes of its files.
    """

    release: Release
    reason: Reason
    until: float | None = None
    bytes_freed: int = 0


@dataclass(frozen=True)
class Pruned:
    """What was kept and what removed; attempts that ended, and bytes of interrupted removals, that were swept."""

    releases: tuple[Judged, ...]
    attempts: int
    bytes_swept: int


def prune(
    root: Path,
    *,
    keep: int,
    project: str | None = None,
    platform: str | None = None,
    grace_seconds: float,
    dry_run: bool,
    now: Clock,
    progress: Progress,
) -> Pruned:
    """Remove, of each project and platform, all but the current release and the `keep` newest others.

    Newest are those that were installed or current last. One that was current less than `grace_seconds` ago is kept too. Also
    sweeps what interrupted removals left, and ended attempts that are older than the grace. `project` and `platform` restrict
    it. Raises NotFound where nothing is installed of what is named, Unavailable when the disk fails.
    """
    started = now()
    with disk_at(str(root)), Root.existing(root) as opened:
        before = Timeline.of(opened.history()) if grace_seconds > 0 else None
        judged = list(_judge(_chosen(opened, project, platform), keep, grace_seconds, started))
        if dry_run:
            return Pruned(tuple(judged), 0, 0)
        with Trash(opened) as trash:
            swept = trash.sweep(progress.warn).bytes
            doomed = [one for one in judged if one.reason is Reason.REMOVED]
            progress.begin("removing", sum(one.bytes_freed for one in doomed))
            judged = [
                _removed(opened, trash, one, now, progress, before, grace_seconds)
                if one.reason is Reason.REMOVED
                else one
                for one in judged
            ]
        attempts = sweep(opened, kept_seconds=grace_seconds)
    return Pruned(tuple(judged), attempts, swept)


def _chosen(root: Root, project: str | None, platform: str | None) -> list[InstalledRelease]:
    found = [
        one
        for one in installed_releases(root)
        if project in (None, one.release.project) and platform in (None, one.release.platform)
    ]
    if project is not None and not found:
        what = f"nothing is installed of it{f' for {platform}' if platform else ''}"
        raise NotFound(what, place=project, hint="pacball releases shows what is")
    return found


def _judge(installed: list[InstalledRelease], keep: int, grace_seconds: float, now: float) -> Iterator[Judged]:
    def line(one: InstalledRelease) -> tuple[str, str]:
        return one.release.project, one.release.platform

    for _, group in groupby(sorted(installed, key=line), key=line):
        newest = sorted(group, key=lambda one: (one.current, one.latest, one.release), reverse=True)
        others = 0
        for one in newest:
            until = kept_until(one, grace_seconds)
            if one.current:
                yield Judged(one.release, Reason.CURRENT)
                continue
            others += 1
            if others <= keep:
                yield Judged(one.release, Reason.NEW)
            elif one.tree_digest is None:
                # Nobody knows what it is; people decide.
                yield Judged(one.release, Reason.DAMAGED)
            elif grace_seconds > 0 and now < until:
                yield Judged(one.release, Reason.GRACE, until)
            else:
                yield Judged(one.release, Reason.REMOVED, bytes_freed=one.bytes_total or 0)


def _removed(
    root: Root,
    trash: Trash,
    judged: Judged,
    now: Clock,
    progress: Progress,
    before: Timeline | None,
    grace_seconds: float,
) -> Judged:
    try:
        removed = remove_one(root, trash, judged.release, now, progress.advance, before=before)
    except Refused:
        if root.leading_to(judged.release):
            return Judged(judged.release, Reason.CURRENT)
        return Judged(judged.release, Reason.GRACE, now() + grace_seconds)
    return replace(judged, bytes_freed=removed.bytes_freed if removed is not None else 0)
