"""Header fields about digests of whole files: RFC 9530's, and RFC 3230's before it, which tools of grids ask for."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from multidict import CIMultiDictProxy

    from pacstore.pacball.digests import PacballDigests
    from pacstore.pacball.file_digests import FileDigests

_WANTED = re.compile(r"\s*([A-Za-z0-9-]{1,32})\s*(?:;\s*q\s*=\s*([01](?:\.[0-9]{0,3})?)\s*)?\Z")
_WANTED_NOW = re.compile(r"\s*sha-256\s*(?:=\s*0*([0-9]{1,2})\s*)?\Z")
_MOST_WANTED = 20
_NAMES = frozenset({"adler32", "md5", "sha-256"})
_PLAIN = re.compile(r"[^A-Za-z0-9._+ ()\[\]=,@~^#!&$-]")


def wants_digests(headers: CIMultiDictProxy[str]) -> bool:
    """Whether a client asks for a digest that can be had: by Want-Repr-Digest (RFC 9530), or Want-Digest before it."""
    now = ",".join(headers.getall("Want-Repr-Digest", [])).split(",")[:_MOST_WANTED]
    # Of a key that comes twice the last one counts (RFC 9651).
    weights = [int(match[1] or 1) for match in map(_WANTED_NOW.match, now) if match]
    before = _wanted(headers.getall("Want-Digest", []))
    return any(weights[-1:]) or any(weight > 0 and name in _NAMES for name, weight in before)


def repr_digest(digests: PacballDigests | FileDigests) -> str:
    """The value of Repr-Digest (RFC 9530)."""
    return f"sha-256=:{_base64(digests.sha256)}:"


def instance_digests(wanted: Sequence[str], digests: PacballDigests | FileDigests) -> str:
    """The value of Digest (RFC 3230) for the fields Want-Digest; empty where nothing of what is here was wanted."""
    values = {
        "adler32": f"{digests.adler32:08x}",
        "md5": _base64(digests.md5),
        "sha-256": _base64(digests.sha256),
    }
    names = sorted(_wanted(wanted), key=lambda one: -one[1])
    return ",".join(f"{name}={values[name]}" for name, weight in names if weight > 0 and name in values)


def _wanted(fields: Sequence[str]) -> Iterator[tuple[str, float]]:
    seen = set()
    for text in ",".join(fields).split(",")[:_MOST_WANTED]:
        match = _WANTED.match(text)
        if match and (name := match[1].lower()) not in seen:
            seen.add(name)
            yield name, float(match[2] or 1)


def disposition(name: str) -> str:
    """The value of Content-Disposition for a file of that name (RFC 6266): to be kept, not shown."""
    plain = _PLAIN.sub("_", name)
    rest = "" if plain == name else f"; filename*=UTF-8''{quote(name, safe='')}"
    return f'attachment; filename="{plain}"{rest}'


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
