"""The releases that a store keeps whole, or means to, in the ledger; and which packs each of them needs.

How a release comes here and goes: `want` (partial), `fail` and `retry` as often as it takes, `complete` of
`pacstore.ledger.completion`; `let_go` (it stays as it is for its grace time), `drop` of the same module.
"""
# ruff: noqa: S608 - the names in these statements are our own

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from pacstore.digest import DIGEST_BYTES, Digest
from pacstore.ledger.packs import PACKS, KeptFor, PackState
from pacstore.ledger.schema import TABLES, Total, check_of, keep_totals, run_after_making, totals
from pacstore.release import Release

LOST = "a pack that it needs is damaged or gone"


class ReleaseState(enum.StrEnum):
    """How far a release is: all here and verified; on its way, or waiting; or the last attempt failed."""

    COMPLETE = "complete"
    PARTIAL = "partial"
    FAILED = "failed"


RELEASES = sa.Table(
    "releases",
    TABLES,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("name", sa.String, nullable=False, unique=True),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("placement_number", sa.Integer, nullable=False),
    sa.Column("total_bytes", sa.Integer, nullable=False),
    sa.Column("held_bytes", sa.Integer, nullable=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("next_at", sa.Float, nullable=False),
    sa.Column("since", sa.Float, nullable=False),
    sa.Column("leaves_at", sa.Float),
    check_of("state", ReleaseState),
)
keep_totals(RELEASES, by="state", size="held_bytes", values=ReleaseState)
sa.Index("releases_by_state", RELEASES.c.state, RELEASES.c.name)
sa.Index("releases_by_time", RELEASES.c.state, RELEASES.c.since)
_troubled = RELEASES.c.reason != sa.literal_column("''")
sa.Index("releases_with_reason", RELEASES.c.name, sqlite_where=_troubled)

_needs = sa.Table(
    "release_packs",
    TABLES,
    sa.Column("release", sa.Integer, primary_key=True),
    sa.Column("pack", sa.LargeBinary(DIGEST_BYTES), primary_key=True),
    sqlite_with_rowid=False,
)
sa.Index("release_packs_by_pack", _needs.c.pack)
_needs.add_is_dependent_on(RELEASES)
_needs.add_is_dependent_on(PACKS)
_CLEAR = (
    f"UPDATE releases SET state = '{ReleaseState.PARTIAL}', reason = '{LOST}', next_at = 0 WHERE state = "
    f"'{ReleaseState.COMPLETE}' AND number IN (SELECT release FROM release_packs WHERE pack = OLD.id);"
)
run_after_making(
    _needs,
    f"CREATE TRIGGER packs_spoiled AFTER UPDATE OF state ON packs WHEN NEW.state <> '{PackState.WHOLE}' BEGIN {_CLEAR} END",
    f"CREATE TRIGGER packs_gone AFTER DELETE ON packs BEGIN {_CLEAR} END",
    "CREATE TRIGGER release_packs_added AFTER INSERT ON release_packs BEGIN "
    f"UPDATE packs SET kept_for = '{KeptFor.SUBSCRIBED}' WHERE id = NEW.pack; END",
    "CREATE TRIGGER release_packs_taken AFTER DELETE ON release_packs BEGIN "
    f"UPDATE packs SET kept_for = '{KeptFor.PULLED}' WHERE id = OLD.pack "
    "AND NOT EXISTS (SELECT 1 FROM release_packs WHERE pack = OLD.pack); END",
)


@dataclass(frozen=True, slots=True)
class ReleaseRow:
    """One release. `placement_number` is the one that is held, 0 before it was ever complete.

    `total_bytes` of its packs (0 before its placement is here) and `held_bytes` of them that are here. `reason` says why the
    last attempt failed, empty if none did since it was complete; `attempts` failed in a row; the next one is at `next_at`.
    `since`: when it became complete, or ceased to be, or was first wanted; `leaves_at`: when it is dropped, None if nothing
    says that it should be.
    """

    release: Release
    state: ReleaseState
    placement_number: int
    total_bytes: int
    held_bytes: int
    reason: str
    attempts: int
    next_at: float
    since: float
    leaves_at: float | None


def want(connection: sa.Connection, release: Release, *, now: float) -> None:
    """Let a release be kept whole: a new one begins as partial, one that was to leave stays."""
    want_all(connection, [release], now=now)


def want_all(connection: sa.Connection, wanted: Iterable[Release], *, now: float) -> None:
    """The same for any number of them, which may be many thousands."""
    new = {
        "state": ReleaseState.PARTIAL.value,
        "placement_number": 0,
        "total_bytes": 0,
        "held_bytes": 0,
        "reason": "",
        "attempts": 0,
        "next_at": now,
        "since": now,
    }
    rows = [{"name": str(release), **new} for release in wanted]
    if rows:
        stays = insert(RELEASES).on_conflict_do_update(index_elements=["name"], set_={"leaves_at": None})
        connection.execute(stays, rows)


def let_go(connection: sa.Connection, release: Release, *, at: float) -> None:
    """Say when a release leaves; an earlier such time stays."""
    leaves = sa.func.min(sa.func.coalesce(RELEASES.c.leaves_at, at), at)
    _update(connection, release, leaves_at=leaves)


def need(connection: sa.Connection, release: Release, packs: Mapping[Digest, int], *, only: bool = False) -> None:
    """Say which packs (with their lengths) a release needs; with `only`, no others any longer.

    What it needed before is kept with it otherwise: it may still be served with an older placement.
    """
    number = _number(connection, release)
    if only:
        known = connection.execute(sa.select(_needs.c.pack).where(_needs.c.release == number)).scalars()
        gone = [{"gone": pack} for pack in known if Digest(pack) not in packs]
        if gone:
            statement = sa.delete(_needs).where(_needs.c.release == number, _needs.c.pack == sa.bindparam("gone"))
            connection.execute(statement, gone)
    if packs:
        rows = [{"release": number, "pack": pack.raw} for pack in packs]
        connection.execute(insert(_needs).on_conflict_do_nothing(), rows)
    _update(connection, release, total_bytes=sum(packs.values()))


def hold_bytes(connection: sa.Connection, release: Release, held_bytes: int) -> None:
    """Say how many bytes of the packs of a release are here."""
    _update(connection, release, held_bytes=held_bytes)


def retry(connection: sa.Connection, release: Release) -> None:
    """Begin the next attempt: what failed is on its way again. Its reason stays until it is complete."""
    failed = RELEASES.c.state == ReleaseState.FAILED
    _update(connection, release, state=sa.case((failed, ReleaseState.PARTIAL.value), else_=RELEASES.c.state))


def count_anew(connection: sa.Connection, release: Release) -> None:
    """Forget how often it failed."""
    _update(connection, release, attempts=0)


def fail(connection: sa.Connection, release: Release, *, reason: str, next_at: float) -> None:
    """Record that an attempt failed. A release that is complete with an older placement stays so."""
    complete = RELEASES.c.state == ReleaseState.COMPLETE
    _update(
        connection,
        release,
        state=sa.case((complete, RELEASES.c.state), else_=ReleaseState.FAILED.value),
        reason=reason,
        attempts=RELEASES.c.attempts + 1,
        next_at=next_at,
    )


def forget(connection: sa.Connection, release: Release) -> None:
    """Only for `pacstore.ledger.completion`: forget a release. Its packs are kept for nobody then, unless others need them."""
    number = connection.execute(
        sa.select(RELEASES.c.number).where(RELEASES.c.name == str(release))
    ).scalar_one_or_none()
    if number is not None:
        connection.execute(sa.delete(_needs).where(_needs.c.release == number))
        connection.execute(sa.delete(RELEASES).where(RELEASES.c.number == number))


def find(connection: sa.Connection, release: Release) -> ReleaseRow | None:
    """The row of a release, if it has one."""
    row = connection.execute(sa.select(RELEASES).where(RELEASES.c.name == str(release))).one_or_none()
    return None if row is None else _row(row)


def every(connection: sa.Connection) -> dict[Release, ReleaseRow]:
    """All releases, by name."""
    rows = (_row(row) for row in connection.execute(sa.select(RELEASES).order_by(RELEASES.c.name)))
    return {row.release: row for row in rows}


def page(
    connection: sa.Connection, *, after: str = "", limit: int, state: ReleaseState | None = None
) -> list[ReleaseRow]:
    """The first `limit` releases by name, after the name `after`; only those of a `state`, if one is given."""
    query = sa.select(RELEASES).where(RELEASES.c.name > after).order_by(RELEASES.c.name).limit(limit)
    if state is not None:
        query = query.where(RELEASES.c.state == state)
    return [_row(row) for row in connection.execute(query)]


def troubled(connection: sa.Connection, *, limit: int, attempts: int = 0) -> list[ReleaseRow]:
    """The first `limit` releases, by name, that are not here as they should be, after so many attempts at least."""
    query = sa.select(RELEASES).where(_troubled, RELEASES.c.attempts >= attempts)
    return [_row(row) for row in connection.execute(query.order_by(RELEASES.c.name).limit(limit))]


def troubles(connection: sa.Connection, *, attempts: int = 0) -> int:
    """How many such releases there are; looks at nothing but them."""
    query = sa.select(sa.func.count(RELEASES.c.name)).where(_troubled, RELEASES.c.attempts >= attempts)
    return int(connection.execute(query).scalar_one())


def needed(connection: sa.Connection, release: Release) -> set[Digest]:
    """The packs that a release needs."""
    query = sa.select(_needs.c.pack).join(RELEASES, RELEASES.c.number == _needs.c.release)
    return {Digest(pack) for pack in connection.execute(query.where(RELEASES.c.name == str(release))).scalars()}


def needing(connection: sa.Connection, packs: Iterable[Digest]) -> set[Release]:
    """The releases that need any of the `packs`."""
    query = sa.select(RELEASES.c.name).join(_needs, RELEASES.c.number == _needs.c.release)
    found: set[Release] = set()
    for pack in packs:
        found |= {Release.parse(name) for name in connection.execute(query.where(_needs.c.pack == pack.raw)).scalars()}
    return found


def missing(connection: sa.Connection, release: Release) -> set[Digest]:
    """The packs that a release needs and that are not WHOLE here, as far as the ledger knows."""
    query = (
        sa.select(_needs.c.pack)
        .join(RELEASES, RELEASES.c.number == _needs.c.release)
        .outerjoin(PACKS, PACKS.c.id == _needs.c.pack)
        .where(RELEASES.c.name == str(release), sa.func.coalesce(PACKS.c.state, "") != PackState.WHOLE)
    )
    return {Digest(pack) for pack in connection.execute(query).scalars()}


def behind_since(connection: sa.Connection) -> float | None:
    """Since when a release that is wanted has not been complete, the earliest of all; None if all are. In constant time."""
    earliest = sa.select(sa.func.min(RELEASES.c.since)).where(RELEASES.c.leaves_at.is_(None))
    moments = (
        connection.execute(earliest.where(RELEASES.c.state == state)).scalar_one()
        for state in (ReleaseState.PARTIAL, ReleaseState.FAILED)
    )
    return min((moment for moment in moments if moment is not None), default=None)


def release_totals(connection: sa.Connection) -> dict[ReleaseState, Total]:
    """Releases and the bytes of them that are here, by state, in constant time."""
    return {ReleaseState(name): total for name, total in totals(connection, RELEASES).items()}


def set_complete(connection: sa.Connection, release: Release, *, placement_number: int, now: float) -> None:
    """Only for `pacstore.ledger.completion`, which has verified it."""
    complete = RELEASES.c.state == ReleaseState.COMPLETE
    _update(
        connection,
        release,
        state=ReleaseState.COMPLETE,
        placement_number=placement_number,
        held_bytes=RELEASES.c.total_bytes,
        reason="",
        attempts=0,
        since=sa.case((complete, RELEASES.c.since), else_=now),
    )


def set_partial(connection: sa.Connection, release: Release, *, reason: str, now: float) -> None:
    """Take back that a release is complete. Its holdings file must be gone when the transaction ends."""
    _update(connection, release, state=ReleaseState.PARTIAL, reason=reason, since=now, next_at=now)


def hurry(connection: sa.Connection, release: Release, *, now: float) -> None:
    """Let the next attempt at a release be now."""
    _update(connection, release, next_at=now)


def _number(connection: sa.Connection, release: Release) -> int:
    return int(connection.execute(sa.select(RELEASES.c.number).where(RELEASES.c.name == str(release))).scalar_one())


def _update(connection: sa.Connection, release: Release, **values: object) -> None:
    connection.execute(sa.update(RELEASES).where(RELEASES.c.name == str(release)).values(**values))


def _row(row: sa.Row[Any]) -> ReleaseRow:
    name, state, *rest = tuple(row)[1:]
    return ReleaseRow(Release.parse(str(name)), ReleaseState(state), *rest)
