"""A publisher and a collection at once, one step of either after another, in many orders."""

from __future__ import annotations

import random

import pytest

from pacstore.progress import Silent
from pacstore.publish import publish
from pacstore.release import Release
from pacstore.store import Store
from pacstore.trust.repository import Catalog
from tests.store.releases import NOW, OPTIONS, noise, write
from tests.store.sweeping import DAY, Releases, drop, gc, marked, withdraw
from tests.store.turns import Turns, stepping

OLD, OTHER, NEW = "Demo-1.0-x", "Demo-1.1-x", "Demo-1.2-x"


@pytest.fixture(scope="module")
def dropped(tmp_path_factory):
    """A store that may give up the packs of OLD, of which NEW needs a part, or, as AGAIN, just all."""
    made = Releases(tmp_path_factory.mktemp("races") / "origin")
    for name, seeds in ((OLD, "abc"), (OTHER, "xyz"), (NEW, "abn"), (AGAIN, "abc")):
        made.trees[name] = made.top / "trees" / name
        for seed in seeds:
            write(made.trees[name] / seed, noise(seed, 400 * 1024))
    made.publish(OTHER)
    made.publish(OLD)
    withdraw(made.origin, OLD)
    drop(made.origin, now=NOW + DAY)
    gc(made.store, grace=10 * DAY)
    return made


AGAIN = "Demo-1.3-x"


class Race:
    """One race between a publisher of `name` and a collection, in the order in which `choose` has them go on."""

    def __init__(self, releases: Releases, name: str, choose, *, collections: int = 2) -> None:
        self.releases = releases
        self.name = name
        self.collections = collections
        self.turns = Turns(choose)
        self.turns.run(publisher=self.publish, collector=self.collect)

    def publish(self) -> None:
        with stepping(self.releases.store, lambda step: self.turns.step("publisher", step)) as store:
            catalog = Catalog.open(store.storage, store.drafts)
            publish(self.releases.trees[self.name], Release.parse(self.name), store, catalog, keys=self.releases.origin.keys,
                    options=OPTIONS, progress=Silent(), now=lambda: NOW)  # fmt: skip

    def collect(self) -> None:
        with Store.open(self.releases.store.path, writable=True) as store:
            store.pause = lambda _: self.turns.step("collector", "wait")
            for _ in range(self.collections):
                report = gc(store, now=NOW + DAY, at=lambda step: self.turns.step("collector", step))
                assert (report.busy, report.failed, report.unjudged) == ("", [], [])

    def assert_good(self) -> None:
        assert self.turns.failures == {}
        self.releases.again()
        self.releases.trees = {n: t for n, t in self.releases.trees.items() if n in (OLD, OTHER, self.name)}
        self.releases.assert_installable(but={OLD})
        self.releases.assert_sound()
        gc(self.releases.store, now=NOW + DAY)
        self.releases.assert_installable(but={OLD})
        assert marked(self.releases.store) == {}
        assert self.releases.store.index.all_condemned() == []
        assert gc(self.releases.store, now=NOW + 99 * DAY).deleted.files == 0
        self.releases.assert_gone_but_shared(OLD, self.name)


def at_random(seed):
    chance = random.Random(seed)
    bias = chance.choice((0.1, 0.3, 0.5, 0.7, 0.9))
    return lambda left: left[0] if len(left) == 1 or chance.random() < bias else left[1]


def after(steps, first, then):
    """`first` takes so many steps, then `then` goes on to its end."""
    count = iter(range(steps))
    return lambda left: left[0] if len(left) == 1 else first if next(count, None) is not None else then


@pytest.mark.parametrize("name", [NEW, AGAIN])
@pytest.mark.parametrize("seed", range(4))
def test_fear_of_deletion_a_publisher_beside_a_collection_in_any_order(dropped, tmp_path, name, seed):  # restic#3806
    race = Race(dropped.copy(tmp_path / "x"), name, at_random(f"{name} {seed}"))
    race.assert_good()


@pytest.mark.slow
@pytest.mark.parametrize("name", [NEW, AGAIN])
@pytest.mark.parametrize(("first", "then"), [("publisher", "collector"), ("collector", "publisher")])
def test_fear_of_deletion_either_at_every_step_of_the_other(dropped, tmp_path, name, first, then):
    counted = Race(dropped.copy(tmp_path / "counted"), name, after(10**6, first, then))
    counted.assert_good()
    steps = counted.turns.steps[first]
    # Of steps of one kind that follow one another, the first.
    for number in [n for n, step in enumerate(steps) if not n or step != steps[n - 1]]:
        race = Race(dropped.copy(tmp_path / str(number)), name, after(number, first, then))
        race.assert_good()
