"""Rollback: `current` leads again to a release that was current before.

Each rollback goes one release further back. A release that was rolled back from is not gone back to, unless it became current
again by other means; releases that were removed are passed over.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pacstore.errors import NotFound, Refused
from pacstore.install.root.history import EventKind
from pacstore.install.root.layout import Root
from pacstore.install.root.timeline import Timeline
from pacstore.install.tree.disk import disk_at
from pacstore.release import Release
from pacstore.storage import Clock


@dataclass(frozen=True)
class RolledBack:
    """What `current` for a project and platform led to before, empty for nothing, and leads to now."""

    project: str
    platform: str
    previous: str
    release: Release


def roll_back(
    root: Path, project: str, platform: str | None = None, *, to: Release | None = None, now: Clock
) -> RolledBack:
    """Switch back to the release that was current before, or to the installed release `to`; atomic, durable, in the history.

    `platform` may be left out where there is only one. Raises NotFound for what is not installed, Refused where there is
    nothing to go back to, or no telling what is meant.
    """
    with disk_at(str(root)), Root.existing(root) as opened:
        line = _line(opened, project, platform, to)
        previous = opened.switched_to(line)
        target = to if to is not None else _target(opened, line, previous)
        tree = opened.recorded(target)
        if tree is None:
            raise NotFound("is not installed", place=str(target), hint="pacball releases shows what is")
        if str(target) == previous:
            raise Refused("is current already", place=str(target))
        opened.switch(target, tree=tree, source="", time=now(), event=EventKind.ROLLBACK)
        return RolledBack(target.project, target.platform, previous, target)


def _line(root: Root, project: str, platform: str | None, to: Release | None) -> Release:
    """Any release of the project and platform that are meant."""
    if to is not None:
        if project != to.project or platform not in (None, to.platform):
            meant = f"{project}{f' {platform}' if platform else ''}"
            raise Refused(f"is not a release of {meant}", place=str(to), hint="name its own project and platform")
        return to
    current = {found for name, found, _ in root.lines() if name == project}
    installed = {release.platform for release in root.installed() if release.project == project}
    found = sorted(current or installed)
    if platform is None and len(found) > 1:
        hint = f"name the platform too: {', '.join(found)}"
        raise Refused("has releases for several platforms", place=project, hint=hint)
    if not found or platform not in (None, *current, *installed):
        what = f"nothing is installed of it{f' for {platform}' if platform else ''}"
        raise NotFound(what, place=project, hint="pacball releases shows what is")
    return Release.parse(f"{project}-0-{platform or found[0]}")


def _target(root: Root, line: Release, current: str) -> Release:
    """The release that was current before `current`, and can be gone back to."""
    before = Timeline.of(root.history()).before(line, current)
    installed = {str(release): release for release in root.installed()}
    for name in before:
        if name in installed and name != current and root.recorded(installed[name]) is not None:
            return installed[name]
    others = [
        name
        for name, release in installed.items()
        if (release.project, release.platform) == (line.project, line.platform) and name != current
    ]
    what = "what was current before it was removed" if before else "nothing was current before it"
    hint = f"installed are too: {', '.join(others)}; switch to one with --to" if others else "nothing else is installed"
    raise Refused(f"there is nothing to go back to: {what}", place=current or str(line), hint=hint)
