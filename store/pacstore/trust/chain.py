"""The newest state of a catalog, read and verified from the place where it is written.

Every commit first *creates* `N.timestamp.json`, N being one more than the newest, and then puts the same bytes as
`timestamp.json`. Creation is exclusive, so of two publishers who started from the same state one must start again, and
no release can be lost. A crash between the two steps leaves readers with the old state, and the next publisher with
the new one.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Signed, Snapshot, Targets, Timestamp

from pacstore.errors import Corrupt, NotFound, Refused, TooLarge
from pacstore.storage import DocumentKind, DocumentStorage, document_path
from pacstore.trust import entries
from pacstore.trust.metadata import FIRST_ROOT_NAME, METADATA_LIMITS, TIMESTAMP_NAME, file_name, verify_root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pacstore.release import Release
    from pacstore.trust.targets import CatalogRelease

S = TypeVar("S", bound=Signed)
_CATALOG = DocumentKind.CATALOG
_EXPOSE_ATTEMPTS = 100


@dataclass(frozen=True)
class Head:
    """One committed state: top-level metadata, and on demand that of the lines; all verified, none checked for expiry.

    The objects may be changed by who holds the head: it is read anew for each change.
    """

    documents: DocumentStorage
    root: Root
    timestamp: Timestamp
    snapshot: Snapshot
    targets: Targets
    loaded: dict[str, Targets] = field(default_factory=dict)

    def roles(self) -> list[str]:
        """The names of all delegated roles."""
        if self.targets.delegations is None or self.targets.delegations.roles is None:
            return []
        return list(self.targets.delegations.roles)

    def projects(self) -> list[str]:
        """The projects that have a line, sorted."""
        return entries.projects_of(self.roles())

    def delegated(self, role: str) -> Targets:
        """The metadata of a delegated role; always the same object. Raises NotFound, Corrupt."""
        if role not in self.loaded:
            self.loaded[role] = _read_listed(self.documents, role, self.snapshot.meta, Targets)
        return self.loaded[role]

    def release(self, release: Release) -> CatalogRelease | None:
        """The release, or None. Raises Corrupt."""
        if entries.line_role(release.project) not in self.roles():
            return None
        return entries.decode(release, *self._targets_of(release.project))

    def releases(self, project: str) -> Iterator[CatalogRelease]:
        """All releases of a line that exists. Raises Corrupt."""
        return entries.decode_all(project, *self._targets_of(project))

    def _targets_of(self, project: str) -> tuple[dict[str, Any], dict[str, Any]]:
        line = self.delegated(entries.line_role(project))
        return line.targets, self.delegated(entries.placement_role(project)).targets


def load_head(documents: DocumentStorage) -> Head:
    """The newest committed state. Raises NotFound if there is no catalog, Corrupt if it does not verify."""
    data = newest_timestamp(documents)
    if data is None:
        raise NotFound("there is no catalog here", hint="publish to this store first")
    root = _read_roots(documents)
    timestamp = _verified(data, root, Timestamp)
    snapshot = _read_listed(documents, Snapshot.type, {"snapshot.json": timestamp.snapshot_meta}, Snapshot)
    targets = _read_listed(documents, Targets.type, snapshot.meta, Targets)
    return Head(documents, root, timestamp, snapshot, targets)


def newest_timestamp(documents: DocumentStorage) -> bytes | None:
    """The bytes of the newest committed timestamp, not verified, or None if nothing was ever committed. Raises Corrupt."""
    newest = read_document(documents, TIMESTAMP_NAME, METADATA_LIMITS.timestamp_bytes)
    version = _parse(newest, TIMESTAMP_NAME, Timestamp)[0].version if newest is not None else 0
    while True:
        version += 1
        later = read_document(documents, file_name(Timestamp.type, version), METADATA_LIMITS.timestamp_bytes)
        if later is None:
            return newest
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


def create_document(documents: DocumentStorage, name: str, data: bytes) -> bool:
    """Write a new catalog document durably; False if the name is taken."""
    try:
        documents.create(_CATALOG, name, data)
    except Refused:
        # A storage may refuse for other reasons too (read-only): those must not look like a taken name.
        with suppress(TooLarge, NotFound):
            documents.get(_CATALOG, name, limit=METADATA_LIMITS.targets_bytes)
            return False
        raise
    return True


def _read_roots(documents: DocumentStorage) -> Root:
    root: Root | None = None
    for version in range(1, METADATA_LIMITS.root_rotations + 2):
        name = file_name(Root.type, version)
        data = read_document(documents, name, METADATA_LIMITS.root_bytes)
        if data is None:
            break
        try:
            root = verify_root(data, previous=root)
        except (RepositoryError, ValueError) as error:
            raise _corrupt(name, error) from error
    if root is None:
        raise Corrupt("is missing", place=document_path(_CATALOG, FIRST_ROOT_NAME), hint="restore it from a mirror")
    return root


def _read_listed(documents: DocumentStorage, role: str, listed: dict[str, MetaFile], kind: type[S]) -> S:
    # The hash in the signed file above it replaces a look at this one's own signatures, and is faster by far.
    meta = listed.get(f"{role}.json")
    if meta is None or not meta.hashes:
        raise Corrupt(f"the catalog lists no hash of {role}.json", place=_CATALOG.value)
    name = file_name(role, meta.version)
    data = read_document(documents, name, METADATA_LIMITS.targets_bytes)
    if data is None:
        raise Corrupt("is missing", place=document_path(_CATALOG, name), hint="restore it from a mirror")
    try:
        meta.verify_length_and_hashes(data)
    except RepositoryError as error:
        raise _corrupt(name, error) from error
    return _parse(data, name, kind)[0]


def _verified(data: bytes, root: Root, kind: type[S]) -> S:
    signed, metadata = _parse(data, TIMESTAMP_NAME, kind)
    try:
        root.verify_delegate(kind.type, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError) as error:
        raise _corrupt(TIMESTAMP_NAME, error) from error
    return signed


def _parse(data: bytes, name: str, kind: type[S]) -> tuple[S, Metadata[Any]]:
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(data)
    except RepositoryError as error:
        raise _corrupt(name, error) from error
    if not isinstance(metadata.signed, kind):
        raise Corrupt(f"is not {kind.type} metadata", place=document_path(_CATALOG, name))
    return metadata.signed, metadata


def _corrupt(name: str, error: Exception) -> Corrupt:
    place = document_path(_CATALOG, name)
    return Corrupt(f"does not verify: {error}", place=place, hint="restore the file from a mirror or a backup")
