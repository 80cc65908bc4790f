"""Several workers in turns: each stops at its steps, and somebody chooses who takes the next one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import contextmanager

from pacstore.index import ChunkIndex
from pacstore.ledger import Ledger
from pacstore.ledger.database import LEDGER_NAME
from pacstore.storage import Storage
from pacstore.store import Store
from tests.contract.faulty import FaultyStorage

_HANGS_S = 60.0


class Turns:
    """Runs functions at once, of which only one goes on at any time; `choose` picks the next one of the names that are left."""

    def __init__(self, choose: Callable[[list[str]], str]) -> None:
        self._choose = choose
        self._condition = threading.Condition()
        self._current = ""
        self._left: list[str] = []
        self.steps: dict[str, list[str]] = {}
        self.failures: dict[str, BaseException] = {}

    def run(self, **workers: Callable[[], object]) -> None:
        """Let all do their work; what they raise is in `failures`."""
        self._left = list(workers)
        with self._condition:
            self._pick()
        threads = [threading.Thread(target=self._work, args=(name, work)) for name, work in workers.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(2 * _HANGS_S)
            assert not thread.is_alive(), self.steps

    def step(self, name: str, what: str) -> None:
        """Worker `name` has come to its step `what`, and waits for its turn."""
        with self._condition:
            self.steps.setdefault(name, []).append(what)
            if self._current == name:
                # Who waits for a lock waits for somebody else to go on.
                self._pick(but=name if what == "wait" else "")
            self._wait(name)

    def _work(self, name: str, work: Callable[[], object]) -> None:
        with self._condition:
            self._wait(name)
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.failures[name] = error
        finally:
            with self._condition:
                self._left.remove(name)
                self._pick()

    def _pick(self, *, but: str = "") -> None:
        others = [name for name in self._left if name != but] or self._left
        self._current = self._choose(others) if others else ""
        self._condition.notify_all()

    def _wait(self, name: str) -> None:
        # A helper thread of a worker that has ended has nobody to wait for.
        assert self._condition.wait_for(lambda: self._current == name or name not in self._left, _HANGS_S), self.steps


class SteppingStorage(FaultyStorage):
    """Stops before each call."""

    def __init__(self, storage: Storage, stop: Callable[[str], None]) -> None:
        super().__init__(storage)
        self._stop = stop

    def _count(self, call: str) -> None:
        if call != "write":
            self._stop(call)


class SteppingIndex(ChunkIndex):
    """Stops before each call of a publisher."""

    stop: Callable[[str], None]

    def find(self, ids):
        self.stop("find")
        return super().find(ids)

    def claim(self, pack):
        self.stop("claim")
        super().claim(pack)

    def add(self, table):
        self.stop("add")
        return super().add(table)


class SteppingLedger(Ledger):
    """Has nothing stop while it is written: nobody else could go on then."""

    is_written = False

    @contextmanager
    def writing(self):
        with super().writing() as connection:
            self.is_written = True
            try:
                yield connection
            finally:
                self.is_written = False


def stepping(store: Store, stop: Callable[[str], None]) -> Store:
    """The store as another process has it, which stops before whatever it does in it."""
    own = Store.open(store.path, writable=True)
    ledger = SteppingLedger(store.state_dir / LEDGER_NAME)

    def stop_if_free(what: str) -> None:
        if not ledger.is_written:
            stop(what)

    index = SteppingIndex(store.index_path)
    index.stop = stop_if_free
    own.__dict__ |= {"index": index, "ledger": ledger}
    own.storage = SteppingStorage(own.storage, stop_if_free)
    own.pause = lambda _: stop("wait")
    return own
