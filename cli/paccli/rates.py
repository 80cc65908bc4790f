"""Rates as people write them: bytes a second, with a unit of 1000 (k, M, G) or 1024 (Ki, Mi, Gi)."""

from __future__ import annotations

import re

from pacstore.errors import Refused, printable

_RATE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?([kKMG]i?)?(?:B(?:/s)?)?\Z")
_UNITS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9,
          "ki": 2**10, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}  # fmt: skip
LEAST_BYTES_PER_SECOND = 1024


def parse_rate(text: str, *, place: str) -> int:
    """Bytes a second, for example of 20M, 1.5 MB/s, 800KiB. Raises Refused for anything else, and for less than 1024."""
    match = _RATE.match(text)
    rate = int(float(match[1]) * _UNITS[match[2] or ""]) if match else 0
    if rate < LEAST_BYTES_PER_SECOND:
        hint = f"write for example 20M for 20,000,000 bytes a second; at least {LEAST_BYTES_PER_SECOND}"
        raise Refused(f"{printable(text[:40])} is no rate", place=place, hint=hint)
    return rate
