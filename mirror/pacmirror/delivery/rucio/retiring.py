"""Retiring: a release leaves Rucio. Its datasets leave the line's container and expire; the files that no other dataset has are
not offered at the store's RSE any more.

May be repeated, and registered again: what expires is kept then, and what was not offered is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pacmirror.delivery.rucio.catalogue import RucioCatalogue
from pacmirror.delivery.rucio.naming import (
    PREFIX,
    Did,
    check_rse,
    check_scope,
    container_name,
    parse_dataset_name,
    parse_pacball_dataset_name,
)
from pacmirror.delivery.rucio.shipment import AVAILABLE
from pacstore.consignment import OWNER
from pacstore.errors import NotFound, Refused, printable
from pacstore.release import Release

_SHOWN = 5
_DELETING_SECONDS = 2 * 3600.0
"""Rules that end within them are of no account: one that is deleted goes on for an hour."""


@dataclass(frozen=True)
class Retired:
    """The `datasets` that expire now; how many `files` are not offered at the RSE any more, and how many `rules` were deleted.

    `kept_in`: the other scopes that have such a dataset, for which the store has to keep the release.
    """

    datasets: tuple[Did, ...]
    files: int
    rules: int
    kept_in: tuple[str, ...] = ()


def retire(
    catalogue: RucioCatalogue, release: Release, *, rse: str, scope: str, with_rules: bool, now: float
) -> Retired:
    """Let the datasets of a release leave Rucio, whatever their placements, and that of its pacball.

    Raises NotFound where there is none, Refused where rules are on them that do not end by themselves just now, unless they are
    to go `with_rules`; Unavailable. `now`: in seconds since 1970.
    """
    check_scope(scope)
    check_rse(rse)
    datasets = datasets_of(catalogue, release, scope)
    if not datasets:
        hint = (
            f"see: rucio did list {scope}:{PREFIX}{release.project}*; if no scope has it any more, and the store still "
        )
        hint += f"keeps it: pacball store unpin {release} --owner {OWNER} --store DIR"
        raise NotFound(f"has no dataset in the scope {scope} of Rucio", place=str(release), hint=hint)
    soon = now + _DELETING_SECONDS
    rules = [rule for did in datasets for rule in catalogue.rules(did) if not _ends(rule, before=soon)]
    if rules and not with_rules:
        _refuse(datasets[0], rules)
    for rule in rules:
        catalogue.delete_rule(str(rule["id"]))
    files = set().union(*(catalogue.content(did).keys() for did in datasets))
    _leave(catalogue, datasets, release.project)
    alone = _alone(catalogue, scope, sorted(files), frozenset(map(str, datasets)))
    states = catalogue.replica_states(rse, scope, alone)
    offered = [name for name in alone if states.get(name) == AVAILABLE]
    catalogue.set_unavailable(rse, scope, offered)
    kept_in = catalogue.scopes_that_keep(did.name for did in datasets) - {scope}
    return Retired(tuple(datasets), len(offered), len(rules), tuple(sorted(map(printable, kept_in))))


def datasets_of(catalogue: RucioCatalogue, release: Release, scope: str) -> list[Did]:
    """All datasets of a release in a scope, that of its pacball with them."""
    names = catalogue.datasets(scope, f"{PREFIX}{release}.b3-*")
    return [Did(scope, name) for name in names if _release_of(name) == release]


def _release_of(name: str) -> Release | None:
    found = parse_dataset_name(name)
    if found is not None:
        return found.release
    pacball = parse_pacball_dataset_name(name)
    return pacball[0] if pacball is not None else None


def _ends(rule: dict[str, Any], *, before: float) -> bool:
    end = rule.get("expires_at")
    return isinstance(end, datetime) and end.replace(tzinfo=UTC).timestamp() < before


def _leave(catalogue: RucioCatalogue, datasets: Iterable[Did], project: str) -> None:
    for did in datasets:
        container = Did(did.scope, container_name(project))
        if str(container) in catalogue.parents(did):
            catalogue.detach(container, [did])
        record = catalogue.collection(did)
        if record is not None and not record.expires:
            catalogue.expire(did, 0)


def _alone(catalogue: RucioCatalogue, scope: str, names: Sequence[str], retired: frozenset[str]) -> list[str]:
    """The files that no other dataset has."""
    return [name for name in names if not catalogue.parents(Did(scope, name)) - retired]


def _refuse(did: Did, rules: Sequence[dict[str, Any]]) -> None:
    shown = ", ".join(printable(f"{rule.get('id')} at {rule.get('rse_expression')}"[:200]) for rule in rules[:_SHOWN])
    more = f" and {len(rules) - _SHOWN} more" if len(rules) > _SHOWN else ""
    message = f"is wanted by {len(rules)} rule{'s' if len(rules) > 1 else ''}: {shown}{more}"
    raise Refused(message, place=str(did), hint="delete them first, rucio rule remove ID, or say --delete-rules")
