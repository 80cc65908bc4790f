"""Status: where releases are, as Rucio has it: which RSEs have their files, and what has come of the rules on them.

What it costs: two calls for every hundred datasets; for every dataset one that counts its files at each RSE (10 ms), and one that
reads the state of each replica (0.7 s for a thousand files), which is made where an RSE has some of the files only, or always if
asked for. Memory holds the names of the datasets, the rules, and the locks of a hundred datasets.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pacmirror.delivery.rucio.catalogue import RucioCatalogue, batches
from pacmirror.delivery.rucio.naming import (
    PREFIX,
    Did,
    check_scope,
    container_name,
    parse_dataset_name,
    parse_pacball_dataset_name,
)
from pacstore.errors import NotFound, TooLarge, printable
from pacstore.release import Release

AVAILABLE, BAD = "AVAILABLE", "BAD"
OK, STUCK = "OK", "STUCK"
_WAITING_FOR_PEOPLE = (STUCK, "SUSPENDED", "WAITING_APPROVAL")
_DATASETS = 100_000
_RULES = 100_000
_TEXT = 500
# There may be hundreds of locks on a dataset, and they come in one piece.
_BATCH = 100


@dataclass(frozen=True, slots=True)
class Share:
    """What one RSE has of a dataset: so many `files`, with so many `bytes`, are available there.

    `lock`: what the rules want of it: "OK", "REPLICATING", "STUCK", or "" where no rule wants the dataset there. `others`: how
    many more of its replicas there are in which state ("COPYING", "BAD", "UNAVAILABLE" ...).
    """

    rse: str
    files: int
    bytes: int
    is_complete: bool
    lock: str
    others: Mapping[str, int]

    @property
    def bad(self) -> int:
        """How many files are bad there."""
        return self.others.get(BAD, 0)


@dataclass(frozen=True, slots=True)
class RuleStatus:
    """What has come of a rule. `did`: what it is on, the dataset or its container; `rses`: its RSE expression; `ok`,
    `replicating`, `stuck`: how many of its files are in which state; `expires`: when, as ISO 8601, or "".
    """

    id: str
    did: str
    rses: str
    state: str
    ok: int
    replicating: int
    stuck: int
    error: str
    comment: str
    account: str
    expires: str

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """A rule as Rucio gives it."""
        expires = row.get("expires_at")
        return cls(
            _text(row.get("id")),
            _text(f"{row.get('scope')}:{row.get('name')}"),
            _text(row.get("rse_expression")),
            _text(row.get("state")),
            int(row.get("locks_ok_cnt") or 0),
            int(row.get("locks_replicating_cnt") or 0),
            int(row.get("locks_stuck_cnt") or 0),
            _text(row.get("error")),
            _text(row.get("comments")),
            _text(row.get("account")),
            expires.isoformat() if isinstance(expires, dt.datetime) else _text(expires),
        )

    @property
    def waiting(self) -> int:
        """How many of its files are not there. Rucio's counts are right in their sum only: one may fall below 0."""
        return self.replicating + self.stuck

    @property
    def is_fulfilled(self) -> bool:
        """Whether all its files are there. Rucio calls a rule STUCK after that too, until its judge-repairer has run."""
        return self.ok > 0 and not self.waiting

    @property
    def needs_person(self) -> bool:
        """Whether nothing more comes of it by itself."""
        return self.state in _WAITING_FOR_PEOPLE and not self.is_fulfilled


@dataclass(frozen=True, slots=True)
class DatasetStatus:
    """A dataset of a release. `placement_number` is None for that of the pacball; `bytes` is 0 for an open one that no RSE has.

    `lost`: how many of its files no RSE has. `is_retired`: it expires, and nothing is asked about its files.
    """

    did: Did
    release: Release
    placement_number: int | None
    is_open: bool
    is_retired: bool
    files: int
    bytes: int
    lost: int
    shares: tuple[Share, ...]
    rules: tuple[RuleStatus, ...]

    @property
    def complete_at(self) -> list[str]:
        """The RSEs that have all of it."""
        return [share.rse for share in self.shares if share.is_complete]


def statuses(
    catalogue: RucioCatalogue, scope: str, release: Release | None = None, *, every_file: bool
) -> Iterator[DatasetStatus]:
    """Each dataset of the release, or of all releases in the scope, by release and placement, the pacball's last.

    Without `every_file` replicas are looked at only where an RSE that has good files, or is to have some, lacks others: bad files
    at an RSE that has no good one, and is to have none, are not seen then. Raises NotFound where there is no dataset; Refused,
    Unavailable; TooLarge for a scope with more than 100,000 datasets or rules.
    """
    check_scope(scope)
    found = _datasets(catalogue, scope, release)
    if not found:
        raise _absent(catalogue, scope, release)
    rules = _rules(catalogue, scope, found if release is not None else None)
    for batch in batches(found, _BATCH):
        yield from _of_batch(catalogue, batch, rules, every_file=every_file)


def troubles(dataset: DatasetStatus) -> Iterator[str]:
    """What a person has to do something about, a sentence each, with what that is."""
    if dataset.is_retired:
        return
    if dataset.is_open:
        again = f"pacball rucio register {dataset.release}"
        yield f"{dataset.did} is open: its registration runs, or was interrupted; run it again then: {again}"
    for rule in dataset.rules:
        if rule.needs_person:
            yield _rule_trouble(rule)
    for share in dataset.shares:
        if share.bad:
            yield (
                f"{dataset.did}: {share.bad} of its {dataset.files} files are bad at {share.rse}; "
                f"there: pacball store check --repair, then: pacball rucio declare --rse {share.rse}"
            )
    if dataset.lost:
        yield (
            f"{dataset.did}: no RSE has {dataset.lost} of its {dataset.files} files; register it again at an RSE "
            f"whose store has it: pacball rucio register {dataset.release}"
        )


def _rule_trouble(rule: RuleStatus) -> str:
    why = f": {rule.error}" if rule.error else ""
    said = f"; {rule.comment}" if rule.comment else ""
    what = f"{rule.did}: the rule {rule.id} at {rule.rses} is {rule.state}{why}{said}"
    if rule.state != STUCK:
        return f"{what}; see: rucio rule show {rule.id}"
    return f"{what}; {rule.waiting} of its files wait: see whether an agent runs there"


@dataclass(frozen=True, slots=True)
class _Dataset:
    did: Did
    release: Release
    placement_number: int | None

    @property
    def order(self) -> tuple[Release, bool, int, str]:
        number = self.placement_number
        return self.release, number is None, number or 0, self.did.name


def _datasets(catalogue: RucioCatalogue, scope: str, release: Release | None) -> list[_Dataset]:
    pattern = f"{PREFIX}*.b3-*" if release is None else f"{PREFIX}{release}.b3-*"
    names = catalogue.datasets(scope, pattern)
    if len(names) > _DATASETS:
        raise TooLarge(f"has more than {_DATASETS:,} datasets", place=scope, hint="name a release")
    # In a pattern '_' may stand for any character, and others may have names that begin as ours do.
    found = [one for one in (_named(scope, name) for name in names) if one is not None]
    return sorted((one for one in found if release in (None, one.release)), key=lambda one: one.order)


def _named(scope: str, name: str) -> _Dataset | None:
    found = parse_dataset_name(name)
    if found is not None:
        return _Dataset(Did(scope, name), found.release, found.placement_number)
    pacball = parse_pacball_dataset_name(name)
    return _Dataset(Did(scope, name), pacball[0], None) if pacball is not None else None


def _absent(catalogue: RucioCatalogue, scope: str, release: Release | None) -> NotFound:
    if not catalogue.has_scope(scope):
        return NotFound("there is no such scope in Rucio", place=scope, hint="see: rucio scope list")
    if release is None:
        hint = "register one: pacball rucio register RELEASE"
        return NotFound("has no datasets of releases", place=scope, hint=hint)
    hint = f"register it: pacball rucio register {release}; or see what is there: pacball rucio status --scope {scope}"
    return NotFound("no such dataset in Rucio", place=f"{scope}:{PREFIX}{release}.b3-*", hint=hint)


class _Rules:
    """The rules that may concern the datasets, by what they are on and by id; those that locks name are asked for."""

    def __init__(self, catalogue: RucioCatalogue) -> None:
        self._catalogue = catalogue
        self._by_id: dict[str, RuleStatus | None] = {}
        self._by_did: dict[str, dict[str, RuleStatus]] = {}

    def add(self, rows: Iterable[Mapping[str, Any]], place: str) -> None:
        for row in rows:
            rule = RuleStatus.of(row)
            self._by_id[rule.id] = rule
            self._by_did.setdefault(rule.did, {})[rule.id] = rule
            if len(self._by_id) > _RULES:
                raise TooLarge(f"has more than {_RULES:,} rules", place=place, hint="name a release")

    def of(self, dataset: _Dataset, locks: Iterable[Mapping[str, Any]]) -> tuple[RuleStatus, ...]:
        """Those on the dataset, on its container, and whatever else locks it somewhere."""
        container = Did(dataset.did.scope, container_name(dataset.release.project))
        found = {**self._by_did.get(str(dataset.did), {}), **self._by_did.get(str(container), {})}
        for lock in locks:
            rule = self._named(str(lock.get("rule_id")))
            if rule is not None:
                found[rule.id] = rule
        return tuple(sorted(found.values(), key=lambda rule: (rule.rses, rule.id)))

    def _named(self, rule: str) -> RuleStatus | None:
        if rule not in self._by_id:
            try:
                row = self._catalogue.ask(f"the rule {rule}", lambda: self._catalogue.client.get_replication_rule(rule))
                self._by_id[rule] = RuleStatus.of(row)
            except NotFound:
                self._by_id[rule] = None  # it went since
        return self._by_id[rule]


def _rules(catalogue: RucioCatalogue, scope: str, datasets: list[_Dataset] | None) -> _Rules:
    """All of the scope in one call, or those on these few datasets and their container."""
    rules = _Rules(catalogue)
    if datasets is None:
        # As an iterator: what is not taken in is not kept.
        catalogue.ask(scope, lambda: rules.add(catalogue.client.list_replication_rules({"scope": scope}), scope))
        return rules
    for did in {one.did for one in datasets} | {Did(scope, container_name(datasets[0].release.project))}:
        try:
            rules.add(catalogue.rules(did), str(did))
        except NotFound:
            continue  # no container, or the dataset went since
    return rules


def _of_batch(
    catalogue: RucioCatalogue, batch: Sequence[_Dataset], rules: _Rules, *, every_file: bool
) -> Iterator[DatasetStatus]:
    dids = [one.did.fields() for one in batch]
    typed = [{**did, "type": "dataset"} for did in dids]
    rows = catalogue.ask(batch[0].did, lambda: list(catalogue.client.get_metadata_bulk(dids)))
    records = {str(row["name"]): row for row in rows}
    locks: dict[str, list[Mapping[str, Any]]] = {}
    for lock in catalogue.ask(batch[0].did, lambda: list(catalogue.client.get_locks_for_dids(typed))):
        locks.setdefault(str(lock["name"]), []).append(lock)
    for one in batch:
        record = records.get(one.did.name)
        if record is not None:  # it went since
            held = locks.get(one.did.name, [])
            counts = _count(catalogue, one.did, record, held, every_file=every_file)
            yield DatasetStatus(
                one.did, one.release, one.placement_number, bool(record.get("is_open")), _expires(record), counts.files,
                counts.bytes, counts.lost, counts.shares, rules.of(one, held),
            )  # fmt: skip


def _expires(record: Mapping[str, Any]) -> bool:
    return record.get("expired_at") is not None


@dataclass(frozen=True, slots=True)
class _Counts:
    files: int
    bytes: int
    lost: int
    shares: tuple[Share, ...]


def _count(
    catalogue: RucioCatalogue,
    did: Did,
    record: Mapping[str, Any],
    locks: Iterable[Mapping[str, Any]],
    *,
    every_file: bool,
) -> _Counts:
    rows = catalogue.ask(did, lambda: list(catalogue.client.list_dataset_replicas(did.scope, did.name, deep=True)))
    # An open dataset has no sums of its own yet.
    files, total = (max(int(row.get(key) or 0) for row in (record, *rows)) for key in ("length", "bytes"))
    at, wanted = {str(row["rse"]): row for row in rows}, _lock_states(locks)
    whole = {rse for rse, row in at.items() if int(row.get("available_length") or 0) >= files}
    lacking = not whole or whole != at.keys() | wanted.keys()
    seen, lost = _Seen(0, 0, Counter()), 0
    if (lacking or every_file) and not _expires(record):
        seen = _examine(catalogue, did)
        files = max(files, seen.files)
        lost = 0 if whole else files - seen.available
    shares = tuple(
        Share(
            _text(rse),
            int(at.get(rse, {}).get("available_length") or 0),
            int(at.get(rse, {}).get("available_bytes") or 0),
            rse in whole and files > 0,
            _text(wanted.get(rse, "")),
            {_text(state): count for (where, state), count in sorted(seen.others.items()) if where == rse},
        )
        for rse in sorted(at.keys() | wanted.keys() | {rse for rse, _ in seen.others})
    )
    return _Counts(files, total, lost, shares)


@dataclass(slots=True)
class _Seen:
    """The files of which there are replicas, those of them that are available somewhere, the other replicas by RSE and state."""

    files: int
    available: int
    others: Counter[tuple[str, str]]


def _examine(catalogue: RucioCatalogue, did: Did) -> _Seen:
    """Look at each replica of a dataset's files."""

    def count() -> _Seen:
        seen = _Seen(0, 0, Counter())
        # In the order of nothing: looking for the nearest takes ten times as long.
        for row in catalogue.client.list_replicas([did.fields()], all_states=True, sort="random"):
            states: Mapping[str, str] = row.get("states") or {}
            seen.files += 1
            seen.available += AVAILABLE in states.values()
            seen.others.update((str(rse), str(state)) for rse, state in states.items() if state != AVAILABLE)
        return seen

    return catalogue.ask(did, count)


def _lock_states(locks: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """What the rules want of each RSE; where several do, what is furthest from done."""
    worst = {OK: 0, "REPLICATING": 1, STUCK: 2}
    found: dict[str, str] = {}
    for lock in locks:
        rse, state = str(lock["rse"]), str(lock["state"])
        if worst.get(state, 3) >= worst.get(found.get(rse, OK), 3):
            found[rse] = state
    return found


def _text(value: object) -> str:
    """What Rucio says, safe to print."""
    return printable(str(value)[:_TEXT]) if value is not None else ""
