"""Contents: what an export says of itself, in the first member of each of its volumes (FORMAT.md section 13)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from pacstore.digest import Digest
from pacstore.errors import Corrupt, Refused, TooLarge, printable
from pacstore.holdings import check_format, decode_json, encode_json
from pacstore.limits import LIMITS, MIB
from pacstore.release import Release
from pacstore.storage import STORE_MARKER, DocumentKind, ObjectKind

NAME = "pacball-export.json"
FORMAT = 1
CONTENTS_BYTES = 4 * MIB
"""Fits the names of 45,000 packs, which are 3 TB as a rule; a list that is empty takes 20 times its bytes in memory."""
VOLUMES = 9_999
_KIND = "pacball export"
_MEMBER_BYTES = 8**11 - 1
"""What a tar's header can say in octal digits."""
_KEYS = {"catalog", "format", "id", "kind", "releases", "shared", "since", "volume", "volumes"}
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}"
_SHARED = re.compile(
    rf"{re.escape(STORE_MARKER)}\Z|(?:{DocumentKind.CATALOG}|{DocumentKind.PLACEMENT})/(?!.*\.\.){_NAME}\Z|"
    rf"(?:{ObjectKind.MANIFEST}|{ObjectKind.ATTRIBUTES}|{ObjectKind.PROVENANCE})/([0-9a-f]{{2}})/\1[0-9a-f]{{62}}\Z"
)
_OWN = re.compile(rf"{DocumentKind.HOLDINGS}/(?!.*\.\.){_NAME}\Z|{ObjectKind.PACK}/([0-9a-f]{{2}})/\1[0-9a-f]{{62}}\Z")


@dataclass(frozen=True, slots=True)
class Piece:
    """One member of a volume: its `path`, as below a docroot, and its `length` in bytes."""

    path: str
    length: int

    @property
    def pack(self) -> Digest | None:
        """The pack that it is, if it is one."""
        kind, _, name = self.path.partition("/")
        return Digest.parse(name[3:]) if kind == ObjectKind.PACK else None


@dataclass(frozen=True)
class Contents:
    """What an export has. `root`: digest of the catalog's first root; `version` that of the catalog.

    `releases` are in it; those of `since` the other side is taken to hold. `shared` is in each volume; `volumes` gives what
    each has beside that, its packs first of all.
    """

    root: Digest
    version: int
    releases: tuple[Release, ...]
    since: tuple[Release, ...]
    shared: tuple[Piece, ...]
    volumes: tuple[tuple[Piece, ...], ...]

    @cached_property
    def id(self) -> Digest:
        """The same for all volumes of an export, and for no other export."""
        return Digest.of(encode_json(self._values()))

    def encode(self, number: int) -> bytes:
        """The first member of volume `number`, which counts from 1."""
        return encode_json({**self._values(), "id": self.id.hex, "volume": number})

    def packs(self) -> dict[Digest, int]:
        """The volume of each pack."""
        return {
            pack: number
            for number, pieces in enumerate(self.volumes, 1)
            for piece in pieces
            if (pack := piece.pack) is not None
        }

    def _values(self) -> dict[str, object]:
        return {
            "catalog": {"root": self.root.hex, "version": self.version},
            "format": FORMAT,
            "kind": _KIND,
            "releases": [str(release) for release in self.releases],
            "shared": [[piece.path, piece.length] for piece in self.shared],
            "since": [str(release) for release in self.since],
            "volumes": [[[piece.path, piece.length] for piece in pieces] for pieces in self.volumes],
        }


def parse_contents(data: bytes, *, place: str) -> tuple[Contents, int]:
    """The contents in the first member of a volume, and the volume's number. Raises Corrupt, TooLarge or NewerFormat."""
    value = decode_json(data, limit=CONTENTS_BYTES, place=place)
    if value.get("kind") != _KIND:
        raise Corrupt("is not a volume of an export", place=place)
    check_format(value, FORMAT, place)
    try:
        contents, number = _contents(value), value["volume"]
        written = contents.encode(number) if type(number) is int else b""
    except (KeyError, TypeError, ValueError, Refused) as error:
        raise Corrupt(f"does not say what it has: {error}", place=place) from error
    if type(number) is not int or not 1 <= number <= len(contents.volumes) or value.keys() != _KEYS:
        raise Corrupt("does not say which volume it is", place=place)
    # What was altered has another id, or is written in another way.
    if written != data:
        raise Corrupt("what it says of itself was altered", place=place)
    _check_pieces(contents, place)
    return contents, number


def _contents(value: dict[str, object]) -> Contents:
    catalog, volumes = value["catalog"], value["volumes"]
    if not isinstance(catalog, dict) or not isinstance(volumes, list):
        raise TypeError("its catalog or its volumes")
    version = catalog["version"]
    if type(version) is not int or not 0 < version < 2**63:
        raise ValueError("the version of its catalog")
    return Contents(
        Digest.parse(catalog["root"]),
        version,
        tuple(_releases(value["releases"])),
        tuple(_releases(value["since"])),
        tuple(_pieces(value["shared"])),
        tuple(tuple(_pieces(pieces)) for pieces in volumes),
    )


def _releases(value: object) -> Iterable[Release]:
    if not isinstance(value, list) or not all(type(name) is str for name in value) or value != sorted(set(value)):
        raise ValueError("its releases")
    return [Release.parse(name) for name in value]


def _pieces(value: object) -> Iterable[Piece]:
    if not isinstance(value, list):
        raise TypeError("its members")
    for one in value:
        path, length = one
        if type(path) is not str or type(length) is not int or not 0 <= length <= _MEMBER_BYTES:
            raise ValueError("its members")
        yield Piece(path, length)


def _check_pieces(contents: Contents, place: str) -> None:
    own = [piece for pieces in contents.volumes for piece in pieces]
    if not 0 < len(contents.volumes) <= VOLUMES:
        raise TooLarge(f"is of an export of {len(contents.volumes)} volumes", place=place)
    for pattern, pieces in ((_SHARED, contents.shared), (_OWN, own)):
        for piece in pieces:
            if not pattern.match(piece.path):
                raise Corrupt(f"has a member that no export has: {printable(piece.path[:300])}", place=place)
    if len({piece.path for piece in (*contents.shared, *own)}) != len(contents.shared) + len(own):
        raise Corrupt("has a member twice", place=place)
    if any(piece.length > LIMITS.pack_bytes for piece in own):
        raise TooLarge("has a pack that is longer than any may be", place=place)
