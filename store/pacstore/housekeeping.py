"""Housekeeping: what a store need not hold any longer, and ceases to offer.

Only holdings files are removed: from then on the store says "not here" of a release. Its documents and packs stay until they are
collected; the release stays in the catalog, and its name bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import TYPE_CHECKING

from pacstore.errors import NotFound
from pacstore.storage import DocumentKind
from pacstore.trust import chain, entries
from pacstore.trust.metadata import RETAIN
from pacstore.trust.retention import Retain, droppable

if TYPE_CHECKING:
    from pacstore.release import Release
    from pacstore.storage import DocumentStorage
    from pacstore.trust.targets import CatalogRelease


@chain.in_one_state
def retention_rules(documents: DocumentStorage) -> dict[str, Retain]:
    """The rules of the lines of the store's own catalog, by project; lines without one are left out.

    Raises Corrupt where the catalog or a rule is damaged, NewerFormat for a rule of an unknown kind.
    """
    try:
        head = chain.load_head(documents)
    except NotFound:
        return {}
    found = {}
    for project in head.projects():
        role = entries.line_role(project)
        value = head.delegated(role).unrecognized_fields.get(RETAIN)
        if value is not None:
            found[project] = Retain.from_fields(value, place=role)
    return found


def droppable_releases(
    releases: Iterable[CatalogRelease], rules: Mapping[str, Retain], *, now: float, grace_seconds: float
) -> set[Release]:
    """Those of the `releases`, of any lines, that were withdrawn or have lapsed for `grace_seconds` at `now`.

    All releases of a line must be given: a rule counts them.
    """
    found: set[Release] = set()
    ordered = sorted(releases, key=lambda entry: entry.release)
    for project, line in groupby(ordered, key=lambda entry: entry.release.project):
        found |= droppable(list(line), rules.get(project), now=now, grace_seconds=grace_seconds)
    return found


def held_droppable(
    documents: DocumentStorage,
    releases: Iterable[CatalogRelease],
    rules: Mapping[str, Retain],
    *,
    now: float,
    grace_seconds: float,
) -> list[Release]:
    """What `drop_holdings` would drop now, sorted."""
    held = frozenset(documents.names(DocumentKind.HOLDINGS))
    found = droppable_releases(releases, rules, now=now, grace_seconds=grace_seconds)
    return sorted(release for release in found if str(release) in held)


def drop_holdings(
    documents: DocumentStorage,
    releases: Iterable[CatalogRelease],
    rules: Mapping[str, Retain],
    *,
    now: float,
    grace_seconds: float,
) -> list[Release]:
    """Remove the holdings files of the releases that need not be held (see `droppable_releases`); return those, sorted.

    Interrupted, the next call does the rest. `releases` were verified by the caller.
    """
    dropped = held_droppable(documents, releases, rules, now=now, grace_seconds=grace_seconds)
    for release in dropped:
        documents.remove(DocumentKind.HOLDINGS, str(release))
    return dropped
