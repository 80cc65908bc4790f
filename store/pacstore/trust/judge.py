"""What of a verified catalog may be believed when parts of it have expired, and in which words that is said.

While everything that speaks for a release is fresh, it is believed, and remembered as seen. What has expired may hide
withdrawals and later releases, but it cannot invent any: so a release that was seen before, in a fresh catalog and with the
same manifest, is believed with a warning, and any other is refused. Signatures, hashes and versions are verified in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from tuf.api.metadata import Signed

from pacstore.errors import Untrusted
from pacstore.trust.clock import Moment, date
from pacstore.trust.metadata import at
from pacstore.trust.warnings import is_online

if TYPE_CHECKING:
    from tuf.api.metadata import MetaFile, Targets

    from pacstore.trust.seen import SeenReleases
    from pacstore.trust.targets import CatalogRelease

Warn = Callable[[str], None]
"""Told what the user must know, a sentence at a time."""

_SEEN = "seen here while it was fresh"
_SHOWN = 4
_UNITS = ((86_400.0, "day"), (3600.0, "hour"), (60.0, "minute"))


class Judge:
    """Judges one verified state, signed at `signed_at` (None if that is not known), as of `moment`.

    `seen` has what was seen before; without it everything is believed and nothing remembered. `where` names the source.
    """

    def __init__(
        self, moment: Moment, seen: SeenReleases | None, *, signed_at: float | None, where: str, warn: Warn
    ) -> None:
        self.moment = moment
        self._seen = seen
        self._signed_at = signed_at
        self._where = where
        self._warn = warn
        self._expired: dict[str, Signed] = {}

    @property
    def stale(self) -> str:
        """What is known to have expired, as a sentence without an end; empty if nothing is."""
        return self._sentence(self._expired) if self._expired else ""

    def is_fresh(self, roles: Mapping[str, Signed]) -> bool:
        """Whether none of `roles` has expired."""
        expired = self._expired_of(roles)
        self._expired |= expired
        return not expired

    def check(self) -> None:
        """Raise Untrusted if anything is known to have expired."""
        if self._expired:
            raise self.refusal("", self._expired)

    def learn(self, project: str, meta: MetaFile | None, line: Targets) -> None:
        """Remember what a fresh line lists. Raises Unavailable."""
        if self._seen is not None and meta is not None and not self.moment.as_of:
            self._seen.learn(project, meta, line)

    def believed(self, found: Iterable[CatalogRelease]) -> list[CatalogRelease]:
        """Those of `found` that may be believed although what speaks for them has expired. Raises Unavailable."""
        return [entry for entry in found if self._seen is not None and self._seen.has(entry)]

    def warn(self, roles: Mapping[str, Signed], hidden: int = 0) -> None:
        """Say what of `roles` has expired, and that `hidden` releases are therefore not given."""
        self._warn(f"{self._where}: {self._sentence(self._expired_of(roles))}; only what was {_SEEN} is believed")
        if hidden:
            self._warn(f"{self._where}: releases that are not shown, because they were not {_SEEN}: {hidden}")

    def refusal(self, what: str, roles: Mapping[str, Signed]) -> Untrusted:
        """The error for `what`, a clause or empty, which is not believed because some of `roles` have expired."""
        expired = self._expired_of(roles)
        message = "; ".join(part for part in (self._sentence(expired), what) if part)
        return Untrusted(message, place=self._where, hint=self._remedy(expired))

    def _expired_of(self, roles: Mapping[str, Signed]) -> dict[str, Signed]:
        return {role: signed for role, signed in roles.items() if signed.is_expired(at(self.moment.at))}

    def _sentence(self, expired: Mapping[str, Signed]) -> str:
        first = sorted(expired.items(), key=lambda item: (item[1].expires, item[0]))
        roles = [f"{role}, version {signed.version}, expired at {_when(signed)}" for role, signed in first[:_SHOWN]]
        if len(first) > _SHOWN:
            roles.append(f"{len(first) - _SHOWN} more roles have expired")
        return f"the catalog is out of date: {'; '.join(roles)}; {self._age()}"

    def _age(self) -> str:
        moment = self.moment
        if moment.as_of:
            return f"judged as of {date(moment.at)}"
        if self._signed_at is not None:
            return f"it was signed at {date(self._signed_at)}, {_span(moment.at - self._signed_at)} ago"
        if moment.fresh is not None:
            return f"a fresh one was last seen here at {date(moment.fresh)}, {_span(moment.at - moment.fresh)} ago"
        return f"its age is not known; this machine's clock says {date(moment.now)}"

    def _remedy(self, expired: Iterable[str]) -> str:
        online = [role for role in expired if is_online(role)]
        offline = [role for role in expired if not is_online(role)]
        remedies = []
        if self.moment.is_behind:
            remedies.append(
                f"this machine's clock says {date(self.moment.now)}, but a fresh catalog was seen here at "
                f"{date(self.moment.at)}: set the clock"
            )
        if online:
            remedies.append("the operator of the origin runs: pacball trust refresh --store STORE")
        if offline:
            remedies.append(
                f"who holds the keys of {', '.join(sorted(offline)[:_SHOWN])} runs: pacball trust sign --renew --store STORE"
            )
        remedies.append("or use a source that is up to date")
        if self.moment.as_of:
            remedies.append("or give an earlier --as-of")
        return "; ".join(remedies)


def _when(signed: Signed) -> str:
    return date(signed.expires.timestamp())


def _span(seconds: float) -> str:
    for length, unit in _UNITS:
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return "less than a minute"
