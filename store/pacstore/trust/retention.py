"""How long a line keeps its releases: the rule that its metadata carry, and which releases it lets go (FORMAT.md section 8).

A release that has *lapsed* stays in the catalog and its name stays bound; but nobody needs to hold it any longer. All
functions look at the releases of one line, and at nothing but what the catalog says of them, so that everybody who has
the same catalog comes to the same result.
"""

from __future__ import annotations

import bisect
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pacstore.errors import Corrupt, NewerFormat, Refused, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pacstore.release import Release
    from pacstore.trust.targets import CatalogRelease

DAY_SECONDS = 86_400
MOST = 1_000_000
"""The most releases or days that a rule may name."""

_PART = re.compile(r"([1-9][0-9]{0,6})(d?)\Z")
_RELEASES, _DAYS = "releases", "days"
_KEYS = frozenset((_RELEASES, _DAYS))
_HINT = "write for example 10 (the newest ten), 30d (those of the last 30 days), or 10,30d (what either of them keeps)"


@dataclass(frozen=True, slots=True)
class Retain:
    """Keep the newest `releases`, and those published in the last `days`; None: no such rule. At least one of them is given."""

    releases: int | None = None
    days: int | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.releases, self.days) if value is not None]
        if not given or not all(type(value) is int and 1 <= value <= MOST for value in given):
            raise Refused(f"numbers of releases and days to keep are whole numbers from 1 to {MOST}", hint=_HINT)

    @classmethod
    def parse(cls, text: str) -> Retain:
        """The rule written as `10`, `30d` or `10,30d`. Raises Refused."""
        found: dict[str, int] = {}
        for part in text.split(","):
            match = _PART.match(part.strip())
            key = _DAYS if match and match[2] else _RELEASES
            if match is None or key in found:
                raise Refused("does not say what to keep", place=printable(text[:200]), hint=_HINT)
            found[key] = int(match[1])
        return cls(found.get(_RELEASES), found.get(_DAYS))

    @classmethod
    def from_fields(cls, value: object, *, place: str) -> Retain:
        """The rule in the field `retain` of a line's metadata.

        Raises Corrupt for what is none, NewerFormat for a rule of a kind that is not known here: it may keep more.
        """
        if not isinstance(value, dict) or not value:
            raise Corrupt("its retention rule is not an object", place=place)
        if not value.keys() <= _KEYS:
            message = "its retention rule is of a kind that this pacball does not know"
            raise NewerFormat(message, place=place, hint="install a newer pacball")
        # None cannot stand for a missing key here: what JSON has as null is neither.
        if not all(type(number) is int and 1 <= number <= MOST for number in value.values()):
            raise Corrupt(f"its retention rule has something else than whole numbers from 1 to {MOST}", place=place)
        return cls(value.get(_RELEASES), value.get(_DAYS))

    def to_fields(self) -> dict[str, int]:
        """The field `retain` of a line's metadata."""
        given = {_RELEASES: self.releases, _DAYS: self.days}
        return {key: value for key, value in given.items() if value is not None}

    def __str__(self) -> str:
        parts = [str(self.releases)] if self.releases is not None else []
        return ",".join([*parts, f"{self.days}d"] if self.days is not None else parts)


def lapsed(releases: Sequence[CatalogRelease], retain: Retain, now: float) -> set[Release]:
    """Those of a line's `releases` that no rule of `retain` keeps at `now`, in seconds since 1970.

    Withdrawn releases do not count among the newest, and lapse at the same times as if they had not been withdrawn.
    """
    return {name for name, moment in _lapses(releases, retain).items() if moment <= now}


def droppable(
    releases: Sequence[CatalogRelease], retain: Retain | None, *, now: float, grace_seconds: float
) -> set[Release]:
    """Those of a line's `releases` that were withdrawn, or lapsed, `grace_seconds` before `now` or earlier.

    A rule is taken as if it had always been there: who gives a line its first rule lets all that is older lapse at once.
    """
    limit = now - grace_seconds
    found = lapsed(releases, retain, limit) if retain is not None else set()
    return found | {e.release for e in releases if e.withdrawal is not None and e.withdrawal.at <= limit}


def _lapses(releases: Sequence[CatalogRelease], retain: Retain) -> dict[Release, float]:
    """When each release lapses or has lapsed; those that are kept until others are published are left out."""
    counted = sorted((e.published, e.release) for e in releases if e.withdrawal is None)
    found: dict[Release, float] = {}
    for entry in releases:
        moments = []
        if retain.days is not None:
            moments.append(float(entry.published + retain.days * DAY_SECONDS))
        if retain.releases is not None:
            # The release that pushes it out is the last of the N that come next.
            last = bisect.bisect_right(counted, (entry.published, entry.release)) + retain.releases - 1
            if last >= len(counted):
                continue
            moments.append(float(counted[last][0]))
        found[entry.release] = max(moments)
    return found
