"""Importing: volumes that were judged are taken into a store, which then is a mirror like any other.

Documents and packs come first, each verified once more as it is copied; the catalog is shown, and releases are complete, in
the ledger and in public, only when all that they need is here. Until then what was served before still is. Nothing is kept of
how far an import is: what is here says it. So an import that was killed, or one of the next volume, begins with what is
missing.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pacstore.documents import fetch_signed, is_document_here, keep_document
from pacstore.errors import Corrupt, NotFound, Unavailable, Untrusted
from pacstore.holding import has_pack, verify_whole
from pacstore.ledger import packs, releases
from pacstore.ledger.completion import record_complete
from pacstore.ledger.packs import PackState
from pacstore.ledger.releases import ReleaseState
from pacstore.links import links_of
from pacstore.storage import ObjectKind, object_path
from pacstore.store import Store
from pacstore.transfer import Fault, fetch_pack
from pacstore.trust.replica import Outcome, Replica
from pacstore.volumes.gathering import Arrived, gather
from pacstore.volumes.judging import Judged, newer_entries, newer_state, served_floor

if TYPE_CHECKING:
    from pacstore.digest import Digest
    from pacstore.progress import Progress
    from pacstore.release import Release
    from pacstore.source import Source
    from pacstore.storage import Clock
    from pacstore.trust.served import ServedState
    from pacstore.trust.targets import CatalogRelease
    from pacstore.volumes.volume import Volume

_AGAIN = "run the same command again"


@dataclass(frozen=True)
class Imported:
    """What an import did. `is_complete`: the `releases` of the export are here whole, and its catalog is served.

    `volumes_missing`: those that have packs which are not here yet, of `volumes` in all. `packs_copied` and `packs_kept`: of
    the volumes that were given, those that came and those that were here before. `expires`: when the first part of the catalog
    does, in seconds since 1970. `outdated`: releases that were here whole, and for which the catalog now names packs that are
    not. `packs_fetched`: those that came from elsewhere.
    """

    is_complete: bool
    catalog_version: int
    expires: int
    releases: tuple[Release, ...]
    volumes: int
    volumes_missing: tuple[int, ...]
    packs_copied: int
    packs_kept: int
    bytes_copied: int
    outdated: tuple[Release, ...] = ()
    packs_fetched: int = 0
    bytes_fetched: int = 0


def take_in(
    volumes: Sequence[Volume],
    judged: Judged,
    target: Path,
    *,
    root: bytes,
    state_dir: Path | None,
    clock: Clock,
    progress: Progress,
    others: Source | None = None,
    arrived: Arrived = lambda _pack, _length: None,
) -> Imported:
    """Take `volumes`, which were judged just now, into the store `target`, made if there is none.

    Packs that are in none of them come from `others`, where they were judged so; `arrived` is told each of these, from any
    thread, when it is durable. What this returns is durable. Raises Corrupt for a volume that has changed since, Unavailable when
    the disk is full or fails, and as `pacstore.volumes.gathering`: the same call goes on.
    """
    _check_space(volumes, judged, target, all_of_them=others is not None)
    with Store.create(target, state_dir=state_dir) as store:
        store.remember_mirror()
        store.drop_stale_staging(clock())
        _keep_documents(volumes[0], judged, store, others)
        _want(judged, store, clock())
        copied = _copy_packs(volumes, _lacking(judged, store), store, clock, progress)
        if others is not None:
            wanted = {pack: judged.packs[pack] for pack in sorted(_lacking(judged, store))}
            fetched = gather(others, store, wanted, clock=clock, progress=progress, arrived=arrived)
        else:
            fetched = {}
        brought, lacking = volumes[0].contents.packs(), _lacking(judged, store)
        missing = tuple(sorted({brought[pack] for pack in lacking if pack in brought}))
        state = judged.catalog.state
        if not missing:
            progress.begin("completing", None)
            state = _complete(volumes[0], judged, store, root, clock)
        given = sum(piece.pack is not None for one in _once(volumes) for piece in one.contents.volumes[one.number - 1])
        return Imported(
            not missing,
            state.version,
            int(min(state.expires.values())),
            tuple(judged.needed),
            len(volumes[0].contents.volumes),
            missing,
            len(copied),
            given - len(copied),
            sum(copied.values()),
            () if missing or state.version != judged.catalog.state.version else _outdated(judged, store),
            len(fetched),
            sum(fetched.values()),
        )


def _check_space(volumes: Sequence[Volume], judged: Judged, target: Path, *, all_of_them: bool) -> None:
    storage = Store(target, writable=False).storage
    given = (
        set(judged.packs)
        if all_of_them
        else {pack for one in volumes for pack, number in one.contents.packs().items() if number == one.number}
    )
    needed = sum(judged.packs[pack] for pack in given if not has_pack(storage, pack, judged.packs[pack]))
    place = next(path for path in (target, *target.absolute().parents) if path.exists())
    found = os.statvfs(place)
    if needed > found.f_bavail * found.f_frsize:
        raise Unavailable(
            f"has {found.f_bavail * found.f_frsize:,} bytes free, but {needed:,} are needed",
            place=str(place),
            hint="free some space, or import into a store on another disk with --to",
        )


def _once(volumes: Iterable[Volume]) -> Iterable[Volume]:
    return {volume.number: volume for volume in volumes}.values()


def _keep_documents(volume: Volume, judged: Judged, store: Store, others: Source | None) -> None:
    brought = {piece.path for piece in volume.contents.shared}
    for entry in judged.newer or judged.entries:
        for link, signed in zip(links_of(entry), entry.documents(), strict=True):
            if not is_document_here(store.storage, link.file, signed, is_trusted=False):
                # A newer catalog may name a provenance that was attached later.
                source: Source = volume if link.file in brought or others is None else others
                keep_document(store.storage, link.file, fetch_signed(source, link.file, signed))
        store.storage.link(links_of(entry))


def _want(judged: Judged, store: Store, now: float) -> None:
    """Let the ledger know what is to be kept: so nobody makes room of it before the last volume has come."""
    with store.ledger.writing() as connection:
        for release, needed in judged.needed.items():
            releases.want(connection, release, now=now)
            releases.need(connection, release, needed)
            here = {pack: length for pack, length in needed.items() if has_pack(store.storage, pack, length)}
            packs.adopt(connection, here, now=now)
            releases.hold_bytes(connection, release, sum(here.values()))


def _lacking(judged: Judged, store: Store) -> set[Digest]:
    """The packs that are not here, or are known to be damaged."""
    with store.ledger.reading() as connection:
        unknown = {pack for release in judged.needed for pack in releases.missing(connection, release)}
    return {
        pack for pack, length in judged.packs.items() if pack in unknown or not has_pack(store.storage, pack, length)
    }


def _copy_packs(
    volumes: Sequence[Volume], lacking: Collection[Digest], store: Store, clock: Clock, progress: Progress
) -> dict[Digest, int]:
    todo = [
        (volume, pack, piece.length)
        for volume in _once(volumes)
        for piece in volume.contents.volumes[volume.number - 1]
        if (pack := piece.pack) is not None and pack in lacking
    ]
    progress.begin("importing", sum(length for _, _, length in todo))
    for volume, pack, length in todo:
        try:
            fetch_pack(volume, store.storage, pack, length, progress=progress)
        except Fault as fault:
            raise fault.error from fault
        with store.ledger.writing() as connection:
            packs.record(connection, pack, length=length, held_bytes=length, state=PackState.WHOLE, now=clock())
    return {pack: length for _, pack, length in todo}


def _complete(volume: Volume, judged: Judged, store: Store, root: bytes, clock: Clock) -> ServedState:
    """Show the catalog, and say that the releases are here; whoever collects what nobody needs waits meanwhile.

    The state of the catalog that is served then.
    """
    with store.unswept():
        replica = Replica(
            store.storage, pinned=root, clock=clock, floors=lambda: served_floor(store), lock=store.catalog_lock
        )
        replica.load()
        entries, state = _show(volume, judged, store, replica, clock)
        for entry in entries:
            record_complete(store.ledger, store.storage, entry, judged.needed[entry.release], now=clock())
    return state


def _show(
    volume: Volume, judged: Judged, store: Store, replica: Replica, clock: Clock
) -> tuple[Sequence[CatalogRelease], ServedState]:
    """Show the catalog of the volume, unless there is a newer one that may count; the releases, whole, as that says, and it."""
    newer = newer_state(store, judged.catalog, clock) if judged.others else None
    if newer is None:
        # All of it before the catalog: a collection may have taken something, or somebody have found damage meanwhile.
        _verify(judged.entries, judged, store)
        if replica.refresh(volume).outcome is not Outcome.OLDER:
            assert replica.held is not None
            return judged.entries, replica.held
        newer = newer_state(store, judged.catalog, clock) if judged.others else None
    if newer is None:
        raise Untrusted("is older than what has come meanwhile", place=volume.name, hint="export again")
    entries = newer_entries(store, newer, judged.entries)
    _verify(entries, judged, store)
    return entries, newer


def _verify(entries: Sequence[CatalogRelease], judged: Judged, store: Store) -> None:
    try:
        for entry in entries:
            store.storage.link(links_of(entry))
            verify_whole(store.storage, entry)
    except NotFound as error:
        raise NotFound("was taken away meanwhile", place=error.place, hint=_AGAIN) from error
    damaged = _lacking(judged, store)
    if damaged:
        place = object_path(ObjectKind.PACK, min(damaged))
        raise Corrupt("is known to be damaged", place=place, hint="run: pacball store check --repair")


def _outdated(judged: Judged, store: Store) -> tuple[Release, ...]:
    with store.ledger.reading() as connection:
        rows: Mapping[Release, releases.ReleaseRow] = releases.every(connection)
    named = judged.catalog.releases
    return tuple(
        release
        for release, row in rows.items()
        if row.state is ReleaseState.COMPLETE
        and release in named
        and named[release].placement_number != row.placement_number
    )
