"""Usage: which releases need what of a store, and what they know of packs; by their placements, read when it is asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from pacstore.backends.directory import read_bounded
from pacstore.damage import pack_at
from pacstore.errors import PacballError
from pacstore.ledger import damage, releases
from pacstore.ledger.database import LEDGER_NAME
from pacstore.ledger.releases import ReleaseState
from pacstore.limits import MIB
from pacstore.manifest import Manifest
from pacstore.placement import Placement
from pacstore.repair.tables import rebuild_table
from pacstore.scrub import documents_of, packs_named, path_of_placement
from pacstore.storage import DocumentKind, ObjectKind, document_path, object_path

if TYPE_CHECKING:
    from pacstore.digest import Digest
    from pacstore.release import Release
    from pacstore.store import Store
    from pacstore.trust.targets import CatalogRelease, SignedDocument

_MOST_BYTES = 256 * MIB
"""Documents longer than this are not read for a repair: they would take the memory of the daemon."""


class Usage:
    """The releases `entries` of the catalog of `store`."""

    def __init__(self, store: Store, entries: Sequence[CatalogRelease]) -> None:
        self.entries = entries
        self._store = store
        self._by_release = {entry.release: entry for entry in entries}

    def find(self, release: Release) -> CatalogRelease | None:
        """The catalog's entry of a release."""
        return self._by_release.get(release)

    def users(self, paths: Collection[str]) -> set[Release]:
        """The releases that need any of the public files at `paths`."""
        wanted = {pack for path in paths if (pack := pack_at(path)) is not None}
        documents = frozenset(paths)
        return {
            entry.release
            for entry in self.entries
            if not documents.isdisjoint(_documents(entry)) or (wanted and not wanted.isdisjoint(self._packs(entry)))
        }

    def needs(self, entry: CatalogRelease) -> frozenset[str]:
        """The public paths of all that a release needs, its holdings left out."""
        packs = {object_path(ObjectKind.PACK, pack) for pack in self._packs(entry)}
        return frozenset(documents_of(entry)) | packs

    def length(self, pack: Digest) -> int | None:
        """How many bytes the pack has, if a release says so."""
        return next((length for entry in self.entries if (length := self._packs(entry).get(pack))), None)

    def table(self, pack: Digest) -> bytes | None:
        """The table of the pack, if releases that need it know all of it."""
        return rebuild_table(pack, self._documents_of_users(pack))

    def manifests(self, pack: Digest) -> Iterator[tuple[str, Manifest]]:
        """The manifests of the releases that need the pack, with their names."""
        for entry in self._users_of(pack):
            manifest = self._manifest(entry)
            if manifest is not None:
                yield str(entry.release), manifest

    def _documents_of_users(self, pack: Digest) -> Iterator[tuple[Placement, Manifest]]:
        for entry in self._users_of(pack):
            manifest = self._manifest(entry)
            data = self._read(path_of_placement(entry), entry.placement)
            if manifest is not None and data:
                yield Placement.parse(data, manifest, place=path_of_placement(entry)), manifest

    def _manifest(self, entry: CatalogRelease) -> Manifest | None:
        path = object_path(ObjectKind.MANIFEST, entry.manifest.digest)
        data = self._read(path, entry.manifest)
        return Manifest.parse(data, place=path) if data else None

    def _read(self, path: str, signed: SignedDocument) -> bytes:
        """A document; nothing where it is not what the catalog says, or is too long."""
        try:
            data = read_bounded(self._store.public / path, min(signed.length, _MOST_BYTES))
        except PacballError:
            return b""
        return data if signed.matches(data) else b""

    def _users_of(self, pack: Digest) -> Iterator[CatalogRelease]:
        return (entry for entry in self.entries if pack in self._packs(entry))

    def _packs(self, entry: CatalogRelease) -> dict[Digest, int]:
        try:
            return packs_named(self._store, entry)
        except OSError:
            return {}


def kept_releases(store: Store) -> frozenset[Release]:
    """The releases that a mirror says to have whole, or had before damage was found."""
    if not (store.state_dir / LEDGER_NAME).exists():
        return frozenset()
    with store.ledger.reading() as connection:
        found = {release for release, row in releases.every(connection).items() if row.state is ReleaseState.COMPLETE}
        return frozenset(found | set(damage.waiting(connection)))


def _documents(entry: CatalogRelease) -> list[str]:
    return [*documents_of(entry), document_path(DocumentKind.HOLDINGS, str(entry.release))]
