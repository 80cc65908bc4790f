"""Making the ledger and the store say the same, when a daemon starts: after a crash, and for stores older than the ledger.

Only names and lengths are looked at, never the bytes of packs. What cannot be listed raises, and nothing is taken for gone.
Others may be at work meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from pacstore.errors import NotFound, Refused
from pacstore.ledger import packs, releases
from pacstore.ledger.packs import PackRow, PackState
from pacstore.ledger.releases import ReleaseState
from pacstore.release import Release
from pacstore.storage import DocumentKind, ObjectKind

if TYPE_CHECKING:
    from pacstore.digest import Digest
    from pacstore.ledger.database import Ledger
    from pacstore.storage import Storage

NO_HOLDINGS = "its holdings file was gone"
_BATCH = 500


@dataclass
class Reconciled:
    """What was put right: packs that got a row, rows of packs that are gone, releases whose holdings were taken back.

    `unknown`: releases that the store says to hold and the ledger does not know; whoever has the catalog verifies them.
    """

    adopted: int = 0
    gone: int = 0
    withdrawn: list[Release] = field(default_factory=list)
    unknown: list[Release] = field(default_factory=list)


def reconcile(ledger: Ledger, storage: Storage, *, now: float) -> Reconciled:
    """Bring the ledger up to what the store holds, and take back holdings that the ledger does not vouch for."""
    found = Reconciled()
    pairs = _pairs(storage.digests(ObjectKind.PACK), _rows(ledger))
    while batch := list(islice(pairs, _BATCH)):
        _reconcile_packs(ledger, storage, batch, found, now)
    _reconcile_holdings(ledger, storage, found, now)
    return found


def _pairs(public: Iterator[Digest], rows: Iterator[PackRow]) -> Iterator[tuple[Digest, bool]]:
    """The packs that are public without a row that says WHOLE, and those with such a row that are not (False), by id."""
    pack, row = next(public, None), next(rows, None)
    while pack is not None or row is not None:
        if row is None or (pack is not None and pack < row.pack):
            assert pack is not None
            yield pack, True
            pack = next(public, None)
        elif pack is None or row.pack < pack:
            if row.state is PackState.WHOLE:
                yield row.pack, False
            row = next(rows, None)
        else:
            if row.state is PackState.PARTIAL:
                yield pack, True
            pack, row = next(public, None), next(rows, None)


def _rows(ledger: Ledger) -> Iterator[PackRow]:
    last: Digest | None = None
    while True:
        with ledger.reading() as connection:
            batch = packs.rows(connection, after=last, limit=_BATCH)
        if not batch:
            return
        yield from batch
        last = batch[-1].pack


def _reconcile_packs(
    ledger: Ledger, storage: Storage, batch: Iterable[tuple[Digest, bool]], found: Reconciled, now: float
) -> None:
    with ledger.writing() as connection:
        for pack, _ in batch:
            # Looked at again: it may have come or gone since it was listed.
            try:
                length = storage.size(ObjectKind.PACK, pack)
            except NotFound:
                row = packs.find(connection, pack)
                if row is not None and row.state is PackState.WHOLE:
                    packs.remove(connection, [pack])
                    found.gone += 1
            else:
                packs.adopt(connection, {pack: length}, now=now)
                found.adopted += 1


def _reconcile_holdings(ledger: Ledger, storage: Storage, found: Reconciled, now: float) -> None:
    with ledger.writing() as connection:
        held = {release for name in storage.names(DocumentKind.HOLDINGS) if (release := _release(name)) is not None}
        known = releases.every(connection)
        for release, row in known.items():
            if row.state is ReleaseState.COMPLETE and release not in held:
                releases.set_partial(connection, release, reason=NO_HOLDINGS, now=now)
                found.withdrawn.append(release)
            elif row.state is not ReleaseState.COMPLETE and release in held:
                storage.remove(DocumentKind.HOLDINGS, str(release))
                found.withdrawn.append(release)
        found.unknown = sorted(held - known.keys())


def _release(name: str) -> Release | None:
    try:
        return Release.parse(name)
    except Refused:
        return None
