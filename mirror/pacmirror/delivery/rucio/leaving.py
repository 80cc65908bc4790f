"""Leaving: a dataset that nobody wants at an RSE any more is taken from Rucio there, and then let go by the store.

In this order: whoever is sent here by Rucio finds what he was sent for. Rucio is asked for each file whether somebody wants it,
in the same step in which it ceases to offer it; so what other datasets share stays. The disk is freed by the store's collection,
after its own grace time.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pacmirror.delivery.rucio.delivering import OWNER
from pacmirror.delivery.rucio.naming import FileKind, file_name
from pacstore.check import catalog_releases
from pacstore.digest import Digest
from pacstore.errors import NotFound, Refused, Unavailable
from pacstore.ledger import orders, pins, releases
from pacstore.release import Release
from pacstore.retiring import retire, wanted_by
from pacstore.volumes.bundle import bundles_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pacmirror.delivery.rucio.record import AgentRecord, Kept
    from pacmirror.delivery.rucio.rse import Rse
    from pacstore.storage import Clock
    from pacstore.store import Store
    from pacstore.subscription import Subscription


@dataclass(frozen=True)
class Left:
    """How many files Rucio does not offer here any more, and how many it still wants here; `stays`: why the store keeps it."""

    files: int = 0
    wanted: int = 0
    stays: str = ""

    def __str__(self) -> str:
        if self.stays:
            return f"the store keeps it, {self.stays}"
        shared = f", {self.wanted} stay for others" if self.wanted else ""
        return f"{self.files} files are offered no longer{shared}"


def let_go(
    store: Store, rse: Rse, kept: Kept, record: AgentRecord, subscribed: Sequence[Subscription], *, clock: Clock
) -> Left:
    """Take a dataset from Rucio at the RSE, and from the store unless something else keeps its release there. May be repeated.

    Raises RucioAway; Unavailable where Rucio knows none of its files here: then it has lost more than a rule, and nobody can
    say what it would want.
    """
    stays = _why_it_stays(store, kept, record, subscribed, clock)
    if stays:
        _unpin_packs(store, kept)
        if not _others(kept, record):
            retire(store, Release.parse(kept.release), owner=OWNER, configured=subscribed, clock=clock)
        return Left(stays=stays)
    names = _names(store, rse, kept)
    done = rse.withdraw(names)
    if names and not (done.gone or done.wanted):
        message = f"Rucio knows none of its {len(names)} files at {rse.name} any more, though nobody has let them go"
        hint = "it stays; if that is meant: pacball store unpin --owner 'rucio agent', and pacball store drop"
        raise Unavailable(message, place=str(kept.did), hint=hint)
    _unpin_packs(store, kept)
    if kept.release:
        retire(store, Release.parse(kept.release), owner=OWNER, configured=subscribed, clock=clock)
    return Left(len(done.gone), len(done.wanted))


def _others(kept: Kept, record: AgentRecord) -> list[Kept]:
    """The datasets of the same release that somebody wants here."""
    same = (one for did, one in record.kept.items() if did != kept.did and one.release == kept.release)
    return [one for one in same if one.unwanted_since is None]


def _why_it_stays(
    store: Store, kept: Kept, record: AgentRecord, subscribed: Sequence[Subscription], clock: Clock
) -> str:
    if not kept.release:
        return ""
    others = _others(kept, record)
    if others:
        return f"for {others[0].did}"
    if kept.was_here:
        return "since it was here before Rucio wanted it"
    wanted = wanted_by(store, Release.parse(kept.release), besides=OWNER, configured=subscribed, clock=clock)
    return f"for {wanted[0]}" if wanted else ""


def _names(store: Store, rse: Rse, kept: Kept) -> list[str]:
    """The files of a dataset, as Rucio or, where it has the dataset no more, the store knows them."""
    try:
        return sorted(rse.files(kept.did))
    except NotFound:
        return sorted(_names_here(store, kept)) if kept.release else []


def _names_here(store: Store, kept: Kept) -> Iterator[str]:
    release = Release.parse(kept.release)
    with store.ledger.reading() as connection:
        needed = releases.needed(connection, release)
    yield from (file_name(FileKind.PACK, pack) for pack in needed | _pinned_packs(store, kept))
    for entry in catalog_releases(store):
        if entry.release == release:
            yield file_name(FileKind.MANIFEST, entry.manifest.digest)
    yield from (file_name(FileKind.BUNDLE, digest) for digest, of in bundles_in(store) if of == release)


def _pinned_packs(store: Store, kept: Kept) -> set[Digest]:
    with store.ledger.reading() as connection:
        found = [
            pin.name for pin in pins.listed(connection, now=0.0) if (pin.owner, pin.reason) == (OWNER, str(kept.did))
        ]
    packs = set()
    for name in found:
        with suppress(Refused):
            packs.add(Digest.parse(name))
    return packs


def _unpin_packs(store: Store, kept: Kept) -> None:
    packs = _pinned_packs(store, kept)
    if packs:
        with orders.changing(store.ledger) as connection:
            for pack in packs:
                pins.remove(connection, str(pack), OWNER)
