"""What a change does, in words for whoever is to sign it: against what it is based on, which must have been verified.

Nothing is left out, whatever its length: who signs answers for all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tuf.api.metadata import Root, Targets

from pacstore.errors import printable
from pacstore.trust.authority import TOP_ROLES, Authority
from pacstore.trust.metadata import LINE_PREFIX, RETAIN
from pacstore.trust.proposals import authority_after

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tuf.api.metadata import TargetFile

    from pacstore.trust.change import Change

_WITHDRAWN = "withdrawn"
_USUAL = {"digest", "tree_digest", "files", "bytes", "published"}


def describe(change: Change, before: Authority | None) -> dict[str, list[str]]:
    """For each role of `change`, what it changes; `before` is what `check_context` gave. Never empty."""
    after = authority_after(change, before)
    found: dict[str, list[str]] = {}
    for role, proposed in sorted(change.roles.items()):
        signed = proposed.metadata.signed
        if role in (Root.type, Targets.type):
            lines = list(_delegations(role, before, after))
        else:
            context = change.context.lines.get(role) if change.context is not None else None
            lines = list(_line(role.removeprefix(LINE_PREFIX), context.signed if context is not None else None, signed))
        if signed.version != proposed.base + 1:
            lines.append(f"goes from version {proposed.base} to {signed.version}")
        lines.append(f"expires {signed.expires:%Y-%m-%d}")
        found[role] = lines
    return found


def _delegations(role: str, before: Authority | None, after: Authority) -> Iterator[str]:
    """What changes in who signs what, as far as `role` says it; of the form that `form.check_form` demands."""
    names = TOP_ROLES if role == Root.type else [r for r in after.roles() if r not in TOP_ROLES]
    for name in names:
        old, new = (before.role(name) if before is not None else None), after.required(name)
        if old is None:
            yield f"{printable(name)}: {new.threshold} of the keys {_keys(new.keyids)}"
            continue
        added, removed = set(new.keyids) - set(old.keyids), set(old.keyids) - set(new.keyids)
        if added:
            yield f"{name}: adds the keys {_keys(added)}"
        if removed:
            yield f"{name}: removes the keys {_keys(removed)}"
        if old.threshold != new.threshold:
            yield f"{name}: needs {new.threshold} signatures, {old.threshold} until now"
    if role == Targets.type and before is not None:
        for name in before.roles():
            if after.role(name) is None:
                yield f"{name}: REMOVED, with all that it signs"


def _line(project: str, before: Targets | None, line: Targets) -> Iterator[str]:
    """What changes in a line."""
    old: dict[str, TargetFile] = before.targets if before is not None else {}
    new = line.targets
    for path in sorted(old.keys() - new.keys()):
        yield f"REMOVES {printable(path)}, whose name would no longer be bound"
    for path in sorted(old.keys() & new.keys()):
        yield from _changed(project, old[path], new[path])
    for path in sorted(new.keys() - old.keys()):
        yield from _added(project, new[path], new.keys() - old.keys())
    yield from _fields(before.unrecognized_fields if before is not None else {}, line.unrecognized_fields)
    if line.delegations is not None:
        yield "DELEGATES to other roles"


def _fields(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            said = "for ever" if key == RETAIN and key not in new else _text(new.get(key))
            yield f"keeps its releases: {said}" if key == RETAIN else f"says {printable(key)}: {said}"


def _added(project: str, target: TargetFile, added: Iterable[str]) -> Iterator[str]:
    """A release in one line: its attributes and placement go without saying."""
    name, kind = _name(project, target.path)
    custom = _custom(target)
    if kind == "manifest":
        tree, files, size, published = (
            _text(custom.get(key)) for key in ("tree_digest", "files", "bytes", "published")
        )
        yield f"adds {name}: tree {tree}, published {published}, {files} files, {size} bytes"
        yield from _withdrawal(name, custom)
    elif kind != "attributes" or f"{target.path.rpartition('/')[0]}/manifest" not in added:
        yield f"adds {kind} to {name}" if kind else f"adds {name}"
    for key in sorted(custom.keys() - _USUAL - {_WITHDRAWN}):
        yield f"says {printable(key)} of {name}: {_text(custom[key])}"


def _changed(project: str, old: TargetFile, new: TargetFile) -> Iterator[str]:
    name, kind = _name(project, new.path)
    before, after = _custom(old), _custom(new)
    documents = [(one.hashes, one.length, said.get("digest")) for one, said in ((old, before), (new, after))]
    if documents[0] != documents[1]:
        yield f"REPLACES the {kind} of {name}" if kind else f"REPLACES {name}"
    for key in sorted((before.keys() | after.keys()) - {"digest"}):
        if before.get(key) == after.get(key):
            continue
        if key == _WITHDRAWN:
            yield from _withdrawal(name, after) if key in after else [f"TAKES BACK the withdrawal of {name}"]
        else:
            yield f"CHANGES {printable(key)} of {name} from {_text(before.get(key))} to {_text(after.get(key))}"


def _withdrawal(name: str, custom: dict[str, Any]) -> Iterator[str]:
    withdrawn = custom.get(_WITHDRAWN)
    if not isinstance(withdrawn, dict):
        if withdrawn is not None:
            yield f"withdraws {name}: {_text(withdrawn)}"
        return
    other = withdrawn.get("replaced_by")
    instead = f", to be replaced by {_text(other)}" if other else ""
    yield f"withdraws {name}: {_text(withdrawn.get('reason'))}{instead}"
    for key in sorted(withdrawn.keys() - {"reason", "replaced_by"}):
        yield f"says {printable(key)} of the withdrawal of {name}: {_text(withdrawn[key])}"


def _name(project: str, path: str) -> tuple[str, str]:
    """The release and the kind of document that a target is; of what is neither, the path and an empty kind."""
    parts = path.split("/")
    if len(parts) == 4 and parts[:2] == ["releases", project]:
        return printable(parts[2]), printable(parts[3])
    return printable(path), ""


def _custom(target: TargetFile) -> dict[str, Any]:
    """All that a target says of its document."""
    said = dict(target.unrecognized_fields)
    custom = said.pop("custom", {})
    return {**said, **custom} if isinstance(custom, dict) else {**said, "custom": custom}


def _text(value: object) -> str:
    return printable(str(value))


def _keys(keyids: Iterable[str]) -> str:
    return ", ".join(keyid[:16] for keyid in sorted(keyids))
