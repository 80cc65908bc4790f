"""Keeps the catalog of a store fresh with the online key: signs its timestamp anew long before it expires, and commits changes.

Only what this daemon serves as good is signed again: a store that went backward would otherwise get a new signature. A refresh
that fails is logged, counted, and tried again after a pause that grows; it never ends the daemon.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from tuf.api.metadata import Snapshot, Timestamp

from pacmirror.threads import start_thread
from pacstore.errors import PacballError, Refused
from pacstore.store import Store
from pacstore.trust.chain import load_head
from pacstore.trust.keyring import KeyRing
from pacstore.trust.metadata import Expiry
from pacstore.trust.pending import read_pending
from pacstore.trust.repository import Catalog
from pacstore.trust.warnings import is_online

if TYPE_CHECKING:
    from pathlib import Path

    from pacmirror.catalog import Standing
    from pacmirror.config import Config
    from pacstore.trust.served import ServedState

_HOUR_SECONDS = 3600.0
_DAY_SECONDS = 86_400.0
_log = logging.getLogger(__name__)


class Schedule:
    """When a catalog is to be signed anew, by what is served of it: pure."""

    def __init__(self, expiry: Expiry, refresh_hours: float | None) -> None:
        self._expiry = expiry
        self._longest = refresh_hours * _HOUR_SECONDS if refresh_hours is not None else float("inf")

    def is_due(self, state: ServedState, now: float) -> bool:
        """Whether half of the timestamp's life is over, or of what the other online roles are signed for; or it is too old."""
        expires = state.expires[Timestamp.type]
        signed = state.signed_at
        if signed is None:
            signed = expires - self._expiry.timestamp * _DAY_SECONDS
        if expires - now < (expires - signed) / 2 or now - signed > self._longest:
            return True
        others = [role for role in state.expires if is_online(role) and role != Timestamp.type]
        return any(state.expires[role] - now < self._expiry.days(role) * _DAY_SECONDS / 2 for role in others)


class Refresher:
    """Refreshes one store's catalog when it is due, and commits what waits for nothing but the online key.

    For use in one event loop; `check` blocks. `fault` is why the last attempt failed, if it did; `failures` counts those
    since the daemon started.
    """

    def __init__(self, config: Config, keys: Path) -> None:
        self.fault = ""
        self.failures = 0
        self._config = config
        self._keys = keys
        self._expiry = _expiry(config.timestamp_days)
        self._schedule = Schedule(self._expiry, config.refresh_hours)
        self._working: asyncio.Future[bool] | None = None
        self._in_a_row = 0
        self._not_before = 0.0
        self._pending_seen = 0

    def check(self) -> None:
        """Return if this daemon will be able to refresh. Raises a PacballError that says what is missing for it."""
        _refuse_keys_in_store(self._keys, self._config.store)
        with Store.open(self._config.store, writable=True) as store:
            _ = store.state_dir  # where the lock is
            root = load_head(store.storage).root
            for role in (Timestamp.type, Snapshot.type):
                needed = root.roles[role]
                found = len(self._ring().signers(needed.keyids))
                if found < needed.threshold:
                    hint = "name the directory with the online key, or leave out --online-keys"
                    message = f"has {found} of the {needed.threshold} keys that sign the catalog's {role}"
                    raise Refused(message, place=str(self._keys), hint=hint)

    async def look(self, standing: Standing) -> bool:
        """Refresh if there is a reason, and none to wait; whether there is a new timestamp."""
        loop, limits = asyncio.get_running_loop(), self._config.limits
        if standing.served is None or standing.fault or loop.time() < self._not_before:
            return False
        due = self._schedule.is_due(standing.served, time.time())
        failures = self.failures
        signed = await self._attempt(due=due)
        # What has just been signed and is due again at once would be signed for ever: that waits like a failure.
        self._in_a_row = self._in_a_row + 1 if signed or self.failures > failures else 0
        if self._in_a_row:
            pause = limits.refresh_backoff_seconds * 2.0 ** min(self._in_a_row - 1, 30)
            self._not_before = loop.time() + min(pause, limits.refresh_backoff_max_seconds)
        return signed

    async def end(self, seconds: float) -> None:
        """Wait for a refresh in progress, for at most so long; what is left unfinished then has changed nothing."""
        if self._working is not None and not self._working.done():
            await asyncio.wait({self._working}, timeout=max(seconds, 0))
            if self._working.done():
                await self._outcome(self._working)

    async def _attempt(self, *, due: bool) -> bool:
        self._working = start_thread(lambda: self._work(due=due), name="pacball-refresh")
        return await self._outcome(self._working)

    async def _outcome(self, working: asyncio.Future[bool]) -> bool:
        try:
            # Who stops waiting for it does not stop it.
            signed = await asyncio.shield(working)
        except Exception as error:  # noqa: BLE001 - whatever it is, the daemon goes on, and it is tried again
            self.failures += 1
            self.fault = str(error) if isinstance(error, PacballError) else f"unexpectedly: {error!r}"
            _log.error("the catalog could not be refreshed: %s", self.fault)
            return False
        self.fault = ""
        return signed

    def _work(self, *, due: bool) -> bool:
        """Refresh if that is due, or if a change waits for the online key alone. Blocking."""
        with Store.open(self._config.store, writable=True) as store:
            catalog = Catalog.open(store.storage, store.drafts, expiry=self._expiry)
            number, pending = read_pending(store.drafts)
            # To find out what a change waits for, all that it is based on is read: once for each change.
            new = bool(pending) and number != self._pending_seen
            due = due or (new and any(not one.missing for one in catalog.status().waiting))
            if due:
                with store.catalog_lock():
                    catalog.refresh(self._ring(), now=time.time())
            self._pending_seen = number
            return due

    def _ring(self) -> KeyRing:
        # Read anew each time: keys are rotated while daemons run.
        return KeyRing(self._keys, self._config.secrets)


def _expiry(timestamp_days: float | None) -> Expiry:
    return Expiry() if timestamp_days is None else Expiry(timestamp=timestamp_days, snapshot=timestamp_days)


def _refuse_keys_in_store(keys: Path, store: Path) -> None:
    if keys.resolve().is_relative_to(store.resolve()):
        raise Refused("lies inside the store", place=str(keys), hint="keep keys elsewhere, for their owner only")
