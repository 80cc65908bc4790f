"""Agent: keeps the store of one RSE as Rucio's rules want it, and tells Rucio what is there.

It looks again and again. What rules want is delivered; what they wanted, and have not for the grace time, is taken from Rucio and
then let go, and leaves the disk by the store's own collection. Where Rucio cannot be asked nothing changes here: only what it
has said of a dataset counts, and that more than once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pacmirror.delivery.rucio import record as records
from pacmirror.delivery.rucio.delivering import Delivery, Place
from pacmirror.delivery.rucio.leaving import let_go
from pacmirror.delivery.rucio.naming import SCOPE, check_rse, check_scope
from pacmirror.delivery.rucio.neighbours import Neighbours
from pacmirror.delivery.rucio.rse import Rse, RucioAway
from pacmirror.delivery.rucio.spoiling import Spoiling
from pacmirror.delivery.rucio.standing import OnTheWay, Standing, Trouble
from pacstore.errors import Corrupt, PacballError, Refused, Unavailable
from pacstore.ledger import releases
from pacstore.ledger.releases import ReleaseState
from pacstore.locks import locked
from pacstore.release import Release
from pacstore.store import Store
from pacstore.volumes.judging import open_target

if TYPE_CHECKING:
    from pathlib import Path

    from pacmirror.delivery.rucio.catalogue import RucioCatalogue
    from pacmirror.delivery.rucio.delivering import Trust
    from pacmirror.delivery.rucio.naming import Did
    from pacmirror.delivery.rucio.record import AgentRecord, Kept
    from pacmirror.delivery.rucio.rse import Wanted
    from pacstore.storage import Clock
    from pacstore.subscription import Subscription

_log = logging.getLogger(__name__)
LOCK_NAME = "rucio-agent.lock"
POLL_SECONDS = 60.0
GRACE_SECONDS = 86_400.0
_FULL_SECONDS = 3600.0
"""Also what seems to be settled is looked at so often: others may have declared something bad."""
_LOCK_SECONDS = 1.0


@dataclass(frozen=True)
class AgentConfig:
    """For which RSE, and datasets of which scope, the store is kept.

    `poll_seconds`: how often Rucio is asked; `grace_seconds`: how long what it does not want any more stays. `subscriptions`: of
    the mirror, if the store is one: what they mean stays. `state_dir`: where the databases of a store go that is made. Raises
    Refused for what can be no RSE or scope.
    """

    rse: str
    store: Path
    scope: str = SCOPE
    poll_seconds: float = POLL_SECONDS
    grace_seconds: float = GRACE_SECONDS
    state_dir: Path | None = None
    subscriptions: tuple[Subscription, ...] = ()

    def __post_init__(self) -> None:
        check_rse(self.rse)
        check_scope(self.scope)


@dataclass
class _Memory:
    """What need not survive: datasets on which all is done, as Rucio wanted them then, and whether their releases were held; and
    when all were looked at.
    """

    settled: dict[Did, tuple[Wanted, bool]] = field(default_factory=dict)
    full_at: float = 0.0


class Agent:
    """An agent. `connect` makes a connection to Rucio; `trust` says which root a bundle must follow from."""

    def __init__(
        self,
        config: AgentConfig,
        *,
        connect: Callable[[], RucioCatalogue],
        trust: Trust,
        clock: Clock = time.time,
    ) -> None:
        self.config = config
        self.standing = Standing(config.rse)
        self._connect = connect
        self._trust = trust
        self._clock = clock
        self._stop = threading.Event()
        self._delivery: Delivery | None = None
        self._memory = _Memory()
        self._spoiling = Spoiling()

    def stop(self) -> None:
        """Begin nothing new, and end what is going on. From any thread."""
        self._stop.set()
        delivery = self._delivery
        if delivery is not None:
            delivery.stop()

    @property
    def stopped(self) -> bool:
        """Whether it was told to stop."""
        return self._stop.is_set()

    def wait(self, seconds: float) -> None:
        """Do nothing for so long, or until it is told to stop."""
        self._stop.wait(seconds)

    def run(self) -> None:
        """Look again and again until `stop`. Raises what opening the store does, and nothing that may pass."""
        with self._open() as store:
            while not self._stop.is_set():
                with ExitStack() as stack:
                    if self._take_turn(store, stack):
                        self._work(store)

    def once(self) -> Standing:
        """Look once, and do all that is to be done now. Raises what kept it from being done at all."""
        with self._open() as store:
            busy = "another agent works for this store"
            with locked(store.state_dir / LOCK_NAME, shared=False, wait_seconds=_LOCK_SECONDS, busy=busy):
                self._look(store, self._rse())
        return self.standing

    def _open(self) -> Store:
        store = open_target(self.config.store)
        if store is None:
            store = Store.create(self.config.store, state_dir=self.config.state_dir)
            store.remember_mirror()
        records.load(store.state_dir, self.config.rse)  # which refuses a store of another RSE
        return store

    def _take_turn(self, store: Store, stack: ExitStack) -> bool:
        busy = "another agent works for this store; this one waits until it ends"
        lock = locked(store.state_dir / LOCK_NAME, shared=False, wait_seconds=0.0, busy=busy)
        try:
            stack.enter_context(lock)
        except Unavailable as error:
            if self.standing.fail("waiting", error.message, self._clock()):
                _log.info("%s: %s", store.path, error.message)
            self._stop.wait(_LOCK_SECONDS)
            return False
        return True

    def _rse(self) -> Rse:
        return Rse(self._connect(), self.config.rse, self.config.scope)

    def _work(self, store: Store) -> None:
        _log.info("the agent of the RSE %s keeps %s", self.config.rse, store.path)
        rse: Rse | None = None
        while not self._stop.is_set():
            try:
                rse = rse or self._rse()
                self._look(store, rse)
            except PacballError as error:
                state = "refused" if isinstance(error, Refused | Corrupt) else "away"
                if self.standing.fail(state, str(error), self._clock()) and not self._stop.is_set():
                    _log.warning("the agent of the RSE %s cannot go on, and tries again: %s", self.config.rse, error)
            except Exception as error:  # noqa: BLE001 - whatever it is, the next look comes
                _log.exception("the agent of the RSE %s failed unexpectedly, and tries again", self.config.rse)
                self.standing.fail("refused", f"unexpectedly: {error!r}", self._clock())
            self._stop.wait(self.config.poll_seconds)

    def _look(self, store: Store, rse: Rse) -> None:
        """Ask what is wanted, and do what follows. Raises what keeps it from that; troubles with datasets are remembered."""
        record = records.load(store.state_dir, rse.name)
        Neighbours(rse, record.store, self.config.poll_seconds).check()
        wanted = rse.wanted()
        now = self._clock()
        self.standing.asked_at = now
        if self.standing.recover("working"):
            _log.info("the agent of the RSE %s goes on", rse.name)
        record = self._remember(
            store, record, record.seen(set(wanted), now=now, grace_seconds=self.config.grace_seconds)
        )
        self._forget(wanted)
        self._tell(record, len(wanted))
        self._spoiling.tell(store, rse)
        for did in sorted(wanted, key=lambda did: (record.kept[did].is_whole, did)):
            if self._stop.is_set():
                return
            if self._is_due(store, record.kept[did], wanted[did]):
                record = self._bring(store, rse, wanted[did], record)
                self._tell(record, len(wanted))
        # What has passed since Rucio was asked says nothing of what it wants.
        for kept in record.due(now=now, grace_seconds=self.config.grace_seconds):
            if self._stop.is_set():
                return
            record = self._let_go(store, rse, kept, record)
        self._tell(record, len(wanted))
        if self._is_full(now):
            self._memory.full_at = now
        self.standing.state = "idle"

    def _is_due(self, store: Store, kept: Kept, wanted: Wanted) -> bool:
        now, trouble = self._clock(), self.standing.troubles.get(str(wanted.did))
        if trouble is not None:
            return trouble.is_due(now)
        is_settled = kept.is_whole and self._memory.settled.get(wanted.did) == (wanted, self._is_held(store, kept))
        return not is_settled or self._is_full(now)

    def _is_full(self, now: float) -> bool:
        return not 0 <= now - self._memory.full_at < _FULL_SECONDS

    @staticmethod
    def _is_held(store: Store, kept: Kept) -> bool:
        if not kept.release:
            return False
        with store.ledger.reading() as connection:
            row = releases.find(connection, Release.parse(kept.release))
        return row is not None and row.state is ReleaseState.COMPLETE

    def _bring(self, store: Store, rse: Rse, wanted: Wanted, record: AgentRecord) -> AgentRecord:
        did, way = wanted.did, OnTheWay(str(wanted.did), self._clock())
        kept = record.kept[did]
        try:
            place = Place(store, rse, self._trust, self._clock, self._rse)
            self._delivery = Delivery(place, did, rse.files(did), way)
            self.standing.on_the_way = way
            kept = self._begun(store, kept, self._delivery)
            record = self._remember(store, record, record.with_(kept))
            done = self._delivery.run()
        except RucioAway:
            raise
        except PacballError as error:
            if not self._stop.is_set():
                self._trouble(rse, wanted, error)
            return record
        except Exception as error:  # noqa: BLE001 - whatever it is, the other datasets go on
            _log.exception("%s could not be delivered, unexpectedly", did)
            self._trouble(rse, wanted, PacballError(f"unexpectedly: {error!r}"))
            return record
        finally:
            self._delivery = self.standing.on_the_way = None
        self.standing.reported += done.reported
        self.standing.bytes_came += done.bytes_came
        if done.reported or not kept.is_whole:
            self.standing.delivered += 1
            _log.info("%s is here whole: %s files reported, %s bytes came", did, done.reported, done.bytes_came)
            rse.comment(wanted.rules, "")
        self.standing.troubles = {key: one for key, one in self.standing.troubles.items() if key != str(did)}
        self._memory.settled[did] = wanted, self._is_held(store, kept)
        return self._remember(store, record, record.with_(replace(kept, is_whole=True)))

    def _begun(self, store: Store, kept: Kept, delivery: Delivery) -> Kept:
        """What is remembered from when the release of a dataset is known on."""
        if kept.release:
            return kept
        begun = replace(kept, release=str(delivery.release))
        return replace(begun, was_here=self._is_held(store, begun) and not delivery.is_pinned())

    def _trouble(self, rse: Rse, wanted: Wanted, error: PacballError) -> None:
        before = self.standing.troubles.get(str(wanted.did))
        reason = str(error).removeprefix(f"{wanted.did}: ")
        trouble = Trouble.after(before, str(wanted.did), reason, self._clock())
        self.standing.troubles = {**self.standing.troubles, trouble.dataset: trouble}
        _log.warning("%s could not be delivered, and is tried again: %s", wanted.did, reason)
        if before is None or before.reason != reason:
            rse.comment(wanted.rules, f"not delivered to {rse.name} yet: {reason}")

    def _let_go(self, store: Store, rse: Rse, kept: Kept, record: AgentRecord) -> AgentRecord:
        before = self.standing.staying.get(str(kept.did))
        if before is not None and not before.is_due(self._clock()):
            return record
        try:
            done = let_go(store, rse, kept, record, self.config.subscriptions, clock=self._clock)
        except RucioAway:
            raise
        except PacballError as error:
            self.standing.failures += 1
            reason = str(error).removeprefix(f"{kept.did}: ")
            staying = Trouble.after(before, str(kept.did), reason, self._clock())
            self.standing.staying = {**self.standing.staying, staying.dataset: staying}
            if before is None or before.reason != reason:
                _log.warning("%s could not be let go, and is tried again: %s", kept.did, reason)
            return record
        self.standing.let_go += 1
        self.standing.staying = {key: one for key, one in self.standing.staying.items() if key != str(kept.did)}
        _log.info("%s is let go: %s", kept.did, done)
        return self._remember(store, record, record.without(kept.did))

    def _remember(self, store: Store, before: AgentRecord, record: AgentRecord) -> AgentRecord:
        for kept in record.leaving():
            known = before.kept.get(kept.did)
            if known is not None and known.unwanted_since is None:
                _log.info("%s: no rule wants it here any more; it stays for %g s", kept.did, self.config.grace_seconds)
        if record.encode() != before.encode() or not (store.state_dir / records.RECORD_NAME).exists():
            records.save(store.state_dir, record)
        return record

    def _forget(self, wanted: dict[Did, Wanted]) -> None:
        self._memory.settled = {did: one for did, one in self._memory.settled.items() if did in wanted}
        known = {str(did) for did in wanted}
        self.standing.troubles = {key: one for key, one in self.standing.troubles.items() if key in known}
        self.standing.staying = {key: one for key, one in self.standing.staying.items() if key not in known}

    def _tell(self, record: AgentRecord, wanted: int) -> None:
        leaving, standing = record.leaving(), self.standing
        standing.wanted = wanted
        kept = (
            one for one in record.kept.values() if one.unwanted_since is None and str(one.did) not in standing.troubles
        )
        standing.whole = sum(one.is_whole for one in kept)
        standing.leaving = len(leaving)
        standing.held_back = record.is_mass()
        grace = self.config.grace_seconds * (records.MASS_FACTOR if standing.held_back else 1)
        moments = [one.unwanted_since for one in leaving if one.unwanted_since is not None]
        standing.leaves_first_at = min(moments) + grace if moments else None
