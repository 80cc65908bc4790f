"""Inventory: what is installed under a root, since when, what is current, and what else takes up room there."""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from pacstore import tree as tree_format
from pacstore.digest import Digest
from pacstore.document import decode
from pacstore.errors import PacballError
from pacstore.install.root.history import LATEST
from pacstore.install.root.layout import Root
from pacstore.install.root.staging import Leftover, attempts
from pacstore.install.root.timeline import Past, Timeline
from pacstore.install.tree.deletion import space_of
from pacstore.install.tree.disk import disk_at
from pacstore.limits import LIMITS
from pacstore.manifest import decode_manifest
from pacstore.release import Release


@dataclass(frozen=True)
class InstalledRelease:
    """One installed release. Times in seconds since 1970, None where the history does not tell.

    `bytes_total` and `files` are those of its files as published; `tree_digest`, `bytes_total` and `files` are None where its
    record is damaged, and `damage` says how. `installed`: when it was; `current`: whether `current` leads to it, and
    `current_since` when it last became so; `replaced`: when another took its place, for one that is not current.
    """

    release: Release
    tree_digest: Digest | None
    bytes_total: int | None
    files: int | None
    installed: float
    current: bool
    current_since: float | None
    replaced: float | None
    source: str
    damage: str = ""

    @property
    def latest(self) -> float:
        """The latest time at which it is known to have been installed, current, or just replaced."""
        return max(t for t in (self.installed, self.current_since, self.replaced) if t is not None)


@dataclass(frozen=True)
class InterruptedAttempt:
    """An attempt to install or repair `release`, begun at `started`; `ended`: nobody is at work on it, for certain."""

    release: str
    started: float
    bytes: int
    ended: bool


@dataclass(frozen=True)
class Inventory:
    """What is under a root. Bytes of attempts, of trash and of what repairs set aside are those of the disk."""

    releases: tuple[InstalledRelease, ...]
    attempts: tuple[InterruptedAttempt, ...]
    trash_bytes: int
    aside_bytes: int


def take_inventory(root: Path) -> Inventory:
    """What is under `root`. Raises NotFound where it is no install root, Unavailable when the disk fails."""
    with disk_at(str(root)), Root.existing(root) as opened:
        return Inventory(
            releases=tuple(installed_releases(opened)),
            attempts=tuple(_attempt(opened, found) for found in attempts(opened)),
            trash_bytes=_space(opened, "trash"),
            aside_bytes=_space(opened, "aside"),
        )


def _attempt(root: Root, found: Leftover) -> InterruptedAttempt:
    started = min(max(found.owner.started, 0.0), LATEST)
    return InterruptedAttempt(found.owner.release, started, space_of(root.staging, found.name), found.ended)


def installed_releases(root: Root) -> list[InstalledRelease]:
    """Every release that is installed, by name. Raises OSError."""
    timeline = Timeline.of(root.history())
    current = {name for _, _, name in root.lines()}
    found = []
    for release in root.installed():
        with contextlib.suppress(FileNotFoundError):  # it was removed just now
            found.append(_installed(root, release, timeline.past(release), current))
    return found


def _installed(root: Root, release: Release, past: Past, current: set[str]) -> InstalledRelease:
    digest = total = files = None
    damage = ""
    try:
        digest, total, files = _measures(root, release)
    except PacballError as error:
        damage = error.message
    is_current = str(release) in current
    kept = os.stat(f"{release}.manifest", dir_fd=root.manifests, follow_symlinks=False).st_mtime
    return InstalledRelease(
        release=release,
        tree_digest=digest,
        bytes_total=total,
        files=files,
        # One of before there were such events.
        installed=past.installed if past.installed is not None else kept,
        current=is_current,
        current_since=past.current_since,
        replaced=None if is_current else _replaced(root, release, past),
        source=past.source,
        damage=damage,
    )


def _replaced(root: Root, release: Release, past: Past) -> float | None:
    """When another took the release's place; at the latest when the link of its line was made, if the history does not tell."""
    if past.current_since is None or (past.replaced is not None and past.replaced >= past.current_since):
        return past.replaced
    try:
        project = root.open_line(release)
    except FileNotFoundError:
        return past.replaced
    try:
        return os.stat(release.platform, dir_fd=project, follow_symlinks=False).st_mtime
    except FileNotFoundError:
        return past.replaced
    finally:
        os.close(project)


def _measures(root: Root, release: Release) -> tuple[Digest, int, int]:
    data = root.kept(release, "manifest")
    document = decode_manifest(data, place=f"the record of {release}")
    tree = decode(tree_format.LAYOUT, document.sections["tree"], place=f"the record of {release}")
    return (
        document.digest("tree"),
        tree.number("bytes", 2**63 - 1),
        tree.number("files", LIMITS.tree_entries),
    )


def _space(root: Root, name: str) -> int:
    try:
        found = os.stat(name, dir_fd=root.private, follow_symlinks=False)
    except FileNotFoundError:
        return 0
    return space_of(root.private, name) if stat.S_ISDIR(found.st_mode) else 0
