"""Removal of installed releases that are not current, some time after they were replaced, for jobs that still run from them.

How long ago that was is judged by the clock and by the history; where the two contradict each other, because a clock was set
back, a release counts as just replaced.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pacstore.errors import NotFound, Refused
from pacstore.install.root.history import EventKind
from pacstore.install.root.inventory import InstalledRelease, installed_releases
from pacstore.install.root.layout import Root
from pacstore.install.root.timeline import Timeline
from pacstore.install.root.trash import Trash
from pacstore.install.tree.disk import disk_at
from pacstore.progress import Progress
from pacstore.release import Release
from pacstore.storage import Clock

GRACE_SECONDS = 7 * 24 * 3600.0


@dataclass(frozen=True)
class Removed:
    """A release that was removed. `bytes_freed`: of the disk; bytes that other releases share by hard links are not freed."""

    release: Release
    bytes_freed: int
    files: int


@dataclass(frozen=True)
class Removal:
    """What was removed, and how many bytes of the disk earlier, interrupted removals had left."""

    removed: tuple[Removed, ...]
    bytes_swept: int


def remove(
    root: Path,
    releases: Sequence[Release],
    *,
    grace_seconds: float,
    now: Clock,
    progress: Progress,
) -> Removal:
    """Remove `releases`, each whole or, if this is interrupted, not at all.

    Raises NotFound for one that is not installed, Refused for one that is current, or was it less than `grace_seconds` ago;
    then none is removed. Raises Unavailable when the disk fails: the same call continues.
    """
    with disk_at(str(root)), Root.existing(root) as opened, Trash(opened) as trash:
        swept = trash.sweep(progress.warn)
        before = Timeline.of(opened.history()) if grace_seconds > 0 else None
        installed = {one.release: one for one in installed_releases(opened)}
        for release in releases:
            if release not in installed:
                raise NotFound("is not installed", place=str(release), hint="pacball releases shows what is")
            check_removable(opened, installed[release], grace_seconds=grace_seconds, now=now())
        progress.begin("removing", sum(installed[release].bytes_total or 0 for release in set(releases)))
        removed = [
            remove_one(opened, trash, release, now, progress.advance, before=before)
            for release in dict.fromkeys(releases)
        ]
    return Removal(tuple(one for one in removed if one is not None), swept.bytes)


def check_removable(root: Root, installed: InstalledRelease, *, grace_seconds: float, now: float) -> None:
    """Raise Refused unless a release may be removed at the time `now`."""
    refuse_current(root, installed.release)
    until = kept_until(installed, grace_seconds)
    if grace_seconds <= 0 or now >= until:
        return
    if installed.latest > now:
        message = f"is kept because of a time still to come, {_date(installed.latest)}: a clock is or was wrong"
    else:
        what = "was installed" if installed.current_since is None else "ceased to be current"
        message = f"{what} {_ago(now - installed.latest)} ago; jobs may still run from it"
    raise Refused(
        message,
        place=str(installed.release),
        hint=f"it may be removed from {_date(until)} on; to remove it now: --grace 0",
    )


def refuse_current(root: Root, release: Release) -> None:
    """Raise Refused for a release that `current` leads to."""
    links = root.leading_to(release)
    if links:
        raise Refused(
            f"is current: {', '.join(links)} leads to it",
            place=str(release),
            hint=f"roll back (pacball rollback {release.project} {release.platform}) or install another first",
        )


def kept_until(installed: InstalledRelease, grace_seconds: float) -> float:
    """Until when a release that is not current is not removed, in seconds since 1970."""
    return installed.latest + grace_seconds


def remove_one(
    root: Root, trash: Trash, release: Release, now: Clock, told: Callable[[int], None], *, before: Timeline | None
) -> Removed | None:
    """Remove a release that is not current; None where another does it at the same time.

    `before`: what the history said when its grace was judged; None where it has none. Raises Refused if it has become current
    meanwhile, even if it no longer is, OSError.
    """
    try:
        name = trash.take(release)
    except FileNotFoundError:
        return None
    try:
        refuse_current(root, release)
        if before is not None:
            _refuse_used(root, release, before)
    except BaseException:
        trash.put_back(name)
        raise
    freed = trash.finish(name, told)
    # On a full disk there is room for it only now. What was installed again meanwhile must not lose its past by it.
    if not root.occupied(release):
        root.remember(EventKind.REMOVE, release, time=now(), values={"bytes_freed": freed.bytes})
    return Removed(release, freed.bytes, freed.files)


def _refuse_used(root: Root, release: Release, before: Timeline) -> None:
    """Raise Refused for a release of which the history says more than `before`."""
    if Timeline.of(root.history()).past(release) != before.past(release):
        raise Refused(
            "was current or installed meanwhile; jobs may still run from it",
            place=str(release),
            hint="it is kept for its grace; to remove it now: --grace 0",
        )


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _ago(seconds: float) -> str:
    for unit, name in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} seconds"
