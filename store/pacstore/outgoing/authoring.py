"""Authoring elsewhere: a copy of the catalog, as far as one line needs it, on which its holder makes and signs a change.

The copy is read from the origin and believed no more than any catalog: it must descend from the root that is pinned here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from pacstore.backends.memory import MemoryStorage
from pacstore.errors import Corrupt, NotFound, Refused, Untrusted
from pacstore.storage import DocumentKind, document_path
from pacstore.trust.entries import line_role, placement_role
from pacstore.trust.keyring import KeyRing
from pacstore.trust.metadata import METADATA_LIMITS, TIMESTAMP_NAME, file_name
from pacstore.trust.pending import replace_pending
from pacstore.trust.repository import Catalog

if TYPE_CHECKING:
    from collections.abc import Iterable

    from securesystemslib.signer import Signer

    from pacstore.release import Release
    from pacstore.source import Source
    from pacstore.trust.change import Change
    from pacstore.trust.targets import CatalogRelease

_CATALOG = DocumentKind.CATALOG


class _LineKeys(KeyRing):
    """Those keys of a ring that sign a line: with the online key beside them the copy would commit, and nothing wait in it."""

    def __init__(self, ring: KeyRing, keyids: set[str]) -> None:
        super().__init__(ring.directory)
        self._ring = ring
        self._keyids = keyids

    def signers(self, keyids: Iterable[str]) -> list[Signer]:
        return self._ring.signers(self._keyids & set(keyids))


class LineCopy:
    """The catalog of `source` and what waits there (`pending`), for changes of the line of one release.

    Raises Untrusted unless it descends from the root `pinned`, and is of version `least` at least.
    """

    def __init__(self, source: Source, release: Release, pending: Change | None, *, pinned: bytes, least: int) -> None:
        self._release = release
        self._documents, drafts = MemoryStorage(), MemoryStorage()
        _copy(source, self._documents, release)
        if pending is not None:
            replace_pending(drafts, 0, pending)
        self.catalog = Catalog(self._documents, drafts, pinned=pinned)
        if self.catalog.version < least:
            raise Untrusted(f"has a catalog older than version {least}, which was seen there", place=source.name,
                            hint="tell its operator")  # fmt: skip

    def check(self, ring: KeyRing) -> None:
        """Raise what `signed` would for these keys, before anybody reads gigabytes for nothing."""
        if self._release.project not in self.catalog.projects():
            hint = "the holders of the targets keys begin it where the store is: pacball trust add-line"
            raise Refused("there is no such line", place=self._release.project, hint=hint)
        self.catalog.check_name(self._release, ring)

    def known(self) -> tuple[CatalogRelease | None, bool]:
        """The release as the catalog has it, or as it waits; and whether it waits."""
        entry = self.catalog.release(self._release)
        if entry is not None:
            return entry, False
        entry = self.catalog.waiting_release(self._release)
        return entry, entry is not None

    def signed(self, entry: CatalogRelease, ring: KeyRing, *, now: float) -> Change:
        """The change of the line that adds `entry`, signed with its keys in `ring`. Raises as `Catalog.publish`."""
        keys = _LineKeys(ring, self.catalog.line_keyids(self._release.project))
        self.catalog.publish(entry, keys, now=now)
        change = self.catalog.export()
        change.context = None
        role = line_role(self._release.project)
        return change.only({role: change.roles[role]})


def _copy(source: Source, documents: MemoryStorage, release: Release) -> None:
    for version in range(1, METADATA_LIMITS.root_rotations + 2):
        try:
            _fetch(source, documents, file_name(Root.type, version), METADATA_LIMITS.root_bytes)
        except NotFound:
            break
    data = _fetch(source, documents, TIMESTAMP_NAME, METADATA_LIMITS.timestamp_bytes)
    try:
        timestamp: Metadata[Timestamp] = Metadata.from_bytes(data)
        name = file_name(Snapshot.type, timestamp.signed.snapshot_meta.version)
        snapshot: Metadata[Snapshot] = Metadata.from_bytes(
            _fetch(source, documents, name, METADATA_LIMITS.targets_bytes)
        )
        listed = {role: meta.version for role, meta in snapshot.signed.meta.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise Corrupt("is no catalog", place=f"{source.name}/{_CATALOG.value}") from error
    for role in (Targets.type, line_role(release.project), placement_role(release.project)):
        if f"{role}.json" in listed:
            _fetch(source, documents, file_name(role, listed[f"{role}.json"]), METADATA_LIMITS.targets_bytes)


def _fetch(source: Source, documents: MemoryStorage, name: str, limit: int) -> bytes:
    data = source.read(document_path(_CATALOG, name), limit=limit)
    documents.put(_CATALOG, name, data)
    return data
