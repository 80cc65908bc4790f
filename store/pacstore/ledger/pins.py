"""Pins, in the ledger: releases and packs that are kept whatever else is said, for somebody who says so.

What is pinned is never collected, never evicted to make room, and never repacked.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from pacstore.digest import Digest
from pacstore.errors import Refused, printable
from pacstore.ledger.schema import TABLES
from pacstore.limits import LIMITS
from pacstore.release import Release

OWNER = "operator"
"""Who pins by hand, unless told otherwise."""
_OWNER_CHARACTERS = 200
_pins = sa.Table(
    "pins",
    TABLES,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("owner", sa.String, primary_key=True),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("until", sa.Float),
    sa.Column("made_at", sa.Float, nullable=False),
    sqlite_with_rowid=False,
)


@dataclass(frozen=True, slots=True)
class Pin:
    """That `owner` wants the release or pack `name` kept, until a moment in seconds since 1970, or for ever.

    A release is pinned with the packs that it has at any time. Raises Refused for what is neither.
    """

    name: str
    owner: str = OWNER
    reason: str = ""
    until: float | None = None
    made_at: float = 0.0

    @property
    def release(self) -> Release | None:
        """The release that is pinned; None if it is a pack."""
        with suppress(Refused):
            return Release.parse(self.name)
        return None

    def __post_init__(self) -> None:
        if not is_pinnable(self.name):
            hint = "name a release, or a pack by the 64 digits of its id"
            raise Refused("is neither a release nor a pack", place=printable(self.name[:200]), hint=hint)
        if not 1 <= len(self.owner) <= _OWNER_CHARACTERS or not self.owner.isprintable() or not self.owner.strip():
            hint = f"write 1 to {_OWNER_CHARACTERS} printable characters"
            raise Refused("is no name of an owner", place=printable(self.owner[:200]), hint=hint)
        if len(self.reason) > LIMITS.reason_characters or not (self.reason.isprintable()):
            hint = f"write one line of at most {LIMITS.reason_characters} characters"
            raise Refused("the reason cannot be shown", place=printable(self.reason[:200]), hint=hint)


def is_pinnable(name: str) -> bool:
    """Whether `name` is that of a release, or a pack's id."""
    for parse in (Release.parse, Digest.parse):
        try:
            parse(name)
        except Refused:
            continue
        return True
    return False


def add(connection: sa.Connection, pin: Pin) -> None:
    """Write a pin, in place of the one that its owner has on the same."""
    values = {"reason": pin.reason, "until": pin.until, "made_at": pin.made_at}
    connection.execute(
        insert(_pins)
        .values(name=pin.name, owner=pin.owner, **values)
        .on_conflict_do_update(index_elements=["name", "owner"], set_=values)
    )


def remove(connection: sa.Connection, name: str, owner: str) -> bool:
    """Remove the pin of this owner; whether there was one."""
    query = sa.delete(_pins).where(_pins.c.name == name, _pins.c.owner == owner)
    return connection.execute(query).rowcount > 0


def listed(connection: sa.Connection, *, now: float) -> list[Pin]:
    """The pins that hold at `now`, by name and owner."""
    query = sa.select(_pins).where(sa.or_(_pins.c.until.is_(None), _pins.c.until > now))
    rows = connection.execute(query.order_by(_pins.c.name, _pins.c.owner))
    return [Pin(row.name, row.owner, row.reason, row.until, row.made_at) for row in rows]
