"""Making room in a mirror: what is only here because somebody asked for it once leaves, what was not used for longest first.

What is needed by a release that is kept whole, or pinned, never leaves. A pack that leaves is forgotten by the ledger and
deleted in one transaction, which whoever begins to need it waits for: so it is either kept, or known to be gone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pacstore.digest import Digest
from pacstore.errors import NotFound, PacballError, Refused
from pacstore.ledger import fallen, packs, pins
from pacstore.ledger.packs import KeptFor, PackRow, PackState
from pacstore.placement import packs_of, placement_name
from pacstore.release import Release
from pacstore.storage import DocumentKind, ObjectKind
from pacstore.sweep.references import PackSet
from pacstore.trust.chain import in_one_state, load_head

if TYPE_CHECKING:
    from pacstore.ledger.database import Ledger
    from pacstore.partial import PartialPacks
    from pacstore.store import Store
    from pacstore.trust.targets import CatalogRelease

_MARGIN = 64
"""So many more candidates are looked at than are pinned or in use."""


@dataclass(frozen=True, slots=True)
class Evicted:
    """Packs that left, whole or partial, and their bytes on disk; `is_enough`: as much as was asked for."""

    packs: tuple[Digest, ...] = ()
    bytes: int = 0
    is_enough: bool = True


def held_bytes(ledger: Ledger) -> int:
    """What all packs take, whole and partial, in constant time."""
    with ledger.reading() as connection:
        return sum(total.bytes for total in packs.pack_totals(connection).values())


def evict(
    store: Store,
    ledger: Ledger,
    partials: PartialPacks,
    *,
    wanted_bytes: int,
    now: float,
    in_use: Collection[Digest] = (),
) -> Evicted:
    """Delete packs that nobody keeps, longest unused first, until `wanted_bytes` are free. Not those in `in_use` now.

    Raises Unavailable if the ledger cannot be written or a file not be deleted, Corrupt for a damaged ledger.
    """
    gone: list[Digest] = []
    freed = 0
    pinned = pinned_packs(store, ledger, now=now)
    passed: set[Digest] = set()
    while freed < wanted_bytes:
        with ledger.reading() as connection:
            rows = packs.least_used(connection, limit=len(passed) + _MARGIN)
        fresh = [row for row in rows if row.pack not in passed]
        if not fresh:
            break
        for row in fresh:
            if freed >= wanted_bytes:
                break
            passed.add(row.pack)
            if row.pack not in pinned and row.pack not in in_use and _take(store, ledger, partials, row):
                gone.append(row.pack)
                freed += row.held_bytes
    return Evicted(tuple(gone), freed, freed >= wanted_bytes)


def let_fall(
    store: Store,
    ledger: Ledger,
    partials: PartialPacks,
    *,
    now: float,
    grace_seconds: float,
    in_use: Collection[Digest] = (),
) -> Evicted:
    """Delete the packs that no release kept whole has needed for `grace_seconds`, and nobody asked for meanwhile.

    Raises as `evict`.
    """
    with ledger.writing() as connection:
        fallen.stamp(connection, now=now)
        due = fallen.due(connection, before=now - grace_seconds)
    pinned = pinned_packs(store, ledger, now=now) if due else PackSet()
    kept = (row for row in due if row.pack not in pinned and row.pack not in in_use)
    gone = [row for row in kept if _take(store, ledger, partials, row)]
    return Evicted(tuple(row.pack for row in gone), sum(row.held_bytes for row in gone))


def _take(store: Store, ledger: Ledger, partials: PartialPacks, seen: PackRow) -> bool:
    """Delete a pack, unless somebody has come to need it, or used it, since it was seen; nobody else writes meanwhile."""
    with ledger.writing() as connection:
        row = packs.find(connection, seen.pack)
        if row is None or row.kept_for is not KeptFor.PULLED or row.last_used > seen.last_used:
            return False
        # The files first: on a full disk the ledger cannot be written before there is room; then this is done once more.
        store.storage.delete(ObjectKind.PACK, row.pack)
        partials.drop(row.pack)
        packs.remove(connection, [row.pack])
    return True


def adopt_partials(ledger: Ledger, partials: PartialPacks, *, now: float) -> int:
    """Let the ledger know partial packs that a killed daemon had begun and not told of; how many."""
    count = 0
    for pack in partials.digests():
        with suppress(PacballError):
            with ledger.reading() as connection:
                if packs.find(connection, pack) is not None:
                    continue
            size = partials.occupied(pack)
            with ledger.writing() as connection:
                packs.record(connection, pack, length=size, held_bytes=size, state=PackState.PARTIAL, now=now)
            count += 1
    return count


def pinned_packs(store: Store, ledger: Ledger, *, now: float) -> PackSet:
    """The packs that are pinned by themselves, or with their release. Those of a release are known once its placement is here."""
    found = PackSet()
    with ledger.reading() as connection:
        names = {pin.name for pin in pins.listed(connection, now=now)}
    for name in names:
        with suppress(Refused):
            found.add_one(Digest.parse(name))
    for entry in _entries(store, names):
        placement = placement_name(entry.release, entry.placement_number)
        with suppress(NotFound):
            data = store.storage.get(DocumentKind.PLACEMENT, placement, limit=entry.placement.length)
            found.add(packs_of(data, place=placement))
    return found


@in_one_state
def _entries(store: Store, names: Iterable[str]) -> list[CatalogRelease]:
    wanted = []
    for name in names:
        with suppress(Refused):
            wanted.append(Release.parse(name))
    if not wanted:
        return []
    try:
        head = load_head(store.storage)
    except NotFound:
        return []
    return [entry for release in wanted if (entry := head.release(release)) is not None]
