"""Expected: what each member of an export must be, by the signed catalog that it brings: for who writes it and who takes it
in.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pacstore.backends.memory import MemoryStorage
from pacstore.digest import Bytes, Digest
from pacstore.documents import fetch_signed
from pacstore.errors import Corrupt
from pacstore.holding import holdings_of
from pacstore.limits import MIB
from pacstore.links import links_of
from pacstore.marker import MARKER
from pacstore.placement import placement_name, read_packs
from pacstore.progress import Progress
from pacstore.storage import STORE_MARKER, Clock, DocumentKind, document_path
from pacstore.transfer import Fault, fetched_pieces
from pacstore.trust.listing import Listing, list_releases
from pacstore.trust.metadata import FIRST_ROOT_NAME, TIMESTAMP_NAME
from pacstore.trust.replica import Replica, ReplicaLimits
from pacstore.trust.targets import CatalogRelease, SignedDocument
from pacstore.volumes.contents import Piece

if TYPE_CHECKING:
    from pacstore.release import Release
    from pacstore.source import Source
    from pacstore.trust.served import ServedState

_AGAIN = "copy it again, or take another source"
_LIMITS = ReplicaLimits(catalog_bytes=512 * MIB)


@dataclass(frozen=True)
class CatalogCopy:
    """A whole verified state of a catalog, in memory: its `files` by path, its releases."""

    storage: MemoryStorage
    state: ServedState
    listing: Listing

    @property
    def files(self) -> Mapping[str, bytes]:
        """Every file by its path, the timestamp last, by which others find it."""
        timestamp = document_path(DocumentKind.CATALOG, TIMESTAMP_NAME)
        paths = sorted(self.storage.files, key=lambda path: (path == timestamp, path))
        return {path: self.storage.files[path] for path in paths}

    @property
    def root(self) -> Digest:
        """Of the first root's file."""
        return Digest.of(self.storage.files[document_path(DocumentKind.CATALOG, FIRST_ROOT_NAME)])

    @property
    def releases(self) -> Mapping[Release, CatalogRelease]:
        """Every release, withdrawn ones too."""
        return self.listing.releases


def copy_catalog(source: Source, *, root: bytes, clock: Clock) -> CatalogCopy:
    """The catalog of `source`, verified from the trusted `root` on; expiry is for others to judge.

    Raises what `Replica.refresh` does.
    """
    storage = MemoryStorage()
    replica = Replica(storage, pinned=root, clock=clock, limits=_LIMITS)
    replica.refresh(source)
    assert replica.held is not None
    return CatalogCopy(storage, replica.held, list_releases(storage, replica.held, Listing()))


@dataclass(frozen=True)
class Expected:
    """`exact`: members whose very bytes are known, `signed`: those that the catalog signs, by path."""

    exact: Mapping[str, bytes]
    signed: Mapping[str, SignedDocument]
    holdings: Mapping[str, bytes]

    @classmethod
    def of(cls, catalog: CatalogCopy, entries: Sequence[CatalogRelease]) -> Expected:
        """What an export of these releases has."""
        signed = {
            link.file: document
            for entry in entries
            for link, document in zip(links_of(entry), entry.documents(), strict=True)
        }
        holdings = {
            document_path(DocumentKind.HOLDINGS, str(entry.release)): holdings_of(entry).encode() for entry in entries
        }
        return cls({STORE_MARKER: MARKER, **catalog.files}, signed, holdings)

    def shared(self) -> tuple[Piece, ...]:
        """The members that each volume has, in their order."""
        exact = (Piece(path, len(data)) for path, data in self.exact.items())
        return (*exact, *(Piece(path, self.signed[path].length) for path in sorted(self.signed)))

    def last(self) -> tuple[Piece, ...]:
        """The members at the end of the last volume."""
        return tuple(Piece(path, len(self.holdings[path])) for path in sorted(self.holdings))

    def fetch(self, source: Source, piece: Piece) -> bytes:
        """The bytes of a member that is no pack, as they must be. Raises Corrupt where `source` has others."""
        known = self.exact.get(piece.path, self.holdings.get(piece.path))
        return fetch_signed(source, piece.path, self.signed[piece.path]) if known is None else known

    def check(self, source: Source, piece: Piece, progress: Progress) -> None:
        """Raise Corrupt unless `source` has this member as it must be; a pack is read, and every frame compared."""
        pack = piece.pack
        if pack is not None:
            for data in pieces_of(source, pack, piece.length):
                progress.advance(len(data))
            return
        known = self.exact.get(piece.path, self.holdings.get(piece.path))
        if known is None:
            fetch_signed(source, piece.path, self.signed[piece.path])
        elif source.read(piece.path, limit=len(known)) != known:
            raise Corrupt("is not what it must be", place=f"{source.name}: {piece.path}")
        progress.advance(piece.length)


def pieces_of(source: Source, pack: Digest, length: int) -> Iterator[Bytes]:
    """The bytes of a pack, in order, verified. Raises Corrupt and what the source raises."""
    try:
        yield from fetched_pieces(source, pack, length)
    except Fault as fault:
        fault.error.hint = fault.error.hint or _AGAIN
        raise fault.error from fault


def packs_named(source: Source, entry: CatalogRelease) -> dict[Digest, int]:
    """The packs of a release, with their lengths in bytes, in the order of its placement. Raises as `fetch_signed`, Corrupt."""
    path = document_path(DocumentKind.PLACEMENT, placement_name(entry.release, entry.placement_number))
    return read_packs(io.BytesIO(fetch_signed(source, path, entry.placement)), place=path)
