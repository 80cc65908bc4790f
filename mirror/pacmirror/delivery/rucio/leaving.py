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

    Raises RucioAway; Unavailable where Rucio does not know here what only this dataset has: then it has lost more than a rule,
    and nobody can say what it would want; and where it locks files here for what the agent does not see.
    """
    stays = _why_it_stays(store, kept, record, subscribed, clock)
    if stays:
        # Its packs that the store's catalog names no longer go all the same.
        rse.withdraw(sorted(file_name(FileKind.PACK, pack) for pack in _pinned_packs(store, kept)))
        _unpin_packs(store, kept)
        if not _others(kept, record):
            retire(store, Release.parse(kept.release), owner=OWNER, configured=subscribed, clock=clock)
        return Left(stays=stays)
    names = _names(store, rse, kept)
    # Packs may be of other datasets, too: that Rucio knows those says nothing of this one.
    own = [name for name in names if not _is_pack(name)]
    first = rse.withdraw(own)
    if own and not (first.gone or first.wanted) and _is_pinned(store, kept):
        message = f"Rucio does not know {own[0]} at {rse.name} any more, though nobody has let it go"
        hint = (
            "was its database restored? It stays until a rule wants it again; if it is to go: pacball store unpin "
            f"{kept.release} --owner '{OWNER}' --store {store.path}"
        )
        raise Unavailable(message, place=str(kept.did), hint=hint)
    then = rse.withdraw(name for name in names if _is_pack(name))
    done = Left(len(first.gone) + len(then.gone), len(first.wanted) + len(then.wanted))
    wanted = {*first.wanted, *then.wanted}
    strange = wanted - _names_of_others(store, kept, record) if wanted else wanted
    if strange:
        message = (
            f"{len(strange)} of its files are locked at {rse.name} by rules on something else, {min(strange)} for one"
        )
        hint = "it stays as long; rules with grouping NONE do that, and rules on other datasets that have its files"
        raise Unavailable(message, place=str(kept.did), hint=hint)
    _unpin_packs(store, kept)
    if kept.release:
        retire(store, Release.parse(kept.release), owner=OWNER, configured=subscribed, clock=clock)
    return done


def _is_pack(name: str) -> bool:
    return name.endswith(f".{FileKind.PACK}")


def _is_pinned(store: Store, kept: Kept) -> bool:
    """Whether the store still keeps its release for Rucio: nobody has taken that back by hand."""
    with store.ledger.reading() as connection:
        return any(pin.owner == OWNER and pin.name == kept.release for pin in pins.listed(connection, now=0.0))


def _names_of_others(store: Store, kept: Kept, record: AgentRecord) -> set[str]:
    """The files, as the store knows them, of the other datasets that somebody wants here."""
    others = (one for one in record.kept.values() if one.did != kept.did and one.unwanted_since is None and one.release)
    return {name for one in others for name in _names_here(store, one)}


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
