"""What a GET or HEAD is answered with, by its conditions and range (RFC 9110 sections 13 and 14): pure functions.

Several ranges at once, other units and ranges that make no sense are ignored, as the RFC allows: the whole file is sent.
The public files of a store have no modification times in our answers, so conditions on dates never hold for them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC
from email.utils import formatdate, parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multidict import CIMultiDictProxy

# A position behind the end is one, however far: a client that counts wrong is told so, and not sent everything.
_RANGE = re.compile(r"\s*bytes\s*=\s*([0-9]{0,1000})\s*-\s*([0-9]{0,1000})\s*\Z", re.IGNORECASE)
_ETAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and the bytes `offset` to `offset + length` of the file that go with it."""

    status: int
    offset: int = 0
    length: int = 0

    @property
    def has_body(self) -> bool:
        """Whether these bytes are sent, unless only the header was asked for."""
        return self.status in (200, 206)


def choose_answer(
    method: str, headers: CIMultiDictProxy[str], *, size: int, etag: str, modified: int | None = None
) -> Answer:
    """The answer to a request for a file of `size` bytes with the entity tag `etag` (in quotes).

    `modified`: when it was changed last, in seconds since 1970; None where nothing is said of that.
    """
    if "If-Match" in headers:
        if not _names(headers.getall("If-Match"), etag):
            return Answer(412)
    elif _is_later(modified, headers.get("If-Unmodified-Since")):
        return Answer(412)
    if "If-None-Match" in headers:
        if _names(headers.getall("If-None-Match"), etag, weakly=True):
            return Answer(304)
    elif _is_later(modified, headers.get("If-Modified-Since")) is False:
        return Answer(304)
    unchanged = (etag,) if modified is None else (etag, http_date(modified))
    if method != "GET" or headers.get("If-Range", etag).strip() not in unchanged:
        return Answer(200, 0, size)
    return _choose_range(headers.getall("Range", []), size)


def http_date(seconds: int) -> str:
    """A time in seconds since 1970 as HTTP writes it."""
    return formatdate(seconds, usegmt=True)


def _is_later(modified: int | None, said: str | None) -> bool | None:
    """Whether a file was changed after the date that a client says; None if either is no date."""
    if modified is None or said is None:
        return None
    try:
        date = parsedate_to_datetime(said)
        return modified > (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _names(values: list[str], etag: str, *, weakly: bool = False) -> bool:
    """Whether a list of entity tags, or `*`, in the header fields `values` includes `etag`."""
    text = ",".join(values).strip()
    tags = _ETAG.findall(text)
    return text == "*" or etag in tags or (weakly and f"W/{etag}" in tags)


def _choose_range(values: list[str], size: int) -> Answer:
    match = _RANGE.match(values[0]) if len(values) == 1 else None
    if not match or not (match[1] or match[2]):
        return Answer(200, 0, size)
    if match[1]:
        first, end = int(match[1]), min(int(match[2] or size) + 1, size)
        if match[2] and int(match[2]) < first:
            return Answer(200, 0, size)
    else:
        first, end = max(size - int(match[2]), 0), size
    return Answer(206, first, end - first) if first < end else Answer(416)
