"""What the catalog says of a release: values shared by the repository and the client side of trust."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blake3 import blake3

from pacstore.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pacstore.digest import Bytes
    from pacstore.release import Release


@dataclass(frozen=True, slots=True)
class SignedDocument:
    """A document as a catalog signs it: its BLAKE3 digest, length in bytes, and SHA-256 (32 bytes)."""

    digest: Digest
    length: int
    sha256: bytes

    @classmethod
    def of_all(cls, pieces: Iterable[Bytes]) -> SignedDocument:
        """What a catalog would sign of the document made of `pieces` one after another."""
        digest, sha256, length = blake3(), hashlib.sha256(), 0
        for piece in pieces:
            digest.update(piece)
            sha256.update(piece)
            length += len(piece)
        return cls(Digest(digest.digest()), length, sha256.digest())

    def matches(self, data: Bytes) -> bool:
        """Whether `data` is this document: its length and both hashes."""
        return len(data) == self.length and SignedDocument.of_all([data]) == self


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """Why and when (whole seconds since 1970, UTC) a release was withdrawn, and what to use instead, if anything."""

    at: int
    reason: str
    replaced_by: Release | None = None


@dataclass(frozen=True, slots=True)
class CatalogRelease:
    """One release in a catalog (FORMAT.md section 8).

    `total_bytes` is the sum of its file sizes, `published` in whole seconds since 1970, UTC. `withdrawal` is None unless it was
    withdrawn; `provenance` is None unless one was attached.
    """

    release: Release
    tree_digest: Digest
    manifest: SignedDocument
    attributes: SignedDocument
    placement: SignedDocument
    placement_number: int
    total_bytes: int
    files: int
    published: int
    withdrawal: Withdrawal | None = None
    provenance: SignedDocument | None = None

    def documents(self) -> tuple[SignedDocument, ...]:
        """All documents that the catalog names for it."""
        return self.manifest, self.attributes, self.placement, *((self.provenance,) if self.provenance else ())
