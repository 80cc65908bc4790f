"""Replicas: where Rucio says that the files of a dataset are, as far as they can be had over HTTP.

Whatever Rucio says is a stranger's word: bounded in number and length, and used only to ask. Storage may have any layout: of a
URL only its scheme and host mean anything here.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from yarl import URL

from pacmirror.delivery.rucio.naming import FileKind, parse_file_name
from pacstore.digest import Digest
from pacstore.errors import printable

SCHEMES = ("https", "davs", "http", "dav")
"""Those of replicas that are asked for; davs and dav are how storage elements call the first and third."""
_PLAIN = {"https": "https", "davs": "https", "http": "http", "dav": "http"}
_URL_CHARACTERS = 2_000
_URLS = 200_000
_ENDPOINTS = 64
_PORTS = 1 << 16
_REASONS = 100
_SHOWN = 10
_PLACES = 1_000
_MANY = "are more, or at more places, than are looked at"
_ODD = "have a URL that is not understood"
_RSE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}\Z")
_PFN = re.compile(
    r"(?P<scheme>[a-z]{3,5})://(?P<place>(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?)"
    r"(?P<path>/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)\Z"
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One RSE at one scheme, host and port. `is_near`: whether Rucio counts us as in its local network."""

    rse: str
    origin: URL
    is_near: bool = field(compare=False)

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.rse} ({self.origin})"


@dataclass
class Replicas:
    """What Rucio knows of the files of a dataset that are ours: their `lengths` in bytes, the ids of the `bundles` among them,
    and the path of each at an endpoint that has it. `passed_over`: how many replicas are of no use, by the reason.
    """

    lengths: dict[Digest, int] = field(default_factory=dict)
    bundles: list[Digest] = field(default_factory=list)
    at: dict[Endpoint, dict[Digest, str]] = field(default_factory=dict)
    passed_over: Counter[str] = field(default_factory=Counter)

    def merge(self, other: Replicas) -> None:
        """Add what is known of another dataset."""
        self.lengths.update(other.lengths)
        self.bundles += other.bundles
        for endpoint, paths in other.at.items():
            self.at.setdefault(endpoint, {}).update(paths)
        self.passed_over.update(other.passed_over)

    def endpoints(self) -> list[Endpoint]:
        """Those to ask, the near ones first, then those that have most."""
        return sorted(self.at, key=lambda one: (not one.is_near, -len(self.at[one]), one.name))[:_ENDPOINTS]

    def why_none(self) -> str:
        """Why nothing can be had, as far as replicas say; empty if there are none."""
        return ", ".join(f"{count} {reason}" for reason, count in self.passed_over.most_common(_SHOWN))


def parse_replicas(rows: Iterable[Mapping[str, Any]]) -> Replicas:
    """What the rows say that Rucio's client gives for `list_replicas`. Files that are none of ours are left out.

    Raises nothing for what is odd in them: it is passed over, and counted.
    """
    found = Replicas()
    origins: dict[str, URL | None] = {}
    kept = 0
    for row in rows:
        ours = parse_file_name(str(row.get("name")))
        if ours is None:
            continue
        kind, digest = ours
        length = row.get("bytes")
        found.lengths[digest] = length if isinstance(length, int) else 0
        if kind is FileKind.BUNDLE and digest not in found.bundles:
            found.bundles.append(digest)
        for one in _usable(row.get("pfns"), origins):
            if isinstance(one, str) or kept >= _URLS or (one[0] not in found.at and len(found.at) >= _PLACES):
                reason = one if isinstance(one, str) else _MANY
                is_new = reason not in found.passed_over and len(found.passed_over) >= _REASONS
                found.passed_over["are of no use for other reasons" if is_new else reason] += 1
                continue
            endpoint, path = one
            paths = found.at.setdefault(endpoint, {})
            kept += digest not in paths
            paths.setdefault(digest, path)
    return found


def base_of(endpoint: Endpoint, paths: Iterable[str]) -> str:
    """The URL of the deepest directory of an endpoint that has all of these."""
    return str(endpoint.origin) + posixpath.commonpath([posixpath.dirname(path) for path in paths]).rstrip("/")


def _usable(pfns: object, origins: dict[str, URL | None]) -> Iterator[tuple[Endpoint, str] | str]:
    """The replicas of one file that can be asked for; of each other one, why not. `origins` are those known so far."""
    if not isinstance(pfns, Mapping):
        return
    for pfn, told in pfns.items():
        rse = told.get("rse") if isinstance(told, Mapping) else None
        if not isinstance(rse, str) or not _RSE.match(rse):
            yield "are at an RSE without a name"
        elif told.get("type") == "TAPE":
            yield f"are on tape at {rse}"
        elif told.get("client_extract"):
            yield "are inside of an archive"
        elif isinstance(place := _place_of(pfn, origins), str):
            yield f"at {rse} {place}"
        else:
            origin, path = place
            yield Endpoint(rse, origin, told.get("domain") == "lan"), path


def _place_of(pfn: object, origins: dict[str, URL | None]) -> tuple[URL, str] | str:
    """The origin and path of a replica, or why it is none that is asked."""
    if not isinstance(pfn, str) or len(pfn) > _URL_CHARACTERS:
        return "have a URL that is too long"
    match = _PFN.match(pfn)
    scheme = _PLAIN.get(match["scheme"]) if match else None
    if match is not None and _leads_up(match["path"]):
        # A server would look elsewhere than where it seems: with a token that is for that directory.
        return _ODD
    if match is None or scheme is None:
        shown = printable(pfn.partition("://")[0][:20])
        return _ODD if shown in _PLAIN else f"are at {shown}:, not at https: or http:"
    text = f"{scheme}://{match['place']}"
    if text not in origins:
        if len(origins) >= _PLACES:
            return _MANY
        origins[text] = _origin(text)
    origin = origins[text]
    return (origin, match["path"]) if origin is not None else _ODD


def _leads_up(path: str) -> bool:
    return not {".", ".."}.isdisjoint(re.split(r"[/\\]", unquote(path)))


def _origin(text: str) -> URL | None:
    try:
        origin = URL(text, encoded=True).origin()
        is_whole = bool(origin.host) and 0 < (origin.port or 0) < _PORTS
    except ValueError:
        return None
    return origin if is_whole else None
