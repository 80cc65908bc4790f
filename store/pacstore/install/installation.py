"""Installation: a release from a source into an install root, from the plan to the switch.

Order: everything is written to a staging tree and made durable; then the manifest is kept; then the tree gets its
name; then `current` is switched. Killed anywhere, the same call continues with what is there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pacstore.digest import Digest
from pacstore.errors import Refused
from pacstore.install.actions.acting import Ran, declares_actions
from pacstore.install.actions.generated import has_record
from pacstore.install.building import Building
from pacstore.install.documents import Refresh, fetch_all
from pacstore.install.options import DEFAULTS, ActionState, InstallOptions
from pacstore.install.plan import Plan, make_plan, nothing_to_do
from pacstore.install.root.history import EventKind
from pacstore.install.root.layout import Root
from pacstore.install.root.timeline import Timeline
from pacstore.install.root.trash import sweep_trash
from pacstore.install.seeds.seeking import find_seeds
from pacstore.install.tree.disk import Free, disk_at
from pacstore.install.trust import Trust, check_withdrawn, checking_withdrawn
from pacstore.install.wanted import Wanted
from pacstore.progress import Progress
from pacstore.release import Release
from pacstore.source import Source, SourceState, states_of
from pacstore.storage import Clock
from pacstore.trust.targets import CatalogRelease


@dataclass(frozen=True)
class Installed:
    """What an installation did. `bytes_downloaded` and `requests` are the source's, documents included.

    `bytes_reused`: bytes of the release's files that came from local trees. `switched`: whether `current` leads elsewhere now.
    `sources`: how each source did, since it was opened. `actions`: what became of the release's own commands, `ran` those run.
    """

    release: Release
    tree_digest: Digest
    manifest_digest: Digest
    path: Path
    bytes_total: int
    bytes_downloaded: int
    bytes_reused: int
    requests: int
    seconds: float
    already_installed: bool
    switched: bool
    sources: tuple[SourceState, ...] = ()
    actions: ActionState = ActionState.NONE
    ran: tuple[Ran, ...] = ()


def install(
    release: CatalogRelease,
    *,
    source: Source,
    root: Path,
    progress: Progress,
    now: Clock,
    refresh: Refresh | None = None,
    options: InstallOptions = DEFAULTS,
    trust: Trust | None = None,
    allow_withdrawn: bool = False,
    planned: Callable[[Plan], None] = lambda _: None,
) -> Installed:
    """Install `release`, which the caller has verified, under `root`, and switch to it.

    `refresh` asks the catalog again, for a placement that replaced one whose packs are gone. `trust` says in the history why
    the release was believed. `planned` is told what will be done, before it is begun. Raises Refused for a withdrawn release
    that is not allowed, before anything is fetched, and where the name is taken or the file system cannot hold the tree;
    Corrupt for bytes that stay wrong, Unavailable for disk and network (the same call continues later), NotFound when the
    source lacks something.
    """
    started = now()
    check_withdrawn(release, allowed=allow_withdrawn, warn=progress.warn)
    refresh = refresh if allow_withdrawn else checking_withdrawn(refresh)
    before = (source.traffic.bytes_downloaded, source.traffic.requests)
    with disk_at(str(root)), Root.open(root) as opened:
        reused = None
        building = Building(release, opened, source, progress, now, refresh, options, planned)
        installed = _already(opened, release)
        building.replace = installed and _to_be_run(opened, release, options)
        if building.replace or not installed:
            reused = building.run()
        actions = _state(opened, release, building)
        believed = trust.fields(release) if trust is not None else None
        if reused is not None or not _is_remembered(opened, release):
            _remember(opened, release, source.name, now(), believed, options)
        switched = options.switch and opened.switch(
            release.release, tree=release.tree_digest, source=source.name, time=now(), trust=believed
        )
        return Installed(
            release=release.release,
            tree_digest=release.tree_digest,
            manifest_digest=release.manifest.digest,
            path=opened.release_path(release.release),
            bytes_total=release.total_bytes,
            bytes_downloaded=source.traffic.bytes_downloaded - before[0],
            bytes_reused=reused or 0,
            requests=source.traffic.requests - before[1],
            seconds=now() - started,
            already_installed=reused is None,
            switched=switched,
            sources=states_of(source),
            actions=actions,
            ran=building.ran,
        )


def _to_be_run(root: Root, release: CatalogRelease, options: InstallOptions) -> bool:
    """Whether the commands of an installed release are to be run now, because they were not before."""
    if options.actions is None or not declares_actions(root, release.release):
        return False
    return not has_record(root, release.release)


def _state(root: Root, release: CatalogRelease, building: Building) -> ActionState:
    if building.ran:
        return ActionState.RUN
    if not declares_actions(root, release.release):
        return ActionState.NONE
    return ActionState.RUN_BEFORE if has_record(root, release.release) else ActionState.NOT_RUN


def _is_remembered(root: Root, release: CatalogRelease) -> bool:
    """Whether the history says what was installed; who was killed just before could not write it."""
    return Timeline.of(root.history()).past(release.release).manifest is not None


def _remember(
    root: Root,
    release: CatalogRelease,
    source: str,
    now: float,
    believed: Mapping[str, object] | None,
    options: InstallOptions,
) -> None:
    """Say in the history what was installed, and what a verification cannot know otherwise: the documents' digests, the owner."""
    top = os.stat(str(release.release), dir_fd=root.releases, follow_symlinks=False)
    values = {
        "tree_digest": release.tree_digest.hex,
        "manifest_digest": release.manifest.digest.hex,
        "attributes_digest": release.attributes.digest.hex,
        "source": source,
        # A group may be inherited from the directory above.
        "owner": [top.st_uid, top.st_gid if options.owner is not None else None],
        **({"trust": dict(believed)} if believed is not None else {}),
    }
    root.remember(EventKind.INSTALL, release.release, time=now, values=values)


def plan(
    release: CatalogRelease,
    *,
    source: Source,
    root: Path,
    progress: Progress,
    refresh: Refresh | None = None,
    options: InstallOptions = DEFAULTS,
    allow_withdrawn: bool = False,
) -> Plan:
    """What `install` would do; changes nothing. Raises as `install` does."""
    check_withdrawn(release, allowed=allow_withdrawn, warn=progress.warn)
    refresh = refresh if allow_withdrawn else checking_withdrawn(refresh)
    if not Root.exists(root):
        free = _free_above(root, options)
        documents, placement, release = fetch_all(source, release, refresh)
        wanted = Wanted(documents.manifest, documents.attributes)
        with contextlib.closing(find_seeds(None, wanted, release.release, options=options, progress=progress)) as seeds:
            return make_plan(release, wanted, placement, seeds, free=free, switched_from="", options=options)
    with disk_at(str(root)), Root.open(root) as opened:
        building = Building(release, opened, source, progress, lambda: 0.0, refresh, options)
        if _already(opened, release) and not _to_be_run(opened, release, options):
            state = _state(opened, release, building)
            return nothing_to_do(release, opened.switched_to(release.release), options, state)
        return building.plan()


def _free_above(root: Path, options: InstallOptions) -> Free:
    """What is free where `root` would be made. Raises Unavailable or Refused as making it would."""
    with disk_at(str(root)):
        place = root if root.exists() else root.parent
        try:
            directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise Root.no_place(root) from error
        try:
            return options.free_space(directory)
        finally:
            os.close(directory)


def _already(root: Root, release: CatalogRelease) -> bool:
    """Whether the release is installed. Raises Refused if something else has its name."""
    recorded = root.recorded(release.release)
    if recorded is None and root.occupied(release.release):
        sweep_trash(root)  # which puts back a record that one took who was killed
        recorded = root.recorded(release.release)
    if recorded == release.tree_digest:
        return True
    place = str(root.release_path(release.release))
    if recorded is not None:
        raise Refused(
            f"is installed with another tree ({recorded}); the catalog says {release.tree_digest}",
            place=place,
            hint="a release never changes: find out which of the two is genuine, and move the other away",
        )
    if root.occupied(release.release):
        raise Refused(
            "is there, but pacball did not install it, or its record is damaged",
            place=place,
            hint=f"repair it with pacball verify {release.release} --repair, or move it away and run the same command again",
        )
    return False
