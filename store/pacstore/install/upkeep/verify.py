"""Verify: installed releases against what is kept of them, offline, reading every byte."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pacstore.attributes import Attributes
from pacstore.digest import Digest
from pacstore.errors import Corrupt, NewerFormat, NotFound, PacballError, TooLarge
from pacstore.install.actions.generated import Generated, read_generated
from pacstore.install.root.inventory import installed_releases
from pacstore.install.root.layout import Root
from pacstore.install.root.timeline import Past, Timeline
from pacstore.install.tree.disk import DIRECTORY_FLAGS, disk_at
from pacstore.install.tree.hashing import Known
from pacstore.install.tree.paths import Paths
from pacstore.install.upkeep.checking import READERS, Examiners, Readers, check_tree, examiners
from pacstore.install.upkeep.findings import Fault, Finding
from pacstore.install.upkeep.parts import Expected
from pacstore.manifest import Manifest
from pacstore.progress import Progress
from pacstore.release import Release

_SPOILT = (Corrupt, TooLarge, NewerFormat, NotFound)


@dataclass(frozen=True)
class Verified:
    """What was found of one release, by path. `bytes_total` and `files`: how much it should have."""

    release: Release
    bytes_total: int
    files: int
    findings: tuple[Finding, ...]

    def is_intact(self, *, strict: bool = False) -> bool:
        """Whether nothing is wrong; `strict`: warnings count too."""
        return not any(strict or not one.fault.is_warning for one in self.findings)


@dataclass(frozen=True, eq=False)
class Record:
    """What is kept of an installed release, as far as it can be read; `findings` say what cannot."""

    release: Release
    manifest: Manifest | None
    attributes: Attributes | None
    generated: Generated | None
    past: Past
    findings: tuple[Finding, ...]


def verify(
    root: Path, releases: Sequence[Release], progress: Progress, *, readers: Readers = READERS
) -> list[Verified]:
    """All that is wrong with `releases`, or with all that is installed, if none is named; times are not compared.

    A file that several of them share is read once. Raises NotFound for what is not installed, Unavailable when the disk fails, or
    when one of the processes that read was ended.
    """
    with disk_at(str(root)), Root.existing(root) as opened:
        sizes = {one.release: one.bytes_total for one in installed_releases(opened)}
        chosen = list(dict.fromkeys(releases)) or list(sizes)
        for release in chosen:
            check_installed(opened, release)
        total = sum(sizes.get(release) or 0 for release in chosen)
        # Before anybody shows progress, which takes a thread.
        with examiners(opened, readers, bytes_total=total) as who:
            progress.begin("verifying", total)
            known = Known()
            timeline = Timeline.of(opened.history())
            found = []
            for release in chosen:
                record = read_record_of(opened, release, timeline)
                found.append(check_release(opened, record, progress, known, who))
    return found


def check_installed(root: Root, release: Release) -> None:
    """Raise NotFound unless there is a tree of `release`, and something is kept of it."""
    kept = f"{release}.manifest" in os.listdir(root.manifests)
    if not kept or not root.occupied(release):
        place = str(root.release_path(release))
        what = (
            "is not installed" if not root.occupied(release) else "was not installed by pacball, or its record is gone"
        )
        raise NotFound(what, place=place, hint="pacball releases shows what is; pacball install brings it")


def read_record_of(root: Root, release: Release, timeline: Timeline) -> Record:
    """What is kept of `release`. Raises Unavailable when the disk fails."""
    past = timeline.past(release)
    findings: list[Finding] = []
    manifest = attributes = generated = None
    try:
        manifest = root.manifest(release)
        _compare(manifest.digest, past.manifest)
        if past.tree is not None:
            _compare(manifest.tree.digest, past.tree)
    except _SPOILT as error:
        manifest = None
        findings.append(_record_finding(release, "manifest", error))
    if manifest is not None:
        try:
            place = root.kept_place(release, "attributes")
            attributes = Attributes.parse(root.kept(release, "attributes"), manifest.tree, place=place)
            _compare(attributes.digest, past.attributes)
        except _SPOILT as error:
            attributes = None
            findings.append(_record_finding(release, "attributes", error))
        try:
            generated = read_generated(root, release)
        except _SPOILT as error:
            findings.append(_record_finding(release, "generated", error))
    return Record(release, manifest, attributes, generated, past, tuple(findings))


def check_release(root: Root, record: Record, progress: Progress, known: Known, who: Examiners) -> Verified:
    """Compare the tree of a release with its record. Raises OSError, Unavailable."""
    if record.manifest is None:
        return Verified(record.release, 0, 0, record.findings)
    tree = record.manifest.tree
    expected = Expected(Paths(tree), record.attributes, record.past.owner, record.generated)
    top = os.open(str(record.release), DIRECTORY_FLAGS, dir_fd=root.releases)
    try:
        findings = check_tree(expected, record.release, top, examiners=who, known=known, progress=progress)
    finally:
        os.close(top)
    return Verified(record.release, tree.total_bytes, tree.files, (*record.findings, *findings))


def shared_with(found: Sequence[Verified]) -> dict[tuple[int, int], list[Release]]:
    """Damaged files that several releases share by hard links: which, in the order of `found`."""
    shared: dict[tuple[int, int], list[Release]] = {}
    for verified in found:
        for inode in {one.inode for one in verified.findings if one.inode is not None}:
            shared.setdefault(inode, []).append(verified.release)
    return {inode: releases for inode, releases in shared.items() if len(releases) > 1}


def _compare(found: Digest, recorded: Digest | None) -> None:
    if recorded is not None and found != recorded:
        raise Corrupt("is not what it was when the release was installed")


def _record_finding(release: Release, suffix: str, error: PacballError) -> Finding:
    return Finding(f".pacball/manifests/{release}.{suffix}", Fault.RECORD, error.message)
