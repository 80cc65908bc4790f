"""The roster: which releases a mirror is to keep whole now, and which of them leave, by catalog, subscriptions, pins and time.

One that is in the ledger and pinned is kept as if it were subscribed to; also where nobody shall install it any more, but then
nothing of it is fetched.

Whoever has no verified catalog must not ask: what is not known is not unwanted. A release that the catalog does not name stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pacstore.housekeeping import droppable_releases
from pacstore.ledger import pins, releases, subscriptions
from pacstore.ledger.completion import drop
from pacstore.ledger.releases import ReleaseRow, ReleaseState
from pacstore.subscription import Subscription, selected

if TYPE_CHECKING:
    import sqlalchemy as sa

    from pacstore.ledger.database import Ledger
    from pacstore.release import Release
    from pacstore.storage import DocumentStorage
    from pacstore.trust.retention import Retain
    from pacstore.trust.targets import CatalogRelease


LONGEST_PAUSE_SECONDS = 6 * 3600.0
"""No release that failed waits longer for its next attempt."""


@dataclass(frozen=True)
class Roster:
    """What is to be done. `wanted`: all that are to be kept; `due`: those of them to be fetched now, newest first.

    `dropped`: what has just left; `next_at`: when to look again at the latest, None if only a change can bring something.
    """

    wanted: frozenset[Release]
    due: tuple[CatalogRelease, ...]
    dropped: tuple[Release, ...]
    next_at: float | None


def update(
    ledger: Ledger,
    storage: DocumentStorage,
    catalog: Mapping[Release, CatalogRelease],
    configured: Iterable[Subscription],
    rules: Mapping[str, Retain],
    *,
    now: float,
    grace_seconds: float,
) -> Roster:
    """Write into the ledger which releases are wanted, and drop those whose grace is over.

    `configured` are subscriptions beside those of the ledger; `rules` the retention rules of the lines, by project. A release
    that was never complete and is wanted no more is dropped at once.
    """
    with ledger.writing() as connection:
        known = releases.every(connection)
        pinned = known.keys() & {one.release for one in pins.listed(connection, now=now)}
        wanted = _wanted(catalog, (*configured, *subscriptions.listed(connection)), pinned, rules, now)
        returning = [one for one in wanted if one not in known or known[one].leaves_at is not None]
        releases.want_all(connection, returning, now=now)
        unwanted = [row for name, row in known.items() if name in catalog and name not in wanted and name not in pinned]
        dropped = _let_go(connection, unwanted, now=now, grace_seconds=grace_seconds)
        known = releases.every(connection)
    for release in dropped:
        drop(ledger, storage, release)
    behind = [(known[release], entry) for release, entry in wanted.items() if _is_behind(known[release], entry)]
    due = [entry for row, entry in behind if _is_due(row, now)]
    due.sort(key=lambda entry: (entry.published, entry.release), reverse=True)
    moments = [row.next_at for row, _ in behind if not _is_due(row, now)]
    moments += [row.leaves_at for row in known.values() if row.leaves_at is not None and row.leaves_at > now]
    return Roster(frozenset(wanted), tuple(due), tuple(dropped), min(moments, default=None))


def _wanted(
    catalog: Mapping[Release, CatalogRelease],
    subscribed: Iterable[Subscription],
    pinned: Iterable[Release],
    rules: Mapping[str, Retain],
    now: float,
) -> dict[Release, CatalogRelease]:
    chosen = selected(subscribed, catalog.values())
    chosen |= {name: catalog[name] for name in pinned if name in catalog and catalog[name].withdrawal is None}
    lapsed = droppable_releases(catalog.values(), rules, now=now, grace_seconds=0.0)
    return {release: entry for release, entry in chosen.items() if release not in lapsed}


def _let_go(
    connection: sa.Connection, unwanted: Iterable[ReleaseRow], *, now: float, grace_seconds: float
) -> list[Release]:
    dropped = []
    for row in unwanted:
        # An earlier moment stays; a later one was set when the clock was wrong.
        leaves_at = min(row.leaves_at if row.leaves_at is not None else now + grace_seconds, now + grace_seconds)
        if not row.placement_number or leaves_at <= now:
            dropped.append(row.release)
        elif leaves_at != row.leaves_at:
            releases.let_go(connection, row.release, at=leaves_at)
    return dropped


def _is_due(row: ReleaseRow, now: float) -> bool:
    """A pause that is longer than any was begun by a wrong clock."""
    return not now < row.next_at <= now + LONGEST_PAUSE_SECONDS


def _is_behind(row: ReleaseRow, entry: CatalogRelease) -> bool:
    return row.state is not ReleaseState.COMPLETE or row.placement_number != entry.placement_number
