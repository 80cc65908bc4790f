"""Which of the proposed roles can be committed now: as many as leave a catalog in which every role has its signatures.

Of root and targets, what changes with them depends on them, so they are tried together first, then one without the other;
a line that is signed as the keys in force demand need not wait for either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from pacstore.trust import entries
from pacstore.trust.authority import Authority, is_line, missing_signatures
from pacstore.trust.metadata import LINE_PREFIX, at

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from securesystemslib.signer import Signer

    from pacstore.trust.chain import Head
    from pacstore.trust.keyring import KeyRing

_CORES = ((Root.type, Targets.type), (Root.type,), (Targets.type,), ())


@dataclass(frozen=True)
class Choice:
    """The `roles` to commit, who must sign what afterwards, and the origin's keys that are here."""

    roles: frozenset[str]
    authority: Authority
    online: Sequence[Signer]


class Chooser:
    """Chooses from `proposed`, on top of `head`, where `before` says who must sign; with `at_once` all of it or nothing."""

    def __init__(
        self, head: Head, before: Authority, proposed: Mapping[str, Metadata[Any]], *, now: float, at_once: bool
    ) -> None:
        self._head = head
        self._before = before
        self._proposed = proposed
        self._now = now
        self._at_once = at_once

    def choose(self, ring: KeyRing) -> Choice:
        """The most that can be committed with the origin's keys in `ring`."""
        for roles, after in self._candidates():
            online = ring.signers(self._before.online_keyids() | after.online_keyids())
            if all(after.can_sign(role, online) for role in self._online(roles, after)):
                return Choice(roles, after, online)
        return Choice(frozenset(), self._before, ring.signers(self._before.online_keyids()))

    def _candidates(self) -> Iterator[tuple[frozenset[str], Authority]]:
        for core in _CORES:
            whole = [role for role in core if role in self._proposed]
            after = self._authority(whole)
            lines = [r for r in self._proposed if is_line(r) and after.role(r) is not None]
            roles = frozenset(whole) | {role for role in lines if self._is_complete(role, after)}
            if roles and all(self._is_complete(role, after) for role in whole) and self._stands(roles, after):
                yield roles, after

    def _authority(self, chosen: Sequence[str]) -> Authority:
        new = {role: self._proposed[role].signed for role in chosen}
        return Authority(new.get(Root.type, self._before.root), new.get(Targets.type, self._before.targets))

    def _is_complete(self, role: str, after: Authority) -> bool:
        """Signed, and not out of date already: readers would refuse it."""
        metadata = self._proposed[role]
        before = self._before if self._before.root.version else None
        return metadata.signed.expires > at(self._now) and not missing_signatures(role, metadata, before, after)

    def _stands(self, roles: frozenset[str], after: Authority) -> bool:
        """Whether nothing else would lack signatures, or be missing, with `roles` in force."""
        if self._at_once and len(roles) < len(self._proposed):
            return False
        if not self._before.root.version and Root.type not in roles:
            return False
        if not after.is_one_online() and self._before.is_one_online():
            return False
        if Targets.type in roles and Root.type in self._proposed and Root.type not in roles:
            # Else a root that gives targets other keys would wait for ever for a targets that they have signed.
            waiting = Authority(self._proposed[Root.type].signed, after.targets)
            if waiting.missing(Targets.type, self._proposed[Targets.type]):
                return False
        others = [role for role in after.roles() if is_line(role) and self._before.terms(role) != after.terms(role)]
        if Root.type in roles or not self._head.listed(Targets.type):
            others.append(Targets.type)
        return all(self._is_good(role, after) for role in others if role not in roles)

    def _is_good(self, role: str, after: Authority) -> bool:
        """Whether what is committed of a role is signed as `after` demands."""
        if not self._head.listed(role):
            return False
        return not after.missing(role, self._head.envelope(role))

    def _online(self, roles: frozenset[str], after: Authority) -> set[str]:
        """The roles of the origin's that are signed anew with `roles`."""
        new = {entries.placement_role(role.removeprefix(LINE_PREFIX)) for role in roles if is_line(role)}
        placements = {role for role in after.roles() if role.startswith(entries.placement_role(""))}
        changed = {role for role in placements if self._at_once or self._before.terms(role) != after.terms(role)}
        return {Snapshot.type, Timestamp.type} | new | changed
