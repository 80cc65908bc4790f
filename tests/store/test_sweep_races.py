"""A publisher and a collection at once, one step of either after another, in many orders."""

from __future__ import annotations

import random

import pytest

from pacstore.progress import Silent
from pacstore.publish import publish
from pacstore.release import Release
from pacstore.store import Store
from pacstore.trust.repository import Catalog
from pacstore.trust.retention import Retain
from pacstore.trust.targets import Withdrawal
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


def in_order(names):
    left = iter(names)

    def choose(names):
        name = next(left, "")
        return name if name in names else names[0]

    return choose


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


class SigningRace:
    """One race between people who sign, and look at the catalog, and collections."""

    def __init__(self, releases: Releases, choose) -> None:
        self.releases = releases
        self.turns = Turns(choose)
        self.turns.run(signer=self.sign, collector=self.collect)

    def sign(self) -> None:
        with stepping(self.releases.store, lambda step: self.turns.step("signer", step)) as store:
            catalog, keys = Catalog.open(store.storage, store.drafts), self.releases.origin.keys
            catalog.withdraw(Release.parse(OTHER), Withdrawal(int(NOW), "bad"), keys, now=NOW)
            catalog.refresh(keys, now=NOW + 1)
            catalog.check_name(Release.parse(NEW), keys)
            assert [str(entry.release) for entry in catalog.releases() if entry.withdrawal] == [OLD, OTHER]

    def collect(self) -> None:
        with Store.open(self.releases.store.path, writable=True) as store:
            store.pause = lambda _: self.turns.step("collector", "wait")
            catalog = Catalog.open(store.storage, store.drafts)
            for hours in range(3):
                # The version that is in force becomes an older one, and goes.
                catalog.keep("Demo", Retain(releases=50 + hours), self.releases.origin.keys, now=NOW)
                report = gc(store, now=NOW + DAY, at=lambda step: self.turns.step("collector", step))
                assert (report.busy, report.failed, report.unjudged) == ("", [], [])

    def assert_good(self) -> None:
        assert self.turns.failures == {}
        self.releases.again()
        self.releases.trees = {name: self.releases.trees[name] for name in (OLD, OTHER)}
        self.releases.assert_installable(but={OLD, OTHER})
        self.releases.assert_sound()


@pytest.mark.parametrize("seed", range(6))
def test_a_signer_beside_collections_loses_nothing_of_the_catalog_in_any_order(dropped, tmp_path, seed):
    SigningRace(dropped.copy(tmp_path / "x"), at_random(f"signing {seed}")).assert_good()


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [("signer", "collector"), ("collector", "signer")])
def test_a_signer_at_every_step_of_a_collection_and_the_other_way(dropped, tmp_path, first, then):
    counted = SigningRace(dropped.copy(tmp_path / "counted"), after(10**6, first, then))
    counted.assert_good()
    for number in range(len(counted.turns.steps[first])):
        SigningRace(dropped.copy(tmp_path / str(number)), after(number, first, then)).assert_good()


@pytest.mark.slow
def test_what_a_signer_has_just_written_and_not_committed_yet_is_no_old_version_of_anything(dropped, tmp_path):
    counted = SigningRace(dropped.copy(tmp_path / "counted"), after(10**6, "collector", "signer"))
    steps = counted.turns.steps
    listing = len(steps["collector"]) - steps["collector"][::-1].index("list")
    for number in range(len(steps["signer"])):
        # From when the last collection has read the catalog, and goes on to list what is there.
        order = ["collector"] * listing + ["signer"] * number + ["collector"] * 10**4
        SigningRace(dropped.copy(tmp_path / str(number)), in_order(order)).assert_good()
