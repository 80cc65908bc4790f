"""The marker of a store: `store.json`, which says that this is one, and of which format version (FORMAT.md section 2)."""

from __future__ import annotations

from pacstore.errors import Corrupt
from pacstore.holdings import check_format, decode_json, encode_json
from pacstore.limits import LIMITS

FORMAT = 1
_KIND = "pacball store"
MARKER = encode_json({"format": FORMAT, "kind": _KIND})
"""The bytes of the file."""


def check_marker(data: bytes, place: str) -> None:
    """Raise Corrupt, TooLarge or NewerFormat unless `data` is the marker of a store that this pacball knows."""
    value = decode_json(data, limit=LIMITS.store_marker_bytes, place=place)
    if value.get("kind") != _KIND:
        raise Corrupt("is not the marker of a pacball store", place=place)
    check_format(value, FORMAT, place)
