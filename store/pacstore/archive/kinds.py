"""What kind of archive a file is, by its content: a tar, a compressed one, or a script with either behind it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum

from pacstore.archive.headers import BLOCK_BYTES, is_header
from pacstore.durable import wrapped
from pacstore.errors import Refused
from pacstore.limits import MIB

SCRIPT_BYTES = 2 * MIB
"""How far into a script its payload is looked for."""

_SHEBANG = b"#!"
_MAGIC = b"ustar"
_MAGIC_AT = 257


class Compression(StrEnum):
    """How a stream is compressed."""

    NONE = "none"
    GZIP = "gzip"
    XZ = "xz"
    ZSTD = "zstd"
    BZIP2 = "bzip2"


MAGICS = {
    Compression.GZIP: b"\x1f\x8b\x08",
    Compression.XZ: b"\xfd7zXZ\0",
    Compression.ZSTD: b"\x28\xb5\x2f\xfd",
    Compression.BZIP2: b"BZh",
}
"""What a stream begins with."""


@dataclass(frozen=True)
class Kind:
    """An archive whose tar, or the compressed stream of it, begins at byte `begin`."""

    begin: int
    compression: Compression


def identify(descriptor: int, *, name: str) -> Kind:
    """What the open file is. Raises Refused for what is no archive, Unavailable."""
    with wrapped(name):
        head = os.pread(descriptor, SCRIPT_BYTES, 0)
    kind = _script(head) if head.startswith(_SHEBANG) else _at(head, 0)
    if kind is None:
        what = "is a script with no tar behind it" if head.startswith(_SHEBANG) else "is no archive that is known"
        hint = "name a directory, a tar (also with gzip, xz, zstd or bzip2), or a script with a tar at its end"
        raise Refused(what, place=name, hint=hint)
    return kind


def compression_of(head: bytes) -> Compression:
    """How a stream that begins so is compressed."""
    for compression, magic in MAGICS.items():
        if head.startswith(magic) and (compression is not Compression.BZIP2 or head[4:10] == b"1AY&SY"):
            return compression
    return Compression.NONE


def _script(head: bytes) -> Kind | None:
    """What follows a script: it begins behind the end of a line."""
    at = head.find(b"\n") + 1
    while at:
        found = _at(head, at)
        if found is not None:
            return found
        at = head.find(b"\n", at) + 1
    return None


def _at(head: bytes, begin: int) -> Kind | None:
    compression = compression_of(head[begin : begin + 16])
    if compression is not Compression.NONE:
        return Kind(begin, compression)
    # The tars of before 1988 have no magic: for these the checksum decides, but not behind any line of a script.
    has_magic = head[begin + _MAGIC_AT : begin + _MAGIC_AT + len(_MAGIC)] == _MAGIC
    if (has_magic or not begin) and is_header(head[begin : begin + BLOCK_BYTES]):
        return Kind(begin, Compression.NONE)
    return None
