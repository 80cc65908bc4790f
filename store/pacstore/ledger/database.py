"""The database of the ledger, and its law.

* "Complete" is set only by verification (`pacstore.ledger.completion`). Whatever makes a pack less than whole clears it for
  all releases that need this pack, in the same transaction: a trigger does it, so nobody can forget to.
* A holdings file is written in the transaction that sets "complete", and removed in the one that clears it. Where a crash
  comes between the two, the next start puts both right (`pacstore.ledger.reconciling`).
* One that is made where there was none begins with what people had said by command (`pacstore.ledger.orders`).
* For whom a pack is kept, and the sums that status shows, are kept by triggers as well: no reader ever counts rows.

Times are seconds since 1970, UTC, given by the caller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pacstore.database import Database, Schema
from pacstore.ledger import orders
from pacstore.ledger.schema import TABLES

if TYPE_CHECKING:
    from pathlib import Path

LEDGER_NAME = "ledger.sqlite"
VERSION = 1
_SCHEMA = Schema(
    "the ledger",
    VERSION,
    TABLES,
    mend="start, or restart, pacball serve, which puts it aside and makes it anew from what the store holds; or move "
    f"{LEDGER_NAME}* away",
)


class Ledger(Database):
    """The ledger in the SQLite database `path`; any number of processes may share it. See Database for what opening raises."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        super().__init__(path, _SCHEMA, read_only=read_only, fill=lambda connection: orders.load(connection, path))
