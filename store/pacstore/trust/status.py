"""What there is to know of a catalog's trust: every role, its keys and expiry, and what waits for whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from pacstore.trust.clock import signed_at

if TYPE_CHECKING:
    from pacstore.trust.draft import Draft, Waiting


@dataclass(frozen=True)
class RoleStatus:
    """A committed role: `expires` in seconds since 1970, UTC; the ids of its keys and how many of them must sign."""

    role: str
    version: int
    expires: float
    threshold: int
    keyids: tuple[str, ...]


@dataclass(frozen=True)
class CatalogStatus:
    """`version` 0: the catalog waits for its first signatures. `signed_at`: when its timestamp was signed, if that is known."""

    version: int
    root_version: int
    signed_at: float | None
    roles: tuple[RoleStatus, ...]
    waiting: tuple[Waiting, ...]
    releases_waiting: tuple[str, ...]


def status_of(draft: Draft) -> CatalogStatus:
    """The status of the state that `draft` starts from."""
    head, authority = draft.head, draft.before
    tops = {
        Root.type: head.root,
        Targets.type: head.targets,
        Snapshot.type: head.snapshot,
        Timestamp.type: head.timestamp,
    }
    roles = []
    for name in authority.roles() if head.timestamp.version else ():
        signed = tops[name] if name in tops else head.delegated(name)
        trusted = authority.required(name)
        roles.append(
            RoleStatus(
                name, signed.version, signed.expires.timestamp(), trusted.threshold, tuple(sorted(trusted.keyids))
            )
        )
    releases = sorted(path.split("/")[2] for path in draft.pending.placements)
    return CatalogStatus(
        version=head.timestamp.version,
        root_version=authority.root.version,
        signed_at=signed_at(head.timestamp),
        roles=tuple(roles),
        waiting=draft.waiting(),
        releases_waiting=tuple(releases),
    )
