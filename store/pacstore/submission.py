"""Taking changes that were signed elsewhere into a store: only if what the catalog would name is still here.

What waits in a store is referred to, and is not collected. A change file refers to nothing: while it was with its signers, what
waited here may have been dropped, and its packs and documents collected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pacstore.documents import read_provenance
from pacstore.errors import Corrupt, NotFound, Refused
from pacstore.holding import packs_of, verify_whole
from pacstore.ledger.completion import record_complete
from pacstore.links import links_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pacstore.placement import Placement
    from pacstore.storage import Storage
    from pacstore.store import Store
    from pacstore.trust.change import Change
    from pacstore.trust.keyring import KeyRing
    from pacstore.trust.repository import Catalog, Outcome
    from pacstore.trust.targets import CatalogRelease


def submit(store: Store, catalog: Catalog, change: Change, ring: KeyRing, *, now: float) -> Outcome:
    """Take `change` into what waits in the catalog of `store`, and commit what is complete (see `Catalog.submit`).

    Raises Refused, too, before anything is changed, where something is not here that the catalog would name.
    """

    def check(named: Sequence[tuple[CatalogRelease, CatalogRelease | None]]) -> None:
        here = [(entry, _require_here(store.storage, entry, known)) for entry, known in named]
        # As a publish leaves it: links and holdings may have been collected as well.
        for entry, placement in here:
            if placement is not None:
                store.storage.link(links_of(entry))
                record_complete(store.ledger, store.storage, entry, packs_of(placement), now=now)

    # From when all is found here until the catalog, or what waits, refers to it.
    with store.unswept():
        return catalog.submit(change, ring, now=now, check=check)


def _require_here(storage: Storage, entry: CatalogRelease, known: CatalogRelease | None) -> Placement | None:
    """Raise Refused unless all is here that the catalog would name of a release, but for what it names already (`known`).

    Its placement; None if the catalog names that already, and the release need not be here.
    """
    hint = "publish its directory again, and have that signed: pacball publish, pacball trust export"
    placement = None
    try:
        if known is None or known.placement != entry.placement:
            placement = verify_whole(storage, entry)
        hint = "attach the provenance again, and have that signed: pacball attach, pacball trust export"
        if known is None or known.provenance != entry.provenance:
            read_provenance(storage, entry)
    except (NotFound, Corrupt) as error:
        message = f"cannot come into the catalog: {error.place} {error.message}"
        raise Refused(message, place=str(entry.release), hint=hint) from error
    return placement
