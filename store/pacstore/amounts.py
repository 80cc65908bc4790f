"""Amounts as people write them: rates, byte counts and spans of time; units of 1000 (k, M, G, T) or 1024 (Ki, Mi, Gi, Ti)."""

from __future__ import annotations

import re

from pacstore.errors import Refused, printable

_BYTES = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?([kKMGT]i?)?B?\Z")
_UNITS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
          "ki": 2**10, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}  # fmt: skip
_SPAN = re.compile(r"([0-9]{1,6})([smhd])\Z")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
LEAST_BYTES_PER_SECOND = 1024


def parse_rate(text: str, *, place: str) -> int:
    """Bytes a second, for example of 20M, 1.5 MB/s, 800KiB. Raises Refused for anything else, and for less than 1024."""
    count = _count(text.removesuffix("/s") if text.endswith("B/s") else text)
    if count is None or count < LEAST_BYTES_PER_SECOND:
        hint = f"write for example 20M for 20,000,000 bytes a second; at least {LEAST_BYTES_PER_SECOND}"
        raise Refused(f"{printable(text[:40])} is no rate", place=place, hint=hint)
    return count


def parse_bytes(text: str, *, place: str) -> int:
    """Bytes, for example of 500G, 1.5 TB, 800GiB. Raises Refused for anything else."""
    count = _count(text)
    if count is None:
        hint = "write for example 500G for 500,000,000,000 bytes"
        raise Refused(f"{printable(text[:40])} is no number of bytes", place=place, hint=hint)
    return count


def parse_span(text: str, *, place: str = "") -> int:
    """The seconds that `7d`, `12h`, `30m`, `5s` or `0` stand for. Raises Refused."""
    if text == "0":
        return 0
    match = _SPAN.match(text)
    if match is None:
        message = f"{printable(text[:40])} is no time span"
        raise Refused(message, place=place, hint="write for example 7d, 12h, 30m or 0")
    return int(match[1]) * _UNIT_SECONDS[match[2]]


def _count(text: str) -> int | None:
    match = _BYTES.match(text)
    return int(float(match[1]) * _UNITS[match[2] or ""]) if match else None
