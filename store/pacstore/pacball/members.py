"""The members of a pacball's tar: headers in the GNU format, the same bytes for the same entry on any machine.

GNU's and not pax's, because busybox reads long names and large sizes only so. Source: the GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from pacstore.document import Numbers
from pacstore.tree import EntryKind

BLOCK_BYTES = 512
END = bytes(2 * BLOCK_BYTES)
"""What a tar ends with."""

_NAME_BYTES = 100
_HARD_LINK = b"1"
_TYPES = {EntryKind.FILE: b"0", EntryKind.EXECUTABLE: b"0", EntryKind.SYMLINK: b"2", EntryKind.DIRECTORY: b"5"}
_MODES = {EntryKind.FILE: 0o644, EntryKind.EXECUTABLE: 0o755, EntryKind.SYMLINK: 0o777, EntryKind.DIRECTORY: 0o755}
_LONG_NAME, _LONG_LINK = b"L", b"K"
_OWNERS = b"0000000\0" * 2
_REST = b"ustar  \0" + bytes(247)
"""Magic, and no names of owners, no devices."""
_REST_BYTES, _REST_SUM = len(_REST), sum(_REST)


@dataclass(frozen=True, slots=True)
class Member:
    """One entry as a member: `path` from the top, `size` in bytes of a file's content, `mtime` in seconds since 1970.

    `target` is a symbolic link's, or for a `linked` file the path of the first name of its content, which has no second copy.
    """

    path: bytes
    kind: EntryKind
    mtime: int
    size: int = 0
    target: bytes = b""
    linked: bool = False

    def header(self) -> bytes:
        """All that comes before the content: whole blocks, headers of long names among them."""
        name = self.path + b"/" if self.kind is EntryKind.DIRECTORY else self.path
        # As GNU tar has them: the link's name before the member's.
        long = b""
        if len(self.target) > _NAME_BYTES:
            long += _long(self.target, _LONG_LINK)
        if len(name) > _NAME_BYTES:
            long += _long(name, _LONG_NAME)
        type_flag = _HARD_LINK if self.linked else _TYPES[self.kind]
        size = 0 if self.linked else self.size
        return long + _header(name, _MODES[self.kind], size, self.mtime, type_flag, self.target)


def padding(size: int) -> bytes:
    """What follows `size` bytes of content, so that the next member begins with a block."""
    return bytes(-size % BLOCK_BYTES)


def header_bytes(names: Numbers, targets: Numbers) -> Numbers:
    """The lengths of the headers of members whose names (with a directory's slash) and targets have these lengths."""
    length: Numbers = np.full(len(names), BLOCK_BYTES, dtype=np.int64)
    for text in (names, targets):
        length += np.where(text > _NAME_BYTES, BLOCK_BYTES + (text + BLOCK_BYTES) // BLOCK_BYTES * BLOCK_BYTES, 0)
    return length


def _long(name: bytes, type_flag: bytes) -> bytes:
    data = name + b"\0"
    return _header(b"././@LongLink", 0o644, len(data), 0, type_flag, b"") + data + padding(len(data))


def _header(name: bytes, mode: int, size: int, mtime: int, type_flag: bytes, target: bytes) -> bytes:
    before = b"%s%07o\0%s%s%s" % (
        name[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0"),
        mode,
        _OWNERS,
        _number(size),
        _number(mtime),
    )
    after = type_flag + target[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0") + _REST
    checksum = _sum(before) + 8 * 0x20 + _sum(after[:-_REST_BYTES]) + _REST_SUM
    return before + b"%06o\0 " % checksum + after


def _sum(data: bytes) -> int:
    """The sum of up to 256 bytes: the lower half of their Adler-32, which no such sum exceeds, is one more."""
    return (zlib.adler32(data) & 0xFFFF) - 1


def _number(value: int) -> bytes:
    """12 bytes: octal digits, or base 256 for what these cannot hold, as GNU tar writes it."""
    if 0 <= value < 8**11:
        return b"%011o\0" % value
    return (b"\x80" if value >= 0 else b"\xff") + value.to_bytes(11, "big", signed=True)
