"""What root, targets and lines look like, and how they may change: pacball writes nothing else, and readers can read on.

A proposal that is anything else is refused: nobody could be shown what it means, or readers would fail on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuf.api.metadata import DelegatedRole, Root, Snapshot, Targets, Timestamp

from pacstore.errors import Corrupt, NewerFormat, Refused, printable
from pacstore.release import check_project
from pacstore.trust import entries
from pacstore.trust.authority import is_line
from pacstore.trust.key_files import encode_public
from pacstore.trust.metadata import LINE_PREFIX, RETAIN
from pacstore.trust.retention import Retain

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from securesystemslib.signer import Key
    from tuf.api.metadata import Role, TargetFile

_BOUND = "names stay bound for ever: withdraw a release, and let a line rest"


def check_form(role: str, signed: Root | Targets) -> None:
    """Raise Refused unless root or targets are of the form in which they can be described; a line must not delegate."""
    if isinstance(signed, Root):
        _check_keys(role, signed.keys, signed.roles.values())
        snapshot, timestamp = signed.roles[Snapshot.type], signed.roles[Timestamp.type]
        same = (set(snapshot.keyids), snapshot.threshold) == (set(timestamp.keyids), timestamp.threshold)
        _require(role, known=same and signed.consistent_snapshot is True and not signed.unrecognized_fields)
    elif is_line(role):
        _require(role, known=signed.delegations is None)
    else:
        _check_delegations(role, signed)


def check_threshold(role: str, keys: Role) -> None:
    """Raise Refused unless the role has as many keys as must sign."""
    if type(keys.threshold) is not int or not 1 <= keys.threshold <= len(keys.keyids):
        message = f"{keys.threshold} of {len(keys.keyids)} keys cannot be asked for"
        raise Refused(message, place=role, hint="give more keys, or another --threshold, from 1 to their number")


def check_line(project: str, line: Targets, placements: Mapping[str, TargetFile]) -> None:
    """Raise Refused unless readers can read every release of a line with these placements."""
    role = entries.line_role(project)
    try:
        found = list(entries.decode_all(project, line.targets, placements))
        if RETAIN in line.unrecognized_fields:
            Retain.from_fields(line.unrecognized_fields[RETAIN], place=role)
    except NewerFormat:
        pass  # readers keep everything then
    except Corrupt as error:
        raise Refused(f"nobody could read this line: {error.message}", place=error.place) from error
    else:
        refuse_case_clashes([str(entry.release) for entry in found], "release")


def check_growth(role: str, before: Targets, after: Targets) -> None:
    """Raise Refused if a name would lose what it is bound to: a release its tree, or a project its line."""
    old, new = _roles(before), _roles(after)
    gone = [name for name in old if name not in new]
    gone += [path for path in before.targets if path not in after.targets]
    if gone:
        raise Refused(f"no longer has {printable(gone[0][:200])}", place=role, hint=_BOUND)
    for path, target in before.targets.items():
        if path.endswith("/manifest") and bound(target) != bound(after.targets[path]):
            raise Refused(f"binds {printable(path[:200])} to another tree", place=role, hint=_BOUND)


def bound(manifest: TargetFile) -> tuple[object, ...]:
    """What a release's name is bound to for ever, as the target of its manifest has it."""
    custom = manifest.custom if isinstance(manifest.custom, dict) else {}
    return manifest.length, manifest.hashes, custom.get("digest"), custom.get("tree_digest")


def refuse_case_clashes(names: Iterable[str], kind: str) -> None:
    """Raise Refused if two of `names` differ in case only."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise Refused(
                f"differs only in case from the {kind} {other}", place=name, hint=f"write {other}, or another name"
            )


def _check_delegations(place: str, targets: Targets) -> None:
    delegations = targets.delegations
    if delegations is None or delegations.roles is None:
        raise _unknown(place)
    roles = delegations.roles
    _require(place, known=all(isinstance(name, str) for name in roles))
    _require(place, known=not (targets.targets or targets.unrecognized_fields or delegations.unrecognized_fields))
    projects = [name.removeprefix(LINE_PREFIX) for name in roles if is_line(name)]
    refuse_case_clashes(projects, "project")
    expected: list[DelegatedRole] = []
    for project in projects:
        check_project(project)
        expected += entries.delegations(project)
    _require(place, known=list(roles) == [role.name for role in expected])
    for role in expected:
        found = roles[role.name]
        role.keyids, role.threshold = found.keyids, found.threshold
        _require(place, known=role == found)
    _check_keys(place, delegations.keys, roles.values())


def _check_keys(place: str, keys: Mapping[str, Key], roles: Collection[Role]) -> None:
    """That every key has the id that follows from it is what makes an id all that people need to be shown."""
    _require(place, known=all(isinstance(role.keyids, list) and not role.unrecognized_fields for role in roles))
    _require(place, known=set(keys) == {keyid for role in roles for keyid in role.keyids})
    for key in keys.values():
        encode_public(key)
        _require(place, known=not key.unrecognized_fields)
    for role in roles:
        check_threshold(place, role)


def _roles(targets: Targets) -> Collection[str]:
    return (targets.delegations.roles or ()) if targets.delegations is not None else ()


def _require(place: str, *, known: bool) -> None:
    if not known:
        raise _unknown(place)


def _unknown(place: str) -> Refused:
    hint = "do not sign it; or install the pacball with which it was made"
    return Refused("has parts that this pacball would not write, and cannot describe", place=place, hint=hint)
