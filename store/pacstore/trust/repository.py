"""The publisher's and the origin's side of trust: the catalog, as it is made and changed (FORMAT.md section 8).

Every change is one of two things: committed, durably, when the method returns, or it waits for signatures (`Outcome.waiting`)
and for the online key, and nothing of it shows before. Exclusion between writers is the caller's, and saves work only:
commits are exclusive (`pacstore.trust.chain`), and so is what waits (`pacstore.trust.pending`). After a crash the same call
again, or the next one with the online key, finishes what was begun.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuf.api.metadata import Metadata, Root, Timestamp

from pacstore.digest import Digest
from pacstore.errors import NotFound, Refused, Unavailable, Untrusted, printable
from pacstore.storage import DocumentKind, DocumentStorage, document_path
from pacstore.trust import ceremony, chain, entries, lines
from pacstore.trust.ceremony import Founding, Keys
from pacstore.trust.change import MOST_VERSIONS, Change, same_content
from pacstore.trust.draft import Draft, Waiting, lacking
from pacstore.trust.form import refuse_case_clashes
from pacstore.trust.metadata import FIRST_ROOT_NAME, METADATA_LIMITS, TIMESTAMP_NAME, Expiry
from pacstore.trust.pending import Pending
from pacstore.trust.proposals import accept, export
from pacstore.trust.rebase import rebase
from pacstore.trust.status import CatalogStatus, status_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from securesystemslib.signer import Key

    from pacstore.release import Release
    from pacstore.trust.chain import Head
    from pacstore.trust.keyring import KeyRing
    from pacstore.trust.retention import Retain
    from pacstore.trust.targets import CatalogRelease, SignedDocument, Withdrawal

COMMIT_ATTEMPTS = 20
_HIGHEST = MOST_VERSIONS // 2
DEFAULT_EXPIRY = Expiry()
_SIGN_FIRST = "its keys sign it first: pacball trust status says which"
_ROOT_PLACE = document_path(DocumentKind.CATALOG, FIRST_ROOT_NAME)
_TIMESTAMP_PLACE = document_path(DocumentKind.CATALOG, TIMESTAMP_NAME)


@dataclass(frozen=True)
class Outcome:
    """What became of a change. `changed`: whether there was anything to do; `version`: the catalog's, 0 before its first commit;
    `committed`: the roles of people that were committed; `waiting`: what waits, of this change or earlier ones. `settled` are
    those that were committed first, since they had waited for nothing but the online key.
    """

    changed: bool
    version: int
    committed: tuple[str, ...]
    waiting: tuple[Waiting, ...]
    settled: tuple[str, ...] = ()

    def waits(self, role: str) -> bool:
        """Whether what was changed of that role waits, or, if nothing was, what others have changed."""
        done = role in self.committed and role not in self.settled
        return not done and any(one.role == role for one in self.waiting)


class Catalog:
    """A catalog where it is written, in `documents`; `drafts`, which is not public, keeps what waits.

    Without `drafts` nothing can wait: such changes are refused. With the bytes of a root that is known here, `pinned`, the
    catalog must descend from it: who signs in a store that others can write to should give it, since a line of another root
    would get a signature that is good in this one. Every call reads the newest state. Methods that change something take the
    keys in `ring` as far as they are needed, and the time `now` in seconds since 1970. Every method raises Corrupt when stored
    metadata do not verify, Untrusted for another root, Refused for what must not be, Unavailable when the storage fails.
    """

    def __init__(
        self,
        documents: DocumentStorage,
        drafts: DocumentStorage | None = None,
        *,
        expiry: Expiry = DEFAULT_EXPIRY,
        pinned: bytes | None = None,
    ) -> None:
        self._documents = documents
        self._drafts = drafts
        self._expiry = expiry
        self._pinned = pinned

    @classmethod
    def open(
        cls,
        documents: DocumentStorage,
        drafts: DocumentStorage | None = None,
        *,
        expiry: Expiry = DEFAULT_EXPIRY,
        pinned: bytes | None = None,
    ) -> Catalog:
        """The catalog in `documents`. Raises NotFound if there is none, or only one that waits for its first signatures."""
        catalog = cls(documents, drafts, expiry=expiry, pinned=pinned)
        catalog._load()
        return catalog

    @staticmethod
    def exists(documents: DocumentStorage) -> bool:
        """Whether a catalog was committed in `documents`."""
        return chain.newest_timestamp(documents) is not None

    def found(self, founding: Founding, ring: KeyRing, *, now: float) -> Outcome:
        """Make an empty catalog with these keys; an interrupted attempt is finished.

        Raises Refused if there is a catalog, one that waits, or the remains of one with other keys.
        """
        if chain.read_document(self._documents, TIMESTAMP_NAME, METADATA_LIMITS.timestamp_bytes) is not None:
            raise Refused("there is a catalog already", place=_TIMESTAMP_PLACE)
        fresh = ceremony.first_root(founding)
        self._refuse_other_root(fresh)
        return self._change(lambda draft: ceremony.found(draft, fresh), ring, now=now, fresh=fresh)

    @property
    def root_bytes(self) -> bytes:
        """The first root, from which all trust in this catalog comes. Raises NotFound if it was not signed yet."""
        data = chain.read_document(self._documents, FIRST_ROOT_NAME, METADATA_LIMITS.root_bytes)
        if data is None and chain.newest_timestamp(self._documents) is None:
            raise NotFound("there is no root yet", place=_ROOT_PLACE, hint=_SIGN_FIRST)
        chain.read_roots(self._documents)
        assert data is not None
        return data

    @property
    def catalog_id(self) -> str:
        """16 hexadecimal digits that stay the same for the catalog's life."""
        return Digest.of(self.root_bytes).hex[:16]

    @property
    def version(self) -> int:
        """The newest committed version: that of the timestamp."""
        return self._load().timestamp.version

    @chain.in_one_state
    def projects(self) -> list[str]:
        """The projects that have a line, sorted."""
        return self._load().projects()

    @chain.in_one_state
    def line_keyids(self, project: str) -> set[str]:
        """The ids of the keys that may sign a line, now or once what waits is committed."""
        draft, role = self._draft(), entries.line_role(project)
        return draft.before.keyids(role) | draft.after.keyids(role)

    @chain.in_one_state
    def release(self, name: Release) -> CatalogRelease | None:
        """The committed release of that name, or None."""
        return self._load().release(name)

    @chain.in_one_state
    def releases(self) -> list[CatalogRelease]:
        """All committed releases, sorted by name."""
        head = self._load()
        return [entry for project in head.projects() for entry in head.releases(project)]

    @chain.in_one_state
    def waiting_release(self, name: Release) -> CatalogRelease | None:
        """The release of that name if it waits for signatures or the origin, else None."""
        draft = self._draft()
        return None if draft.head.release(name) else lines.known_release(draft, name, waiting=True)

    @chain.in_one_state
    def waiting_releases(self) -> list[CatalogRelease]:
        """All releases of the lines of which something waits, as they will be once it is committed, sorted by name."""
        if not Pending(self._drafts).change:
            return []
        draft = self._draft()
        return [entry for project in ceremony.projects(draft) for entry in lines.waiting_releases(draft, project)]

    @chain.in_one_state
    def status(self) -> CatalogStatus:
        """Every role, its keys and expiry, and what waits; also of a catalog that waits for its first signatures."""
        draft = self._draft()
        return status_of(draft)

    def expiries(self) -> dict[str, float]:
        """When each role's metadata expires, in seconds since 1970."""
        return {role.role: role.expires for role in self.status().roles}

    @chain.in_one_state
    def check_name(self, name: Release, ring: KeyRing, *, sign_later: bool = False) -> None:
        """Raise what `publish` would raise for this name and these keys, before anybody reads gigabytes for nothing."""
        draft = self._draft()
        self._require_keys(draft, name.project, ring, sign_later=sign_later)
        known = ceremony.projects(draft)
        refuse_case_clashes([*known, name.project], "project")
        others = lines.release_names(draft, name.project) if name.project in known else ()
        refuse_case_clashes(map(str, [*others, name]), "release")

    def publish(self, entry: CatalogRelease, ring: KeyRing, *, now: float, sign_later: bool = False) -> Outcome:
        """Add a release; one with the same tree is no change. A new line needs the targets keys, and gets the key `line-PROJECT`.

        It waits for the online key where that is not in `ring`, and, only with `sign_later`, for the line's keys.
        """
        project = entry.release.project

        def edit(draft: Draft) -> bool:
            self._require_keys(draft, project, ring, sign_later=sign_later)
            if project not in ceremony.projects(draft):
                refuse_case_clashes([*ceremony.projects(draft), project], "project")
                key = _own_key(ring, entries.line_role(project))
                ceremony.add_line(draft, project, Keys((key,)))
            return lines.add_release(draft, entry, beside_pending=lines.can_commit(draft, project, ring))

        return self._change(edit, ring, now=now)

    @chain.in_one_state
    def check_online(self, ring: KeyRing) -> None:
        """Raise Refused unless `replace_placements` finds its keys here, before anybody reads gigabytes for nothing."""
        authority = self._draft().before
        signers = ring.signers(authority.online_keyids())
        if not authority.can_sign(Timestamp.type, signers):
            raise lacking(Timestamp.type, signers, authority)

    def replace_placements(
        self, placements: Mapping[Release, tuple[SignedDocument, int]], ring: KeyRing, *, now: float
    ) -> bool:
        """Bind releases to later placements, with their numbers, all at once, with the online key.

        False if each is bound to that one already. Raises Refused for an unknown release, or a number that is not higher.
        """

        def edit(draft: Draft) -> bool:
            changed = [lines.replace_placement(draft, name, *later) for name, later in placements.items()]
            return any(changed)

        return self._change(edit, ring, now=now).changed

    def withdraw(self, name: Release, withdrawal: Withdrawal, ring: KeyRing, *, now: float) -> Outcome:
        """Mark a release as withdrawn; its name stays bound."""
        return self._change(lambda draft: lines.withdraw(draft, name, withdrawal), ring, now=now)

    def attach(self, name: Release, provenance: SignedDocument, ring: KeyRing, *, now: float) -> Outcome:
        """Attach a provenance, which the store has, to a release."""
        return self._change(lambda draft: lines.attach(draft, name, provenance), ring, now=now)

    def keep(self, project: str, retain: Retain | None, ring: KeyRing, *, now: float) -> Outcome:
        """Say how long the releases of a line are kept."""
        return self._change(lambda draft: lines.keep(draft, project, retain), ring, now=now)

    def add_line(self, project: str, keys: Keys, ring: KeyRing, *, now: float) -> Outcome:
        """Begin a line; needs targets keys and that line's."""
        return self._change(lambda draft: ceremony.add_line(draft, project, keys), ring, now=now)

    def rotate(
        self, role: str, ring: KeyRing, *, now: float,
        add: Sequence[Key] = (), remove: Collection[str] = (), threshold: int | None = None,
    ) -> Outcome:  # fmt: skip
        """Change the keys of `root`, `targets`, `online` or a line."""
        return self._change(
            lambda draft: ceremony.rotate(draft, role, add=add, remove=remove, threshold=threshold), ring, now=now
        )

    def revoke(self, keyid: str, replacement: Key | None, ring: KeyRing, *, now: float) -> Outcome:
        """Take a key out of every role that trusts it. Raises Refused if none does."""
        outcome = self._change(lambda draft: ceremony.revoke(draft, keyid, replacement), ring, now=now)
        if not outcome.changed and not ceremony.trusting(self._draft().before, keyid):
            raise Refused("no role trusts this key", place=printable(keyid[:200]), hint="see: pacball trust status")
        return outcome

    def renew(self, roles: Iterable[str], ring: KeyRing, *, now: float) -> Outcome:
        """Sign these roles anew, so that they expire later."""
        wanted = list(roles)
        return self._change(lambda draft: ceremony.renew(draft, wanted), ring, now=now)

    def refresh(self, ring: KeyRing, *, now: float) -> Outcome:
        """Sign a new timestamp, what of the online key's metadata has lived half its time, and commit what waits and is complete.

        Needs the online key only, and prolongs nothing that people signed.
        """

        def edit(draft: Draft) -> bool:
            draft.prolong_placements(ring)
            return True

        return self._change(edit, ring, now=now, timestamp=True)

    def republish(self, ring: KeyRing, *, now: float, above: int, keep: Collection[str] = ()) -> Outcome:
        """Sign everything but the root, and the lines `keep`, under versions above `above`: after a restored backup.

        It is committed all at once, when every line has been signed. What a thief of the online key has signed needs no higher
        version: clients forget it when the online key is rotated.
        """
        if above < self.version:
            raise Refused(f"the catalog has version {self.version} already", place="--above-version")
        if above > _HIGHEST:
            hint = f"if clients have seen such a version, a thief has signed it: rotate the online key; the most is {_HIGHEST}"
            raise Refused(f"{above} is more than any catalog counts to", place="--above-version", hint=hint)
        return self._change(lambda draft: ceremony.republish(draft, keep=keep), ring, now=now, above=above)

    @chain.in_one_state
    def export(self) -> Change:
        """What waits, with what it is based on, to be signed elsewhere. Raises NotFound if nothing waits."""
        draft = self._draft()
        if not draft.pending:
            raise NotFound("nothing waits for signatures", place="catalog", hint="see: pacball trust status")
        return export(draft)

    def submit(
        self, change: Change, ring: KeyRing, *,
        now: float, check: Callable[[Sequence[tuple[CatalogRelease, CatalogRelease | None]]], None] | None = None,
    ) -> Outcome:  # fmt: skip
        """Take in signatures, or a proposal made elsewhere; commits what is complete if the online key is in `ring`.

        Raises Refused for a change that the catalog has gone past, that none of its keys has signed, or that would do harm, and
        what `check` raises: before anything of the change is kept, it is given all releases of whose documents the catalog would
        name others, or any for the first time, each with that release as the catalog has it, or None.
        """

        def edit(draft: Draft) -> bool:
            changed = accept(draft, change)
            if check is not None:
                check(list(lines.named_anew(draft)))
            return changed

        return self._change(edit, ring, now=now)

    def drop(self, roles: Collection[str] = ()) -> tuple[str, ...]:
        """Drop what waits, or only these roles of it; their names. Releases that wait are not in the catalog then.

        The lines that waiting targets begin go with them, and they with such a line.
        """
        for _ in range(COMMIT_ATTEMPTS):
            pending = Pending(self._drafts)
            rest = pending.change.without(roles) if roles else Change()
            dropped = tuple(sorted(pending.change.roles.keys() - rest.roles.keys()))
            if not dropped or pending.keep(rest):
                return dropped
        raise _busy()

    @chain.in_one_state
    def _change(
        self, edit: Callable[[Draft], bool], ring: KeyRing, *,
        now: float, timestamp: bool = False, above: int = 0, fresh: Root | None = None,
    ) -> Outcome:  # fmt: skip
        # What is complete comes first: what is added beside it would make its signatures worthless.
        settled = set() if timestamp else self._settle(ring, now=now)
        pending = Pending(self._drafts)
        for _ in range(COMMIT_ATTEMPTS):
            chain.expose(self._documents)
            draft = self._draft_of(pending.change, now=now, above=above, fresh=fresh)
            before = draft.head.timestamp.version
            wanted = edit(draft)
            if not wanted and not draft.head.is_halfway:
                return _outcome(before, settled, (), draft.waiting(), changed=bool(settled))
            done = draft.finish(ring, pending, timestamp=timestamp)
            if done is None:
                settled |= self._settle(ring, now=now)
            # What others keep now was made of the state before; it is brought onto this one when it is read.
            elif pending.keep(done.rest) or done.is_whole:
                if Root.type in done.committed and self._load().is_halfway:
                    self._change(lambda _: False, ring, now=now)
                changed = wanted or done.version != before
                return _outcome(done.version, settled, done.committed, done.waiting, changed=changed)
            else:
                settled |= set(done.committed)
            pending = pending.again()
        raise _busy()

    @chain.in_one_state
    def _settle(self, ring: KeyRing, *, now: float) -> set[str]:
        """Commit what waits and is complete; the roles that were."""
        committed: set[str] = set()
        for _ in range(COMMIT_ATTEMPTS):
            pending = Pending(self._drafts)
            if not pending.change:
                return committed
            done = self._draft_of(pending.change, now=now).finish(ring, pending)
            if done is not None:
                committed |= set(done.committed)
                if not done.committed or pending.keep(done.rest):
                    return committed
        raise _busy()

    def _draft_of(self, pending: Change, *, now: float, above: int = 0, fresh: Root | None = None) -> Draft:
        head = self._head(pending, now, fresh)
        return Draft(head, rebase(pending, head), now=now, expiry=self._expiry, above=above)

    def _draft(self) -> Draft:
        """What there is now, to be looked at."""
        return self._draft_of(Pending(self._drafts).change, now=0.0)

    def _head(self, pending: Change, now: float, fresh: Root | None) -> Head:
        if chain.newest_timestamp(self._documents) is not None:
            return self._load()
        waiting = pending.roles.get(Root.type)
        return chain.genesis(self._documents, waiting.metadata.signed if waiting is not None else fresh, now)

    def _load(self) -> Head:
        try:
            head = chain.load_head(self._documents)
        except NotFound:
            if not Pending(self._drafts).change:
                raise
            message = "this catalog waits for its first signatures"
            raise NotFound(message, place="catalog", hint=_SIGN_FIRST) from None
        if self._pinned is not None:
            pinned: Metadata[Root] = Metadata.from_bytes(self._pinned)
            if not any(same_content(root, pinned) for root in head.roots):
                hint = "find out who has changed the store, or remove the root that is pinned here"
                raise Untrusted("does not descend from the root that is known here", place=_ROOT_PLACE, hint=hint)
        return head

    def _refuse_other_root(self, fresh: Root) -> None:
        """A root of an interrupted attempt is as good as a new one, and may be pinned already; with other keys it is not."""
        if not chain.has_document(self._documents, FIRST_ROOT_NAME):
            return
        root = chain.read_roots(self._documents)[0].signed
        if (root.keys, root.roles) != (fresh.keys, fresh.roles):
            hint = "use the directory of keys with which it was begun, or another store"
            raise Refused("is the root of a catalog that was begun with other keys", place=_ROOT_PLACE, hint=hint)

    def _require_keys(self, draft: Draft, project: str, ring: KeyRing, *, sign_later: bool) -> None:
        lines.require_keys(draft, project, ring, sign_later=sign_later)
        if self._drafts is None and not ring.signers(draft.after.keyids(Timestamp.type)):
            raise lacking(Timestamp.type, [], draft.after)


def create(
    documents: DocumentStorage,
    ring: KeyRing,
    *,
    now: float,
    drafts: DocumentStorage | None = None,
    expiry: Expiry = DEFAULT_EXPIRY,
) -> Catalog:
    """A catalog whose keys `root`, `targets` and `online` are all in `ring`, where they are made if they are missing."""
    keys = [Keys((_own_key(ring, name),)) for name in ("root", "targets", "online")]
    catalog = Catalog(documents, drafts, expiry=expiry)
    catalog.found(Founding(*keys), ring, now=now)
    return catalog


def _own_key(ring: KeyRing, name: str) -> Key:
    return ring.public(name) if name in ring.names() else ring.create(name)


def _outcome(
    version: int, settled: set[str], committed: Collection[str], waiting: tuple[Waiting, ...], *, changed: bool
) -> Outcome:
    return Outcome(changed, version, tuple(sorted({*settled, *committed})), waiting, tuple(sorted(settled)))


def _busy() -> Unavailable:
    hint = "let one process publish at a time, and try again"
    return Unavailable(f"others changed the catalog {COMMIT_ATTEMPTS} times meanwhile", place="catalog", hint=hint)
