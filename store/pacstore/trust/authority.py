"""Who must sign what: the keys and thresholds that a root and the targets metadata say of every role."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuf.api.metadata import Metadata, Role, Root, Snapshot, Targets, Timestamp

from pacstore.errors import Refused, printable
from pacstore.trust.metadata import LINE_PREFIX, PLACEMENT_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable

    from securesystemslib.signer import Key, Signer

TOP_ROLES = (Root.type, Targets.type, Snapshot.type, Timestamp.type)
ONLINE = "online"
"""The name under which people speak of snapshot, timestamp and all placements together: they have the same keys."""


def is_online(role: str) -> bool:
    """Whether the origin's online key signs this role."""
    return role in (Snapshot.type, Timestamp.type) or role.startswith(PLACEMENT_PREFIX)


def is_line(role: str) -> bool:
    """Whether the role is that of a line."""
    return role.startswith(LINE_PREFIX)


@dataclass(frozen=True)
class Authority:
    """The delegations in force: `root` says who signs the four top-level roles, `targets` who signs lines and placements."""

    root: Root
    targets: Targets

    def role(self, name: str) -> Role | None:
        """Key ids and threshold of a role; None if nobody delegates to it."""
        if name in TOP_ROLES:
            return self.root.roles[name]
        delegations = self.targets.delegations
        return delegations.roles.get(name) if delegations is not None and delegations.roles is not None else None

    def required(self, name: str) -> Role:
        """Like `role`, but raises Refused for a role that there is not."""
        found = self.role(name)
        if found is None:
            hint = "see: pacball trust status"
            raise Refused("is no role of this catalog", place=printable(name[:200]), hint=hint)
        return found

    def roles(self) -> list[str]:
        """Every role: the top-level ones, then the delegated ones in their order."""
        delegations = self.targets.delegations
        return [*TOP_ROLES, *(delegations.roles if delegations is not None and delegations.roles is not None else ())]

    def keys(self) -> dict[str, Key]:
        """Every key that some role trusts, by its id."""
        delegations = self.targets.delegations
        return {**(delegations.keys if delegations is not None else {}), **self.root.keys}

    def keyids(self, name: str) -> set[str]:
        """The ids of the keys that may sign a role; none if there is no such role."""
        found = self.role(name)
        return set(found.keyids) if found is not None else set()

    def online_keyids(self) -> set[str]:
        """The ids of all keys that may sign some role of the origin's."""
        return {keyid for role in self.roles() if is_online(role) for keyid in self.keyids(role)}

    def is_one_online(self) -> bool:
        """Whether all roles of the origin's have the same keys and threshold, so that who signs one can sign all."""
        return len({self.terms(role) for role in self.roles() if is_online(role)}) == 1

    def terms(self, name: str) -> tuple[frozenset[str], int] | None:
        """Key ids and threshold of a role, to be compared; None if there is no such role."""
        found = self.role(name)
        return (frozenset(found.keyids), found.threshold) if found is not None else None

    def missing(self, name: str, metadata: Metadata[Any]) -> int:
        """How many good signatures the role's metadata still lacks. Raises Refused for a role that there is not."""
        return max(0, self.required(name).threshold - len(self.signed_by(name, metadata)))

    def signed_by(self, name: str, metadata: Metadata[Any]) -> list[str]:
        """The ids of the role's keys that have signed, sorted; none if there is no such role."""
        if self.role(name) is None:
            return []
        delegator: Root | Targets = self.root if name in TOP_ROLES else self.targets
        return sorted(delegator.get_verification_result(name, metadata.signed_bytes, metadata.signatures).signed)

    def can_sign(self, name: str, signers: Iterable[Signer]) -> bool:
        """Whether these are enough for a role that there is."""
        role = self.required(name)
        return len({signer.public_key.keyid for signer in signers} & set(role.keyids)) >= role.threshold


def missing_signatures(name: str, metadata: Metadata[Any], before: Authority | None, after: Authority) -> int:
    """How many signatures a role's new metadata lacks: a root needs those of the root before it too."""
    authorities = [after, before] if name == Root.type and before is not None else [after]
    return max(authority.missing(name, metadata) for authority in authorities)
