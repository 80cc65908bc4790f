"""The scrub of a store, in the ledger: how far the pass under way is, and when the last one came to its end."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from pacstore.ledger.schema import TABLES
from pacstore.rereading import Position

_scrub = sa.Table(
    "scrub",
    TABLES,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("path", sa.String, nullable=False),
    sa.Column("offset", sa.Integer, nullable=False),
    sa.Column("begun_at", sa.Float),
    sa.Column("objects", sa.Integer, nullable=False),
    sa.Column("bytes_read", sa.Integer, nullable=False),
    sa.Column("unread", sa.Integer, nullable=False),
    sa.Column("last_begun_at", sa.Float),
    sa.Column("last_ended_at", sa.Float),
    sa.Column("last_objects", sa.Integer, nullable=False),
    sa.Column("last_bytes", sa.Integer, nullable=False),
)


@dataclass(frozen=True, slots=True)
class ScrubState:
    """The pass under way is at `path` and `offset`; it began at `begun_at`, None between passes.

    Until now it has read `objects` with `bytes_read` bytes, and could not look at `unread` of them. `last_`: the same of the
    last full pass, one that could look at everything, None and 0 before there was one. Times in seconds since 1970.
    """

    path: str = ""
    offset: int = 0
    begun_at: float | None = None
    objects: int = 0
    bytes_read: int = 0
    unread: int = 0
    last_begun_at: float | None = None
    last_ended_at: float | None = None
    last_objects: int = 0
    last_bytes: int = 0

    @property
    def position(self) -> Position:
        """Where the pass under way goes on."""
        return Position(self.path, self.offset)

    def begun(self, now: float) -> ScrubState:
        """At the beginning of a pass."""
        return replace(self, path="", offset=0, begun_at=now, objects=0, bytes_read=0, unread=0)

    def advanced(self, position: Position, *, objects: int, bytes_read: int, unread: int) -> ScrubState:
        """After so much more of the pass."""
        return replace(
            self,
            path=position.path,
            offset=position.offset,
            objects=self.objects + objects,
            bytes_read=self.bytes_read + bytes_read,
            unread=self.unread + unread,
        )

    def ended(self, now: float) -> ScrubState:
        """At the end of the pass."""
        after = replace(self, path="", offset=0, begun_at=None)
        if self.unread:
            return after
        return replace(
            after,
            last_begun_at=self.begun_at,
            last_ended_at=now,
            last_objects=self.objects,
            last_bytes=self.bytes_read,
        )


def load(connection: sa.Connection) -> ScrubState:
    """How far it is."""
    row = connection.execute(sa.select(_scrub)).one_or_none()
    return ScrubState(*tuple(row)[1:]) if row is not None else ScrubState()


def save(connection: sa.Connection, state: ScrubState) -> None:
    """Write how far it is."""
    values = {field.name: getattr(state, field.name) for field in fields(state)}
    statement = insert(_scrub).values(number=1, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["number"], set_=values))
