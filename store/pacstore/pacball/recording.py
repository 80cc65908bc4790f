"""Recording: the digests of a release's pacball are taken once, from the store that has the release, and kept in its ledger."""

from __future__ import annotations

from pacstore.ledger import pacballs
from pacstore.pacball.digests import PacballDigests, PacballKey
from pacstore.pacball.opened import OpenedRelease
from pacstore.progress import Progress
from pacstore.store import Store
from pacstore.trust.targets import CatalogRelease


def record_digests(
    store: Store, entry: CatalogRelease, progress: Progress, *, opened: OpenedRelease | None = None
) -> PacballDigests:
    """The digests of the pacball of a release, whose packs are here. When this returns they are in the ledger.

    What is known already is not computed again. `opened`: the release, if it is open already. Raises NotFound, Corrupt or
    Unavailable.
    """
    key = PacballKey.of(entry)
    with store.ledger.reading() as connection:
        found = pacballs.find(connection, key)
    if found is None:
        found = (opened or OpenedRelease(entry, store.storage)).take_digests(progress)
        with store.ledger.writing() as connection:
            pacballs.save(connection, key, found)
    return found
