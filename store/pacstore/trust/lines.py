"""What a line's managers do to its releases: add, withdraw, attach a provenance, say how long they are kept.

Like `ceremony`, these edit a draft; adding is all that needs no look at what waits for signatures already.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from tuf.api.metadata import Targets, Timestamp

from pacstore.errors import Corrupt, NotFound, Refused
from pacstore.release import Release
from pacstore.trust import entries
from pacstore.trust.ceremony import projects
from pacstore.trust.form import refuse_case_clashes
from pacstore.trust.metadata import RETAIN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tuf.api.metadata import TargetFile

    from pacstore.trust.draft import Draft
    from pacstore.trust.keyring import KeyRing
    from pacstore.trust.retention import Retain
    from pacstore.trust.targets import CatalogRelease, SignedDocument, Withdrawal


def known_release(draft: Draft, name: Release, *, waiting: bool) -> CatalogRelease | None:
    """A release as the catalog has it, or, with `waiting`, as it will have it once what waits is committed. Raises Corrupt."""
    role = entries.line_role(name.project)
    if waiting:
        if name.project not in projects(draft):
            return None
        return entries.decode(name, draft.look(role).targets, _placements(draft, name.project))
    return draft.head.release(name) if draft.head.listed(role) else None


def waiting_releases(draft: Draft, project: str) -> list[CatalogRelease]:
    """The releases of a line as they will be once what waits of it is committed; none if nothing of it waits. Raises Corrupt."""
    role = entries.line_role(project)
    if role not in draft.pending.roles:
        return []
    return list(entries.decode_all(project, draft.look(role).targets, _placements(draft, project)))


def named_anew(draft: Draft) -> Iterator[tuple[CatalogRelease, CatalogRelease | None]]:
    """The waiting releases of whose documents the catalog would name others than now, with what it has of them, or None.

    Raises Corrupt.
    """
    for project in projects(draft):
        for entry in waiting_releases(draft, project):
            known = known_release(draft, entry.release, waiting=False)
            if known is None or known.documents() != entry.documents():
                yield entry, known


def add_release(draft: Draft, entry: CatalogRelease, *, beside_pending: bool) -> bool:
    """Add a release to its line, which exists; False if it is there, or waits, with the same tree. Raises Refused."""
    name = entry.release
    existing = known_release(draft, name, waiting=False)
    waiting = known_release(draft, name, waiting=True)
    for other in (existing, waiting):
        if other is not None:
            refuse_other_tree(other, entry)
    # One that waits can be committed now, as far as it is just what was to be added: nobody here has seen the other.
    if existing is not None or (waiting is not None and not (beside_pending and _is_same(waiting, entry))):
        return False
    role = entries.line_role(name.project)
    refuse_case_clashes(map(str, [*release_names(draft, name.project), name]), "release")
    line: Targets = draft.edit(role, beside_pending=beside_pending)
    try:
        line.targets |= {target.path: target for target in entries.encode_line(entry)}
        target = entries.encode_placement(entry)
        faithful = entries.decode(name, line.targets, {target.path: target}) == entry
    except (ValueError, OverflowError, OSError, Corrupt):
        faithful = False
    # What could not be read back must not be signed.
    if not faithful:
        raise Refused("has values that a catalog cannot carry", place=str(name))
    draft.placements[target.path] = target
    return True


def require_keys(draft: Draft, project: str, ring: KeyRing, *, sign_later: bool) -> None:
    """Raise Refused or NotFound unless the keys are here that are needed to add a release, or to begin its line."""
    role = entries.line_role(project)
    if project not in projects(draft):
        if not ring.signers(draft.after.keyids(Targets.type)):
            hint = "the holders of the targets keys begin it with: pacball trust add-line"
            raise Refused("there is no such line", place=project, hint=hint)
    elif not sign_later and not ring.signers(draft.before.keyids(role) | draft.after.keyids(role)):
        hint = f"{ring.directory} has none: name another: --keys DIR; or let its manager sign later: --sign-later"
        raise NotFound("no key of this line is here", place=role, hint=hint)


def can_commit(draft: Draft, project: str, ring: KeyRing) -> bool:
    """Whether a change of this line alone can be committed with these keys, as those in force, beside what waits."""
    role = entries.line_role(project)
    if not draft.head.listed(role) or draft.pending.above:
        return False
    names = (role, Timestamp.type, entries.placement_role(project))
    return all(draft.before.can_sign(name, ring.signers(draft.before.keyids(name))) for name in names)


def release_names(draft: Draft, project: str) -> list[Release]:
    """The releases of a line, those that wait included."""
    role = entries.line_role(project)
    lines = [draft.look(role)] + ([draft.head.delegated(role)] if draft.head.listed(role) else [])
    return sorted({name for line in lines for name in _names(line)})


def replace_placement(draft: Draft, name: Release, placement: SignedDocument, number: int) -> bool:
    """Bind a release to a later placement. Raises Refused."""
    existing = draft.head.release(name)
    if existing is None:
        raise Refused("is not in the catalog", place=str(name))
    if (existing.placement, existing.placement_number) == (placement, number):
        return False
    if number <= existing.placement_number:
        message = f"has placement {existing.placement_number} already; a new one needs a higher number than that"
        raise Refused(message, place=str(name))
    target = entries.encode_placement(dataclasses.replace(existing, placement=placement, placement_number=number))
    draft.edit_placements(name.project).targets[target.path] = target
    return True


def withdraw(draft: Draft, name: Release, withdrawal: Withdrawal) -> bool:
    """Mark a release as withdrawn. Raises Refused for an unknown one, or a replacement that is no good."""
    entry = _existing(draft, name)
    other = withdrawal.replaced_by
    if other is not None:
        replacement = known_release(draft, other, waiting=True)
        if other == name or replacement is None or replacement.withdrawal is not None:
            raise Refused("cannot replace it: it is not in the catalog, or withdrawn itself", place=str(other))
    if entry.withdrawal is not None and (entry.withdrawal.reason, entry.withdrawal.replaced_by) == (
        withdrawal.reason,
        other,
    ):
        return False
    return _put(draft, dataclasses.replace(entry, withdrawal=withdrawal))


def attach(draft: Draft, name: Release, provenance: SignedDocument) -> bool:
    """Attach a provenance to a release, or replace the one it has. Raises Refused for an unknown release."""
    entry = _existing(draft, name)
    return entry.provenance != provenance and _put(draft, dataclasses.replace(entry, provenance=provenance))


def keep(draft: Draft, project: str, retain: Retain | None) -> bool:
    """Say how long the releases of a line are kept; None: for ever. Raises Refused for an unknown line."""
    if project not in projects(draft):
        raise Refused("has no line in this catalog", place=project, hint="see: pacball trust status")
    role = entries.line_role(project)
    wanted = retain.to_fields() if retain is not None else None
    if draft.look(role).unrecognized_fields.get(RETAIN) == wanted:
        return False
    fields = draft.edit(role).unrecognized_fields
    if wanted is None:
        fields.pop(RETAIN, None)
    else:
        fields[RETAIN] = wanted
    return True


def refuse_other_tree(existing: CatalogRelease, entry: CatalogRelease) -> None:
    """Raise Refused unless both are the same tree: a name is bound to one for ever."""
    if existing.tree_digest != entry.tree_digest:
        message = f"is bound for ever to the tree {existing.tree_digest}, this one is {entry.tree_digest}"
        raise Refused(message, place=str(entry.release), hint="publish it under a new version")


def _names(line: Targets) -> list[Release]:
    return [Release.parse(path.split("/")[2]) for path in line.targets if path.endswith("/manifest")]


def _is_same(one: CatalogRelease, other: CatalogRelease) -> bool:
    return dataclasses.replace(one, published=other.published) == other


def _existing(draft: Draft, name: Release) -> CatalogRelease:
    entry = known_release(draft, name, waiting=True)
    if entry is None:
        raise Refused("is not in the catalog", place=str(name), hint="see: pacball list --from STORE")
    return entry


def _put(draft: Draft, entry: CatalogRelease) -> bool:
    line: Targets = draft.edit(entries.line_role(entry.release.project))
    line.targets |= {target.path: target for target in entries.encode_line(entry)}
    return True


def _placements(draft: Draft, project: str) -> dict[str, TargetFile]:
    return {**draft.placements, **draft.head.placements(project)}
