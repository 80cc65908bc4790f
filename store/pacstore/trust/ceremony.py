"""What people do to a catalog: each function edits a draft, which is signed and committed, or waits, afterwards.

They return whether there is anything to do. Names, keys and thresholds are checked here; whether signatures suffice is seen when
the draft is finished.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuf.api.metadata import Role, Root, Snapshot, Targets, Timestamp

from pacstore.errors import Refused, printable
from pacstore.release import check_project
from pacstore.trust import entries
from pacstore.trust.authority import ONLINE, TOP_ROLES, Authority, is_line, is_online
from pacstore.trust.form import check_threshold, refuse_case_clashes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from securesystemslib.signer import Key

    from pacstore.trust.draft import Draft


@dataclass(frozen=True)
class Keys:
    """Public keys of a role, and how many of them must sign."""

    keys: tuple[Key, ...]
    threshold: int = 1


@dataclass(frozen=True)
class Founding:
    """The keys with which a catalog begins; `online` is for snapshot, timestamp and placements."""

    root: Keys
    targets: Keys
    online: Keys


def first_root(founding: Founding) -> Root:
    """The root of a new catalog, of version 0: before the first. Raises Refused for keys that cannot do."""
    wanted = {
        Root.type: founding.root,
        Targets.type: founding.targets,
        Snapshot.type: founding.online,
        Timestamp.type: founding.online,
    }
    root = Root(roles={name: Role([], 1) for name in wanted}, consistent_snapshot=True)
    for name, keys in wanted.items():
        _set_keys(root, name, root.roles[name], keys)
    root.version = 0
    return root


def found(draft: Draft, fresh: Root) -> bool:
    """The root `fresh`, unless there is one with the same keys, and the empty targets; False if there is all this.

    Raises Refused where there is, or waits, a catalog with other keys, or one that waits for signatures.
    """
    if draft.head.timestamp.version:
        first = draft.head.roots[0].signed
        if (first.keys, first.roles) != (fresh.keys, fresh.roles):
            raise Refused("there is a catalog already", place="catalog", hint="name another store")
        return False
    if draft.pending:
        hint = "its keys sign it with: pacball trust sign; or drop it with: pacball trust drop"
        raise Refused("a catalog waits for its first signatures", place="catalog", hint=hint)
    if draft.is_founding:
        draft.edit(Root.type)
    draft.edit(Targets.type)
    return True


def projects(draft: Draft) -> list[str]:
    """The projects that have a line, or will have one once what waits is committed, sorted."""
    return entries.projects_of(draft.after.roles())


def add_line(draft: Draft, project: str, line: Keys) -> bool:
    """A new line, signed by `line`; False if there is one with these keys. Raises Refused for a name that is taken otherwise."""
    check_project(project)
    existing = projects(draft)
    if project in existing:
        if draft.after.terms(entries.line_role(project)) == (frozenset(k.keyid for k in line.keys), line.threshold):
            return False
        raise Refused("this line exists already", place=project, hint="change its keys with: pacball trust rotate")
    refuse_case_clashes([*existing, project], "project")
    online = draft.after.required(Timestamp.type)
    targets = draft.edit(Targets.type)
    known = draft.after.keys()
    origin = Keys(tuple(known[keyid] for keyid in online.keyids), online.threshold)
    for role, keys in zip(entries.delegations(project), (origin, line), strict=True):
        targets.delegations.roles[role.name] = role
        _set_keys(targets, role.name, role, keys)
    draft.begin_line(entries.line_role(project))
    if draft.before.terms(Timestamp.type) != draft.after.terms(Timestamp.type):
        draft.leave_unsigned(Targets.type)
    return True


def rotate(draft: Draft, role: str, *, add: Sequence[Key], remove: Collection[str], threshold: int | None) -> bool:
    """Change the keys of `root`, `targets`, `online` or a line; `remove` has key ids. Raises Refused."""
    if role == ONLINE:
        placements = [entries.placement_role(project) for project in projects(draft)]
        roles = (Snapshot.type, Timestamp.type, *placements)
        return sum(_change(draft, one, add, remove, threshold) for one in roles) > 0
    if role not in (Root.type, Targets.type) and not is_line(role):
        raise Refused(
            "is no role with keys of its own", place=printable(role[:200]), hint="root, targets, online, line-PROJECT"
        )
    changed = _change(draft, role, add, remove, threshold)
    # Also where the keys were changed before, by somebody who was interrupted.
    if role != Root.type and (changed or role not in draft.pending.roles) and _lacks(draft, role):
        draft.edit(role)
        return True
    return changed


def trusting(authority: Authority, keyid: str) -> list[str]:
    """The roles that trust a key."""
    return [role for role in authority.roles() if keyid in authority.keyids(role)]


def revoke(draft: Draft, keyid: str, replacement: Key | None) -> bool:
    """Take a key out of every role that trusts it, or will, with another one in its place if there is one. Raises Refused."""
    roles = trusting(draft.after, keyid)
    add = [replacement] if replacement is not None else []
    own = [role for role in roles if not is_online(role)]
    for role in [ONLINE, *own] if len(own) < len(roles) else own:
        rotate(draft, role, add=add, remove=[keyid], threshold=None)
    return bool(roles)


def renew(draft: Draft, roles: Iterable[str]) -> bool:
    """Sign these of root, targets and the lines anew, so that they expire later. Raises Refused for other roles."""
    wanted = list(roles)
    for role in wanted:
        if role not in (Root.type, Targets.type) and not is_line(role):
            raise Refused("is not signed by people", place=printable(role[:200]), hint="root, targets, line-PROJECT")
        draft.after.required(role)
        draft.edit(role)
    return bool(wanted)


def republish(draft: Draft, *, keep: Collection[str]) -> bool:
    """Sign targets and every line but `keep` anew; the draft gives them, and what the online key signs, higher versions.

    Raises Refused for something in `keep` that is no line.
    """
    lines = [entries.line_role(project) for project in projects(draft)]
    for role in keep:
        if role not in lines:
            hint = f"write line-PROJECT, one of: {', '.join(lines)}"
            raise Refused("is no line of this catalog", place=printable(role[:200]), hint=hint)
    draft.edit(Targets.type)
    for role in lines:
        if role not in keep:
            draft.edit(role)
    return True


def _set_keys(delegator: Root | Targets, name: str, role: Role, keys: Keys) -> None:
    for key in keys.keys:
        delegator.add_key(key, name)
    role.threshold = keys.threshold
    check_threshold(name, role)


def _change(draft: Draft, role: str, add: Sequence[Key], remove: Collection[str], threshold: int | None) -> bool:
    present = draft.after.required(role)
    added = [key for key in add if key.keyid not in present.keyids]
    removed = [keyid for keyid in remove if keyid in present.keyids]
    if not added and not removed and threshold in (None, present.threshold):
        return False
    delegator: Root | Targets = draft.edit(Root.type if role in TOP_ROLES else Targets.type)
    for key in added:
        delegator.add_key(key, role)
    for keyid in removed:
        delegator.revoke_key(keyid, role)
    changed = Authority(draft.look(Root.type), draft.look(Targets.type)).required(role)
    changed.threshold = threshold if threshold is not None else changed.threshold
    check_threshold(role, changed)
    return True


def _lacks(draft: Draft, role: str) -> bool:
    """Whether targets or a line, as it waits or is committed, is not signed by enough of the keys that it will need."""
    if role in draft.pending.roles:
        return draft.after.missing(role, draft.pending.roles[role].metadata) > 0
    return draft.head.listed(role) > 0 and draft.after.missing(role, draft.head.envelope(role)) > 0
