"""Releases that come, wait, are withdrawn, dropped and pinned, with collections at any time, and crashes anywhere between."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from pacstore.check import catalog_releases
from pacstore.documents import read_manifest, read_placement
from pacstore.housekeeping import droppable_releases
from pacstore.ledger import pins
from pacstore.storage import DocumentKind
from tests.contract.faulty import FaultyStorage, Killed, killed
from tests.store.releases import NOW, contents, noise, originals, write
from tests.store.sweeping import DAY, Releases, drop, gc, marked, pin, trial, withdraw

NAMES = [f"Demo-1.{number}-x" for number in range(5)]
CONTENTS = ["ab", "bc", "cd", "ab", "ad"]
"""What each of them consists of: some share a part, two are the same."""


class Life(RuleBasedStateMachine):
    """A store, and what must be true of it whatever happens."""

    def __init__(self) -> None:
        super().__init__()
        self.top = Path(tempfile.mkdtemp(prefix="pacball-test-"))
        self.releases = Releases(self.top / "origin")
        self.now = NOW
        self.dropped: set[str] = set()
        self.pinned: set[str] = set()
        for name, parts in zip(NAMES, CONTENTS, strict=True):
            tree = self.releases.trees[name] = self.top / name
            for part in parts:
                write(tree / part, noise(part, 300_000))
            write(tree / "name", parts.encode())

    def teardown(self) -> None:
        self.collect_all()
        self.releases.store.close()
        shutil.rmtree(self.top)

    @property
    def published(self) -> list[str]:
        return [str(entry.release) for entry in catalog_releases(self.releases.store)]

    @rule(name=st.sampled_from(NAMES))
    def publish(self, name: str) -> None:
        self.releases.publish(name)

    @rule(name=st.sampled_from(NAMES), at=st.integers(1, 25))
    def publish_and_be_killed(self, name: str, at: int) -> None:
        store = self.releases.store
        store.storage = FaultyStorage(store.storage, at, killed, ("stage", "publish", "create", "put", "link", "open"))
        with contextlib.suppress(Killed):
            self.releases.publish(name)
        self.releases.again()

    @initialize()
    def begin(self) -> None:
        for name in NAMES[:2]:
            self.releases.publish(name)

    @rule(name=st.sampled_from(NAMES), collects=st.booleans())
    def publish_later(self, name: str, collects: bool) -> None:
        if name not in self.published:
            self.releases.publish_later(name)
            if collects:
                self.collect(1, 0, 10**6)

    @rule()
    def forget_what_waits(self) -> None:
        self.releases.origin.catalog.drop()

    @rule(name=st.sampled_from(NAMES), now=st.booleans())
    def withdraw(self, name: str, now: bool) -> None:
        if name in self.published:
            withdraw(self.releases.origin, name, now=self.now)
            if now:
                self.drop()

    @rule()
    def drop(self) -> None:
        drop(self.releases.origin, now=self.now)
        storage = self.releases.store.storage
        held = set(storage.names(DocumentKind.HOLDINGS))
        releases = catalog_releases(self.releases.store)
        gone = droppable_releases(releases, {}, now=self.now, grace_seconds=0)
        self.dropped |= {str(name) for name in gone} - held

    @rule(name=st.sampled_from(NAMES), drops=st.booleans())
    def pin(self, name: str, drops: bool) -> None:
        if name in set(self.published) - self.dropped:
            pin(self.releases.store, name)
            self.pinned.add(name)
            if drops:
                self.withdraw(name, True)
                self.collect(1, 0, 10**6)

    @rule(name=st.sampled_from(NAMES))
    def unpin(self, name: str) -> None:
        with self.releases.store.ledger.writing() as connection:
            assert pins.remove(connection, name, "operator") == (name in self.pinned)
        self.pinned.discard(name)

    @rule(days=st.sampled_from([-400, -1, 0, 1, 8, 400]), grace=st.sampled_from([0, 7]))
    def collect_at(self, days: int, grace: int) -> None:
        """The clock may be wrong for once."""
        with contextlib.suppress(Killed):
            self.collect(days, grace, 10**6)

    @rule(days=st.sampled_from([0, 8]), steps=st.integers(0, 30))
    def collect_and_be_killed(self, days: int, steps: int) -> None:
        with contextlib.suppress(Killed):
            self.collect(days, 7 if days else 0, steps)
        self.releases.again()

    def collect(self, days: int, grace: int, steps: int) -> None:
        left = iter(range(steps))

        def step(name: str) -> None:
            if next(left, None) is None:
                raise Killed(name)

        if self.published:
            gc(self.releases.store, now=self.now + days * DAY, grace=grace * DAY, at=step)

    @rule(days=st.integers(1, 10))
    def time_passes(self, days: int) -> None:
        self.now += days * DAY

    @invariant()
    def every_release_is_installable(self) -> None:
        store = self.releases.store
        waiting = self.releases.origin.catalog.waiting_releases()
        for entry in (*catalog_releases(store), *waiting):
            name = str(entry.release)
            if name not in self.dropped or name in self.pinned:
                manifest = read_manifest(store.storage, entry)
                placement = read_placement(store.storage, entry, manifest)
                for number in range(len(placement.pack_ids)):
                    assert (
                        store.public / f"packs/{placement.pack(number).hex[:2]}/{placement.pack(number).hex}"
                    ).exists()

    def collect_all(self) -> None:
        """In the end nothing is left that nothing refers to, and what is left has every byte."""
        store = self.releases.store
        if not self.published:
            return
        for _ in range(3):
            gc(store, now=self.now + 9 * DAY)
        assert trial(store, now=self.now + 9 * DAY).deleted.files == 0
        assert marked(store) == {}
        assert store.index.all_condemned() == []
        for entry in catalog_releases(store):
            if str(entry.release) not in self.dropped - self.pinned:
                assert contents(store, entry) == originals(self.releases.trees[str(entry.release)])


@pytest.mark.slow
def test_fear_of_deletion_whatever_happens_no_release_loses_anything_and_nothing_unused_stays():  # restic#3806, kopia#4769
    options = settings(
        max_examples=20,
        stateful_step_count=15,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    run_state_machine_as_test(Life, settings=options)
