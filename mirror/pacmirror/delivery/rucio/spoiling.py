"""Spoiling: what a store found damaged since the last look is declared bad in Rucio, and good again once it is repaired."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pacmirror.delivery.rucio.declaring import REASON
from pacmirror.delivery.rucio.rse import AVAILABLE, BAD
from pacmirror.delivery.rucio.shelf import is_here, name_of
from pacstore.errors import Refused
from pacstore.ledger import damage

if TYPE_CHECKING:
    from pacmirror.delivery.rucio.rse import Rse
    from pacstore.store import Store

_log = logging.getLogger(__name__)


class Spoiling:
    """Remembers what it has told. Whoever begins anew reads what Rucio calls bad again instead (`Delivery`)."""

    def __init__(self) -> None:
        self._told: frozenset[str] = frozenset()

    def tell(self, store: Store, rse: Rse) -> None:
        """Tell Rucio what has changed. Raises RucioAway."""
        with store.ledger.reading() as connection:
            paths = damage.damaged_paths(connection)
        names = frozenset(name for path in paths if (name := name_of(path)) is not None)
        if names == self._told:
            return
        states = rse.states(names ^ self._told)
        bad = [name for name in names - self._told if states.get(name) == AVAILABLE]
        # What is damaged no longer may have been repaired, or be gone.
        good = [name for name in self._told - names if states.get(name) == BAD and is_here(store, name)]
        try:
            rse.declare_bad(bad, REASON)
            rse.report(good)
        except Refused as error:
            _log.warning("damage could not be declared: %s", error)
        else:
            if bad or good:
                _log.info("%d files were declared bad at %s, and %d good again", len(bad), rse.name, len(good))
        self._told = names
