"""What the tables of the ledger share: one collection of them, and sums that are kept while rows come and go."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import NamedTuple

import sqlalchemy as sa

TABLES = sa.MetaData()
"""Every table of the ledger; a module of `pacstore.ledger` adds its own."""

_totals = sa.Table(
    "totals",
    TABLES,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("items", sa.Integer, nullable=False),
    sa.Column("bytes", sa.Integer, nullable=False),
    sqlite_with_rowid=False,
)


class Total(NamedTuple):
    """How many rows there are, and the sum of their bytes."""

    items: int = 0
    bytes: int = 0


def keep_totals(table: sa.Table, *, by: str, size: str, values: Iterable[str]) -> None:
    """Let the ledger keep, from the making of `table` on, a Total for each of the `values` of its column `by`.

    `size` is the column with the bytes of a row. Rows may be written by any statement but INSERT OR REPLACE.
    """
    table.add_is_dependent_on(_totals)
    sums = "UPDATE totals SET items = items {sign} 1, bytes = bytes {sign} {row}.{size} WHERE name = '{table}:' || {row}.{by};"
    added = sums.format(sign="+", row="NEW", size=size, by=by, table=table.name)
    taken = sums.format(sign="-", row="OLD", size=size, by=by, table=table.name)
    run_after_making(
        table,
        *(f"INSERT INTO totals VALUES ('{table.name}:{value}', 0, 0)" for value in values),  # noqa: S608 - our own names
        f"CREATE TRIGGER {table.name}_added AFTER INSERT ON {table.name} BEGIN {added} END",
        f"CREATE TRIGGER {table.name}_taken AFTER DELETE ON {table.name} BEGIN {taken} END",
        f"CREATE TRIGGER {table.name}_changed AFTER UPDATE OF {by}, {size} ON {table.name} BEGIN {taken} {added} END",
    )


def run_after_making(table: sa.Table, *statements: str) -> None:
    """Let the `statements`, triggers mostly, be run when `table` is made."""
    for statement in statements:
        made = sa.DDL(statement.replace("%", "%%"))  # type: ignore[no-untyped-call]
        sa.event.listen(table, "after_create", made)


def totals(connection: sa.Connection, table: sa.Table) -> dict[str, Total]:
    """The Total of each value that `keep_totals` was told of; what this costs does not grow with the table."""
    query = sa.select(_totals).where(_totals.c.name.between(f"{table.name}:", f"{table.name};"))
    return {row.name.partition(":")[2]: Total(row.items, row.bytes) for row in connection.execute(query)}


def check_of(column: str, values: type[enum.StrEnum]) -> sa.CheckConstraint:
    """The constraint that `column` has one of the `values`."""
    listed = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{column} IN ({listed})")
