"""What a sync does with the store, in threads: the ledger, documents, holdings. Nothing here awaits or asks a network."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pacmirror.sync.standing import Standing
from pacstore.documents import read_manifest, read_placement
from pacstore.errors import Corrupt, NotFound, PacballError, TooLarge, Unavailable, printable
from pacstore.holding import has_pack, packs_of
from pacstore.housekeeping import retention_rules
from pacstore.ledger import packs, releases, roster, subscriptions
from pacstore.ledger.completion import complete, withdraw
from pacstore.ledger.reconciling import Reconciled, reconcile
from pacstore.ledger.releases import ReleaseRow, ReleaseState
from pacstore.links import links_of

if TYPE_CHECKING:
    from pacmirror.limits import SyncLimits
    from pacstore.digest import Digest
    from pacstore.ledger.roster import Roster
    from pacstore.release import Release
    from pacstore.storage import Clock
    from pacstore.store import Store
    from pacstore.subscription import Subscription
    from pacstore.trust.retention import Retain
    from pacstore.trust.targets import CatalogRelease

_random = random.SystemRandom()


@dataclass(frozen=True)
class Plan:
    """What a release needs: `missing` packs with their lengths; bytes of all its packs, and of those that are here."""

    missing: Mapping[Digest, int]
    total_bytes: int
    held_bytes: int


class Keeping:
    """The releases of one store. Threads may use it at once. `retries`: whether what failed is tried again, as in a mirror."""

    def __init__(
        self,
        store: Store,
        configured: Iterable[Subscription],
        *,
        grace_seconds: float,
        limits: SyncLimits,
        clock: Clock,
        retries: bool,
    ) -> None:
        self.store = store
        self._configured = tuple(configured)
        self._grace_seconds = grace_seconds
        self._limits = limits
        self._clock = clock
        self._stuck_attempts = limits.stuck_attempts if retries else 0
        self._rules: tuple[int | None, Mapping[str, Retain]] = (None, {})

    def reconcile(self) -> Reconciled:
        """See `pacstore.ledger.reconciling`."""
        return reconcile(self.store.ledger, self.store.storage, now=self._clock())

    def adopt(self, entry: CatalogRelease) -> str:
        """Verify a release that the store says to hold; why it is not held any more, or empty.

        Raises Unavailable if that cannot be found out now.
        """
        try:
            self._complete(entry)
        except (NotFound, Corrupt, TooLarge) as error:
            withdraw(self.store.ledger, self.store.storage, entry.release, reason=_reason(error), now=self._clock())
            return str(error)
        return ""

    def update(self, catalog: Mapping[Release, CatalogRelease], version: int | None) -> Roster:
        """See `pacstore.ledger.roster`; `version` is that of the catalog."""
        if self._rules[0] != version:
            self._rules = (version, retention_rules(self.store.storage))
        return roster.update(
            self.store.ledger,
            self.store.storage,
            catalog,
            self._configured,
            self._rules[1],
            now=self._clock(),
            grace_seconds=self._grace_seconds,
        )

    def begin(self, release: Release) -> None:
        """An attempt begins."""
        with self.store.ledger.writing() as connection:
            releases.retry(connection, release)

    def plan(self, entry: CatalogRelease) -> Plan:
        """What has to be fetched of a release whose documents are here. Raises Corrupt and NotFound."""
        storage = self.store.storage
        needed = packs_of(read_placement(storage, entry, read_manifest(storage, entry)))
        missing: dict[Digest, int] = {}
        here: dict[Digest, int] = {}
        for pack, length in needed.items():
            (here if has_pack(storage, pack, length) else missing)[pack] = length
        with self.store.ledger.writing() as connection:
            releases.need(connection, entry.release, needed)
            packs.adopt(connection, here, now=self._clock())
            releases.hold_bytes(connection, entry.release, sum(here.values()))
        return Plan(missing, sum(needed.values()), sum(here.values()))

    def finish(self, entry: CatalogRelease) -> None:
        """Verify a release whose packs have come, and say that it is here."""
        self._complete(entry)

    def progress(self, held: Mapping[Release, int]) -> None:
        """Write how many bytes of releases on their way are here."""
        with self.store.ledger.writing() as connection:
            for release, held_bytes in held.items():
                releases.hold_bytes(connection, release, held_bytes)

    def fail(self, release: Release, error: PacballError, *, some_came: bool = False) -> float | None:
        """Record that an attempt failed; when the next one is due, None if nobody wants the release any more.

        `some_came`: packs have come meanwhile. If it was the way that failed after that, it is the first failure again: an
        interruption of what makes progress is no reason to wait for long.
        """
        is_passing = isinstance(error, Unavailable)
        with self.store.ledger.writing() as connection:
            if some_came and is_passing:
                releases.count_anew(connection, release)
            row = releases.find(connection, release)
            if row is None:
                return None
            next_at = self._clock() + self._pause(row.attempts, is_passing=is_passing)
            releases.fail(connection, release, reason=_reason(error), next_at=next_at)
            return next_at

    def standing(self) -> Standing:
        """What the ledger says, in constant time."""
        with self.store.ledger.reading() as connection:
            return Standing(
                releases=releases.release_totals(connection),
                packs=packs.pack_totals(connection),
                behind_since=releases.behind_since(connection),
                troubles=releases.troubles(connection),
                troubled=tuple(releases.troubled(connection, limit=self._limits.listed)),
                stuck=releases.troubles(connection, attempts=self._stuck_attempts),
                first_stuck=next(iter(releases.troubled(connection, limit=1, attempts=self._stuck_attempts)), None),
                subscriptions=(*self._configured, *subscriptions.listed(connection)),
            )

    def page(self, *, after: str, limit: int, state: ReleaseState | None) -> list[ReleaseRow]:
        """See `pacstore.ledger.releases.page`."""
        with self.store.ledger.reading() as connection:
            return releases.page(connection, after=after, limit=limit, state=state)

    def _complete(self, entry: CatalogRelease) -> None:
        # Whoever collects what nobody needs waits meanwhile.
        with self.store.unswept():
            self.store.storage.link(links_of(entry))
            complete(self.store.ledger, self.store.storage, entry, now=self._clock())

    def _pause(self, failures: int, *, is_passing: bool) -> float:
        limits = self._limits
        most = limits.passing_backoff_max_seconds if is_passing else limits.backoff_max_seconds
        pause = min(limits.backoff_seconds * 2.0 ** min(failures, 30), most)
        pause *= _random.uniform(1 - limits.jitter, 1 + limits.jitter)
        return min(pause, roster.LONGEST_PAUSE_SECONDS)


def _reason(error: PacballError) -> str:
    return printable(str(error))[:1000]
