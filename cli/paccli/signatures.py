"""Signing by people: a change is shown in words, checked against the pinned root, agreed to, and signed."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from paccli.outcomes import count, key_list, key_names, name_keys
from paccli.output import Output
from paccli.rings import ROOT_FILE
from pacstore.durable import replace_file, wrapped
from pacstore.errors import NotFound, Refused, TooLarge, printable
from pacstore.trust.authority import is_line
from pacstore.trust.change import CHANGE_BYTES, Change
from pacstore.trust.describe import describe
from pacstore.trust.metadata import COMPACT
from pacstore.trust.pins import check_root, fingerprint
from pacstore.trust.proposals import authority_after, check_context, lacks, sign_change

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pacstore.trust.authority import Authority
    from pacstore.trust.keyring import KeyRing
    from pacstore.trust.repository import Catalog
    from pacstore.trust.status import CatalogStatus


def read_change(path: Path) -> Change:
    """The change file at `path`. Raises NotFound, Unavailable, Corrupt, TooLarge, NewerFormat."""
    with wrapped(path), open(path, "rb") as file:
        data = file.read(CHANGE_BYTES + 1)
    if len(data) > CHANGE_BYTES:
        raise TooLarge("is too large for a change file", place=str(path))
    return Change.parse(data, place=str(path))


def sign_file(
    path: Path, ring: KeyRing, root_keys: Path | None, roles: Sequence[str], output: Output, *, ask: bool
) -> None:
    """Sign what is in the change file `path`, and write it back."""
    change = read_change(path)
    pinned = pinned_root(ring, root_keys)
    before = check_context(change, pinned)
    compare_first(change, ring, pinned, output)
    signed = _sign(change, ring, before, roles, output, ask=ask)
    replace_file(path, change.encode(), staging=path.absolute().parent)
    missing = lacks(change, before)
    for role, number in sorted(missing.items()):
        output.text(f"{role}: lacks {count(number, 'more signature')}" if number else f"{role}: signed completely")
    submit = f"pacball trust submit {shlex.quote(str(path))} --store STORE"
    others = "others sign the same file, or copies of it; then, " if any(missing.values()) else ""
    steps = [f"{others}at the store: {submit}"]
    output.text(f"next: {steps[0]}")
    output.result({"file": str(path), "signed": signed, "missing": missing, "next": steps})


def sign_waiting(catalog: Catalog, ring: KeyRing, roles: Sequence[str], output: Output, *, ask: bool) -> Change:
    """Sign what waits in a store. What is returned, just what was shown, is to be submitted."""
    change = catalog.export()
    before = check_context(change, None)
    _sign(change, ring, before, roles, output, ask=ask)
    return change


def own_roles(catalog: Catalog, ring: KeyRing) -> list[str]:
    """The roles that people sign, as far as `ring` has a key of them. Raises Refused if there is none."""
    roles = [
        role.role
        for role in catalog.status().roles
        if (role.role in ("root", "targets") or is_line(role.role)) and any(map(ring.has, role.keyids))
    ]
    if not roles:
        hint = "name another directory: --keys DIR; or say what others are to sign: --role ROLE"
        raise Refused("has no key of root, targets or a line", place=str(ring.directory), hint=hint)
    return roles


def wanted_keys(status: CatalogStatus, *, renew: bool) -> set[str]:
    """The ids of the keys that may sign what waits; or, to `renew`, of those that people have."""
    if not renew:
        return {keyid for one in status.waiting for keyid in one.may_sign}
    return {k for role in status.roles if role.role in ("root", "targets") or is_line(role.role) for k in role.keyids}


def pinned_root(ring: KeyRing, root_keys: Path | None) -> bytes | None:
    """The root that --root-keys names, or else the one beside the keys."""
    path = root_keys or ring.directory / ROOT_FILE
    try:
        with wrapped(path):
            return check_root(path.read_bytes(), place=str(path))
    except NotFound:
        if root_keys is not None:
            raise
        return None


def compare_first(change: Change, ring: KeyRing, pinned: bytes | None, output: Output) -> None:
    """Tell what must be compared by people, since nothing that this user has says which catalog it is."""
    if pinned is not None or change.context is None:
        return
    if not change.context.roots:
        output.note("pacball: this begins a catalog: compare every key with what its holder reads to you")
        return
    first = fingerprint(change.context.roots[0].to_bytes(COMPACT))
    where = shlex.quote(str(ring.directory / ROOT_FILE))
    output.note(
        f"pacball: no root is pinned here, so compare the fingerprint of the catalog's first root: {first}; "
        f"who has its root.json keeps it as {where}, and need not compare any more"
    )


def explain(change: Change, before: Authority | None) -> dict[str, list[str]]:
    """What each role of `change` changes, in words; also that it changes nothing."""
    found = describe(change, before)
    for role, lines in found.items():
        if len(lines) == 1:
            lines.insert(0, "nothing in it changes" if change.roles[role].base else "begins with nothing in it")
    return found


def _sign(
    change: Change, ring: KeyRing, before: Authority | None, roles: Sequence[str], output: Output, *, ask: bool
) -> dict[str, list[str]]:
    names = key_names(ring)
    _check_roles(change, roles)
    if not any(ring.has(keyid) for role in roles or change.roles for keyid in _may_sign(role, change, before)):
        hint = "name the directory with your keys: --keys DIR; who may sign says: pacball trust status"
        raise Refused("no key here may sign what waits", place=str(ring.directory), hint=hint)
    if before is None:
        output.text("a new catalog:")
    for role, lines in explain(change, before).items():
        output.text(f"{role} version {change.roles[role].metadata.signed.version}:")
        for line in lines:
            output.text(f"  {name_keys(line, names)}")
    if ask:
        _agree(output)
    signed = sign_change(change, ring, before, roles)
    for role, keyids in sorted(signed.items()):
        output.text(f"{role}: signed with {key_list(keyids, names)}")
    if not signed:
        output.text("the keys here have signed it already")
    return signed


def _check_roles(change: Change, roles: Sequence[str]) -> None:
    unknown = sorted(set(roles) - set(change.roles))
    if unknown:
        message = "does not wait for signatures"
        raise Refused(message, place=printable(unknown[0][:200]), hint=f"what waits: {', '.join(sorted(change.roles))}")


def _may_sign(role: str, change: Change, before: Authority | None) -> set[str]:
    return authority_after(change, before).keyids(role) | (before.keyids(role) if before is not None else set())


def _agree(output: Output) -> None:
    if output.as_json or not sys.stdin.isatty():
        raise Refused("nobody is there to agree to this", place="sign", hint="look at it, and then say --yes")
    if input("sign this? [y/N] ").strip().lower() not in ("y", "yes"):
        raise Refused("not signed", place="sign")
