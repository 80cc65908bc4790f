"""Packs that a release kept whole has needed, and none needs any more, in the ledger: since when.

Triggers put them here and take them out again when a release needs them. Whoever asks for one afterwards makes it a pack that
somebody asked for once, like others.
"""
# ruff: noqa: S608 - the names in these statements are our own

from __future__ import annotations

import sqlalchemy as sa

from pacstore.digest import DIGEST_BYTES
from pacstore.ledger.packs import PACKS, KeptFor, PackRow, row_of
from pacstore.ledger.schema import TABLES, run_after_making

_fallen = sa.Table(
    "fallen",
    TABLES,
    sa.Column("pack", sa.LargeBinary(DIGEST_BYTES), primary_key=True),
    sa.Column("since", sa.Float),
    sqlite_with_rowid=False,
)
_fallen.add_is_dependent_on(PACKS)
run_after_making(
    _fallen,
    f"CREATE TRIGGER packs_fallen AFTER UPDATE OF kept_for ON packs WHEN OLD.kept_for = '{KeptFor.SUBSCRIBED}' AND "
    f"NEW.kept_for = '{KeptFor.PULLED}' BEGIN INSERT OR IGNORE INTO fallen (pack) VALUES (NEW.id); END",
    f"CREATE TRIGGER packs_needed AFTER UPDATE OF kept_for ON packs WHEN NEW.kept_for = '{KeptFor.SUBSCRIBED}' BEGIN "
    "DELETE FROM fallen WHERE pack = NEW.id; END",
    "CREATE TRIGGER packs_left AFTER DELETE ON packs BEGIN DELETE FROM fallen WHERE pack = OLD.id; END",
)


def stamp(connection: sa.Connection, *, now: float) -> None:
    """Write down that those without a time have fallen by now, and forget those that somebody has asked for since."""
    used = sa.select(PACKS.c.id).where(PACKS.c.id == _fallen.c.pack, PACKS.c.last_used > _fallen.c.since)
    connection.execute(sa.delete(_fallen).where(sa.exists(used)))
    is_new = sa.or_(_fallen.c.since.is_(None), _fallen.c.since > now)
    connection.execute(sa.update(_fallen).where(is_new).values(since=now))


def due(connection: sa.Connection, *, before: float) -> list[PackRow]:
    """The packs that have fallen by the moment `before`, by id."""
    query = sa.select(PACKS).join(_fallen, _fallen.c.pack == PACKS.c.id).where(_fallen.c.since <= before)
    return [row_of(row) for row in connection.execute(query.order_by(PACKS.c.id))]
