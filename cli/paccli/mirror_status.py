"""What a daemon tells of itself, in words for who looks after it: an answer of /v1/status, of this version or another."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from paccli.output import size
from pacstore.errors import Corrupt, printable

if TYPE_CHECKING:
    from collections.abc import Mapping

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_NAME = re.compile(r"[A-Za-z0-9._-]{1,200}\Z")
_KNOWN_STATES = ("unused", "good")


class Section:
    """A part of the answer. What is missing, or is not what it should be, is taken for nothing."""

    def __init__(self, value: object) -> None:
        self._value: Mapping[str, object] = value if isinstance(value, dict) else {}

    @property
    def is_there(self) -> bool:
        """Whether the daemon has this part."""
        return bool(self._value)

    def section(self, key: str) -> Section:
        """The part `key` of this one."""
        return Section(self._value.get(key))

    def number(self, key: str) -> float | None:
        """The number `key`."""
        value = self._value.get(key)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None

    def count(self, key: str) -> int:
        """The number `key`, or 0."""
        return int(self.number(key) or 0)

    def text(self, key: str) -> str:
        """The text `key`, safe to print."""
        value = self._value.get(key)
        return printable(value[:2000]) if isinstance(value, str) else ""

    def sections(self, key: str) -> list[Section]:
        """The list `key` of parts."""
        value = self._value.get(key)
        return [Section(one) for one in value] if isinstance(value, list) else []

    def texts(self, key: str) -> list[str]:
        """The list `key` of texts, safe to print."""
        value = self._value.get(key)
        return [printable(one[:2000]) for one in value if isinstance(one, str)] if isinstance(value, list) else []


def parse_status(data: bytes, *, place: str) -> dict[str, object]:
    """The answer of /v1/status in `data`. Raises Corrupt for what is none."""
    return _parse(data, "catalog", place)


def parse_page(data: bytes, *, place: str) -> dict[str, object]:
    """The answer of /v1/releases in `data`. Raises Corrupt for what is none."""
    return _parse(data, "releases", place)


def _parse(data: bytes, key: str, place: str) -> dict[str, object]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or key not in value:
        hint = "is this the URL of a pacball daemon? a web server alone has no status"
        raise Corrupt("is no status of a pacball daemon", place=place, hint=hint)
    return value


def next_page(page: Mapping[str, object]) -> str:
    """What the page after this one is after; empty at the end, and for what no release can be called."""
    after = Section(page).text("next")
    return after if _NAME.match(after) else ""


def as_rows(page: Mapping[str, object]) -> list[object]:
    """The releases of a page, as they came."""
    found = page.get("releases")
    return found if isinstance(found, list) else []


def describe_releases(pages: Iterable[Mapping[str, object]]) -> Iterator[str]:
    """A line for each release, and what there is to say of it."""
    for row in (row for page in pages for row in Section(page).sections("releases")):
        state, total, here = row.text("state"), row.count("bytes_total"), row.count("bytes_held")
        bytes_here = size(total) if here >= total else f"{size(here)} of {size(total)}"
        leaves = f", leaves at {row.text('leaves')}" if row.text("leaves") else ""
        yield f"  {row.text('release')}: {state}, {bytes_here}{leaves}{_because(row.text('reason'))}"


def needs_attention(document: Mapping[str, object]) -> bool:
    """Whether a person should look after it."""
    return bool(Section(document).texts("warnings"))


def describe(document: Mapping[str, object], url: str) -> Iterator[str]:
    """The lines that people are shown."""
    status = Section(document)
    rucio = status.section("rucio")
    kind = "mirror" if status.section("replication").is_there else "site" if rucio.is_there else "origin"
    yield f"{kind} {printable(url)}, pacball {status.text('version')}"
    yield from _catalog(status)
    yield from _releases(status)
    yield from _transfers(status.section("sync"))
    yield from _rucio(rucio)
    yield from _scrub(status.section("scrub"))
    yield from _sources(status.section("upstreams"))
    warnings = status.texts("warnings")
    for warning in warnings:
        yield f"! {warning}"
    if not warnings:
        yield "nothing needs a person"


def _catalog(status: Section) -> Iterator[str]:
    catalog, replication = status.section("catalog"), status.section("replication")
    version, age = catalog.number("version"), catalog.number("age_seconds")
    if version is None:
        yield f"catalog    none is served{_because(catalog.text('fault'))}"
    else:
        signed = f", signed {span(age)} ago" if age is not None else ""
        yield f"catalog    version {version:.0f}{signed}{_because(catalog.text('fault'))}"
    if not replication.is_there:
        return
    theirs, seen = replication.number("upstream_version"), replication.number("age_seconds")
    if theirs is None or seen is None:
        yield "upstream   its catalog could not be seen since this mirror has started"
    else:
        same = "the same as here" if theirs == version else f"version {theirs:.0f}"
        yield f"upstream   {same}, seen {span(seen)} ago"


def _releases(status: Section) -> Iterator[str]:
    held, sync = status.section("held"), status.section("sync")
    if not held.is_there:
        return
    states, sizes, packs = held.section("releases"), held.section("bytes"), held.section("packs")
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("complete", "partial", "failed"))
    yield f"releases   {counts}"
    held_packs = packs.count("subscribed") + packs.count("pulled")
    pulled = f", of which {size(sizes.count('pulled'))} may leave for others" if sizes.count("pulled") else ""
    yield f"held       {size(held.count('bytes_held'))} in {held_packs} packs{pulled}"
    lag = sync.number("lag_seconds")
    if lag:
        yield f"behind     for {span(lag)}, {sync.count('queued')} releases wait for their turn"
    for release in held.sections("troubled"):
        yield f"  {release.text('release')} is {release.text('state')}: {release.text('reason')}"
        if release.text("next_attempt"):
            yield f"    {release.count('attempts')} attempts failed; the next one is at {release.text('next_attempt')}"
    listed = len(held.sections("troubled"))
    if held.count("troubles") > listed:
        yield f"  and {held.count('troubles') - listed} more: --releases shows all"


def _transfers(sync: Section) -> Iterator[str]:
    for transfer in sync.sections("transfers"):
        total, here = transfer.count("bytes_total"), transfer.count("bytes_held")
        share = f"{size(here)} of {size(total)} ({100 * here // total} %)" if total else "its documents"
        yield f"fetching   {transfer.text('release')}: {share}"


def _rucio(rucio: Section) -> Iterator[str]:
    if not rucio.is_there:
        return
    datasets, way = rucio.section("datasets"), rucio.section("on_the_way")
    leaving = f", {datasets.count('leaving')} are leaving" if datasets.count("leaving") else ""
    wanted = f"{datasets.count('whole')} of {datasets.count('wanted')} datasets that rules want are whole{leaving}"
    yield f"rucio      {rucio.text('rse')} is {rucio.text('state')}: {wanted}"
    if way.is_there:
        done = f"{size(way.count('bytes_done'))} of {size(way.count('bytes_total'))}"
        yield f"  {way.text('dataset')} is coming: {way.text('phase')}, {done}"
    for one in rucio.sections("troubled"):
        yield f"  {one.text('dataset')}: {one.text('reason')}"


def _scrub(scrub: Section) -> Iterator[str]:
    if not scrub.is_there:
        return
    last = scrub.section("last_full").text("ended")
    yield f"scrub      {f'all was read until {last}' if last else 'not all was read yet'}, {scrub.count('damaged')} damaged"
    for one in scrub.sections("listed"):
        yield f"  {one.text('path') or one.text('object')}: {one.text('fault') or one.text('state')}"


def _sources(upstreams: Section) -> Iterator[str]:
    for source in upstreams.sections("sources"):
        state, rate = source.text("state"), source.number("bytes_per_second")
        speed = f", {size(rate)}/s" if rate else ""
        error = f": {source.text('error')}" if state not in _KNOWN_STATES and source.text("error") else ""
        yield f"source     {source.text('name')} {'was not needed yet' if state == 'unused' else f'is {state}'}{speed}{error}"


def _because(fault: str) -> str:
    return f": {fault}" if fault else ""


def span(seconds: float) -> str:
    """A time span for people: its largest unit, and the next one where that says more."""
    whole = max(round(seconds), 0)
    for unit, length, smaller, part in (
        ("d", _DAY, "h", _HOUR),
        ("h", _HOUR, "min", _MINUTE),
        ("min", _MINUTE, "s", 1),
    ):
        if whole >= length:
            rest = whole % length // part
            return f"{whole // length} {unit}{f' {rest} {smaller}' if rest and whole < 10 * length else ''}"
    return f"{whole} s"
