"""Digests: BLAKE3-256 values, the names of everything that pacball stores."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from blake3 import blake3

from pacstore.errors import Refused

Bytes = bytes | bytearray | memoryview
"""Anything whose bytes can be hashed or written without a copy."""

DIGEST_BYTES = 32
_HEX = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A BLAKE3-256 value; `raw` is its 32 bytes."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != DIGEST_BYTES:
            raise ValueError(f"a digest has {DIGEST_BYTES} bytes, not {len(self.raw)}")

    @classmethod
    def of(cls, data: Bytes) -> Digest:
        """The digest of `data`."""
        return cls(blake3(data).digest())

    @classmethod
    def of_all(cls, pieces: Iterable[Bytes]) -> Digest:
        """The digest of `pieces` one after another."""
        hasher = blake3()
        for piece in pieces:
            hasher.update(piece)
        return cls(hasher.digest())

    @classmethod
    def parse(cls, text: str) -> Digest:
        """The digest written as 64 lower-case hexadecimal digits. Raises Refused for anything else."""
        if not isinstance(text, str) or not _HEX.match(text):
            raise Refused("is not a digest", place=str(text)[:80], hint="write 64 lower-case hexadecimal digits")
        return cls(bytes.fromhex(text))

    @property
    def hex(self) -> str:
        """64 lower-case hexadecimal digits."""
        return self.raw.hex()

    def __str__(self) -> str:
        return self.hex


EMPTY = Digest.of(b"")
"""The digest of no bytes."""
