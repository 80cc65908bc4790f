"""What there is to know of a catalog without changing it: of a store, of a source, or of a file that travels to signers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuf.api.metadata import Metadata, Root

from paccli.outcomes import Names, count, key_label, key_list, key_names, name_keys, print_waiting
from paccli.output import Output, date, fields
from paccli.signatures import compare_first, explain, pinned_root, read_change
from pacstore.durable import wrapped
from pacstore.trust.authority import TOP_ROLES, Authority
from pacstore.trust.metadata import METADATA_LIMITS
from pacstore.trust.pins import check_root, fingerprint
from pacstore.trust.proposals import authority_after, check_context, lacks
from pacstore.trust.warnings import expiry_warnings

if TYPE_CHECKING:
    from paccli.options import TrustOptions
    from pacstore.trust.change import Change
    from pacstore.trust.keyring import KeyRing
    from pacstore.trust.status import CatalogStatus


def print_status(status: CatalogStatus, ring: KeyRing, output: Output) -> list[str]:
    """The catalog's roles and what waits; returns the warnings."""
    names = key_names(ring)
    if not status.version:
        output.text("this catalog waits for its first signatures")
    else:
        age = f", signed {date(status.signed_at)}" if status.signed_at is not None else ""
        output.text(f"catalog version {status.version}, root version {status.root_version}{age}")
    for role in status.roles:
        keys = f"{role.threshold} of {key_list(role.keyids, names)}"
        output.text(f"{role.role}: version {role.version}, expires {date(role.expires)}, {keys}")
    print_waiting(output, status.waiting, names)
    for name in status.releases_waiting:
        output.text(f"{name}: waits to be in the catalog")
    expires = {role.role: role.expires for role in status.roles}
    return _warn(expires, fields(status), output, signed_at=status.signed_at)


def print_source(source: Sequence[str] | None, trust: TrustOptions, output: Output) -> list[str]:
    """What an installer sees of a source's catalog; returns the warnings."""
    from paccli.sources import opening  # noqa: PLC0415

    with opening(source, trust, output) as opened:
        catalog = opened.catalog
        expires = catalog.expiries()
        values = {
            "version": catalog.version,
            "root_version": catalog.root_version,
            "root": fingerprint(opened.root),
            "signed_at": catalog.signed_at,
            "expires": {role: date(at) for role, at in expires.items()},
            "projects": catalog.projects(),
        }
    signed = f", signed {date(catalog.signed_at)}" if catalog.signed_at is not None else ""
    output.text(f"catalog version {values['version']}, root version {values['root_version']}{signed}")
    output.text(f"trusted is the root with the fingerprint {values['root']}")
    for role, at in expires.items():
        output.text(f"{role}: expires {date(at)}")
    return _warn(expires, values, output, signed_at=catalog.signed_at)


def print_file(path: Path, ring: KeyRing, root_keys: Path | None, output: Output) -> None:
    """What a change file would do and lacks, or what a root.json says; neither is signed, or changed.

    Raises what reading it does; Refused for a file that is neither.
    """
    root = _read_root(path)
    if root is not None:
        return _print_root(path, root, key_names(ring), output)
    change = read_change(path)
    pinned = pinned_root(ring, root_keys)
    before = check_context(change, pinned)
    compare_first(change, ring, pinned, output)
    described = explain(change, before)
    missing, after = lacks(change, before), authority_after(change, before)
    names = key_names(ring)
    signed = {role: _signers(role, change, before, after) for role in change.roles}
    for role, lines in described.items():
        output.text(f"{role} version {change.roles[role].metadata.signed.version}:")
        for line in lines:
            output.text(f"  {name_keys(line, names)}")
        by = f"signed by {key_list(signed[role], names)}" if signed[role] else "signed by nobody"
        lack = f"lacks {count(missing[role], 'more signature')}" if missing[role] else "complete"
        output.text(f"  {by}; {lack}")
    return output.result({"file": str(path), "changes": described, "signed": signed, "missing": missing})


def _signers(role: str, change: Change, before: Authority | None, after: Authority) -> list[str]:
    """The ids of the keys whose good signatures a role has, of those that may sign it."""
    metadata = change.roles[role].metadata
    found = set(after.signed_by(role, metadata))
    if before is not None and role == Root.type:
        found |= set(before.signed_by(role, metadata))
    return sorted(found)


def _read_root(path: Path) -> bytes | None:
    """The bytes of the file, if they are TUF metadata; those of a root are all that can be shown. Raises Refused for others."""
    with wrapped(path), open(path, "rb") as file:
        data = file.read(METADATA_LIMITS.root_bytes + 1)
    try:
        Metadata.from_bytes(data)
    except Exception:  # noqa: BLE001 - whatever it is, it is no metadata; a change file will say what is wrong with it
        return None
    return check_root(data, place=str(path))


def _print_root(path: Path, data: bytes, names: Names, output: Output) -> None:
    metadata: Metadata[Any] = Metadata.from_bytes(data)
    root: Root = metadata.signed
    signed = sorted(root.get_verification_result(Root.type, metadata.signed_bytes, metadata.signatures).signed)
    output.text(f"{path}: a root, version {root.version}, expires {date(root.expires.timestamp())}")
    output.text(f"its fingerprint: {fingerprint(data)}")
    for name in TOP_ROLES:
        role = root.roles[name]
        output.text(f"{name}: {role.threshold} of {key_list(role.keyids, names)}")
    output.text(f"signed by {', '.join(key_label(keyid, names) for keyid in signed)}")
    roles = {
        name: {"keys": sorted(root.roles[name].keyids), "threshold": root.roles[name].threshold} for name in TOP_ROLES
    }
    output.result(
        {"file": str(path), "fingerprint": fingerprint(data), "version": root.version, "roles": roles, "signed": signed}
    )


def _warn(
    expires: dict[str, float], values: dict[str, object], output: Output, *, signed_at: float | None
) -> list[str]:
    warnings = expiry_warnings(expires, now=time.time(), signed_at=signed_at)
    for warning in warnings:
        output.text(f"WARNING: {warning}")
    output.result({**values, "warnings": warnings})
    return warnings
