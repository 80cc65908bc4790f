"""The headers of a tar: ustar, pax and GNU's, read strictly. What cannot be part of a release is refused, by its name.

Source: POSIX.1-2017 pax, "ustar Interchange Format" and "pax Interchange Format"; GNU tar 1.34, "Basic Tar Format".
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from pacstore.durable import wrapped
from pacstore.errors import Corrupt, PacballError, Refused
from pacstore.limits import MIB
from pacstore.tree import EntryKind
from pacstore.walk import shown

BLOCK_BYTES = 512
_EXTENSION_BYTES = 1 * MIB
_EXTENSIONS_IN_A_ROW = 16
_GLOBAL_RECORDS = 16
_ZEROS_AT_ONCE = 1 * MIB
_TIME = re.compile(rb"-?[0-9]{1,15}(?:\.[0-9]{0,30})?\Z")
_LARGEST = 2**63 - 1
_LATEST = 2**55
_FILES = b"0\x007"
_UNSUITABLE = {
    b"3": "a device",
    b"4": "a device",
    b"6": "a FIFO",
    b"S": "a sparse file",
    b"M": "the rest of a file that began in another volume",
    b"V": "the label of a volume",
    b"D": "a listing of an incremental backup",
}


@dataclass(frozen=True, slots=True)
class TarMember:
    """One member. `path` as it is written; its content, of `size` bytes, begins at `offset`; `mtime` in seconds since 1970.

    `target` is that of a symbolic link, or for a `linked` member the path of an earlier one of which it is another name.
    """

    path: bytes
    kind: EntryKind
    mode: int
    mtime: int
    size: int
    offset: int
    target: bytes
    linked: bool


@dataclass(frozen=True)
class Plain:
    """The plain bytes of an archive: `length` of them from `begin` of the open file `descriptor`; `name` is for messages."""

    descriptor: int
    begin: int
    length: int
    name: str

    def read(self, offset: int, count: int) -> bytes:
        """`count` bytes from `offset`. Raises Corrupt where there are fewer, Unavailable."""
        with wrapped(self.name):
            data = os.pread(self.descriptor, max(min(count, self.length - offset), 0), self.begin + offset)
        if len(data) < count:
            raise Corrupt("is truncated: its tar ends too early", place=self.name, hint="fetch or make it again")
        return data


def members(plain: Plain) -> Iterator[TarMember]:
    """All members, in their order. Raises Corrupt for what is no whole tar, Refused for what no release may contain."""
    at = 0
    reader = _Reader(plain)
    while True:
        if plain.length - at == 0 and at:
            raise Corrupt(
                "is truncated: a tar ends with blocks of zeros", place=plain.name, hint="fetch or make it again"
            )
        block = plain.read(at, BLOCK_BYTES)
        if not any(block):
            if reader.pending:
                raise Corrupt("is truncated: a member is announced that does not come", place=plain.name)
            return _check_rest(plain, at)
        found, at = reader.take(block, at)
        if found is not None:
            yield found


def is_header(block: bytes) -> bool:
    """Whether a block is the header of a member: whether its checksum is right."""
    if len(block) != BLOCK_BYTES or not any(block):
        return False
    try:
        expected = _octal(block[148:156])
    except ValueError:
        return False
    rest = block[:148] + b" " * 8 + block[156:]
    signed = sum(byte - 256 if byte > 127 else byte for byte in rest) if max(rest) > 127 else sum(rest)
    return expected in (sum(rest), signed)


def _check_rest(plain: Plain, at: int) -> None:
    """Raise Refused unless there are only zeros from `at` on."""
    while at < plain.length:
        data = plain.read(at, min(_ZEROS_AT_ONCE, plain.length - at))
        if data.count(0) != len(data):
            raise Refused("has something behind the end of its tar", place=plain.name, hint="cut it off")
        at += len(data)


@dataclass
class _Extensions:
    """What the headers before a member say of it."""

    path: bytes | None = None
    target: bytes | None = None
    records: dict[bytes, bytes] = field(default_factory=dict)
    count: int = 0


class _Reader:
    """Puts together a member and the headers that belong to it."""

    def __init__(self, plain: Plain) -> None:
        self._plain = plain
        self._global: dict[bytes, bytes] = {}
        self._next = _Extensions()

    @property
    def pending(self) -> bool:
        """Whether a member must follow."""
        return self._next.count > 0

    def take(self, block: bytes, at: int) -> tuple[TarMember | None, int]:
        """The member of the header `block` at offset `at`, None for a header of another; where the next header is."""
        place = f"{self._plain.name}: {shown(_name(block))}"
        if not is_header(block):
            raise Corrupt(f"has no header where one must be, at byte {at}", place=self._plain.name)
        try:
            size = _number(block[124:136])
            kind = block[156:157]
            if kind in b"xgLKX":
                self._extend(kind, size, at)
                return None, at + BLOCK_BYTES + size + -size % BLOCK_BYTES
            return self._member(block, kind, size, at)
        except ValueError as error:
            raise Corrupt(f"has a wrong header: {error}", place=place) from error

    def _extend(self, kind: bytes, size: int, at: int) -> None:
        following = self._next
        following.count += kind != b"g"
        if size > _EXTENSION_BYTES or following.count > _EXTENSIONS_IN_A_ROW or kind == b"X":
            raise ValueError("more or other extensions than a member needs")
        data = self._plain.read(at + BLOCK_BYTES, size)
        if kind == b"L":
            following.path = data.rstrip(b"\0")
        elif kind == b"K":
            following.target = data.rstrip(b"\0")
        elif kind == b"x":
            following.records.update(_records(data))
        else:
            found = _records(data)
            if not found.keys().isdisjoint((b"path", b"linkpath", b"size")):
                raise ValueError("a global header that names a file")
            # Only what means something: all of it is looked at again for every member.
            self._global.update((key, value) for key, value in found.items() if key == b"mtime" or _is_sparse(key))
            if len(self._global) > _GLOBAL_RECORDS:
                raise ValueError("more global headers than can be meant")

    def _member(self, block: bytes, kind: bytes, size: int, at: int) -> tuple[TarMember, int]:
        following, self._next = self._next, _Extensions()
        records = {**self._global, **following.records}
        path = records.get(b"path") or following.path or _name(block)
        target = records.get(b"linkpath") or following.target or block[157:257].partition(b"\0")[0]
        if b"size" in records:
            size = _decimal(records[b"size"])
        mtime = _time(records[b"mtime"]) if b"mtime" in records else _number(block[136:148], negative=True)
        if not -_LATEST < mtime < _LATEST:
            raise ValueError("a time that cannot be")
        if any(map(_is_sparse, records)):
            kind = b"S"
        place = f"{self._plain.name}: {shown(path)}"
        if kind in _UNSUITABLE or kind not in b"0\x007125":
            what = _UNSUITABLE.get(kind, f"of the unknown type {kind!r}")
            hint = "make the tar again without it" if kind != b"S" else "make the tar again without --sparse"
            raise Refused(f"is {what}; a release has files, directories and links", place=place, hint=hint)
        mode = _octal(block[100:108])
        is_directory = kind == b"5" or (kind in _FILES and path.endswith(b"/"))
        found = TarMember(
            path, _kind(kind, mode, is_directory=is_directory), mode, mtime, size, at + BLOCK_BYTES,
            target if kind in b"12" else b"", kind == b"1",
        )  # fmt: skip
        _check(found, place)
        end = found.offset + size
        if end > self._plain.length:
            raise _truncated(place)
        return found, end + -size % BLOCK_BYTES


def _kind(kind: bytes, mode: int, *, is_directory: bool) -> EntryKind:
    if is_directory:
        return EntryKind.DIRECTORY
    if kind == b"2":
        return EntryKind.SYMLINK
    return EntryKind.EXECUTABLE if mode & stat.S_IXUSR else EntryKind.FILE


def _check(found: TarMember, place: str) -> None:
    if found.size and (found.linked or not found.kind.is_file):
        raise Refused("has content, though it is a link or a directory", place=place)
    if found.kind.is_file and not found.linked and found.mode & (stat.S_ISUID | stat.S_ISGID):
        raise Refused("is a setuid or setgid file", place=place, hint="remove the bit: chmod ug-s; make the tar again")


def _truncated(place: str) -> PacballError:
    return Corrupt("is truncated: its content ends too early", place=place, hint="fetch or make the archive again")


def _name(block: bytes) -> bytes:
    name = block[:100].partition(b"\0")[0]
    prefix = block[345:500].partition(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _number(text: bytes, *, negative: bool = False) -> int:
    """A number in octal digits or in base 256."""
    if text[0] in (0x80, 0xFF):
        value = int.from_bytes(text[1:], "big") - (256 ** (len(text) - 1) if text[0] == 0xFF else 0)
    else:
        value = _octal(text)
    if value > _LARGEST or (value < 0 and not negative):
        raise ValueError("a number that cannot be")
    return value


def _octal(text: bytes) -> int:
    digits = text.partition(b"\0")[0].strip(b" ")
    if digits.strip(b"01234567"):
        raise ValueError("a number that is not octal")
    return int(digits, 8) if digits else 0


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 19 or int(text) > _LARGEST:
        raise ValueError("a size that is no number")
    return int(text)


def _time(text: bytes) -> int:
    """Whole seconds, rounded down."""
    if not _TIME.match(text):
        raise ValueError("a time that is no number")
    whole, _, fraction = text.partition(b".")
    return int(whole) - (whole.startswith(b"-") and bool(fraction.strip(b"0")))


def _is_sparse(key: bytes) -> bool:
    return key.startswith((b"GNU.sparse", b"SCHILY.realsize"))


def _records(data: bytes) -> dict[bytes, bytes]:
    """The records of a pax header: a length, a space, a key, `=`, a value, a newline."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(data) and data[at]:
        length, space, _ = data[at : at + 20].partition(b" ")
        if not space or not length.isdigit():
            raise ValueError("a pax record without a length")
        record = data[at : at + int(length)]
        key, equals, value = record[len(length) + 1 :].partition(b"=")
        if len(record) != int(length) or not equals or record[-1:] != b"\n":
            raise ValueError("a pax record that does not fit")
        found[key] = value[:-1]
        at += int(length)
    return found
