"""Consignments: a release of a store as other systems carry it: its packs, its manifest and a bundle, with their checksums.

A release that is consigned is pinned: it is not repacked, so that what was said of it elsewhere stays true, and its bundles are
kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pacstore.checksums import checksums_of_all
from pacstore.digest import Digest
from pacstore.documents import read_manifest, read_placement
from pacstore.errors import NotFound, Refused, Unavailable, printable
from pacstore.holding import packs_of
from pacstore.ledger import orders, pins
from pacstore.ledger.checksums import Checksums, Named
from pacstore.pacball.recording import record_digests
from pacstore.storage import Clock, ObjectKind, object_path
from pacstore.volumes.bundle import bundle_file, has_holdings, make_bundle, open_bundle

if TYPE_CHECKING:
    from pacstore.progress import Progress
    from pacstore.release import Release
    from pacstore.store import Store
    from pacstore.trust.targets import CatalogRelease

OWNER = "rucio"
"""For whom consigned releases are pinned."""
_AGAIN = "run the same command again"


@dataclass(frozen=True)
class Consignment:
    """What is carried: `objects`, the `bundle` among them, with their checksums, and those of the pacball if it was asked for.

    `is_new`: whether the release was not pinned before.
    """

    placement_number: int
    bundle: Digest
    objects: Mapping[Named, Checksums]
    pacball: Checksums | None
    is_new: bool


def consign(
    store: Store,
    entry: CatalogRelease,
    *,
    known: Digest | None,
    with_pacball: bool,
    root: bytes,
    clock: Clock,
    progress: Progress,
) -> Consignment:
    """Consign a release of a writable `store`, `entry` in its catalog, every byte compared with its id, but once only.

    `known`: the bundle that it has elsewhere already; otherwise one of now is taken or made. `root` is trusted. Raises NotFound
    for what is not here, Corrupt, Refused for a withdrawn release, Unavailable where it gets another placement at this moment; it
    is not pinned then, unless it was.
    """
    if entry.withdrawal is not None:
        message = f"was withdrawn: {printable(entry.withdrawal.reason)}"
        raise Refused(message, place=str(entry.release), hint="take another release")
    is_new = _pin(store, entry.release, now=clock())
    try:
        bundle = _bundle(store, entry, root, clock) if known is None else _known(store, entry, known)
        packs = packs_of(read_placement(store.storage, entry, read_manifest(store.storage, entry)))
        wanted = [(ObjectKind.BUNDLE, bundle), (ObjectKind.MANIFEST, entry.manifest.digest)]
        wanted += [(ObjectKind.PACK, pack) for pack in sorted(packs)]
        objects = checksums_of_all(store, wanted, progress=progress)
        pacball = _pacball(store, entry, progress) if with_pacball else None
        # It takes long: another who had pinned it first may have been interrupted, and have taken that back.
        _pin(store, entry.release, now=clock())
    except BaseException:
        if is_new:
            take_back(store, entry.release)
        raise
    return Consignment(entry.placement_number, bundle, objects, pacball, is_new)


def take_back(store: Store, release: Release) -> bool:
    """Keep a release for others no longer; whether it was kept for them."""
    with orders.changing(store.ledger) as connection:
        return pins.remove(connection, str(release), OWNER)


def _pin(store: Store, release: Release, *, now: float) -> bool:
    with store.ledger.reading() as connection:
        for pin in pins.listed(connection, now=now):
            if (pin.name, pin.owner, pin.until) == (str(release), OWNER, None):
                return False
    with orders.changing(store.ledger) as connection:
        pins.add(connection, pins.Pin(str(release), OWNER, "registered elsewhere", made_at=now))
    return True


def _bundle(store: Store, entry: CatalogRelease, root: bytes, clock: Clock) -> Digest:
    made = make_bundle(store, entry.release, root=root, clock=clock)
    if made.entry != entry:
        # A repack that had looked for pins before has its catalog in force by now.
        raise Unavailable("has just changed", place=str(entry.release), hint=_AGAIN)
    return made.digest


def _known(store: Store, entry: CatalogRelease, known: Digest) -> Digest:
    release, place = entry.release, object_path(ObjectKind.BUNDLE, known)
    hint = "somebody has changed what is said of its bundle there: set it right"
    try:
        with closing(open_bundle(bundle_file(store, known))) as volume:
            if volume.contents.releases != (release,):
                raise Refused(f"is named as the bundle of {release}, and is of another release", place=place, hint=hint)
            if not has_holdings(volume, entry):
                message = (
                    f"is named as the bundle of placement {entry.placement_number} of {release}, and is of another one"
                )
                raise Refused(message, place=place, hint=hint)
    except NotFound as error:
        message = f"is the bundle of {release} where it was registered, but is not in {store.path}"
        hint = "fetch it from there, or from a backup, into the store: it must stay the same; or, where the release was retired, "
        hint += "wait until it is removed there"
        raise NotFound(message, place=place, hint=hint) from error
    return known


def _pacball(store: Store, entry: CatalogRelease, progress: Progress) -> Checksums:
    digests = record_digests(store, entry, progress)
    return Checksums(digests.total_bytes, f"{digests.adler32:08x}", digests.md5.hex())
