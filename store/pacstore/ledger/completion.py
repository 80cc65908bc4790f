"""The only ways in which a release becomes complete, ceases to be, and leaves: ledger and holdings file change together.

A holdings file is written and removed inside the transaction that says the same, which other writers wait for: so none of them
can damage a pack between the look at the ledger and the statement to the world.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pacstore.errors import Corrupt, NotFound
from pacstore.holding import has_pack, packs_of, put_holdings, verify_whole
from pacstore.ledger import packs, releases
from pacstore.ledger.packs import PackState
from pacstore.limits import LIMITS
from pacstore.storage import DocumentKind, ObjectKind, object_path

if TYPE_CHECKING:
    import sqlalchemy as sa

    from pacstore.digest import Digest
    from pacstore.ledger.database import Ledger
    from pacstore.release import Release
    from pacstore.storage import DocumentStorage, Storage
    from pacstore.trust.targets import CatalogRelease


def complete(ledger: Ledger, storage: Storage, entry: CatalogRelease, *, now: float) -> None:
    """Verify a release (see `pacstore.holding.verify_whole`), and say that it is complete, in the ledger and in public.

    Raises NotFound for what is not here and Corrupt for what is not right; what was said before stays then.
    """
    placement = verify_whole(storage, entry)
    record_complete(ledger, storage, entry, packs_of(placement), now=now)


def record_complete(
    ledger: Ledger, storage: Storage, entry: CatalogRelease, needed: Mapping[Digest, int], *, now: float
) -> None:
    """Like `complete`, for who has verified it just now: `needed` are its packs, with their lengths.

    Raises Corrupt if one of them is known to be damaged, NotFound if one has gone since it was looked at.
    """
    with ledger.writing() as connection:
        _record(connection, storage, entry, needed, now)


def record_moved(
    ledger: Ledger, storage: Storage, entry: CatalogRelease, needed: Mapping[Digest, int], *, now: float
) -> bool:
    """Like `record_complete`, of a release that has got another placement; false if it is held no longer, and stays so."""
    with ledger.writing() as connection:
        try:
            storage.get(DocumentKind.HOLDINGS, str(entry.release), limit=LIMITS.holdings_bytes)
        except NotFound:
            return False
        _record(connection, storage, entry, needed, now)
    return True


def _record(
    connection: sa.Connection, storage: Storage, entry: CatalogRelease, needed: Mapping[Digest, int], now: float
) -> None:
    releases.want(connection, entry.release, now=now)
    releases.need(connection, entry.release, needed, only=True)
    # To verify takes long: meanwhile, one may have been found damaged, withdrawn, and be fetched anew.
    unknown = releases.missing(connection, entry.release)
    here = {pack: needed[pack] for pack in unknown if has_pack(storage, pack, needed[pack])}
    packs.adopt(connection, here, now=now)
    lost = releases.missing(connection, entry.release)
    if lost:
        pack = min(lost)
        place = object_path(ObjectKind.PACK, pack)
        if pack in here:
            raise Corrupt("is known to be damaged", place=place, hint="run: pacball store check --repair")
        raise NotFound("is missing by now", place=place)
    releases.set_complete(connection, entry.release, placement_number=entry.placement_number, now=now)
    put_holdings(storage, entry)


def withdraw(ledger: Ledger, storage: DocumentStorage, release: Release, *, reason: str, now: float) -> None:
    """Take back that a release is complete, for `reason`, and its holdings. Its packs stay what they are.

    One that the ledger did not know, since only its holdings were here, it knows from then on.
    """
    with ledger.writing() as connection:
        if releases.find(connection, release) is None:
            releases.want(connection, release, now=now)
        releases.set_partial(connection, release, reason=reason, now=now)
        storage.remove(DocumentKind.HOLDINGS, str(release))


def spoil(ledger: Ledger, storage: DocumentStorage, pack: Digest, *, now: float) -> set[Release]:
    """Record that a pack has bad frames: no release that needs it is complete any longer, or held. Those releases."""
    with ledger.writing() as connection:
        packs.set_state(connection, pack, PackState.DAMAGED)
        found = releases.needing(connection, [pack])
        for release in found:
            releases.hurry(connection, release, now=now)
            storage.remove(DocumentKind.HOLDINGS, str(release))
    return found


def drop(ledger: Ledger, storage: DocumentStorage, release: Release) -> None:
    """Let a release go: its holdings, then its place in the ledger. Its packs and documents are left to the collection."""
    with ledger.writing() as connection:
        storage.remove(DocumentKind.HOLDINGS, str(release))
        releases.forget(connection, release)
