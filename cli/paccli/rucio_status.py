"""Where releases are in Rucio, in words for who looks after it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from paccli.output import fields, size

if TYPE_CHECKING:
    from pacmirror.delivery.rucio.status import DatasetStatus, RuleStatus, Share

_NAMED = 20


def describe(dataset: DatasetStatus, *, every_rule: bool) -> Iterator[str]:
    """A dataset in lines for people. Rules that are fulfilled are counted, unless `every_rule` is wanted."""
    yield f"{dataset.did}: {_kind(dataset)}, {_count(dataset.files, 'file')}, {size(dataset.bytes)}"
    complete = dataset.complete_at
    if complete:
        more = f" and {len(complete) - _NAMED} more" if len(complete) > _NAMED else ""
        yield f"  complete at {', '.join(complete[:_NAMED])}{more}"
    elif not dataset.is_retired:
        yield "  complete nowhere"
    for share in dataset.shares:
        if not share.is_complete:
            yield f"  {share.rse}: {_part(share, dataset)}"
    shown = [rule for rule in dataset.rules if every_rule or not rule.is_fulfilled]
    for rule in shown:
        yield f"  {_rule(rule, dataset)}"
    if len(shown) < len(dataset.rules):
        yield f"  {_count(len(dataset.rules) - len(shown), 'rule')} fulfilled"
    if not dataset.rules and not dataset.is_retired:
        yield "  no rules"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _kind(dataset: DatasetStatus) -> str:
    what = "the pacball" if dataset.placement_number is None else f"placement {dataset.placement_number}"
    if dataset.is_retired:
        return f"{what}, retired"
    return f"{what}, {'open' if dataset.is_open else 'closed'}"


def _part(share: Share, dataset: DatasetStatus) -> str:
    what = f"{share.files} of {dataset.files} files, {size(share.bytes)} of {size(dataset.bytes)}"
    others = "".join(f", {count} {state.lower().replace('_', ' ')}" for state, count in share.others.items())
    return f"{what}{others}{'' if share.lock else ', no rule'}"


def _rule(rule: RuleStatus, dataset: DatasetStatus) -> str:
    where = "" if rule.did == str(dataset.did) else f" on {rule.did}"
    state = f"OK, though Rucio has it as {rule.state}" if rule.is_fulfilled and rule.state != "OK" else rule.state
    counts = f"{rule.ok} of {rule.ok + rule.waiting} files there"
    ends = f", ends {rule.expires}" if rule.expires else ""
    said = "".join(f": {text}" for text in (rule.error, rule.comment) if text)
    return f"rule {rule.id}{where} at {rule.rses}, {rule.account}: {state}, {counts}{ends}{said}"


def as_row(dataset: DatasetStatus) -> dict[str, object]:
    """A dataset as it is in JSON."""
    rules = [{**fields(rule), "is_fulfilled": rule.is_fulfilled} for rule in dataset.rules]
    return {**fields(dataset), "did": str(dataset.did), "rules": rules}
