"""Subscriptions: which releases of a catalog a mirror keeps whole.

A pattern is compared with the whole name of a release, letters as they are. `*` stands for any characters, also none, `?` for
one, `[abc]`, `[a-z]` for one of these, `[!abc]` for one other; all else stands for itself.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from pacstore.errors import Refused, printable
from pacstore.release import EXAMPLE, Release
from pacstore.trust.targets import CatalogRelease

KEEP_MOST = 1_000_000
_PATTERN_BYTES = 200
_CHARACTERS = re.compile(r"[A-Za-z0-9._*?\[\]!-]+\Z")
_HINT = f"write the name of a release with * for what may differ, in quotes, for example '{EXAMPLE.split('-')[0]}-*-x86_64-*'"


@dataclass(frozen=True, slots=True, order=True)
class Subscription:
    """The releases whose names match the `pattern`; of each project and platform the newest `keep`, None: all.

    Raises Refused for what is no pattern, or no number.
    """

    pattern: str
    keep: int | None = None

    def __post_init__(self) -> None:
        fault = _fault(self.pattern)
        if fault:
            raise Refused(f"the pattern {fault}", place=printable(str(self.pattern)[:_PATTERN_BYTES]), hint=_HINT)
        if self.keep is not None and not (type(self.keep) is int and 1 <= self.keep <= KEEP_MOST):
            message = f"the number of releases to keep is from 1 to {KEEP_MOST}"
            raise Refused(message, place=self.pattern, hint="leave it out to keep all of them")

    def __str__(self) -> str:
        return self.pattern if self.keep is None else f"{self.pattern}, the newest {self.keep}"

    def matches(self, release: Release) -> bool:
        """Whether the pattern matches the name of a release."""
        return fnmatch.fnmatchcase(str(release), self.pattern)

    def select(self, releases: Iterable[CatalogRelease]) -> list[CatalogRelease]:
        """Those of the `releases` that are meant: withdrawn ones neither count nor are among them."""
        expression = re.compile(fnmatch.translate(self.pattern))
        matching = [e for e in releases if e.withdrawal is None and expression.match(str(e.release))]
        if self.keep is None:
            return matching
        matching.sort(key=_project_and_platform)
        found: list[CatalogRelease] = []
        for _, group in groupby(matching, key=_project_and_platform):
            newest = sorted(group, key=lambda entry: (entry.published, entry.release), reverse=True)
            found += newest[: self.keep]
        return found


def selected(
    subscriptions: Iterable[Subscription], releases: Iterable[CatalogRelease]
) -> dict[Release, CatalogRelease]:
    """The releases that any of the `subscriptions` means."""
    known = list(releases)
    return {entry.release: entry for subscription in subscriptions for entry in subscription.select(known)}


def _project_and_platform(entry: CatalogRelease) -> tuple[str, str]:
    return entry.release.project, entry.release.platform


def _fault(pattern: str) -> str:
    if not isinstance(pattern, str) or not pattern or len(pattern) > _PATTERN_BYTES:
        return f"does not have 1 to {_PATTERN_BYTES} characters"
    if not _CHARACTERS.match(pattern):
        return "has a character that no name of a release has"
    outside = re.sub(r"\[!?[^\]\[!]+\]", "", pattern)
    if set(outside) & set("[]!"):
        return "has brackets that are not closed, or '!' outside of them"
    if "-" not in pattern and "*" not in pattern:
        return "matches no name of a release, which has the form PROJECT-VERSION-PLATFORM"
    return ""
