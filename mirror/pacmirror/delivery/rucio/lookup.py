"""Lookup: which datasets of a scope have a release, or the latest catalog. Anybody may have registered what is found.

So several are found, in the order in which they are to be tried; which of them is right, signatures tell.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from pacmirror.delivery.rucio.naming import (
    PREFIX,
    Did,
    FileKind,
    MetadataKey,
    check_scope,
    file_name,
    parse_dataset_name,
)
from pacstore.digest import Digest
from pacstore.errors import NotFound, Refused, printable

if TYPE_CHECKING:
    from pacmirror.delivery.rucio.catalogue import RucioCatalogue
    from pacstore.release import Release

SCHEME = "rucio://"
CANDIDATES = 8
"""So many datasets of one release are tried, at most."""
LATEST = 3
_NAMES = 20_000
_BATCH = 1_000
_EXPRESSION = re.compile(r"[A-Za-z0-9_.=&|\\()<>*-]{1,500}\Z")
_SITE = re.compile(r"[A-Za-z0-9_.-]{1,100}\Z")
_EXAMPLE = "write rucio://SCOPE, or rucio://SCOPE?rse=EXPRESSION with '&' as %26"
_LISTED = 10


@dataclass(frozen=True)
class Address:
    """A scope of the Rucio that rucio.cfg names. `expression`: only replicas at these RSEs; `site`: where we are."""

    scope: str
    expression: str = ""
    site: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """The address written rucio://SCOPE?rse=EXPRESSION&site=NAME, both of which may be left out. Raises Refused."""
        place = printable(text[:200])
        try:
            parts = urlsplit(text)
            options = (
                parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True, max_num_fields=4)
                if parts.query
                else []
            )
        except ValueError:
            raise Refused("is no address of a scope in Rucio", place=place, hint=_EXAMPLE) from None
        known = {"rse": _EXPRESSION, "site": _SITE}
        odd = [key for key, value in options if key not in known or not known[key].match(value)]
        if (
            odd
            or len(dict(options)) < len(options)
            or parts.fragment
            or parts.path.strip("/")
            or parts.scheme != "rucio"
        ):
            raise Refused("is no address of a scope in Rucio", place=place, hint=_EXAMPLE)
        check_scope(parts.netloc)
        found = dict(options)
        return cls(parts.netloc, found.get("rse", ""), found.get("site", ""))

    def __str__(self) -> str:
        return f"{SCHEME}{self.scope}"


@dataclass(frozen=True, slots=True)
class Found:
    """A dataset that has, by its name, placement `number` of a release; `bundle`: what its metadata say, if they do.

    `is_doubtful`: it is not complete yet, or is going to leave.
    """

    did: Did
    number: int
    is_doubtful: bool
    created: float
    bundle: Digest | None


def datasets_of(catalogue: RucioCatalogue, scope: str, release: Release) -> list[Found]:
    """The datasets of a release: those first that are complete and stay, then the newest placement.

    Raises NotFound where there is none, Refused, Unavailable.
    """
    found = _described(catalogue, scope, _names(catalogue, scope, f"{PREFIX}{release}.b3-*", release=release))
    if not found:
        raise NotFound(
            "is not registered in Rucio", place=f"{scope}:{release}", hint=_registered(catalogue, scope, release)
        )
    return sorted(found, key=lambda one: (one.is_doubtful, -one.number, -one.created))[:CANDIDATES]


def latest(catalogue: RucioCatalogue, scope: str, *, but: Collection[str] = ()) -> list[Found]:
    """The datasets of any release that were registered last, the last one first: their bundles have the latest catalogs.

    Those whose DIDs are in `but` are left out. Raises as `datasets_of`, but for NotFound.
    """
    found = _described(catalogue, scope, _names(catalogue, scope, f"{PREFIX}*"))
    right = [one for one in found if one.bundle is not None and str(one.did) not in but]
    return sorted(right, key=lambda one: (one.is_doubtful, -one.created))[:LATEST]


def bundle_did(found: Found) -> Did:
    """The file that is its bundle, as far as is known."""
    assert found.bundle is not None
    return Did(found.did.scope, file_name(FileKind.BUNDLE, found.bundle))


def _names(catalogue: RucioCatalogue, scope: str, pattern: str, *, release: Release | None = None) -> list[str]:
    """The names of datasets of releases, or of one, that fit a pattern."""

    def ask() -> list[str]:
        rows = catalogue.client.list_dids(scope, [{"name": pattern}], did_type="dataset")
        return [name for name in islice(rows, _NAMES) if isinstance(name, str)]

    found = []
    for name in catalogue.ask(f"{scope}:{pattern}", ask):
        parsed = parse_dataset_name(name)
        if parsed is not None and release in (None, parsed.release):
            found.append(name)
    return found


def _described(catalogue: RucioCatalogue, scope: str, names: Sequence[str]) -> list[Found]:
    """What Rucio says of datasets that it has."""
    found = []
    for at in range(0, len(names), _BATCH):
        dids = [{"scope": scope, "name": name} for name in names[at : at + _BATCH]]
        rows = catalogue.ask(
            f"{scope}:{names[at]}",
            lambda dids=dids: list(islice(catalogue.client.get_metadata_bulk(dids, plugin="ALL"), _BATCH)),  # type: ignore[misc]
        )
        found += _parsed(scope, rows, set(names))
    return found


def _parsed(scope: str, rows: Iterable[Mapping[str, Any]], names: Collection[str]) -> list[Found]:
    found = []
    for row in rows:
        name, created = row.get("name"), row.get("created_at")
        parsed = parse_dataset_name(name) if isinstance(name, str) and name in names else None
        if parsed is None or not isinstance(name, str):
            continue
        seconds = created.timestamp() if isinstance(created, datetime) else 0.0
        doubtful = bool(row.get("is_open")) or row.get("expired_at") is not None
        bundle = _digest(row.get(MetadataKey.BUNDLE))
        found.append(Found(Did(scope, name), parsed.placement_number, doubtful, seconds, bundle))
    return found


def _digest(value: object) -> Digest | None:
    try:
        return Digest.parse(value) if isinstance(value, str) else None
    except Refused:
        return None


def _registered(catalogue: RucioCatalogue, scope: str, release: Release) -> str:
    """What there is of the same line, as a hint."""
    names = _names(catalogue, scope, f"{PREFIX}{release.project}-*")
    parsed = (parse_dataset_name(name) for name in names)
    others = sorted({str(one.release) for one in parsed if one is not None})
    more = f" and {len(others) - _LISTED} more" if len(others) > _LISTED else ""
    there = (
        f"the scope has {', '.join(others[:_LISTED])}{more}" if others else f"the scope has none of {release.project}"
    )
    return f"{there}; pacball rucio register registers one"
