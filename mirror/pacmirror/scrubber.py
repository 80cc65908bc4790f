"""Scrubber: reads a store again and again in a thread of its own, slowly, and has what is damaged repaired at once.

Of several processes over one store one at a time does it: the kernel keeps the lock for as long as its holder lives. How far
the pass is stands in the ledger, so a restart, also after a kill, goes on there.
"""

from __future__ import annotations

import logging
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from threading import Event
from typing import TYPE_CHECKING

from pacmirror.hours import rate_at
from pacmirror.throttle import LEAST_BYTES_PER_SECOND, Throttle
from pacstore.check import catalog_releases
from pacstore.errors import PacballError, Unavailable
from pacstore.housekeeping import droppable_releases, retention_rules
from pacstore.ledger import damage, scrubs
from pacstore.ledger.damage import DamageRow, DamageState
from pacstore.ledger.schema import Total
from pacstore.ledger.scrubs import ScrubState
from pacstore.locks import locked
from pacstore.progress import Silent
from pacstore.repair.givers import find_givers
from pacstore.repair.healing import Healed, Healer
from pacstore.repair.usage import Usage
from pacstore.scrub import Scrub
from pacstore.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pacmirror.config import Config
    from pacmirror.limits import ScrubLimits
    from pacstore.damage import DamagedPart
    from pacstore.release import Release
    from pacstore.rereading import Step
    from pacstore.source import Source
    from pacstore.storage import Clock
    from pacstore.trust.targets import CatalogRelease

_log = logging.getLogger(__name__)
_BUSY = "another process scrubs this store"
_LOCK_NAME = "scrub.lock"
_HOUR_MINUTES = 60
_TICK_SECONDS = 0.5


@dataclass(frozen=True)
class ScrubStanding:
    """How the scrub is, as of a moment ago. `doing` is one word: off, waiting, reading, repairing, elsewhere or failing.

    `damage` counts damaged parts by state, of which the first that are not repaired are in `listed`; `waiting`: releases that are
    not offered until they are repaired. `bytes_read`, `repaired` (parts), `bytes_got` and `failures` count since the start.
    """

    doing: str = "waiting"
    pass_: ScrubState = field(default_factory=ScrubState)
    damage: Mapping[DamageState, Total] = field(default_factory=dict)
    listed: tuple[DamageRow, ...] = ()
    waiting: int = 0
    fault: str = ""
    bytes_read: int = 0
    repaired: int = 0
    bytes_got: int = 0
    failures: int = 0

    @property
    def unrepaired(self) -> int:
        """How many parts are damaged now."""
        return sum(total.items for state, total in self.damage.items() if state is not DamageState.REPAIRED)


class Scrubber:
    """The work of the thread: `run`. `standing` may be read from any other. `sources` gives who may be asked now."""

    def __init__(
        self,
        config: Config,
        sources: Callable[[], Sequence[Source]],
        *,
        clock: Clock = time.time,
        local_time: Callable[[], time.struct_time] = time.localtime,
    ) -> None:
        self.standing = ScrubStanding()
        self._config = config
        self._limits: ScrubLimits = config.limits.scrub
        self._sources = sources
        self._clock = clock
        self._local_time = local_time
        self._throttle = Throttle(None)
        self._next_pass = 0.0
        self._next_retry = 0.0
        self._retry_seconds = self._limits.retry_seconds
        self._reported = Event()

    def run(self, stop: Event) -> None:
        """Scrub until `stop` is set; if that is turned off, only look at what is known. Whatever happens, it goes on."""
        if self._pause(stop, self._limits.first_pause_seconds):
            return
        while not stop.is_set():
            try:
                if self._config.scrub.enabled or self._reported.is_set():
                    self._live(stop)
            except PacballError as error:
                self._failed(error)
            except Exception as error:  # noqa: BLE001 - it must go on
                _log.exception("the scrub failed unexpectedly, and goes on later")
                self._failed(PacballError(f"a fault in pacball: {type(error).__name__}: {error}"))
            # Others may scrub the store, or check it by hand.
            self.look()
            self._pause(stop, self._limits.look_seconds)

    def look(self) -> None:
        """Let the standing be what the ledger knows, if it can be read now: damage stays known through a restart."""
        with suppress(PacballError), Store.open(self._config.store, writable=False) as store:
            if store.has_ledger:
                self._look(store)

    def report(self, parts: Sequence[DamagedPart]) -> None:
        """Write down what somebody else found damaged; the thread repairs it next. For any thread; raises nothing."""
        for part in parts:
            _log.warning("damaged: %s", part)
        try:
            with Store.open(self._config.store, writable=True) as store, closing(self._healer(store)) as healer:
                healer.record(parts, now=self._clock())
                self._look(store)
        except PacballError as error:
            _log.warning("damage could not be written down: %s", error)
            return
        self._reported.set()

    def _failed(self, error: PacballError) -> None:
        self._reported.clear()
        text = str(error)
        if error.message == _BUSY:
            self._tell(doing="elsewhere", fault="")
            return
        if text != self.standing.fault:
            _log.warning("the scrub cannot go on: %s", text)
        self._tell(doing="failing", fault=text, failures=self.standing.failures + 1)

    def _tell(self, **values: object) -> None:
        self.standing = replace(self.standing, **values)  # type: ignore[arg-type]

    def _live(self, stop: Event) -> None:
        """Work as long as the store can be worked on."""
        with Store.open(self._config.store, writable=True) as store:
            lock = store.state_dir / _LOCK_NAME
            with locked(lock, shared=False, wait_seconds=0, busy=_BUSY):
                self._do_next(store, stop)
                while self._config.scrub.enabled and not stop.is_set():
                    self._do_next(store, stop)

    def _do_next(self, store: Store, stop: Event) -> None:
        state = self._look(store)
        now = self._clock()
        is_due = self._reported.is_set() or self._is_due(self._next_retry, now)
        self._reported.clear()
        if self.standing.unrepaired + self.standing.waiting and is_due:
            self._retry(store, stop)
        elif self._may_read() and (state.begun_at is not None or self._is_due(self._pass_at(state), now)):
            self._pass(store, state, stop)
        else:
            self._tell(doing="waiting", fault="")
            self._pause(stop, self._limits.look_seconds)

    def _may_read(self) -> bool:
        return self._config.scrub.enabled and self._rate() != 0

    def _pause(self, stop: Event, seconds: float) -> bool:
        """Wait, but not longer than until somebody finds damage; whether it is to stop."""
        until = time.monotonic() + seconds
        while not self._reported.is_set() and (left := until - time.monotonic()) > 0:
            if stop.wait(min(left, _TICK_SECONDS)):
                break
        return stop.is_set()

    def _is_due(self, at: float, now: float) -> bool:
        """Also where a clock that was set back puts it further away than it ever can be."""
        return now >= at or at - now > self._limits.pause_seconds + self._limits.retry_max_seconds

    def _pass_at(self, state: ScrubState) -> float:
        last = state.last_ended_at
        return max(self._next_pass, last + self._limits.pause_seconds if last is not None else 0.0)

    def _look(self, store: Store) -> ScrubState:
        """Bring the standing up to date."""
        with store.ledger.reading() as connection:
            state = scrubs.load(connection)
            listed = tuple(damage.unrepaired(connection, limit=self._limits.listed))
            totals, waiting = damage.damage_totals(connection), len(damage.waiting(connection))
        self._tell(pass_=state, damage=totals, listed=listed, waiting=waiting)
        return state

    # A pass

    def _pass(self, store: Store, state: ScrubState, stop: Event) -> None:
        self._tell(doing="reading", fault="")
        releases = catalog_releases(store)
        state = state if state.begun_at is not None else state.begun(self._clock())
        found: list[DamagedPart] = []
        saved = time.monotonic()
        with closing(Scrub(store, releases, expected=lambda: self._expected(store, releases))) as scrub:
            for step in scrub.steps(state.position):
                state = self._advance(state, step)
                found += step.damage
                if found and step.objects:
                    self._heal(store, found, stop)
                    found.clear()
                # While damage is not recorded yet, neither is a place after it: a kill would lose it otherwise.
                if not found and time.monotonic() > saved + self._limits.save_seconds:
                    self._save(store, state)
                    saved = time.monotonic()
                if self._reported.is_set() and not found:
                    self._reported.clear()
                    self._retry(store, stop)
                    self._tell(doing="reading")
                if not self._pace(step.bytes_read, stop):
                    self._stop_early(store, state, found)
                    return
        self._next_pass = self._clock() + self._limits.pause_seconds
        self._save(store, state.ended(self._clock()))
        _log.info("the store was read through: %s objects, %s bytes", state.objects, state.bytes_read)

    def _advance(self, state: ScrubState, step: Step) -> ScrubState:
        for sentence in step.unread:
            _log.warning("%s", sentence)
        self._tell(bytes_read=self.standing.bytes_read + step.bytes_read)
        return state.advanced(step.position, objects=step.objects, bytes_read=step.bytes_read, unread=len(step.unread))

    def _stop_early(self, store: Store, state: ScrubState, found: Sequence[DamagedPart]) -> None:
        if found:
            with closing(self._healer(store)) as healer:
                healer.record(found, now=self._clock())
        self._save(store, state)

    def _save(self, store: Store, state: ScrubState) -> None:
        with store.ledger.writing() as connection:
            scrubs.save(connection, state)
        self._tell(pass_=state)

    def _pace(self, count_bytes: int, stop: Event) -> bool:
        """Wait as the rate demands; whether to go on."""
        rate = self._rate()
        if rate not in (self._throttle.bytes_per_second, 0):
            self._throttle.change(rate)
        return not stop.wait(self._throttle.take(count_bytes)) and rate != 0

    def _rate(self) -> int | None:
        """In bytes a second at this hour; 0 is not at all, None as fast as it goes."""
        now, config = self._local_time(), self._config.scrub
        rate = rate_at(now.tm_hour * _HOUR_MINUTES + now.tm_min, config.hours, usual=config.rate_bytes_per_second)
        return max(rate, LEAST_BYTES_PER_SECOND) if rate else rate

    def _expected(self, store: Store, releases: list[CatalogRelease]) -> frozenset[Release]:
        """The releases that must be held: at an origin all, but those that wait for repair, or may be dropped."""
        if self._config.is_mirror:
            return frozenset()
        with store.ledger.reading() as connection:
            waiting = damage.waiting(connection)
        return frozenset(entry.release for entry in releases) - self._droppable(store, releases) - frozenset(waiting)

    def _droppable(self, store: Store, releases: list[CatalogRelease]) -> set[Release]:
        rules = retention_rules(store.storage)
        return droppable_releases(releases, rules, now=self._clock(), grace_seconds=0)

    # Repair

    def _healer(self, store: Store) -> Healer:
        # The catalog as it is now: a release that came since the pass began may need what is damaged.
        releases = catalog_releases(store)
        usage = Usage(store, releases)
        givers = find_givers(self._sources(), self._config.upstream.seeds, usage)
        droppable = self._droppable(store, releases)
        return Healer(store, usage, givers, progress=Silent(), droppable=droppable)

    def _heal(self, store: Store, found: Sequence[DamagedPart], stop: Event) -> None:
        for part in found:
            _log.warning("damaged: %s", part)
        self._tell(doing="repairing")
        with closing(self._healer(store)) as healer:
            healer.record(found, now=self._clock())
            self._heal_paths(healer, sorted({part.path for part in found}), stop)
        self._look(store)
        self._tell(doing="reading")

    def _retry(self, store: Store, stop: Event) -> None:
        """Try again what could not be repaired; the longer that is in vain, the more rarely."""
        self._tell(doing="repairing", fault="")
        before = self.standing.unrepaired + self.standing.waiting
        with closing(self._healer(store)) as healer:
            self._heal_paths(healer, healer.damaged_paths(), stop)
        self._look(store)
        if self.standing.unrepaired + self.standing.waiting < before:
            self._retry_seconds = self._limits.retry_seconds
        self._next_retry = self._clock() + self._retry_seconds
        self._retry_seconds = min(2 * self._retry_seconds, self._limits.retry_max_seconds)

    def _heal_paths(self, healer: Healer, paths: Sequence[str], stop: Event) -> None:
        for path in paths:
            if stop.is_set():
                return
            try:
                healed = healer.heal(path, now=self._clock())
            except Unavailable as error:
                _log.warning("could not repair %s now: %s", path, error)
                continue
            if healed is not None:
                self._tell_healed(healed)
        for release in healer.restore(now=self._clock()):
            _log.info("%s is whole again, and offered", release)

    def _tell_healed(self, healed: Healed) -> None:
        standing = self.standing
        self._tell(repaired=standing.repaired + healed.parts, bytes_got=standing.bytes_got + healed.bytes_got)
        if healed.whole:
            _log.info("repaired: %s, from %s", healed.path, ", ".join(healed.givers) or "what is here")
        elif str(healed.path) not in {row.part.path for row in standing.listed if row.state is DamageState.WITHDRAWN}:
            _log.error("withdrawn, since nobody has it whole: %s: %s", healed.path, "; ".join(healed.faults))
