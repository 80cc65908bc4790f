"""Saying what became of a change to a catalog and what is to be done next, and finding the keys that people name."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from paccli.output import Output, date, fields
from pacstore.errors import NotFound, PacballError, Refused, printable

if TYPE_CHECKING:
    from pacstore.trust.draft import Waiting
    from pacstore.trust.keyring import KeyRing
    from pacstore.trust.repository import Catalog, Outcome

Names = Mapping[str, str]
"""Key id -> the name under which the key is known here."""

_SHORT = 16
_LEAST = 8


def print_outcome(
    output: Output, outcome: Outcome, store: Path, ring: KeyRing, *, expires: float | None = None
) -> None:
    """What was committed in `store`, what waits for whom, and what to do next.

    `expires`, in seconds since 1970: when the first role does.
    """
    if not outcome.changed:
        output.text("nothing to change")
    for role in outcome.committed:
        output.text(f"{role}: in force")
    print_waiting(output, outcome.waiting, key_names(ring))
    if outcome.version:
        until = f"; the first of its roles expires at {date(expires)}" if expires is not None else ""
        output.text(f"the catalog has version {outcome.version}{until}")
    steps = next_steps(outcome, store)
    for step in steps:
        output.text(f"next: {step}")
    output.result({**fields(outcome), **({"expires": date(expires)} if expires is not None else {}), "next": steps})


def print_waiting(output: Output, waiting: tuple[Waiting, ...], names: Names) -> None:
    """Each role that waits, in one line."""
    others = any(one.missing for one in waiting)
    for one in waiting:
        if one.missing:
            text = f"waits for {count(one.missing, 'more signature')}, of {key_list(one.may_sign, names)}"
        else:
            text = f"signed completely; waits for {'the others' if others else 'the online key'}"
        output.text(f"{one.role} version {one.version}: {text}")


def next_steps(outcome: Outcome, store: Path) -> list[str]:
    """What people have to do now, each with its command."""
    where = shlex.quote(str(store))
    if any(one.missing for one in outcome.waiting):
        export = f"pacball trust export --store {where} -o change.json"
        return [f"{export}; the holders of these keys sign that file with: pacball trust sign change.json"]
    if outcome.waiting:
        return [
            f"where the online key is: pacball trust refresh --store {where}; a daemon that has it does so by itself"
        ]
    if outcome.version == 1 and "root" in outcome.committed:
        return [
            f"pacball trust export --root --store {where} -o root.json: the file that sites pin, which you give them"
        ]
    return []


def count(number: int, what: str) -> str:
    """`1 signature`, `2 signatures`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def key_names(ring: KeyRing) -> dict[str, str]:
    """What the keys are called whose public parts are beside those in `ring`; asks for no passphrase."""
    names = {}
    with suppress(PacballError):
        for name in ring.names():
            if ring.public_path(name).exists():
                names[ring.public(name).keyid] = name
    return names


def key_label(keyid: str, names: Names) -> str:
    """A key as people are shown it: its name where that is known here, and the first digits of its id."""
    return f"{names[keyid]} ({keyid[:_SHORT]})" if keyid in names else keyid[:_SHORT]


def key_list(keyids: Iterable[str], names: Names) -> str:
    """Several keys, those with a name first, by name."""
    ordered = sorted(keyids, key=lambda keyid: (keyid not in names, names.get(keyid, keyid)))
    return ", ".join(key_label(keyid, names) for keyid in ordered)


def name_keys(text: str, names: Names) -> str:
    """`text`, in which ids of keys are cut to their first digits, with the names of those that are known here."""
    for keyid in names:
        text = text.replace(keyid[:_SHORT], key_label(keyid, names))
    return text


def key_id(text: str, catalog: Catalog, ring: KeyRing) -> str:
    """The id of the key that `text` names: a FILE.pub, a name of `ring`, or 8 or more digits of the id of a key in use."""
    from paccli.rings import public_key  # noqa: PLC0415

    if text.endswith(".pub"):
        return str(public_key(Path(text)).keyid)
    if text in ring.names():
        return str(ring.public(text).keyid)
    known = {keyid for role in catalog.status().roles for keyid in role.keyids}
    found = sorted(keyid for keyid in known if len(text) >= _LEAST and keyid.startswith(text.lower()))
    if len(found) > 1:
        raise Refused("more than one key begins so", place=text, hint="give more digits")
    if not found:
        hint = "give its FILE.pub, or the first digits of its id: pacball trust status shows them"
        raise NotFound("is no key of this catalog", place=printable(text[:200]), hint=hint)
    return found[0]
