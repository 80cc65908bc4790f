"""Documents: a deterministic CBOR header, then sections of columns (FORMAT.md section 4).

Encoding is canonical; decoding is strict: whatever it accepts, encoding gives back byte for byte.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pacstore.digest import DIGEST_BYTES, Bytes, Digest
from pacstore.errors import Corrupt, NewerFormat, TooLarge
from pacstore.limits import LIMITS

Value = int | str | bytes | list["Value"] | dict[str, "Value"]
Column = NDArray[np.generic]
Column8 = NDArray[np.uint8]
Column16 = NDArray[np.uint16]
Column32 = NDArray[np.uint32]
Column64 = NDArray[np.uint64]
Numbers = NDArray[np.int64]

U8, U16, U32, U64, I64 = (np.dtype(code) for code in ("u1", "<u2", "<u4", "<u8", "<i8"))
_PREFIX = struct.Struct("<8sI")
VERSION = 1
NESTING = 3
"""Arrays and maps that may enclose an item of a header."""


@dataclass(frozen=True)
class Layout:
    """One kind of document: its four letters, what to call it in messages, its sections, its largest length in bytes.

    `extensible`: later writers may add header keys and sections, which this version ignores. `version`: of its format.
    """

    letters: str
    title: str
    keys: tuple[str, ...]
    sections: tuple[str, ...]
    limit_bytes: int
    extensible: bool = False
    version: int = VERSION

    @property
    def magic(self) -> bytes:
        return f"PB{self.letters}{self.version:02}".encode()


@dataclass(frozen=True)
class Document:
    """A decoded document: its header without `sections`, and the sections as views into the given bytes."""

    layout: Layout
    header: Mapping[str, Value]
    sections: Mapping[str, memoryview]
    place: str

    def number(self, key: str, most: int) -> int:
        """The unsigned integer `key` of the header, at most `most`."""
        value = self.header.get(key)
        if type(value) is not int or value < 0:
            raise self.corrupt(f"its header has no number {key!r}")
        if value > most:
            raise TooLarge(f"its header says {key} = {value}, more than the limit of {most}", place=self.place)
        return value

    def digest(self, key: str) -> Digest:
        """The digest `key` of the header."""
        value = self.header.get(key)
        if not isinstance(value, bytes) or len(value) != DIGEST_BYTES:
            raise self.corrupt(f"its header has no digest {key!r}")
        return Digest(value)

    def text(self, key: str) -> str:
        """The text `key` of the header."""
        value = self.header.get(key)
        if not isinstance(value, str):
            raise self.corrupt(f"its header has no text {key!r}")
        return value

    def column(self, section: str, dtype: np.dtype[np.generic], count: int) -> Column:
        """The section as exactly `count` elements of `dtype`, not copied."""
        data = self.sections[section]
        if len(data) != count * dtype.itemsize:
            raise self.corrupt(f"section {section!r} has {len(data)} bytes, not {count} x {dtype.itemsize}")
        return np.frombuffer(data, dtype=dtype)

    def digests(self, section: str, count: int) -> Column8:
        """The section as `count` rows of 32 bytes."""
        flat: Column8 = self.column(section, U8, count * DIGEST_BYTES).view(np.uint8)
        return flat.reshape(count, DIGEST_BYTES)

    def corrupt(self, fault: str) -> Corrupt:
        """The error that this document is not well-formed because of `fault`."""
        return Corrupt(f"is not a valid {self.layout.title}: {fault}", place=self.place)


def encode(layout: Layout, header: Mapping[str, Value], sections: Sequence[Bytes]) -> bytes:
    """The canonical bytes of a document whose sections are `sections`, in the layout's order."""
    return b"".join([encode_beginning(layout, header, [len(section) for section in sections]), *sections])


def encode_beginning(layout: Layout, header: Mapping[str, Value], lengths: Sequence[int]) -> bytes:
    """The bytes before the sections, which have these lengths in bytes: for documents too large to be put together in memory."""
    listed: list[Value] = [[name, length] for name, length in zip(layout.sections, lengths, strict=True)]
    cbor = _cbor({**header, "sections": listed})
    return _PREFIX.pack(layout.magic, len(cbor)) + cbor


def decode(layout: Layout, data: Bytes, *, place: str) -> Document:
    """The document in `data`, which must be exactly one. Raises Corrupt, TooLarge or NewerFormat naming `place`."""
    view = memoryview(data).toreadonly()
    if len(view) > layout.limit_bytes:
        raise TooLarge(f"has {len(view)} bytes, more than the limit for a {layout.title}", place=place)
    header, rest = _decode_header(layout, view, place)
    listed = header.pop("sections", None)
    document = Document(layout, header, {}, place)
    if not layout.extensible and tuple(sorted(header)) != tuple(sorted(layout.keys)):
        raise document.corrupt("its header has other keys")
    return Document(layout, header, _split(document, listed, rest), place)


def section_extents(layout: Layout, beginning: Bytes, *, place: str) -> dict[str, range]:
    """Where in a document each of its sections lies, by its `beginning`, which has the whole header at least; nothing is checked.

    Raises Corrupt, TooLarge or NewerFormat where that is no document's beginning.
    """
    header, rest = _decode_header(layout, memoryview(beginning).toreadonly(), place)
    at = memoryview(beginning).nbytes - len(rest)
    found: dict[str, range] = {}
    listed = header.get("sections")
    for item in listed if isinstance(listed, list) else []:
        match item:
            case [str(name), int(length)]:
                found[name] = range(at, at + length)
                at += length
    if at > layout.limit_bytes:
        raise TooLarge(f"has {at} bytes, more than the limit for a {layout.title}", place=place)
    return found


BEGINNING_BYTES = _PREFIX.size + LIMITS.header_bytes
"""So many bytes from its first on have a document's whole header."""


def _decode_header(layout: Layout, view: memoryview, place: str) -> tuple[dict[str, Value], memoryview]:
    whole = Document(layout, {}, {}, place)
    if len(view) < _PREFIX.size:
        raise whole.corrupt("it is truncated")
    magic, length = _PREFIX.unpack(view[: _PREFIX.size])
    check_magic(magic, layout.magic, layout.title, place)
    if not 0 < length <= LIMITS.header_bytes or _PREFIX.size + length > len(view):
        raise whole.corrupt("its header does not fit")
    raw = bytes(view[_PREFIX.size : _PREFIX.size + length])
    try:
        header, end = _item(raw, 0, NESTING)
    except ValueError as error:
        raise whole.corrupt(f"its header is not deterministic CBOR: {error}") from error
    if end != length or not isinstance(header, dict):
        raise whole.corrupt("its header is not one map")
    return header, view[_PREFIX.size + length :]


def check_magic(magic: bytes, expected: bytes, title: str, place: str) -> None:
    """Raise NewerFormat if only the version differs and is higher, Corrupt for any other difference."""
    if magic == expected:
        return
    if magic[:6] == expected[:6] and magic[6:].isdigit() and magic[6:] > expected[6:]:
        raise NewerFormat(
            f"is a {title} of format version {int(magic[6:])}; this pacball knows version {int(expected[6:])}",
            place=place,
            hint="install a newer pacball",
        )
    raise Corrupt(f"is not a {title}: it begins with {magic!r}", place=place)


def _cbor(value: Value) -> bytes:
    """`value` in the core deterministic encoding."""
    if isinstance(value, int):
        return _cbor_head(0, value)
    if isinstance(value, bytes):
        return _cbor_head(2, len(value)) + value
    if isinstance(value, str):
        return _cbor_head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return _cbor_head(4, len(value)) + b"".join(map(_cbor, value))
    pairs = sorted((_cbor(key), _cbor(item)) for key, item in value.items())
    return _cbor_head(5, len(value)) + b"".join(key + item for key, item in pairs)


def _cbor_head(major: int, count: int) -> bytes:
    """The major type and its argument, in the shortest form."""
    if count < 24:
        return bytes([major << 5 | count])
    short, width = next((s, w) for s, w in ((24, 1), (25, 2), (26, 4), (27, 8)) if count < 1 << 8 * w)
    return bytes([major << 5 | short]) + count.to_bytes(width, "big")


def _item(raw: bytes, at: int, depth: int) -> tuple[Value, int]:
    """The CBOR item at offset `at`, and where it ends. Raises ValueError for all that FORMAT.md does not allow.

    Not left to a general decoder: one that follows tags turns 200 bytes of shared references into gigabytes.
    """
    major, count, at = _head(raw, at)
    if major not in (0, 2, 3, 4, 5) or depth < 0:
        raise ValueError("a type that is not allowed, or nested too deep")
    if major == 0:
        return count, at
    if count > len(raw) - at:
        raise ValueError("truncated")
    if major == 2:
        return raw[at : at + count], at + count
    if major == 3:
        return raw[at : at + count].decode("utf-8"), at + count
    if major == 4:
        items: list[Value] = []
        for _ in range(count):
            item, at = _item(raw, at, depth - 1)
            items.append(item)
        return items, at
    return _map(raw, at, count, depth)


def _map(raw: bytes, at: int, count: int, depth: int) -> tuple[Value, int]:
    found: dict[str, Value] = {}
    last = b""
    for _ in range(count):
        key, end = _item(raw, at, depth - 1)
        if type(key) is not str or raw[at:end] <= last:
            raise ValueError("its keys are not text, not sorted, or not distinct")
        last = raw[at:end]
        found[key], at = _item(raw, end, depth - 1)
    return found, at


def _head(raw: bytes, at: int) -> tuple[int, int, int]:
    """The major type and the argument of the item at `at`, in the shortest form, and where they end."""
    if at >= len(raw):
        raise ValueError("truncated")
    major, short = raw[at] >> 5, raw[at] & 31
    if short < 24:
        return major, short, at + 1
    width = {24: 1, 25: 2, 26: 4, 27: 8}.get(short, 0)
    end = at + 1 + width
    argument = int.from_bytes(raw[at + 1 : end], "big")
    if not width or end > len(raw) or argument < (24 if width == 1 else 1 << 4 * width):
        raise ValueError("a length or number that is indefinite, truncated or not the shortest")
    return major, argument, end


def _split(document: Document, listed: object, rest: memoryview) -> dict[str, memoryview]:
    layout = document.layout
    if not isinstance(listed, list):
        raise document.corrupt("its header lists no sections")
    found: dict[str, memoryview] = {}
    for item in listed:
        if not (isinstance(item, list) and len(item) == 2 and type(item[0]) is str and type(item[1]) is int):
            raise document.corrupt("its header lists a section wrongly")
        name, length = item
        if name in found or length > len(rest):
            raise document.corrupt(f"section {name!r} is listed twice or is truncated")
        found[name], rest = rest[:length], rest[length:]
    if len(rest):
        raise document.corrupt(f"{len(rest)} bytes follow its last section")
    known = tuple(found)[: len(layout.sections)]
    if known != layout.sections or (len(found) > len(known) and not layout.extensible):
        raise document.corrupt("it has other sections")
    return found


def column_bytes(values: object, dtype: np.dtype[np.generic]) -> bytes:
    """The bytes of a column of `dtype` with these values."""
    return np.asarray(values, dtype=dtype).tobytes()


def starts(counts: Column) -> Numbers:
    """Where each run begins when runs of these lengths follow one another; one element more, the end of the last."""
    total = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, dtype=np.int64, out=total[1:])
    return total


def row_keys(rows: Column8) -> NDArray[np.void]:
    """32-byte rows as one comparable, sortable value each."""
    return np.ascontiguousarray(rows).view(np.dtype((np.void, DIGEST_BYTES))).reshape(len(rows))
