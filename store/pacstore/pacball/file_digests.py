"""The digests of one file of a release, as other tools ask for them."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass

from blake3 import blake3

from pacstore.digest import Bytes, Digest
from pacstore.errors import Corrupt


@dataclass(frozen=True, slots=True)
class FileDigests:
    """Digests of the whole of a file."""

    sha256: bytes
    md5: bytes
    adler32: int


class FileHasher:
    """Takes the digests of a file whose manifest says that it has `content`: that is compared, too."""

    def __init__(self, content: Digest, *, place: str) -> None:
        self._content = content
        self._place = place
        self._blake3 = blake3()
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._adler32 = zlib.adler32(b"")

    def update(self, data: Bytes) -> None:
        """What comes next."""
        self._blake3.update(data)
        self._sha256.update(data)
        self._md5.update(data)
        self._adler32 = zlib.adler32(data, self._adler32)

    def finish(self) -> FileDigests:
        """The digests. Raises Corrupt if it was another file."""
        if self._blake3.digest() != self._content.raw:
            raise Corrupt("is another file than its manifest says", place=self._place)
        return FileDigests(self._sha256.digest(), self._md5.digest(), self._adler32)
