"""The publisher's and the origin's side of trust: the catalog, as it is made and changed (FORMAT.md section 8).

A release that `publish` has returned for is in the catalog, durably, whatever crashes or publishes at the same time.
Exclusion between writers is the caller's, and saves work only: commits are exclusive (`pacstore.trust.chain`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Role, Root, Snapshot, Targets, Timestamp

from pacstore.digest import Digest
from pacstore.errors import Corrupt, Refused, Unavailable
from pacstore.storage import DocumentKind, DocumentStorage, document_path
from pacstore.trust import chain, entries
from pacstore.trust.draft import Draft, genesis
from pacstore.trust.keys import ONLINE_KEY, ROOT_KEY, TARGETS_KEY, KeyRing
from pacstore.trust.metadata import FIRST_ROOT_NAME, METADATA_LIMITS, TIMESTAMP_NAME, Expiry, Thresholds, verify_root
from pacstore.trust.targets import CatalogRelease, SignedDocument

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from securesystemslib.signer import Signer

    from pacstore.release import Release

COMMIT_ATTEMPTS = 20
_UNREACHABLE = "the drafts end with an error"
DEFAULT_EXPIRY = Expiry()
DEFAULT_THRESHOLDS = Thresholds()
_ROOT_PLACE = document_path(DocumentKind.CATALOG, FIRST_ROOT_NAME)


@dataclass(frozen=True, slots=True)
class Published:
    """What `Catalog.publish` did: whether the catalog changed, the keys it made, the version now current."""

    changed: bool
    created_keys: tuple[str, ...]
    version: int


class Catalog:
    """A catalog where it is written. Make it with `create` or `open`; it reads the newest state for every call.

    Every method raises Corrupt when stored metadata do not verify, Unavailable when the storage fails.
    """

    def __init__(self, documents: DocumentStorage, root_bytes: bytes, expiry: Expiry, thresholds: Thresholds) -> None:
        self._documents = documents
        self._expiry = expiry
        self._thresholds = thresholds
        self.root_bytes = root_bytes

    @classmethod
    def create(
        cls,
        documents: DocumentStorage,
        keys: KeyRing,
        *,
        now: float,
        expiry: Expiry = DEFAULT_EXPIRY,
        thresholds: Thresholds = DEFAULT_THRESHOLDS,
    ) -> Catalog:
        """Make an empty catalog, with new keys where `keys` has none; an interrupted attempt is finished.

        Raises Refused if there is a catalog, or the remains of one with another root key.
        """
        if chain.read_document(documents, TIMESTAMP_NAME, METADATA_LIMITS.timestamp_bytes) is not None:
            raise Refused("there is a catalog already", place=document_path(DocumentKind.CATALOG, TIMESTAMP_NAME))
        root_signer, targets, online = (_signer(keys, name) for name in (ROOT_KEY, TARGETS_KEY, ONLINE_KEY))
        fresh = _first_root(root_signer, targets, online, thresholds)
        draft = Draft(genesis(documents, fresh, now), now=now, expiry=expiry)
        if chain.newest_timestamp(documents) is None:
            # A root of an interrupted attempt is as good as a new one, and may be pinned already.
            draft.write_root([root_signer])
        root_bytes = _read_first_root(documents, fresh)
        draft.sign(Targets.type, [targets])
        if chain.newest_timestamp(documents) is None:
            draft.commit([online])
        chain.expose(documents)
        return cls(documents, root_bytes, expiry, thresholds)

    @classmethod
    def open(
        cls,
        documents: DocumentStorage,
        *,
        expiry: Expiry = DEFAULT_EXPIRY,
        thresholds: Thresholds = DEFAULT_THRESHOLDS,
    ) -> Catalog:
        """The catalog in `documents`. Raises NotFound if there is none."""
        chain.load_head(documents)
        return cls(documents, _read_first_root(documents, None), expiry, thresholds)

    @staticmethod
    def exists(documents: DocumentStorage) -> bool:
        """Whether a catalog was begun in `documents`, finished or not, readable or not."""
        return chain.newest_timestamp(documents) is not None

    @property
    def catalog_id(self) -> str:
        """16 hexadecimal digits that stay the same for the catalog's life."""
        return Digest.of(self.root_bytes).hex[:16]

    @property
    def version(self) -> int:
        """The newest committed version: that of the timestamp."""
        return chain.load_head(self._documents).timestamp.version

    def release(self, name: Release) -> CatalogRelease | None:
        """The release of that name, or None."""
        return chain.load_head(self._documents).release(name)

    def releases(self) -> list[CatalogRelease]:
        """All releases, sorted by name."""
        head = chain.load_head(self._documents)
        return [entry for project in head.projects() for entry in head.releases(project)]

    def check_name(self, name: Release, keys: KeyRing) -> None:
        """Raise what `publish` would raise for this name and these keys, before anybody reads gigabytes for nothing."""
        head = chain.load_head(self._documents)
        _refuse_case_clash(name.project, head.projects(), "project")
        names = [str(other.release) for other in head.releases(name.project)] if name.project in head.projects() else []
        _refuse_case_clash(str(name), names, "release")
        needed = [ONLINE_KEY, entries.line_role(name.project) if name.project in head.projects() else TARGETS_KEY]
        for key in needed:
            keys.signer(key)

    def expiries(self) -> dict[str, float]:
        """When each role's metadata expires, in seconds since 1970."""
        head = chain.load_head(self._documents)
        signed = {s.type: s for s in (head.root, head.timestamp, head.snapshot, head.targets)}
        signed |= {role: head.delegated(role) for role in head.roles()}
        return {role: s.expires.timestamp() for role, s in signed.items()}

    def publish(self, entry: CatalogRelease, keys: KeyRing, *, now: float) -> Published:
        """Add a release, and its line if that is new; a release with the same tree is no change.

        Needs the keys `online` and `line-PROJECT`; for a new line `targets`, and the line's key is made if it is missing.
        Raises Refused for a name bound to another tree or one that differs from an existing name in case only, and
        for keys that are not the catalog's; NotFound for a missing key.
        """
        created: list[str] = []
        changed = False
        for draft in self._drafts(now):
            if not self._add(draft, entry, keys, created):
                chain.expose(self._documents)
                return Published(changed, tuple(created), draft.head.timestamp.version)
            # It ends only when the release is seen in the catalog, so a storage that lies about creation shows here.
            changed |= draft.commit([keys.signer(ONLINE_KEY)])
        raise AssertionError(_UNREACHABLE)

    def replace_placement(
        self, name: Release, placement: SignedDocument, number: int, keys: KeyRing, *, now: float
    ) -> bool:
        """Bind a release to a later placement; needs the key `online` only. False if it is bound to that one already.

        Raises Refused for an unknown release, or a number that is not higher than the present one.
        """
        for draft in self._drafts(now):
            if not _place(draft, name, placement, number, keys):
                chain.expose(self._documents)
                return False
            if draft.commit([keys.signer(ONLINE_KEY)]):
                return True
        raise AssertionError(_UNREACHABLE)

    def refresh(self, keys: KeyRing, *, now: float) -> int:
        """Sign a new timestamp, and what of the online key's metadata has lived half its time; return the version.

        Needs the key `online` only, and prolongs nothing that other keys signed: see `expiries` and `renew`.
        """
        online = [keys.signer(ONLINE_KEY)]
        for draft in self._drafts(now):
            for project in draft.head.projects():
                role = entries.placement_role(project)
                if draft.nears_expiry(draft.head.delegated(role), role):
                    draft.sign(role, online)
            if draft.commit(online):
                return draft.head.timestamp.version
        raise AssertionError(_UNREACHABLE)

    def renew(self, keys: KeyRing, *, now: float) -> list[str]:
        """Sign root, targets and lines anew, as far as their keys are here, and return these roles; needs `online` too."""
        online = [keys.signer(ONLINE_KEY)]
        for draft in self._drafts(now):
            names = [Targets.type, *map(entries.line_role, draft.head.projects())]
            roles = [name for name in names if keys.has(name)]
            for role in roles:
                draft.sign(role, [keys.signer(role)])
            renews_root = keys.has(ROOT_KEY)
            if draft.commit(online):
                if renews_root:
                    draft.write_root([keys.signer(ROOT_KEY)])
                return [*([Root.type] if renews_root else []), *roles]
        raise AssertionError(_UNREACHABLE)

    def _drafts(self, now: float) -> Iterator[Draft]:
        for _ in range(COMMIT_ATTEMPTS):
            yield Draft(chain.load_head(self._documents), now=now, expiry=self._expiry)
        hint = "let one process publish at a time, and try again"
        raise Unavailable(f"others changed the catalog {COMMIT_ATTEMPTS} times meanwhile", place="catalog", hint=hint)

    def _add(self, draft: Draft, entry: CatalogRelease, keys: KeyRing, created: list[str]) -> bool:
        head, project = draft.head, entry.release.project
        existing = head.release(entry.release)
        if existing is not None:
            _refuse_other_tree(existing, entry)
            return False
        _refuse_case_clash(project, head.projects(), "project")
        line_role, placement_role = entries.line_role(project), entries.placement_role(project)
        online = [keys.signer(ONLINE_KEY)]
        if project not in head.projects():
            draft.sign(Targets.type, [keys.signer(TARGETS_KEY)])
            draft.add_line(project, [_signer(keys, line_role, created)], online, self._thresholds)
        _refuse_case_clash(str(entry.release), [str(other.release) for other in head.releases(project)], "release")
        draft.sign(line_role, [keys.signer(line_role)])
        draft.sign(placement_role, online)
        line, placements = head.delegated(line_role), head.delegated(placement_role)
        try:
            line.targets |= {target.path: target for target in entries.encode_line(entry)}
            target = entries.encode_placement(entry)
            placements.targets[target.path] = target
            faithful = head.release(entry.release) == entry
        except (ValueError, OverflowError, OSError, Corrupt):
            faithful = False
        # What could not be read back must not be signed.
        if not faithful:
            raise Refused("has values that a catalog cannot carry", place=str(entry.release))
        return True


def _place(draft: Draft, name: Release, placement: SignedDocument, number: int, keys: KeyRing) -> bool:
    existing = draft.head.release(name)
    if existing is None:
        raise Refused("is not in the catalog", place=str(name))
    if (existing.placement, existing.placement_number) == (placement, number):
        return False
    if number <= existing.placement_number:
        message = f"has placement {existing.placement_number} already; a new one needs a higher number than that"
        raise Refused(message, place=str(name))
    entry = dataclasses.replace(existing, placement=placement, placement_number=number)
    target = entries.encode_placement(entry)
    role = entries.placement_role(name.project)
    draft.head.delegated(role).targets[target.path] = target
    draft.sign(role, [keys.signer(ONLINE_KEY)])
    return True


def _signer(keys: KeyRing, name: str, created: list[str] | None = None) -> Signer:
    if keys.has(name):
        return keys.signer(name)
    signer = keys.create(name)
    if created is not None:
        created.append(name)
    return signer


def _first_root(root: Signer, targets: Signer, online: Signer, thresholds: Thresholds) -> Root:
    roles: dict[str, tuple[Signer, int]] = {
        Root.type: (root, thresholds.root),
        Targets.type: (targets, thresholds.targets),
        Snapshot.type: (online, thresholds.online),
        Timestamp.type: (online, thresholds.online),
    }
    first = Root(roles={name: Role([], threshold) for name, (_, threshold) in roles.items()}, consistent_snapshot=True)
    for name, (signer, _) in roles.items():
        first.add_key(signer.public_key, name)
    first.version = 0
    return first


def _read_first_root(documents: DocumentStorage, expected: Root | None) -> bytes:
    data = chain.read_document(documents, FIRST_ROOT_NAME, METADATA_LIMITS.root_bytes)
    if data is None:
        raise Corrupt("is missing", place=_ROOT_PLACE, hint="restore it from a mirror")
    try:
        root = verify_root(data)
    except (RepositoryError, ValueError) as error:
        raise Corrupt(f"does not verify: {error}", place=_ROOT_PLACE) from error
    if expected is not None and root.keys != expected.keys:
        hint = "use the directory of keys with which it was begun, or another store"
        raise Refused("is the root of a catalog that was begun with other keys", place=_ROOT_PLACE, hint=hint)
    return data


def _refuse_other_tree(existing: CatalogRelease, entry: CatalogRelease) -> None:
    if existing.tree_digest != entry.tree_digest:
        message = f"is bound for ever to the tree {existing.tree_digest}, this one is {entry.tree_digest}"
        raise Refused(message, place=str(entry.release), hint="publish it under a new version")


def _refuse_case_clash(name: str, existing: Sequence[str], kind: str) -> None:
    for other in existing:
        if other != name and other.casefold() == name.casefold():
            raise Refused(
                f"differs only in case from the {kind} {other}", place=name, hint=f"write {other}, or another name"
            )
