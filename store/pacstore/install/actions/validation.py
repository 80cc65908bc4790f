"""Validation: the commands with which an installed release checks itself, run again where it is. They may write nowhere in it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pacstore.declaration import FILE, Declaration, declares
from pacstore.digest import Digest
from pacstore.errors import Corrupt, NotFound
from pacstore.install.actions.acting import SCRATCH, Commands, Ran, Site, passage, read_declaration
from pacstore.install.actions.comparison import Snapshot, changed_entries, take_snapshot
from pacstore.install.options import ActionOptions
from pacstore.install.root.history import EventKind
from pacstore.install.root.layout import PRIVATE, Root
from pacstore.install.root.living import signs_of_life
from pacstore.install.root.staging import Attempt, remove_attempt
from pacstore.install.tree.directories import Directories
from pacstore.install.tree.disk import DIRECTORY_FLAGS, disk_at
from pacstore.install.tree.paths import TOP, Paths
from pacstore.manifest import Manifest
from pacstore.progress import Progress
from pacstore.release import Release
from pacstore.storage import Clock

_SHOWN = 10


@dataclass(frozen=True)
class Validation:
    """What came of it: each command, and the first few files of the release that changed meanwhile, safe to print."""

    release: Release
    ran: tuple[Ran, ...]
    changed: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the release is good by its own judgement, and was left alone."""
        return not self.changed and all(one.passed for one in self.ran)


def validate(root: Path, release: Release, *, options: ActionOptions, progress: Progress, now: Clock) -> Validation:
    """Run the commands, all of them, and say in the history what came of it.

    Raises NotFound where the release is not installed or has no such commands, Corrupt where its pacball.toml is not what was
    signed, Unavailable.
    """
    with disk_at(str(root)), Root.existing(root) as opened:
        manifest = opened.record(release)
        with _opened(opened, release) as top:
            declared = _declared(opened, release, manifest, top)
            if declared is None or not declared.validate:
                raise NotFound(f"has no commands to validate it in its {FILE}", place=str(release))
            found = _validate(opened, release, manifest, top, declared, options, progress, now)
        values = {
            "passed": found.passed,
            "as": options.user.name,
            "commands": [
                {
                    "name": one.name,
                    "passed": one.passed,
                    "ended": one.ended,
                    "seconds": one.seconds,
                    "log": one.log.name,
                }
                for one in found.ran
            ],
        }
        opened.remember(EventKind.VALIDATE, release, time=now(), values=values)
    return found


@contextmanager
def _opened(root: Root, release: Release) -> Iterator[int]:
    try:
        top = os.open(str(release), DIRECTORY_FLAGS, dir_fd=root.releases)
    except FileNotFoundError as error:
        place = str(root.release_path(release))
        raise NotFound("is not there", place=place, hint="install the release again") from error
    try:
        yield top
    finally:
        os.close(top)


def _declared(root: Root, release: Release, manifest: Manifest, top: int) -> Declaration | None:
    """What the release declares, if the file is the one that was signed: it says what will be run."""
    if not declares(manifest.tree):
        return None
    place = str(root.release_path(release) / FILE)
    data = b""
    with contextlib.suppress(OSError):
        data = read_declaration(top)
    paths = Paths(manifest.tree)
    for file, entry in enumerate(paths.file_entries.tolist()):
        if int(paths.parents[entry]) == TOP and paths.name(entry) == FILE.encode():
            if Digest.of(data).raw == manifest.tree.contents[file].tobytes():
                return Declaration.parse(data, place=place)
            break
    raise Corrupt("is not what was signed, so nothing in it is run", place=place, hint="run: pacball verify --repair")


def _validate(
    root: Root,
    release: Release,
    manifest: Manifest,
    top: int,
    declared: Declaration,
    options: ActionOptions,
    progress: Progress,
    now: Clock,
) -> Validation:
    above = Path(os.path.abspath(root.path))
    tree = above / "releases" / str(release)
    attempt = Attempt.begin(root, release, manifest.digest, now())
    paths = Paths(manifest.tree)
    try:
        before = _snapshot(paths, top)
        scratch = above / PRIVATE / "staging" / attempt.name / SCRATCH
        site = Site(root, release, tree, tree, scratch, top, attempt.directory)
        with signs_of_life(attempt.sign), passage(root, attempt.directory, options.user):
            ran = Commands(site, options, progress, now).run(
                "validate", declared.validate, writable=(), to_the_end=True
            )
        changed = changed_entries(before, _snapshot(paths, top))
    finally:
        attempt.close()
        remove_attempt(root, attempt.name)
    return Validation(release, tuple(ran), tuple(paths.shown(entry) for entry in changed[:_SHOWN].tolist()))


def _snapshot(paths: Paths, top: int) -> Snapshot:
    with contextlib.closing(Directories(top, paths, limit=64)) as directories:
        return take_snapshot(paths, directories)
