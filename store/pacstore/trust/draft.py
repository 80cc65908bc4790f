"""A change to a catalog in the making: roles are edited, signed with the keys at hand, and committed or left to wait."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from securesystemslib.exceptions import UnverifiedSignatureError
from tuf.api.metadata import Metadata, Root, TargetFile, Targets, Timestamp

from pacstore.errors import Corrupt, NotFound, Refused, Unavailable
from pacstore.storage import DocumentKind, document_path
from pacstore.trust import chain, entries
from pacstore.trust.authority import Authority, is_line, missing_signatures
from pacstore.trust.change import Change, Proposed
from pacstore.trust.choice import Choice, Chooser
from pacstore.trust.commit import VERSION_ATTEMPTS, Commit, encode, sign_with
from pacstore.trust.form import check_growth
from pacstore.trust.metadata import Expiry, expiry_date, file_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from securesystemslib.signer import Signer

    from pacstore.trust.chain import Head
    from pacstore.trust.keyring import KeyRing
    from pacstore.trust.pending import Pending


@dataclass(frozen=True)
class Waiting:
    """A role whose new version waits: `missing` signatures (0: only the origin's countersignature), of `may_sign`; key ids.

    After `expires`, in seconds since 1970, it will not be committed any more.
    """

    role: str
    version: int
    missing: int
    signed_by: tuple[str, ...]
    may_sign: tuple[str, ...]
    expires: float


@dataclass(frozen=True)
class Finished:
    """What a draft came to: the roles that were committed, with the catalog's version now, and what waits now.

    `is_whole`: nothing that was edited is in the `rest`.
    """

    version: int
    committed: tuple[str, ...]
    rest: Change
    waiting: tuple[Waiting, ...]
    is_whole: bool


class Draft:
    """Changes to the state `head`, whose objects it changes, and to what waits already (`pending`, on top of that state).

    What it signs is valid from `now` for the days in `expiry`, and has versions above `above`. No key signs here what its holder
    has not seen: neither on top of a line that its keys have not signed, nor of what waits, unless that key has signed just that.
    """

    def __init__(self, head: Head, pending: Change, *, now: float, expiry: Expiry, above: int = 0) -> None:
        self.head = head
        self.before = Authority(copy.deepcopy(head.root), copy.deepcopy(head.targets))
        self.pending = pending
        self.placements: dict[str, TargetFile] = dict(pending.placements)
        self._now = now
        self._expiry = expiry
        self._above = max(above, pending.above)
        self._edited: dict[str, Metadata[Any]] = {}
        self._beside: set[str] = set()
        self._unseen: set[str] = set()
        self._online: set[str] = set()

    @property
    def after(self) -> Authority:
        """Who must sign what once this change, and what waits, is committed."""
        return Authority(self.look(Root.type), self.look(Targets.type))

    @property
    def is_founding(self) -> bool:
        """Whether there is no root yet."""
        return self.before.root.version == 0

    def base(self, role: str) -> int:
        """The committed version of root, targets or a line; 0 if there is none."""
        return self.before.root.version if role == Root.type else self.head.listed(role)

    def is_current(self, metadata: Metadata[Any]) -> bool:
        """Whether metadata have not expired by now."""
        return bool(metadata.signed.expires > expiry_date(self._now, 0))

    def look(self, role: str) -> Any:
        """The signed part of root, targets or a line as this change, or what waits, or the catalog has it; not to be changed."""
        if role in self._edited:
            return self._edited[role].signed
        if role in self.pending.roles:
            return self.pending.roles[role].metadata.signed
        return self.head.committed(role)

    def edit(self, role: str, *, beside_pending: bool = False) -> Any:
        """The signed part of root, targets or a line, to be changed; it will be signed anew. Raises Corrupt.

        It includes what waits for signatures, unless `beside_pending`: that goes on waiting then.
        """
        if role not in self._edited:
            proposed = None if beside_pending else self.pending.roles.get(role)
            if proposed is None:
                self._check_committed(role)
                self._edited[role] = Metadata(self.head.committed(role))
                self._beside |= {role} & self.pending.roles.keys()
            else:
                self._edited[role] = Metadata(copy.deepcopy(proposed.metadata.signed))
        return self._edited[role].signed

    def leave_unsigned(self, role: str) -> None:
        """Do not sign an edited role now: it follows from something that waits, which nobody here has seen."""
        self._unseen.add(role)

    def begin_line(self, role: str) -> None:
        """A new line's empty metadata, to be signed by the line's keys."""
        self._edited[role] = Metadata(Targets())

    def edit_placements(self, project: str) -> Targets:
        """The placements of a line, to be changed; the online key signs them at the commit."""
        role = entries.placement_role(project)
        self._online.add(role)
        return self.head.delegated(role)

    def nears_expiry(self, role: str) -> bool:
        """Whether less than half of a committed role's lifetime is left."""
        return bool(self.head.committed(role).expires < expiry_date(self._now, self._expiry.days(role) / 2))

    def prolong_placements(self, ring: KeyRing) -> None:
        """Have those placements signed anew that have lived half their time, as far as the keys are here."""
        online = ring.signers(self.before.online_keyids())
        for role in map(entries.placement_role, self.head.projects()):
            if self.nears_expiry(role) and self.before.can_sign(role, online):
                self._online.add(role)

    def waiting(self) -> tuple[Waiting, ...]:
        """What waits already."""
        return self._waiting(self.pending.roles, self.after)

    def finish(self, ring: KeyRing, pending: Pending, *, timestamp: bool = False) -> Finished | None:
        """Sign what was edited with the keys in `ring`, and commit what is complete; the caller keeps the rest in `pending`.

        None if another writer has been faster: nothing is lost then. With `timestamp` a timestamp is signed even if nothing
        else is. Raises Refused when that or changed placements lack their key, and NotFound when there is nothing to stamp yet;
        TooLarge, Unavailable.
        """
        for role in self._edited:
            self._sign(role, ring)
        edited = {role: Proposed(self.base(role), metadata) for role, metadata in self._edited.items()}
        proposed = {**self.pending.roles, **edited}
        # What was edited beside a waiting version leaves that waiting.
        kept = {**proposed, **{role: self.pending.roles[role] for role in self._beside}}
        after = self.after
        choice = self._choose(proposed, ring)
        rest = {role: one for role, one in kept.items() if role not in choice.roles - self._beside}
        pending.check(Change(rest))
        stamped = timestamp or bool(self._online)
        if stamped:
            self._require_online(choice)
        if Root.type in choice.roles and not pending.secure(Change(kept, self.placements, self._above).only(kept)):
            return None
        roles = {role: proposed[role].metadata for role in choice.roles}
        stamped = stamped or (self.head.is_halfway and choice.authority.can_sign(Timestamp.type, choice.online))
        if (roles or stamped) and not self._commit(roles, choice):
            return None
        change = Change(rest, self.placements, self._above).only(rest)
        return Finished(
            version=self.head.timestamp.version,
            committed=tuple(sorted(choice.roles)),
            rest=change,
            waiting=self._waiting(rest, after),
            is_whole=choice.roles >= self._edited.keys(),
        )

    def _choose(self, proposed: Mapping[str, Proposed], ring: KeyRing) -> Choice:
        metadata = {role: one.metadata for role, one in proposed.items()}
        chooser = Chooser(self.head, self.before, metadata, now=self._now, at_once=bool(self._above))
        choice = chooser.choose(ring)
        for role, one in metadata.items():
            if role in choice.roles and role not in self._edited and self.base(role) and role != Root.type:
                check_growth(role, self.head.committed(role), one.signed)
            elif role not in choice.roles and role in self._edited:
                encode(role, one)  # which fails for what could never be committed
        if self._beside - choice.roles:
            # What waits already is all that can wait.
            raise lacking(Timestamp.type, choice.online, self.before)
        return choice

    def _commit(self, roles: dict[str, Metadata[Any]], choice: Choice) -> bool:
        # A timestamp alone does not go above: clients would see nothing of what is to come with it.
        above = self._above if roles else 0
        commit = Commit(self.head, self.before, choice.authority, now=self._now, expiry=self._expiry, above=above)
        return commit.run(roles, self._online, self.placements, choice.online)

    def _require_online(self, choice: Choice) -> None:
        if not self.head.timestamp.version and not choice.roles:
            hint = "its keys sign it first: pacball trust status says which"
            raise NotFound("this catalog waits for its first signatures", place="catalog", hint=hint)
        for role in sorted({Timestamp.type} | self._online):
            if not choice.authority.can_sign(role, choice.online):
                raise lacking(role, choice.online, choice.authority)

    def _check_committed(self, role: str) -> None:
        """Raise Corrupt unless the line was signed by its keys: what the origin alone has signed must not get their signature."""
        if is_line(role) and self.head.listed(role) and self.before.missing(role, self.head.envelope(role)):
            place = document_path(DocumentKind.CATALOG, file_name(role, self.head.listed(role)))
            hint = "somebody has changed it at the store: restore the file from a mirror or a backup"
            raise Corrupt("is not signed by the keys of its line", place=place, hint=hint)

    def _sign(self, role: str, ring: KeyRing) -> None:
        metadata = self._edited[role]
        metadata.signed.version = free_version(self.head, role, self.base(role), self._above)
        metadata.signed.expires = expiry_date(self._now, self._expiry.days(role))
        signers = ring.signers(self.before.keyids(role) | self.after.keyids(role))
        waited = None if role in self._beside else self.pending.roles.get(role)
        # Not where that would sign what others have put there, and nobody here has seen: that is for `sign`.
        seen = role not in self._unseen
        if seen and (waited is None or all(_has_signed(signer, waited.metadata) for signer in signers)):
            sign_with(role, metadata, signers)

    def _waiting(self, roles: Mapping[str, Proposed], after: Authority) -> tuple[Waiting, ...]:
        before = None if self.is_founding else self.before
        return tuple(waiting_of(role, one.metadata, before, after) for role, one in sorted(roles.items()))


def free_version(head: Head, role: str, base: int, above: int = 0) -> int:
    """The first version of a role after `base` and `above` whose name no unfinished change has taken; of a root, the next one."""
    first = max(base, above) + 1
    if role == Root.type:
        return base + 1
    for version in range(first, first + VERSION_ATTEMPTS):
        if not chain.has_document(head.documents, file_name(role, version)):
            return version
    place = document_path(DocumentKind.CATALOG, file_name(role, first))
    raise Unavailable(f"this and the next {VERSION_ATTEMPTS} versions are taken by unfinished changes", place=place)


def lacking(role: str, signers: Iterable[Signer], authority: Authority) -> Refused:
    """The error that the keys here do not suffice for a role."""
    trusted = authority.required(role)
    here = len({signer.public_key.keyid for signer in signers} & set(trusted.keyids))
    message = f"needs {trusted.threshold} of the keys that the catalog trusts for it, here are {here}"
    return Refused(
        message, place=role, hint="name the directory with the right keys: --keys DIR; see: pacball trust status"
    )


def waiting_of(role: str, metadata: Metadata[Any], before: Authority | None, after: Authority) -> Waiting:
    """What a role's new version still waits for."""
    signed_by, may_sign = set(after.signed_by(role, metadata)), after.keyids(role)
    if role == Root.type and before is not None:
        signed_by |= set(before.signed_by(role, metadata))
        may_sign |= before.keyids(role)
    return Waiting(
        role=role,
        version=metadata.signed.version,
        missing=missing_signatures(role, metadata, before, after),
        signed_by=tuple(sorted(signed_by)),
        may_sign=tuple(sorted(may_sign - signed_by)),
        expires=metadata.signed.expires.timestamp(),
    )


def _has_signed(signer: Signer, metadata: Metadata[Any]) -> bool:
    """Whether this key's good signature is there: that an id is listed says nothing."""
    key = signer.public_key
    try:
        key.verify_signature(metadata.signatures[key.keyid], metadata.signed_bytes)
    except (KeyError, UnverifiedSignatureError):
        return False
    return True
