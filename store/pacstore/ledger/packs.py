"""The packs of a store, in the ledger: every pack of which something is here has one row.

For whom a pack is kept follows from the releases that need it (`pacstore.ledger.releases`), and is kept true by triggers.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from pacstore.digest import DIGEST_BYTES, Digest
from pacstore.ledger.schema import TABLES, Total, check_of, keep_totals, totals

_BATCH = 500


class PackState(enum.StrEnum):
    """What is here of a pack: all of it, verified, under its public name; some of it; or all of it with bad frames."""

    WHOLE = "whole"
    PARTIAL = "partial"
    DAMAGED = "damaged"


class KeptFor(enum.StrEnum):
    """Why a pack is here: a release that is kept whole needs it, or somebody asked for it once."""

    SUBSCRIBED = "subscribed"
    PULLED = "pulled"


PACKS = sa.Table(
    "packs",
    TABLES,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("id", sa.LargeBinary(DIGEST_BYTES), nullable=False, unique=True),
    sa.Column("length", sa.Integer, nullable=False),
    sa.Column("held_bytes", sa.Integer, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("kept_for", sa.String, nullable=False),
    sa.Column("last_used", sa.Float, nullable=False),
    sa.Column("scrubbed_at", sa.Float),
    check_of("state", PackState),
    check_of("kept_for", KeptFor),
)
# What leaves first where there is no room, and what is read back next, without a look at all rows.
sa.Index("packs_by_use", PACKS.c.kept_for, PACKS.c.last_used, PACKS.c.id)
sa.Index("packs_by_scrub", PACKS.c.scrubbed_at)
keep_totals(PACKS, by="kept_for", size="held_bytes", values=KeptFor)


@dataclass(frozen=True, slots=True)
class PackRow:
    """One pack. `length` of the whole pack and `held_bytes` of it that are here; `scrubbed_at` is None before the first time."""

    pack: Digest
    length: int
    held_bytes: int
    state: PackState
    kept_for: KeptFor
    last_used: float
    scrubbed_at: float | None


def record(
    connection: sa.Connection, pack: Digest, *, length: int, held_bytes: int, state: PackState, now: float
) -> None:
    """Write what is here of a pack now. A pack that is WHOLE was verified to its last frame, and is durable and public.

    A pack that is no longer WHOLE makes no release complete any more.
    """
    values = {"length": length, "held_bytes": held_bytes, "state": state, "last_used": now}
    connection.execute(
        insert(PACKS)
        .values(id=pack.raw, kept_for=_kept_for(pack), **values)
        .on_conflict_do_update(index_elements=["id"], set_=values)
    )


def adopt(connection: sa.Connection, packs: Mapping[Digest, int], *, now: float) -> None:
    """Give public packs (with their lengths) that have no row one, and make rows WHOLE that say PARTIAL; others stay."""
    for pack, length in packs.items():
        values = {"length": length, "held_bytes": length, "state": PackState.WHOLE}
        connection.execute(
            insert(PACKS)
            .values(id=pack.raw, kept_for=_kept_for(pack), last_used=now, **values)
            .on_conflict_do_update(index_elements=["id"], set_=values, where=PACKS.c.state == PackState.PARTIAL)
        )


def _kept_for(pack: Digest) -> sa.ColumnElement[str]:
    needed = sa.exists(sa.text("1")).select_from(sa.table("release_packs")).where(sa.column("pack") == pack.raw)
    return sa.case((needed, KeptFor.SUBSCRIBED.value), else_=KeptFor.PULLED.value)


def set_state(connection: sa.Connection, pack: Digest, state: PackState) -> None:
    """Change the state of a pack that has a row."""
    connection.execute(sa.update(PACKS).where(PACKS.c.id == pack.raw).values(state=state))


def touch(connection: sa.Connection, used: Mapping[Digest, float]) -> None:
    """Write when packs were used last; packs without a row, and times before the one that is known, are passed over."""
    statement = (
        sa.update(PACKS)
        .where(PACKS.c.id == sa.bindparam("pack"), PACKS.c.last_used < sa.bindparam("at"))
        .values(last_used=sa.bindparam("at"))
    )
    if used:
        connection.execute(statement, [{"pack": pack.raw, "at": at} for pack, at in used.items()])


def remove(connection: sa.Connection, packs: Iterable[Digest]) -> None:
    """Forget packs of which nothing is here any more, or soon: before their files go. Repeating it changes nothing."""
    for pack in packs:
        connection.execute(sa.delete(PACKS).where(PACKS.c.id == pack.raw))


def find(connection: sa.Connection, pack: Digest) -> PackRow | None:
    """The row of a pack, if it has one."""
    row = connection.execute(sa.select(PACKS).where(PACKS.c.id == pack.raw)).one_or_none()
    return None if row is None else row_of(row)


def rows(connection: sa.Connection, *, after: Digest | None = None, limit: int) -> list[PackRow]:
    """The first `limit` rows by id, after the pack `after`."""
    query = sa.select(PACKS).where(PACKS.c.id > (after.raw if after else b"")).order_by(PACKS.c.id).limit(limit)
    return [row_of(row) for row in connection.execute(query)]


def every(connection: sa.Connection) -> Iterator[PackRow]:
    """All rows by id, fetched in batches."""
    last: Digest | None = None
    while batch := rows(connection, after=last, limit=_BATCH):
        yield from batch
        last = batch[-1].pack


def least_used(connection: sa.Connection, *, limit: int) -> list[PackRow]:
    """The first `limit` packs that are only kept because somebody asked once, longest unused first."""
    query = (
        sa.select(PACKS).where(PACKS.c.kept_for == KeptFor.PULLED).order_by(PACKS.c.last_used, PACKS.c.id).limit(limit)
    )
    return [row_of(row) for row in connection.execute(query)]


def pack_totals(connection: sa.Connection) -> dict[KeptFor, Total]:
    """Packs and bytes that are here, in constant time."""
    return {KeptFor(name): total for name, total in totals(connection, PACKS).items()}


def row_of(row: sa.Row[Any]) -> PackRow:
    """A row of PACKS, all its columns in their order."""
    pack, length, held_bytes, state, kept_for, last_used, scrubbed_at = tuple(row)[1:]
    return PackRow(
        Digest(pack),
        length,
        held_bytes,
        PackState(state),
        KeptFor(kept_for),
        last_used,
        scrubbed_at,
    )
