"""What a collection has found unused, in the ledger: since when, and what it waits for before it is deleted.

A mark is a claim about the past only: whether something is used is looked up again before it is deleted (`pacstore.sweep`).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from pacstore.ledger.schema import TABLES, Total, check_of, keep_totals, totals

_SEPARATOR = " "


class MarkState(enum.StrEnum):
    """Found unused; or, of a pack, hidden from publishers too, so that it goes when those who may have seen it have ended."""

    MARKED = "marked"
    CONDEMNED = "condemned"


_marks = sa.Table(
    "marks",
    TABLES,
    sa.Column("path", sa.String, primary_key=True),
    sa.Column("bytes", sa.Integer, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("marked_at", sa.Float, nullable=False),
    sa.Column("waits_for", sa.String, nullable=False, default=""),
    check_of("state", MarkState),
    sqlite_with_rowid=False,
)
keep_totals(_marks, by="state", size="bytes", values=MarkState)


@dataclass(frozen=True, slots=True)
class Mark:
    """A file that nothing refers to: its `path` below the docroot, its bytes, since when (seconds since 1970) that is known.

    `waits_for`: the names of the leases that a condemned pack waits for.
    """

    path: str
    bytes: int
    state: MarkState
    marked_at: float
    waits_for: frozenset[str] = frozenset()


def mark(connection: sa.Connection, sizes: Mapping[str, int], *, now: float) -> None:
    """Mark these paths, with their bytes, as unused since now; those that are marked already stay as they are."""
    rows = [
        {"path": path, "bytes": size, "state": MarkState.MARKED.value, "marked_at": now} for path, size in sizes.items()
    ]
    if rows:
        connection.execute(sa.insert(_marks).prefix_with("OR IGNORE"), rows)


def unmark(connection: sa.Connection, paths: Iterable[str]) -> None:
    """Forget these marks: the files are used again, or gone."""
    rows = [{"gone": path} for path in paths]
    if rows:
        connection.execute(sa.delete(_marks).where(_marks.c.path == sa.bindparam("gone")), rows)


def condemn(connection: sa.Connection, paths: Iterable[str], leases: Iterable[str]) -> None:
    """Let these marks wait for no more than the leases with these names."""
    _set(connection, paths, MarkState.CONDEMNED, _SEPARATOR.join(sorted(leases)))


def reprieve(connection: sa.Connection, paths: Iterable[str]) -> None:
    """Let these be marked only, as long as they have been."""
    _set(connection, paths, MarkState.MARKED, "")


def _set(connection: sa.Connection, paths: Iterable[str], state: MarkState, waits_for: str) -> None:
    rows = [{"wanted": path} for path in paths]
    statement = sa.update(_marks).where(_marks.c.path == sa.bindparam("wanted"))
    if rows:
        connection.execute(statement.values(state=state.value, waits_for=waits_for), rows)


def set_back(connection: sa.Connection, *, now: float) -> None:
    """Let marks of the future begin now: the clock was wrong when they were made."""
    connection.execute(sa.update(_marks).where(_marks.c.marked_at > now).values(marked_at=now))


def every(connection: sa.Connection) -> dict[str, Mark]:
    """All marks by path."""
    return {row.path: _mark(row) for row in connection.execute(sa.select(_marks).order_by(_marks.c.path))}


def mark_totals(connection: sa.Connection) -> dict[MarkState, Total]:
    """How many there are of each state, and their bytes, in constant time."""
    return {MarkState(name): total for name, total in totals(connection, _marks).items()}


def _mark(row: sa.Row[tuple[str, int, str, float, str]]) -> Mark:
    return Mark(row.path, row.bytes, MarkState(row.state), row.marked_at, frozenset(row.waits_for.split()))
