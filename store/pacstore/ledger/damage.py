"""Damage, in the ledger: every damaged part that was found, until and after it is repaired; and releases that wait for that.

Damage is recorded in the transaction that says of every release concerned that it is not complete, in which the holdings file
of the release is removed, too (`pacstore.repair.healing`).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from pacstore.damage import DamagedPart
from pacstore.ledger.schema import TABLES, Total, check_of, keep_totals, totals
from pacstore.release import Release

_KEPT = 10_000
"""So many repaired parts are remembered, those that were repaired last."""


class DamageState(enum.StrEnum):
    """`OPEN`: not repaired yet. `WITHDRAWN`: nobody had what is needed; nothing damaged is served of it. `REPAIRED`."""

    OPEN = "open"
    WITHDRAWN = "withdrawn"
    REPAIRED = "repaired"


DAMAGE = sa.Table(
    "damage",
    TABLES,
    sa.Column("path", sa.String, primary_key=True),
    sa.Column("offset", sa.Integer, primary_key=True),
    sa.Column("length", sa.Integer, nullable=False),
    sa.Column("fault", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("found_at", sa.Float, nullable=False),
    sa.Column("tried_at", sa.Float),
    sa.Column("ended_at", sa.Float),
    sa.Column("giver", sa.String, nullable=False),
    check_of("state", DamageState),
    sqlite_with_rowid=False,
)
sa.Index("damage_by_state", DAMAGE.c.state, DAMAGE.c.ended_at)
keep_totals(DAMAGE, by="state", size="length", values=DamageState)

_waiting = sa.Table(
    "damaged_releases",
    TABLES,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("since", sa.Float, nullable=False),
)


@dataclass(frozen=True, slots=True)
class DamageRow:
    """One part. `tried_at`: when its repair was tried last, `ended_at` when it was repaired, both None before.

    `giver`: who gave what it was repaired with, empty where nobody had to.
    """

    part: DamagedPart
    state: DamageState
    found_at: float
    tried_at: float | None
    ended_at: float | None
    giver: str


def record(connection: sa.Connection, parts: Iterable[DamagedPart], *, now: float) -> None:
    """Write damage that was found; of what is known to be damaged, when that was found first stays."""
    for part in parts:
        values = {"length": part.length, "fault": part.fault}
        again = DAMAGE.c.state == DamageState.REPAIRED
        changed = {
            **values,
            "state": sa.case((again, DamageState.OPEN.value), else_=DAMAGE.c.state),
            "found_at": sa.case((again, now), else_=DAMAGE.c.found_at),
            "tried_at": sa.case((again, sa.null()), else_=DAMAGE.c.tried_at),
            "ended_at": None,
            "giver": "",
        }
        connection.execute(
            insert(DAMAGE)
            .values(path=part.path, offset=part.offset, state=DamageState.OPEN, found_at=now, giver="", **values)
            .on_conflict_do_update(index_elements=["path", "offset"], set_=changed)
        )


def end(connection: sa.Connection, path: str, *, giver: str, now: float) -> int:
    """Say that all that was wrong at `path` is repaired; how many parts that were."""
    statement = sa.update(DAMAGE).where(DAMAGE.c.path == path, DAMAGE.c.state != DamageState.REPAIRED)
    values = {"state": DamageState.REPAIRED, "tried_at": now, "ended_at": now, "giver": giver}
    ended = connection.execute(statement.values(**values)).rowcount
    old = sa.select(DAMAGE.c.ended_at).where(DAMAGE.c.state == DamageState.REPAIRED)
    last = connection.execute(old.order_by(DAMAGE.c.ended_at.desc()).offset(_KEPT).limit(1)).scalar_one_or_none()
    if last is not None:
        connection.execute(sa.delete(DAMAGE).where(DAMAGE.c.state == DamageState.REPAIRED, DAMAGE.c.ended_at <= last))
    return ended


def withdraw(connection: sa.Connection, path: str, left: Iterable[DamagedPart], *, giver: str, now: float) -> None:
    """Say that the parts in `left` are all that is still wrong at `path`, and could not be repaired."""
    left = list(left)
    end(connection, path, giver=giver, now=now)
    record(connection, left, now=now)
    for part in left:
        where = DAMAGE.c.path == path, DAMAGE.c.offset == part.offset
        connection.execute(sa.update(DAMAGE).where(*where).values(state=DamageState.WITHDRAWN, tried_at=now))


def unrepaired(connection: sa.Connection, *, limit: int) -> list[DamageRow]:
    """The first `limit` parts that are not repaired, by path and offset."""
    query = sa.select(DAMAGE).where(DAMAGE.c.state != DamageState.REPAIRED).order_by(DAMAGE.c.path, DAMAGE.c.offset)
    return [_row(row) for row in connection.execute(query.limit(limit))]


def damaged_paths(connection: sa.Connection) -> list[str]:
    """The public paths of all that is not repaired, ascending."""
    query = sa.select(DAMAGE.c.path).distinct().where(DAMAGE.c.state != DamageState.REPAIRED).order_by(DAMAGE.c.path)
    return list(connection.execute(query).scalars())


def damage_totals(connection: sa.Connection) -> dict[DamageState, Total]:
    """Parts and their bytes, by state, in constant time."""
    return {DamageState(name): total for name, total in totals(connection, DAMAGE).items()}


def wait(connection: sa.Connection, release: Release, *, now: float) -> None:
    """Remember a release whose holdings are taken back because of damage."""
    connection.execute(insert(_waiting).values(name=str(release), since=now).on_conflict_do_nothing())


def wait_no_longer(connection: sa.Connection, release: Release) -> None:
    """The release is held again, or need not be."""
    connection.execute(sa.delete(_waiting).where(_waiting.c.name == str(release)))


def waiting(connection: sa.Connection) -> list[Release]:
    """The releases that wait for repair, by name."""
    names = connection.execute(sa.select(_waiting.c.name).order_by(_waiting.c.name)).scalars()
    return [Release.parse(name) for name in names]


def _row(row: sa.Row[Any]) -> DamageRow:
    path, offset, length, fault, state, *rest = tuple(row)
    return DamageRow(DamagedPart(path, offset, fault, length), DamageState(state), *rest)
