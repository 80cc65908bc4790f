"""Answers: whether a server has a store, keeps to HTTP where it matters to us, and how old what it gives may be."""

from __future__ import annotations

import email.utils
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pacmirror.fetch import check_answer
from pacstore.errors import Corrupt, NotFound, printable
from pacstore.finding import Finding, Level
from pacstore.limits import LIMITS
from pacstore.marker import check_marker
from pacstore.storage import STORE_MARKER, DocumentKind, document_path
from pacstore.trust.metadata import FIRST_ROOT_NAME, METADATA_LIMITS, TIMESTAMP_NAME

if TYPE_CHECKING:
    from pacmirror.examine.examination import Examination

_BELOW = "check the URL: store.json must be below it"
_RANGE = (5, 14)
_OLD_SECONDS = 61
_LONG_SECONDS = 3600
_CLOCK_SECONDS = 300
_WRONG_CLOCK_SECONDS = 86_400
_CACHES = ("via", "x-cache", "x-cache-lookup", "cf-cache-status", "x-served-by")


async def _get(
    one: Examination, path: str, limit: int, headers: Mapping[str, str]
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers with small letters, and the body as far as `limit` goes. Raises what is wrong with the answer."""
    url = one.place(path)
    async with one.session() as session, session.get(url, headers=headers, allow_redirects=False) as response:
        check_answer(response, url)
        body = bytearray()
        async for piece in response.content.iter_any():
            body += piece
            if len(body) > limit:
                raise Corrupt(f"sends more than {limit} bytes", place=str(url))
        return response.status, {name.lower(): value for name, value in response.headers.items()}, bytes(body)


async def examine_marker(one: Examination) -> list[Finding]:
    """Whether there is a store, of a format that is known."""
    place = str(one.place(STORE_MARKER))
    try:
        _, headers, body = await _get(one, STORE_MARKER, LIMITS.store_marker_bytes, {"Cache-Control": "no-cache"})
        check_marker(body, place)
    except NotFound as error:
        raise NotFound("is not a pacball store", place=one.base_url, hint=_BELOW) from error
    except Corrupt as error:
        raise Corrupt(error.message, place=error.place, hint=error.hint or _BELOW) from error
    server = printable(headers.get("server", ""))[:80]
    return [
        Finding(
            "store",
            Level.OK,
            f"is a pacball store{f', served by {server}' if server else ''}",
            values={"server": server},
        )
    ]


async def examine_ranges(one: Examination) -> list[Finding]:
    """Whether a part of a file comes exactly as it was asked for: everything else rests on that."""
    path = document_path(DocumentKind.CATALOG, FIRST_ROOT_NAME)
    first, last = _RANGE
    _, _, whole = await _get(one, path, METADATA_LIMITS.root_bytes, {})
    status, headers, body = await _get(one, path, len(whole), {"Range": f"bytes={first}-{last}"})
    values = {"status": status, "content_range": headers.get("content-range"), "etag": headers.get("etag")}
    fault = _range_fault(status, headers, body, whole)
    if fault:
        hint = (
            "serve the store with a server that knows ranges, such as nginx; or take the proxy between out of the way"
        )
        return [Finding("ranges", Level.FAIL, f"parts of files come wrong: {fault}", hint, values)]
    if headers.get("accept-ranges", "").lower() == "none":
        hint = "tell its operator: a cache in between may believe it"
        return [
            Finding(
                "ranges", Level.WARN, "parts of files come right, but the server says that it has none", hint, values
            )
        ]
    return [Finding("ranges", Level.OK, "parts of files come exactly as asked for", values=values)]


def _range_fault(status: int, headers: Mapping[str, str], body: bytes, whole: bytes) -> str:
    first, last = _RANGE
    if status != 206:
        return f"the answer is {status}, not 206: the server, or a proxy, ignores ranges"
    if headers.get("content-range") != f"bytes {first}-{last}/{len(whole)}":
        return f"Content-Range is '{printable(headers.get('content-range', ''))[:80]}', not 'bytes {first}-{last}/{len(whole)}'"
    if body != whole[first : last + 1]:
        return f"the {len(body)} bytes are not those of the whole file"
    return ""


async def examine_freshness(one: Examination, now: Callable[[], float]) -> list[Finding]:
    """How old the timestamp of the catalog may be that is given to us, and what the server's clock says."""
    path = document_path(DocumentKind.CATALOG, TIMESTAMP_NAME)
    _, headers, _ = await _get(one, path, METADATA_LIMITS.timestamp_bytes, {"Cache-Control": "no-cache"})
    return [_freshness(headers), *_clock(headers, now())]


def _freshness(headers: Mapping[str, str]) -> Finding:
    age = _number(headers.get("age"))
    lifetime = re.search(r"(?:s-maxage|max-age)=([0-9]{1,12})", headers.get("cache-control", ""))
    caches = "; ".join(f"{name}: {headers[name]}" for name in _CACHES if name in headers)
    values = {"age": age, "cache_control": headers.get("cache-control"), "caches": printable(caches)[:200] or None}
    between = f" (in between: {printable(caches)[:120]})" if caches else ""
    if age is not None and age > _OLD_SECONDS:
        hint = "let the proxy ask again where a request has Cache-Control: no-cache (Squid: no ignore-reload), or use no_proxy"
        message = f"a cache gave a copy {age:,} s old, though it was asked to look again{between}"
        return Finding("freshness", Level.WARN, message, hint, values)
    if lifetime and int(lifetime[1]) > _LONG_SECONDS:
        hint = "tell its operator: see the headers in deploy/nginx"
        message = f"caches may keep the catalog's timestamp for {int(lifetime[1]):,} s{between}"
        return Finding("freshness", Level.WARN, message, hint, values)
    return Finding("freshness", Level.OK, f"what changes is given as it is now{between}", values=values)


def _clock(headers: Mapping[str, str], now: float) -> list[Finding]:
    """The difference between the clocks; nothing where the answer is a copy of an earlier one."""
    try:
        theirs = email.utils.parsedate_to_datetime(headers.get("date", "")).timestamp()
    except ValueError:
        return []
    if _number(headers.get("age")):
        return []
    ahead = now - theirs
    values = {"seconds_ahead": round(ahead)}
    if abs(ahead) <= _CLOCK_SECONDS:
        return [Finding("clock", Level.OK, "the clocks of this machine and of the server agree", values=values)]
    message = (
        f"the clock of this machine is {abs(ahead):,.0f} s {'ahead of' if ahead > 0 else 'behind'} that of the server"
    )
    level = Level.FAIL if abs(ahead) > _WRONG_CLOCK_SECONDS else Level.WARN
    return [Finding("clock", level, message, "set the clock (NTP): what has expired is judged by it", values)]


def _number(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"[0-9]{1,12}", text) else None
