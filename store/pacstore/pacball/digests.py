"""The digests of a whole pacball, as other tools ask for them: taken from what is assembled, which is verified on the way.

Two passes: the stub has the SHA-256 of the payload, so no digest of the whole can begin before that is known.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from pacstore.digest import Bytes, Digest
from pacstore.limits import MIB
from pacstore.pacball.assembling import AssembledPacball
from pacstore.pacball.stub import STUB_BYTES, STUB_VERSION, Stub
from pacstore.progress import Progress
from pacstore.release import Release
from pacstore.trust.targets import CatalogRelease

_LEAST_PIECE_BYTES = 4 * MIB
_MOST_PIECES = 8_192


@dataclass(frozen=True, slots=True)
class PacballKey:
    """What decides about the bytes of a pacball. Two releases may have the same documents; the stub names one of them."""

    release: Release
    manifest: Digest
    attributes: Digest
    stub_version: int

    @classmethod
    def of(cls, entry: CatalogRelease) -> PacballKey:
        """That of a release's pacball, as it is made now."""
        return cls(entry.release, entry.manifest.digest, entry.attributes.digest, STUB_VERSION)

    @property
    def etag_id(self) -> str:
        """64 hexadecimal digits that differ wherever the bytes do."""
        documents = self.manifest.raw + self.attributes.raw
        return Digest.of(b"%s%d %s" % (documents, self.stub_version, str(self.release).encode())).hex


@dataclass(frozen=True, slots=True)
class PacballDigests:
    """Digests of a whole pacball of `total_bytes`, and of its payload. `pieces`: the SHA-256 of every `piece_bytes` of it.

    `placement`: the one with which every chunk was compared with its id when they were taken.
    """

    placement: Digest
    total_bytes: int
    payload_sha256: bytes
    sha256: bytes
    md5: bytes
    adler32: int
    piece_bytes: int
    pieces: bytes


def piece_bytes_of(total_bytes: int) -> int:
    """How long the pieces of a pacball are, but for the last: a power of two, so that they are not too many."""
    length = _LEAST_PIECE_BYTES
    while length * _MOST_PIECES < total_bytes:
        length *= 2
    return length


def take_digests(
    first: AssembledPacball, second: AssembledPacball, stub: Stub, placement: Digest, progress: Progress
) -> PacballDigests:
    """The digests of the pacball that `first` and `second` assemble, whose stub lacks only its digest.

    `first` compares every chunk with its id; `second` need not any more. Raises as `AssembledPacball.read`, and what `progress`
    raises.
    """
    total = first.total_bytes
    progress.begin("hashing", 2 * total)
    pieces = _Pieces(piece_bytes_of(total))
    payload = hashlib.sha256()
    for data in first.read_payload(0, total):
        payload.update(data)
        pieces.update(data)
        progress.advance(len(data))
    beginning = stub.with_digest(payload.hexdigest()).encode()
    sha256, md5 = hashlib.sha256(beginning), hashlib.md5(beginning, usedforsecurity=False)
    adler32 = zlib.adler32(beginning)
    for data in second.read_payload(0, total):
        sha256.update(data)
        md5.update(data)
        adler32 = zlib.adler32(data, adler32)
        progress.advance(len(data))
    return PacballDigests(
        placement=placement,
        total_bytes=total,
        payload_sha256=payload.digest(),
        sha256=sha256.digest(),
        md5=md5.digest(),
        adler32=adler32,
        piece_bytes=pieces.length,
        pieces=pieces.finish(beginning),
    )


class _Pieces:
    """The digests of pieces of a file, whose first STUB_BYTES are known only at the end."""

    def __init__(self, length: int) -> None:
        self.length = length
        self._begun = bytearray()
        self._digests = bytearray()
        self._hash = hashlib.sha256()
        self._left = length

    def update(self, data: Bytes) -> None:
        view = memoryview(data)
        room = self.length - STUB_BYTES - len(self._begun)
        if room:
            self._begun += view[:room]
            view = view[room:]
        while len(view) >= self._left:
            self._hash.update(view[: self._left])
            self._digests += self._hash.digest()
            view = view[self._left :]
            self._hash, self._left = hashlib.sha256(), self.length
        self._hash.update(view)
        self._left -= len(view)

    def finish(self, beginning: bytes) -> bytes:
        if self._left < self.length:
            self._digests += self._hash.digest()
        first = hashlib.sha256(beginning)
        first.update(self._begun)
        return first.digest() + bytes(self._digests)


def hex_pieces(digests: PacballDigests) -> Iterable[str]:
    """The digests of the pieces, in order, in hexadecimal."""
    size = hashlib.sha256().digest_size
    return (digests.pieces[at : at + size].hex() for at in range(0, len(digests.pieces), size))
