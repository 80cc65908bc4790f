"""A repacking beside publishers, collections, drops and other repackings, one step of either after another."""

from __future__ import annotations

import random

import pytest

from pacstore.errors import Unavailable
from pacstore.progress import Silent
from pacstore.publish import publish
from pacstore.release import Release
from pacstore.store import Store
from pacstore.trust.repository import Catalog
from tests.seeds import seeded
from tests.store.releases import NOW, OPTIONS
from tests.store.repacks import FIRST, FOURTH, THIRD, do_repack, make_worn
from tests.store.sweeping import DAY, WEEK, Releases, drop, gc, marked, packs_here, packs_needed, withdraw
from tests.store.turns import Turns, stepping

LATER = NOW + DAY


@pytest.fixture(scope="module")
def worn(tmp_path_factory):
    return make_worn(tmp_path_factory.mktemp("races") / "origin")


class Race:
    """A repacking and something else, in the order in which `choose` has them go on; `reports` of those that did not fail."""

    def __init__(self, releases: Releases, other: str, choose) -> None:
        self.releases = releases
        self.reports = []
        self.gone = {FIRST}
        self.turns = Turns(choose)
        self.turns.run(repacker=lambda: self.repack("repacker"), other=getattr(self, other))

    def stepping(self, name: str) -> Store:
        store = stepping(self.releases.store, lambda step: self.turns.step(name, step))
        # The clock of these tests is far ahead of the disk's: what is being written would be taken for stale.
        store.drop_stale_staging = lambda _: None
        return store

    def repack(self, name: str = "other") -> None:
        with self.stepping(name) as store:
            self.reports.append(do_repack(self.releases, store=store))

    def publish(self) -> None:
        with self.stepping("other") as store:
            catalog = Catalog.open(store.storage, store.drafts)
            publish(self.releases.trees[FOURTH], Release.parse(FOURTH), store, catalog, keys=self.releases.origin.keys,
                    options=OPTIONS, progress=Silent(), now=lambda: LATER)  # fmt: skip

    def collect(self) -> None:
        with Store.open(self.releases.store.path, writable=True) as store:
            store.pause = lambda _: self.turns.step("other", "wait")
            for _ in range(3):
                report = gc(store, now=LATER, at=lambda step: self.turns.step("other", step))
                assert (report.busy, report.failed, report.unjudged) == ("", [], [])

    def drop(self) -> None:
        self.gone.add(THIRD)
        with self.stepping("other") as store:
            origin = type(self.releases.origin)(
                self.releases.top, store, Catalog.open(store.storage, store.drafts), self.releases.origin.keys
            )
            withdraw(origin, THIRD)
            drop(origin, now=LATER)

    def assert_good(self) -> None:
        for error in self.turns.failures.values():
            assert isinstance(error, Unavailable), error
            assert "another repacking" in str(error)
        assert self.reports
        assert [report.failed for report in self.reports] == [[]] * len(self.reports)
        self.releases.again()
        self.releases.assert_installable(but=self.gone)
        do_repack(self.releases)
        self.releases.assert_sound()
        for weeks in (1, 2, 3):
            gc(self.releases.store, now=LATER + weeks * WEEK, grace=WEEK)
        self.releases.assert_installable(but=self.gone)
        self.releases.assert_sound()
        assert marked(self.releases.store) == {}
        assert self.releases.store.index.all_condemned() == []
        names = {str(entry.release) for entry in self.releases.origin.catalog.releases()} - self.gone
        assert packs_here(self.releases.store) == set().union(
            *(packs_needed(self.releases.origin, name) for name in names)
        )


def at_random(seed):
    chance = random.Random(seed)
    bias = chance.choice((0.1, 0.3, 0.5, 0.7, 0.9))
    return lambda left: left[0] if len(left) == 1 or chance.random() < bias else left[1]


def after(steps, first, then):
    """`first` takes so many steps, then `then` goes on to its end."""
    count = iter(range(steps))
    return lambda left: left[0] if len(left) == 1 else first if next(count, None) is not None else then


_READS = ("get", "open", "size")
OTHERS = ["publish", "collect", "drop", "repack"]


@pytest.mark.parametrize("other", OTHERS[:2])
def test_fear_of_deletion_a_repacking_beside_others_in_any_order(worn, tmp_path, other):  # restic#3806
    Race(worn.copy(tmp_path / "x"), other, at_random(other)).assert_good()


@pytest.mark.slow
@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("first", ["repacker", "other"])
def test_fear_of_deletion_either_at_some_steps_of_the_other(worn, tmp_path, other, first):
    then = "other" if first == "repacker" else "repacker"
    counted = Race(worn.copy(tmp_path / "counted"), other, after(10**6, first, then))
    counted.assert_good()
    steps = counted.turns.steps[first]
    # Of steps of one kind that follow one another, the first; reads are many and alike.
    numbers = [n for n, step in enumerate(steps) if step not in _READS and (not n or step != steps[n - 1])]
    chance = seeded(f"{other} {first}")
    for number in chance.sample(numbers, min(len(numbers), 3)):
        Race(worn.copy(tmp_path / str(number)), other, after(number, first, then)).assert_good()
    Race(worn.copy(tmp_path / "x"), other, at_random(chance.random())).assert_good()


def test_two_repackings_at_once_the_second_says_so(worn, tmp_path):
    race = Race(worn.copy(tmp_path / "x"), "repack", after(40, "repacker", "other"))
    assert [type(error) for error in race.turns.failures.values()] == [Unavailable]
    assert [report.placements for report in race.reports] == [2]
    race.assert_good()
