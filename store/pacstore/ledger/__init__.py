"""The ledger: what a store knows of itself and must not forget, in one SQLite database beside the index.

Which releases are complete and why others are not, every pack that is here and for whom it is kept, what is subscribed to.
Each concern is a module with tables of its own on one database; their functions take a connection, so that what
belongs together is written in one transaction. `pacstore.ledger.database` has the law of it.
"""

from pacstore.ledger import (
    checksums,
    damage,
    fallen,
    marks,
    orders,
    pacballs,
    packs,
    pins,
    releases,
    scrubs,
    subscriptions,
)
from pacstore.ledger.database import Ledger

__all__ = [
    "Ledger",
    "checksums",
    "damage",
    "fallen",
    "marks",
    "orders",
    "pacballs",
    "packs",
    "pins",
    "releases",
    "scrubs",
    "subscriptions",
]
