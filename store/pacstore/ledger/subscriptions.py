"""Subscriptions made by command, in the ledger: which releases a mirror keeps whole, beside those of its configuration."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from pacstore.ledger.schema import TABLES
from pacstore.subscription import Subscription

_subscriptions = sa.Table(
    "subscriptions",
    TABLES,
    sa.Column("pattern", sa.String, primary_key=True),
    sa.Column("keep", sa.Integer),
    sa.Column("made_at", sa.Float, nullable=False),
)


def add(connection: sa.Connection, subscription: Subscription, *, now: float) -> None:
    """Write a subscription, in place of one with the same pattern."""
    values = {"keep": subscription.keep, "made_at": now}
    connection.execute(
        insert(_subscriptions)
        .values(pattern=subscription.pattern, **values)
        .on_conflict_do_update(index_elements=["pattern"], set_=values)
    )


def remove(connection: sa.Connection, pattern: str) -> bool:
    """Remove the subscription with this pattern; whether there was one."""
    result = connection.execute(sa.delete(_subscriptions).where(_subscriptions.c.pattern == pattern))
    return result.rowcount > 0


def dated(connection: sa.Connection) -> list[tuple[Subscription, float]]:
    """All of them, by pattern, with the time when each was made, in seconds since 1970."""
    query = sa.select(_subscriptions).order_by(_subscriptions.c.pattern)
    return [(Subscription(row.pattern, row.keep), row.made_at) for row in connection.execute(query)]


def listed(connection: sa.Connection) -> tuple[Subscription, ...]:
    """All of them, by pattern."""
    return tuple(subscription for subscription, _ in dated(connection))
