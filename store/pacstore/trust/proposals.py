"""Signing away from the store: a change goes out with what it is based on, is looked at, signed, and taken in again.

A change file comes through many hands. The signer's side believes only what leads from the root that is known there, and the
store takes in only what its keys have signed, what readers can read, and what takes nothing away (`pacstore.trust.form`).
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Targets

from pacstore.errors import Refused, Untrusted
from pacstore.trust import chain
from pacstore.trust.authority import Authority, is_line, missing_signatures
from pacstore.trust.change import Change, Context, Proposed, placement_of, same_content
from pacstore.trust.commit import VERSION_ATTEMPTS, encode, sign_with
from pacstore.trust.form import check_form, check_growth, check_line
from pacstore.trust.metadata import COMPACT, LINE_PREFIX, METADATA_LIMITS, file_name, verify_root

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pacstore.trust.draft import Draft
    from pacstore.trust.keyring import KeyRing

_ORDER = (Root.type, Targets.type)
_MAKE = "make it with: pacball trust export"
_AGAIN = "export it and sign it again: pacball trust export"


class Outdated(Refused):
    """The catalog has gone past what a proposal is based on: the same is to be proposed on top of what it is now."""


def export(draft: Draft) -> Change:
    """What waits in `draft`, on which nothing was edited, with its context."""
    head = draft.head
    lines = {role: head.envelope(role) for role in draft.pending.roles if is_line(role) and head.listed(role)}
    roots = [] if draft.is_founding else head.roots
    return Change(
        draft.pending.roles, draft.pending.placements, draft.pending.above, Context(roots, head.targets_metadata, lines)
    )


def accept(draft: Draft, change: Change) -> bool:
    """Take `change` into what waits: signatures for what waits already, or proposals on top of what is committed.

    A proposal for a line may also stand on top of what waits, if it has all of that: then it waits in its place.
    Signatures that do not verify are left out. Raises Refused for what the catalog has gone past meanwhile, for proposals that
    none of the role's keys has signed, and for those that would do harm.
    """
    changed = False
    for role, proposed in sorted(change.roles.items(), key=lambda item: (item[0] not in _ORDER, item[0])):
        present = draft.pending.roles.get(role)
        if present is not None and same_content(present.metadata, proposed.metadata):
            known = good_signatures(role, present.metadata, draft.before, draft.after)
            fresh = good_signatures(role, proposed.metadata, draft.before, draft.after)
            present.metadata.signatures = {**fresh, **known}
            changed |= not fresh.keys() <= known.keys()
        elif proposed.base == draft.base(role) and (present is None or _includes(role, proposed, present)):
            _propose(draft, role, proposed, change)
            changed = True
        elif not _was_committed(draft, role, proposed):
            raise Outdated("has been changed by others meanwhile", place=role, hint=_AGAIN)
    return changed


def check_context(change: Change, pinned: bytes | None) -> Authority | None:
    """Verify what a change file says that it is based on, starting from the `pinned` root if there is one.

    Returns who had to sign before it; None for a catalog that begins with it. Raises Untrusted; Refused for a change that
    cannot be described, or would take something away that is bound for ever.
    """
    context = change.context
    if context is None:
        raise Untrusted("this change file lacks what it is based on", hint=_MAKE)
    if not context.roots and (Root.type not in change.roles or pinned is not None):
        raise Untrusted("this change file has no root", hint=_MAKE)
    for role, proposed in change.roles.items():
        check_form(role, proposed.metadata.signed)
    try:
        before = _verified(context, pinned) if context.roots else None
    except (RepositoryError, ValueError) as error:
        message = f"what this change is based on does not verify: {error}"
        raise Untrusted(message, hint="get the file anew, or find out who has changed it") from error
    after = authority_after(change, before)
    for role, proposed in change.roles.items():
        after.required(role)
        base = _base(role, context)
        if proposed.base != (base.version if base is not None else 0):
            raise Untrusted("this change file has not what it is based on", place=role, hint=_MAKE)
        if isinstance(base, Targets):
            check_growth(role, base, proposed.metadata.signed)
    return before


def sign_change(
    change: Change, ring: KeyRing, before: Authority | None, roles: Collection[str] = ()
) -> dict[str, list[str]]:
    """Add the signatures of the keys in `ring` to what they may sign, or only to `roles`; the new signers' key ids by role.

    What is there and is no good signature of a key that may sign goes.
    """
    after = authority_after(change, before)
    signed: dict[str, list[str]] = {}
    for role, proposed in change.roles.items():
        authorities = [after] if before is None else [after, before]
        proposed.metadata.signatures = good_signatures(role, proposed.metadata, *authorities)
        if roles and role not in roles:
            continue
        trusted = {keyid for authority in authorities for keyid in authority.keyids(role)}
        signers = ring.signers(trusted - set(proposed.metadata.signatures))
        sign_with(role, proposed.metadata, signers)
        if signers:
            signed[role] = sorted(signer.public_key.keyid for signer in signers)
    return signed


def authority_after(change: Change, before: Authority | None) -> Authority:
    """Who must sign once `change` is committed. Raises Untrusted for a beginning without root and targets."""
    root, targets = change.roles.get(Root.type), change.roles.get(Targets.type)
    if before is None:
        if root is None or targets is None:
            raise Untrusted("this change file begins a catalog, but has no root and targets", hint=_MAKE)
        return Authority(root.metadata.signed, targets.metadata.signed)
    return Authority(
        root.metadata.signed if root is not None else before.root,
        targets.metadata.signed if targets is not None else before.targets,
    )


def lacks(change: Change, before: Authority | None) -> dict[str, int]:
    """How many signatures each role of a change lacks."""
    after = authority_after(change, before)
    return {role: missing_signatures(role, one.metadata, before, after) for role, one in change.roles.items()}


def _verified(context: Context, pinned: bytes | None) -> Authority:
    previous: Root | None = None
    for root in context.roots:
        previous = verify_root(root.to_bytes(COMPACT), previous=previous)
    if pinned is not None:
        known: Metadata[Root] = Metadata.from_bytes(pinned)
        if not any(same_content(root, known) for root in context.roots):
            raise ValueError("the pinned root is not among its roots")
    assert previous is not None
    targets = context.targets
    if targets is None and not context.lines:
        # A catalog whose beginning was interrupted.
        return Authority(previous, Targets())
    if targets is None:
        raise ValueError("targets are missing")
    previous.verify_delegate(Targets.type, targets.signed_bytes, targets.signatures)
    for role, line in context.lines.items():
        targets.signed.verify_delegate(role, line.signed_bytes, line.signatures)
    return Authority(previous, targets.signed)


def _base(role: str, context: Context) -> Root | Targets | None:
    if role == Root.type:
        return context.roots[-1].signed if context.roots else None
    metadata = context.targets if role == Targets.type else context.lines.get(role)
    return metadata.signed if metadata is not None else None


def _includes(role: str, proposed: Proposed, present: Proposed) -> bool:
    """Whether the proposal for a line has everything, unchanged, that waits there."""
    if not is_line(role):
        return False
    wanted, waiting = proposed.metadata.signed, present.metadata.signed
    same = all(wanted.targets.get(path) == target for path, target in waiting.targets.items())
    return same and bool(wanted.unrecognized_fields == waiting.unrecognized_fields)


def _propose(draft: Draft, role: str, proposed: Proposed, change: Change) -> None:
    """Let a proposal wait that was made elsewhere. Raises Refused, TooLarge."""
    metadata = copy.deepcopy(proposed.metadata)
    signed = metadata.signed
    draft.pending.roles[role] = Proposed(proposed.base, metadata)
    draft.after.required(role)
    trusted = [draft.before] if role == Root.type and not draft.is_founding else [draft.before, draft.after]
    metadata.signatures = good_signatures(role, metadata, draft.before, draft.after)
    if not good_signatures(role, metadata, *trusted):
        raise Refused("is not signed by any of its keys", place=role, hint="sign it first: pacball trust sign FILE")
    if not draft.is_current(metadata):
        raise Refused("has expired before it was committed", place=role, hint="propose it anew")
    if signed.version > proposed.base + VERSION_ATTEMPTS:
        raise Refused(f"goes from version {proposed.base} to {signed.version}", place=role, hint="propose it anew")
    if _was_written(draft, role, metadata) is False:
        message = f"its version {signed.version} has been taken by somebody else's unfinished change"
        raise Outdated(message, place=role, hint="propose it anew")
    check_form(role, signed)
    if proposed.base and role != Root.type:
        check_growth(role, draft.head.committed(role), signed)
    if is_line(role):
        _take_placements(draft, role.removeprefix(LINE_PREFIX), signed, change.placements)
    encode(role, metadata)


def _take_placements(draft: Draft, project: str, line: Targets, offered: Mapping[str, Any]) -> None:
    """Those of the releases that have none yet. Raises Refused if there are not as many as readers need."""
    for path in map(placement_of, line.targets):
        if path in offered:
            draft.placements.setdefault(path, offered[path])
    check_line(project, line, {**draft.placements, **draft.head.placements(project)})


def good_signatures(role: str, metadata: Metadata[Any], *authorities: Authority) -> dict[str, Any]:
    """Those of keys that one of `authorities` lets sign the role: whatever else is there counts for nothing."""
    good = {keyid for authority in authorities for keyid in authority.signed_by(role, metadata)}
    return {keyid: signature for keyid, signature in metadata.signatures.items() if keyid in good}


def _was_committed(draft: Draft, role: str, proposed: Proposed) -> bool:
    """Whether just this is what the catalog has, or had."""
    metadata = proposed.metadata
    return metadata.signed.version <= draft.base(role) and _was_written(draft, role, metadata) is True


def _was_written(draft: Draft, role: str, metadata: Metadata[Any]) -> bool | None:
    """Whether the file of that version has just this; None if there is none."""
    name = file_name(role, metadata.signed.version)
    data = chain.read_document(draft.head.documents, name, METADATA_LIMITS.targets_bytes)
    try:
        return None if data is None else same_content(Metadata.from_bytes(data), metadata)
    except RepositoryError:
        return False
