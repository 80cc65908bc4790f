"""What waits, brought onto the state that is committed now: others may have committed since it was proposed.

What a proposal changed against its base is changed in the present state instead, and must be signed again: nobody has seen the
two together. Where others have changed the same thing, what is committed stays.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Role, Root, Targets, Timestamp

from pacstore.trust import chain
from pacstore.trust.authority import Authority, is_line, is_online
from pacstore.trust.change import Change, Proposed, same_content
from pacstore.trust.draft import free_version
from pacstore.trust.form import bound
from pacstore.trust.metadata import LINE_PREFIX, METADATA_LIMITS, RETAIN, file_name

if TYPE_CHECKING:
    from pacstore.trust.chain import Head


def rebase(change: Change, head: Head) -> Change:
    """`change` on top of `head`. What is committed already is left out, and so are lines that nobody delegates to."""
    roles: dict[str, Proposed] = {}
    for role, proposed in change.roles.items():
        base = head.version_of(role)
        if proposed.base == base:
            roles[role] = proposed
        elif (merged := _merge(role, proposed, head, change.above)) is not None:
            roles[role] = Proposed(base, merged)
    _follow_online_keys(roles, head, change.above)
    after = _authority(roles, head)
    for role in list(roles):
        if after.role(role) is None:
            del roles[role]
        elif _is_taken(role, roles[role].metadata, head, after):
            roles[role] = _again(role, roles[role], head, change.above)
    known = {path for role in roles if is_line(role) for path in head.placements(role.removeprefix(LINE_PREFIX))}
    placements = {path: target for path, target in change.placements.items() if path not in known}
    return Change(roles, placements, change.above).only(roles)


def _authority(roles: dict[str, Proposed], head: Head) -> Authority:
    root, targets = (
        roles[role].metadata.signed if role in roles else head.committed(role) for role in (Root.type, Targets.type)
    )
    return Authority(root, targets)


def _follow_online_keys(roles: dict[str, Proposed], head: Head, above: int) -> None:
    """Let proposed targets name the online keys that the root names: others may have changed those meanwhile."""
    after = _authority(roles, head)
    if Targets.type not in roles or after.is_one_online():
        return
    roles[Targets.type] = _again(Targets.type, roles[Targets.type], head, above)
    targets, online = roles[Targets.type].metadata.signed, after.required(Timestamp.type)
    for name, role in _roles(targets).items():
        if is_online(name):
            role.keyids, role.threshold = list(online.keyids), online.threshold
    _set_keys(targets, after.keys())


def _is_taken(role: str, metadata: Metadata[Any], head: Head, after: Authority) -> bool:
    """Whether somebody who crashed, or lost a race, has left something else under the name that this would get."""
    found = _read(head, role, metadata.signed.version)
    return found is not None and (not same_content(found, metadata) or after.missing(role, found) > 0)


def _again(role: str, proposed: Proposed, head: Head, above: int) -> Proposed:
    """The same, to be signed under a version that is free."""
    signed = copy.deepcopy(proposed.metadata.signed)
    signed.version = free_version(head, role, proposed.base, above)
    return Proposed(proposed.base, Metadata(signed))


def _merge(role: str, proposed: Proposed, head: Head, above: int) -> Metadata[Any] | None:
    base = _read(head, role, proposed.base) if proposed.base else None
    wanted = proposed.metadata.signed
    present = head.committed(role) if head.version_of(role) or not is_line(role) else Targets(expires=wanted.expires)
    merged = copy.deepcopy(present)
    if is_line(role):
        _merge_line(base.signed if base is not None else Targets(), wanted, merged)
    elif base is None:
        return None
    else:
        _merge_keys(base.signed, wanted, merged)
    if merged == present and not 0 < present.version <= above:
        return None
    merged.version = free_version(head, role, head.version_of(role), above)
    merged.expires = wanted.expires
    return Metadata(merged)


def _merge_line(old: Targets, wanted: Targets, merged: Targets) -> None:
    taken = {top for path, target in wanted.targets.items() if (top := _bound_otherwise(path, target, merged))}
    for path, target in wanted.targets.items():
        is_new = path not in old.targets and path in merged.targets
        if old.targets.get(path) != target and not is_new and _top(path) not in taken:
            merged.targets[path] = target
    rule, before = (line.unrecognized_fields.get(RETAIN) for line in (wanted, old))
    if rule != before:
        merged.unrecognized_fields.pop(RETAIN, None)
        merged.unrecognized_fields |= {RETAIN: rule} if rule is not None else {}


def _bound_otherwise(path: str, target: Any, merged: Targets) -> str:
    """The release whose manifest `target` would be, if others have bound its name to something else; else empty."""
    other = merged.targets.get(path)
    return _top(path) if path.endswith("/manifest") and other is not None and bound(other) != bound(target) else ""


def _top(path: str) -> str:
    return path.rpartition("/")[0]


def _merge_keys(old: Root | Targets, wanted: Root | Targets, merged: Root | Targets) -> None:
    before, roles = _roles(old), _roles(merged)
    for name, role in _roles(wanted).items():
        was, now = before.get(name), roles.get(name)
        if not _same(role, was) and (now is None or _same(now, was)):
            roles[name] = copy.deepcopy(role)
    _set_keys(merged, {**_keys(wanted), **_keys(merged)})


def _set_keys(delegator: Root | Targets, known: dict[str, Any]) -> None:
    """Let it have those of the `known` keys that its roles use."""
    used = {keyid for role in _roles(delegator).values() for keyid in role.keyids}
    keys = _keys(delegator)
    keys.clear()
    keys.update({keyid: key for keyid, key in known.items() if keyid in used})


def _same(one: Role | None, other: Role | None) -> bool:
    return one == other or (
        one is not None
        and other is not None
        and (set(one.keyids), one.threshold) == (set(other.keyids), other.threshold)
    )


def _roles(delegator: Root | Targets) -> dict[str, Any]:
    if isinstance(delegator, Root):
        return delegator.roles
    assert delegator.delegations is not None
    assert delegator.delegations.roles is not None
    return delegator.delegations.roles


def _keys(delegator: Root | Targets) -> dict[str, Any]:
    if isinstance(delegator, Root):
        return delegator.keys
    assert delegator.delegations is not None
    return delegator.delegations.keys


def _read(head: Head, role: str, version: int) -> Metadata[Any] | None:
    """A version of a role, committed or not; None where there is nothing of use."""
    data = chain.read_document(head.documents, file_name(role, version), METADATA_LIMITS.targets_bytes)
    try:
        return Metadata.from_bytes(data) if data is not None else None
    except RepositoryError:
        return None
