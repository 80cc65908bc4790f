"""A pacball as casync reads one: an index of its pieces (`.caibx`), and each piece as a chunk of a store (`.castr`).

casync 2's formats, little-endian: src/caformat.h of https://github.com/systemd/casync. Its chunks may have any borders; ours are
the pieces whose SHA-256 a metalink has, too. The least and the greatest length in the index are theirs, for then casync cuts its
seeds at the same places. A chunk is a Zstandard frame (RFC 8878) of raw blocks: as long as the piece and a
little more, so that it is sent while it is put together; there is nothing to gain by compressing it anew for each reader.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pacstore.errors import NotFound, TooLarge
from pacstore.limits import KIB, MIB

if TYPE_CHECKING:
    from pacstore.digest import Bytes
    from pacstore.pacball.digests import PacballDigests

_INDEX = 0x96824D9C7B129FF9
_TABLE = 0xE75B9E112F17417D
_TAIL = 0x4B4F050E5549ECD1
_HEADER_BYTES = 48
_ITEM_BYTES = 40
_WITH_SHA256 = 0
"""The flags of an index whose chunks are named by SHA-256, and not by SHA-512/256."""
_ID_BYTES = 32
_CHUNK = re.compile(r"([0-9a-f]{4})/(\1[0-9a-f]{60})\.cacnk\Z")
_MOST_PIECE_BYTES = 8 * MIB
"""casync reads no chunk that takes 16 MiB, compressed or not."""
_BLOCK_BYTES = 128 * KIB
_FRAME_START = struct.pack("<IB", 0xFD2FB528, 0xA0)
"""One segment, its length in four bytes, no checksum: the name of a chunk is one."""
_FRAME_HEADER_BYTES = len(_FRAME_START) + 4
_BLOCK_HEADER_BYTES = 3


def encode_index(digests: PacballDigests) -> bytes:
    """The `.caibx` of a pacball. Raises TooLarge for one whose pieces casync cannot read."""
    if digests.piece_bytes > _MOST_PIECE_BYTES:
        raise TooLarge("is too large for casync, which reads no such long pieces", hint="take the pacball itself")
    length = digests.piece_bytes
    out = bytearray(struct.pack("<6Q", _HEADER_BYTES, _INDEX, _WITH_SHA256, length, length, length))
    out += struct.pack("<2Q", 2**64 - 1, _TABLE)
    for number, at in enumerate(range(0, len(digests.pieces), _ID_BYTES), start=1):
        out += struct.pack("<Q", min(number * length, digests.total_bytes)) + digests.pieces[at : at + _ID_BYTES]
    out += struct.pack("<5Q", 0, 0, _HEADER_BYTES, len(out) + _ITEM_BYTES - _HEADER_BYTES, _TAIL)
    return bytes(out)


def piece_at(digests: PacballDigests, path: str) -> tuple[int, int]:
    """The first byte of the piece whose chunk has that path in a store (`abcd/abcd….cacnk`), and that behind its last.

    Raises NotFound for any other path.
    """
    match = _CHUNK.match(path)
    if match is not None:
        wanted = bytes.fromhex(match[2])
        for number, at in enumerate(range(0, len(digests.pieces), _ID_BYTES)):
            if digests.pieces[at : at + _ID_BYTES] == wanted:
                first = number * digests.piece_bytes
                return first, min(first + digests.piece_bytes, digests.total_bytes)
    raise NotFound("is no chunk of this pacball", hint="the index beside it, .caibx, lists them")


def chunk_bytes(length: int) -> int:
    """How long the chunk of a piece of `length` bytes is."""
    return _FRAME_HEADER_BYTES + length + _BLOCK_HEADER_BYTES * -(-length // _BLOCK_BYTES)


def encode_chunk(pieces: Iterable[Bytes], length: int) -> Iterator[Bytes]:
    """The chunk of a piece of `length` bytes, at least one, which come in any `pieces`."""
    yield _FRAME_START + struct.pack("<I", length)
    done = 0
    for piece in pieces:
        view = memoryview(piece)
        while view:
            if done % _BLOCK_BYTES == 0:
                block = min(_BLOCK_BYTES, length - done)
                yield (block << 3 | (done + block == length)).to_bytes(_BLOCK_HEADER_BYTES, "little")
            part = view[: _BLOCK_BYTES - done % _BLOCK_BYTES]
            yield part
            done += len(part)
            view = view[len(part) :]


def cut(pieces: Iterable[Bytes], first: int, end: int) -> Iterator[Bytes]:
    """The bytes from `first` to `end` of what comes in `pieces`."""
    at = 0
    for piece in pieces:
        view = memoryview(piece)[max(first - at, 0) : max(end - at, 0)]
        at += len(piece)
        if len(view):
            yield view
        if at >= end:
            return
