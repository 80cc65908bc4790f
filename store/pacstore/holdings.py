"""Holdings: a server's statement that a release is here, whole and verified (FORMAT.md section 7)."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pacstore.digest import Digest
from pacstore.errors import Corrupt, NewerFormat, Refused, TooLarge
from pacstore.limits import LIMITS
from pacstore.release import Release

FORMAT = 1


@dataclass(frozen=True)
class Holdings:
    """One release that a store holds completely, and with which placement."""

    release: Release
    tree_digest: Digest
    manifest_digest: Digest
    attributes_digest: Digest
    placement_digest: Digest
    placement_number: int

    def encode(self) -> bytes:
        """The bytes of the holdings file."""
        return encode_json(
            {
                "attributes_digest": self.attributes_digest.hex,
                "format": FORMAT,
                "manifest_digest": self.manifest_digest.hex,
                "placement_digest": self.placement_digest.hex,
                "placement_number": self.placement_number,
                "release": str(self.release),
                "tree_digest": self.tree_digest.hex,
            }
        )

    @classmethod
    def parse(cls, data: bytes, *, place: str) -> Holdings:
        """The holdings in `data`. Raises Corrupt, TooLarge or NewerFormat."""
        value = decode_json(data, limit=LIMITS.holdings_bytes, place=place)
        check_format(value, FORMAT, place)
        number = value.get("placement_number")
        if type(number) is not int or not 0 < number < 2**63:
            raise Corrupt("has no placement number", place=place)
        try:
            return cls(
                release=Release.parse(_text(value, "release")),
                tree_digest=Digest.parse(_text(value, "tree_digest")),
                manifest_digest=Digest.parse(_text(value, "manifest_digest")),
                attributes_digest=Digest.parse(_text(value, "attributes_digest")),
                placement_digest=Digest.parse(_text(value, "placement_digest")),
                placement_number=number,
            )
        except Refused as error:
            raise Corrupt(f"is not a valid holdings file: {error}", place=place) from error


def _text(value: dict[str, object], key: str) -> str:
    """The text `key`, or none: a number of 64 digits is no digest."""
    found = value.get(key)
    return found if isinstance(found, str) else ""


def encode_json(value: dict[str, object]) -> bytes:
    """The canonical bytes of a small JSON file: sorted keys, no spaces, one newline at the end."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def decode_json(data: bytes, *, limit: int, place: str) -> dict[str, object]:
    """The JSON object in `data`, of at most `limit` bytes. Raises Corrupt or TooLarge."""
    if len(data) > limit:
        raise TooLarge(f"has more than {limit} bytes", place=place)
    try:
        # json.loads would guess the encoding of bytes, and keep the last of several equal keys.
        value = json.loads(str(data, "utf-8"), object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise Corrupt("is not JSON", place=place) from error
    if not isinstance(value, dict):
        raise Corrupt("is not a JSON object", place=place)
    return value


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key twice")
    return value


def check_format(value: dict[str, object], known: int, place: str) -> None:
    """Raise unless the JSON file says `"format": known`; NewerFormat where it says a higher number."""
    found = value.get("format")
    if type(found) is not int or found < 1:
        raise Corrupt("does not say which format version it has", place=place)
    if found != known:
        raise NewerFormat(
            f"has format version {found}; this pacball knows version {known}",
            place=place,
            hint="install a newer pacball",
        )
