"""The newest state of a catalog, read and verified from the place where it is written.

Every commit first *creates* `N.timestamp.json`, N being one more than the newest version, and then puts the same bytes as
`timestamp.json`. Creation is exclusive, so of two publishers who started from the same state one must start again, and
no release can be lost. A crash between the two steps leaves readers with the old state, and the next publisher with
the new one.

What was replaced may be collected at any time. Whoever finds a file of a state missing, and another state in force by now, was
only too slow: `in_one_state` has it read anew.
"""

from __future__ import annotations

import copy
from contextlib import suppress
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Delegations, Metadata, MetaFile, Root, Signed, Snapshot, Targets, Timestamp

from pacstore.errors import Corrupt, NotFound, Refused, TooLarge, Unavailable
from pacstore.storage import DocumentKind, DocumentStorage, document_path
from pacstore.trust import entries
from pacstore.trust.metadata import FIRST_ROOT_NAME, METADATA_LIMITS, TIMESTAMP_NAME, at, file_name, verify_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pacstore.release import Release
    from pacstore.trust.targets import CatalogRelease

_CATALOG = DocumentKind.CATALOG
_EXPOSE_ATTEMPTS = 100
_READ_ATTEMPTS = 20
_Given = ParamSpec("_Given")
_Read = TypeVar("_Read")


class Overtaken(Unavailable):
    """Another state has come into force while one was read, and a file of that one is gone."""


def in_one_state(read: Callable[_Given, _Read]) -> Callable[_Given, _Read]:
    """Have `read`, which loads a state of its own, do all of it again when it was overtaken. Raises Overtaken if that goes on."""

    @wraps(read)
    def again(*args: _Given.args, **values: _Given.kwargs) -> _Read:
        for _ in range(_READ_ATTEMPTS - 1):
            with suppress(Overtaken):
                return read(*args, **values)
        return read(*args, **values)

    return again


@dataclass(frozen=True)
class Head:
    """One committed state: top-level metadata, and on demand that of the lines; none checked for expiry.

    What the origin signs, and targets, are verified; a line has the hash that the origin signed, which readers can rely on, since
    installers look at its signatures: whoever signs on top of it verifies them first. `is_halfway`: the newest root is not that
    with which the timestamp was signed; the next commit ends that. `stamp`: the timestamp's bytes as they were read. The objects
    may be changed by who holds the head: it is read anew for each change.
    """

    documents: DocumentStorage
    roots: list[Metadata[Root]]
    timestamp: Timestamp
    snapshot: Snapshot
    targets: Targets
    targets_metadata: Metadata[Targets] | None = None
    loaded: dict[str, Metadata[Targets]] = field(default_factory=dict)
    is_halfway: bool = False
    stamp: bytes | None = None

    @property
    def root(self) -> Root:
        """The root in force."""
        return self.roots[-1].signed

    def listed(self, role: str) -> int:
        """The committed version of targets or a delegated role; 0 if there is none."""
        meta = self.snapshot.meta.get(f"{role}.json")
        return meta.version if meta is not None else 0

    def version_of(self, role: str) -> int:
        """The committed version of root, targets or a delegated role; 0 if there is none."""
        return self.root.version if role == Root.type else self.listed(role)

    def committed(self, role: str) -> Any:
        """The signed part of root, targets or a delegated role; always the same object. Raises Corrupt."""
        if role == Root.type:
            return self.root
        return self.targets if role == Targets.type else self.delegated(role)

    def roles(self) -> list[str]:
        """The names of all delegated roles."""
        if self.targets.delegations is None or self.targets.delegations.roles is None:
            return []
        return list(self.targets.delegations.roles)

    def projects(self) -> list[str]:
        """The projects that have a line, sorted."""
        return entries.projects_of(self.roles())

    def delegated(self, role: str) -> Targets:
        """The metadata of a delegated role; always the same object. Raises Corrupt."""
        return self.envelope(role).signed

    def envelope(self, role: str) -> Metadata[Targets]:
        """Targets or a delegated role with its signatures, as they were read. Raises Corrupt, and Overtaken."""
        if role == Targets.type and self.targets_metadata is not None:
            return self.targets_metadata
        if role not in self.loaded:
            self.loaded[role] = _read_listed(self.documents, self.stamp, role, self.snapshot.meta, Targets)
        return self.loaded[role]

    def release(self, release: Release) -> CatalogRelease | None:
        """The release, or None. Raises Corrupt."""
        if entries.line_role(release.project) not in self.roles():
            return None
        return entries.decode(release, *self._targets_of(release.project))

    def releases(self, project: str) -> Iterator[CatalogRelease]:
        """All releases of a line that exists. Raises Corrupt."""
        return entries.decode_all(project, *self._targets_of(project))

    def placements(self, project: str) -> dict[str, Any]:
        """The targets of a line's placements, by path; none if there is no such line. Raises Corrupt."""
        role = entries.placement_role(project)
        return self.delegated(role).targets if self.listed(role) else {}

    def _targets_of(self, project: str) -> tuple[dict[str, Any], dict[str, Any]]:
        line = self.delegated(entries.line_role(project))
        return line.targets, self.delegated(entries.placement_role(project)).targets


@in_one_state
def load_head(documents: DocumentStorage) -> Head:
    """The newest committed state. Raises NotFound if there is no catalog, Corrupt if it does not verify."""
    data = newest_timestamp(documents)
    if data is None:
        raise NotFound("there is no catalog here", hint="publish to this store first")
    roots = read_roots(documents)
    stamped: Metadata[Timestamp] = _parse(data, TIMESTAMP_NAME, Timestamp)
    is_halfway = not _is_verified(Timestamp.type, stamped, roots, TIMESTAMP_NAME)
    timestamp = stamped.signed
    snapshot = _read_listed(documents, data, Snapshot.type, {"snapshot.json": timestamp.snapshot_meta}, Snapshot)
    targets = _read_listed(documents, data, Targets.type, snapshot.signed.meta, Targets)
    _is_verified(Targets.type, targets, roots, file_name(Targets.type, targets.signed.version))
    return Head(
        documents, roots, timestamp, snapshot.signed, targets.signed, targets, is_halfway=is_halfway, stamp=data
    )


def genesis(documents: DocumentStorage, root: Root | None, now: float) -> Head:
    """The empty state before the first commit: every version is 0, so that the first to be written is 1.

    Its root is that of an interrupted attempt, else `root` as a version 0. Raises NotFound if there is neither.
    """
    if has_document(documents, FIRST_ROOT_NAME):
        roots = read_roots(documents)
    elif root is not None:
        before = copy.deepcopy(root)
        before.version = 0
        roots = [Metadata(before)]
    else:
        raise NotFound("there is no catalog here", hint="publish to this store first, or: pacball trust init")
    snapshot, timestamp = Snapshot(meta={}, expires=at(now)), Timestamp(expires=at(now))
    snapshot.version = timestamp.version = 0
    return Head(documents, roots, timestamp, snapshot, Targets(expires=at(now), delegations=Delegations({}, {})))


def newest_timestamp(documents: DocumentStorage) -> bytes | None:
    """The bytes of the newest committed timestamp, not verified, or None if nothing was ever committed. Raises Corrupt."""
    newest = read_document(documents, TIMESTAMP_NAME, METADATA_LIMITS.timestamp_bytes)
    version = _parse(newest, TIMESTAMP_NAME, Timestamp).signed.version if newest is not None else 0
    while True:
        name = file_name(Timestamp.type, version + 1)
        later = read_document(documents, name, METADATA_LIMITS.timestamp_bytes)
        if later is None:
            return newest
        # The name says which version it follows; its own may be higher, after a restored backup.
        version = max(version + 1, _parse(later, name, Timestamp).signed.version)
        newest = later


def expose(documents: DocumentStorage) -> None:
    """Show readers the newest committed state, whoever committed it. No write if they see it already."""
    for _ in range(_EXPOSE_ATTEMPTS):
        newest = newest_timestamp(documents)
        if newest is None or newest == read_document(documents, TIMESTAMP_NAME, METADATA_LIMITS.timestamp_bytes):
            return
        # A slower publisher could put an older state over a newer one here: therefore it looks again afterwards.
        documents.put(_CATALOG, TIMESTAMP_NAME, newest)


def read_document(documents: DocumentStorage, name: str, limit: int) -> bytes | None:
    """A catalog document, or None if it is absent. Raises Corrupt if it is longer than `limit` bytes."""
    with suppress(NotFound):
        try:
            return documents.get(_CATALOG, name, limit=limit)
        except TooLarge as error:
            raise Corrupt(f"is longer than {limit} bytes", place=document_path(_CATALOG, name)) from error
    return None


def has_document(documents: DocumentStorage, name: str) -> bool:
    """Whether there is a catalog document of that name, without reading it."""
    try:
        documents.get(_CATALOG, name, limit=0)
    except NotFound:
        return False
    except TooLarge:
        pass
    return True


def create_document(documents: DocumentStorage, name: str, data: bytes) -> bool:
    """Write a new catalog document durably; False if the name is taken."""
    try:
        documents.create(_CATALOG, name, data)
    except Refused:
        # A storage may refuse for other reasons too (read-only): those must not look like a taken name.
        if has_document(documents, name):
            return False
        raise
    return True


def read_roots(documents: DocumentStorage) -> list[Metadata[Root]]:
    """All roots, each verified by the one before it. Raises Corrupt."""
    roots: list[Metadata[Root]] = []
    for version in range(1, METADATA_LIMITS.root_rotations + 2):
        name = file_name(Root.type, version)
        data = read_document(documents, name, METADATA_LIMITS.root_bytes)
        if data is None:
            break
        try:
            verify_root(data, previous=roots[-1].signed if roots else None)
        except (RepositoryError, ValueError) as error:
            raise _corrupt(name, error) from error
        roots.append(_parse(data, name, Root))
    if not roots:
        raise Corrupt("is missing", place=document_path(_CATALOG, FIRST_ROOT_NAME), hint="restore it from a mirror")
    return roots


def _read_listed(
    documents: DocumentStorage, stamp: bytes | None, role: str, listed: dict[str, MetaFile], kind: type[Signed]
) -> Metadata[Any]:
    # The hash in the signed file above it replaces a look at this one's own signatures, and is faster by far.
    meta = listed.get(f"{role}.json")
    if meta is None or not meta.hashes:
        raise Corrupt(f"the catalog lists no hash of {role}.json", place=_CATALOG.value)
    name = file_name(role, meta.version)
    data = read_document(documents, name, METADATA_LIMITS.targets_bytes)
    if data is None and newest_timestamp(documents) != stamp:
        hint = "run the same command again"
        raise Overtaken(
            "was replaced, and collected, while it was read", place=document_path(_CATALOG, name), hint=hint
        )
    if data is None:
        raise Corrupt("is missing", place=document_path(_CATALOG, name), hint="restore it from a mirror")
    try:
        meta.verify_length_and_hashes(data)
    except RepositoryError as error:
        raise _corrupt(name, error) from error
    return _parse(data, name, kind)


def _is_verified(role: str, metadata: Metadata[Any], roots: list[Metadata[Root]], name: str) -> bool:
    """Whether the newest root says that a role is signed; False if only the one before it does. Raises Corrupt."""
    # A change of keys that were lost shows its root before the first timestamp of the new keys: killed there, it is finished
    # by the next commit, which has to start from what the old keys have signed.
    for root in reversed(roots[-2:]):
        try:
            root.signed.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
        except (RepositoryError, ValueError) as error:
            fault = error
        else:
            return root is roots[-1]
    raise _corrupt(name, fault) from fault


def _parse(data: bytes, name: str, kind: type[Signed]) -> Metadata[Any]:
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(data)
    except RepositoryError as error:
        raise _corrupt(name, error) from error
    if not isinstance(metadata.signed, kind):
        raise Corrupt(f"is not {kind.type} metadata", place=document_path(_CATALOG, name))
    return metadata


def _corrupt(name: str, error: Exception) -> Corrupt:
    place = document_path(_CATALOG, name)
    return Corrupt(f"does not verify: {error}", place=place, hint="restore the file from a mirror or a backup")
