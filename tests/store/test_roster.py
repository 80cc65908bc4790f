"""Which releases a mirror keeps: subscriptions, the newest of each platform, grace times."""

from __future__ import annotations

import dataclasses
from contextlib import closing

import pytest

from pacstore.backends.memory import MemoryStorage
from pacstore.ledger import Ledger, pins, releases, roster, subscriptions
from pacstore.ledger.completion import withdraw
from pacstore.ledger.pins import Pin
from pacstore.ledger.releases import ReleaseState
from pacstore.release import Release
from pacstore.storage import DocumentKind
from pacstore.subscription import Subscription
from pacstore.trust.retention import Retain
from pacstore.trust.targets import Withdrawal
from tests.store.trust_world import DAY, NOW, entry

GRACE = 7 * DAY


class Mirror:
    """A ledger, a storage, a catalog and a clock; `complete` what is due, as a sync would."""

    def __init__(self, path):
        self.ledger = Ledger(path)
        self.storage = MemoryStorage()
        self.catalog = {}
        self.now = NOW
        self.rules = {}
        self.configured = ()

    def publish(self, *names, days=0.0):
        for name in names:
            made = dataclasses.replace(entry(name), published=int(NOW + days * DAY))
            self.catalog[made.release] = made

    def withdraw(self, name):
        release = Release.parse(name)
        self.catalog[release] = dataclasses.replace(self.catalog[release], withdrawal=Withdrawal(int(self.now), "bad"))

    def subscribe(self, pattern, keep=None):
        with self.ledger.writing() as connection:
            subscriptions.add(connection, Subscription(pattern, keep), now=self.now)

    def unsubscribe(self, pattern):
        with self.ledger.writing() as connection:
            assert subscriptions.remove(connection, pattern)

    def update(self):
        return roster.update(
            self.ledger, self.storage, self.catalog, self.configured, self.rules, now=self.now, grace_seconds=GRACE
        )

    def sync(self):
        """Names of what was due, which is complete then, as far as it goes."""
        due = self.update().due
        with self.ledger.writing() as connection:
            for one in due:
                releases.set_complete(connection, one.release, placement_number=one.placement_number, now=self.now)
                self.storage.put(DocumentKind.HOLDINGS, str(one.release), b"{}")
        return [str(one.release) for one in due]

    def damage(self, name):
        withdraw(self.ledger, self.storage, Release.parse(name), reason="damaged", now=self.now)

    def held(self):
        return list(self.storage.names(DocumentKind.HOLDINGS))

    def row(self, name):
        with self.ledger.reading() as connection:
            return releases.find(connection, Release.parse(name))


@pytest.fixture
def mirror(tmp_path):
    mirror = Mirror(tmp_path / "ledger.sqlite")
    with closing(mirror.ledger):
        yield mirror


def test_nothing_is_kept_without_a_subscription(mirror):
    mirror.publish("Demo-1-x")
    assert mirror.update() == roster.Roster(frozenset(), (), (), None)


def test_the_newest_of_each_project_and_platform_are_kept(mirror):
    for day in range(4):
        mirror.publish(
            *(f"{project}-{day}-{platform}" for project in ("Demo", "Zebra") for platform in ("x", "y")), days=day
        )
    mirror.subscribe("Demo-*", 2)
    assert sorted(mirror.sync()) == ["Demo-2-x", "Demo-2-y", "Demo-3-x", "Demo-3-y"]
    mirror.configured = (Subscription("Zebra-*-y", 1), Subscription("*-0-*"))
    assert sorted(mirror.sync()) == ["Demo-0-x", "Demo-0-y", "Zebra-0-x", "Zebra-0-y", "Zebra-3-y"]
    assert mirror.sync() == []


def test_the_newest_come_first(mirror):
    for day in (2, 0, 1):
        mirror.publish(f"Demo-{day}-x", days=day)
    mirror.subscribe("*")
    assert mirror.sync() == ["Demo-2-x", "Demo-1-x", "Demo-0-x"]


def test_what_is_pushed_out_leaves_after_the_grace_time(mirror):
    mirror.publish("Demo-1-x")
    mirror.subscribe("Demo-*", 1)
    assert mirror.sync() == ["Demo-1-x"]
    mirror.publish("Demo-2-x", days=1)
    assert mirror.sync() == ["Demo-2-x"]
    assert mirror.update().next_at == mirror.row("Demo-1-x").leaves_at == NOW + GRACE
    mirror.now += GRACE - 1
    assert mirror.update().dropped == ()
    assert mirror.held() == ["Demo-1-x", "Demo-2-x"]
    mirror.now += 1
    assert mirror.update().dropped == (Release.parse("Demo-1-x"),)
    assert mirror.held() == ["Demo-2-x"]
    assert mirror.row("Demo-1-x") is None
    assert mirror.update().dropped == ()


def test_a_withdrawal_propagates_and_makes_room_for_an_older_release(mirror):
    """bandersnatch#307, zot#3102: deletions never reached the mirrors."""
    mirror.publish("Demo-1-x")
    mirror.publish("Demo-2-x", days=1)
    mirror.subscribe("Demo-*", 1)
    assert mirror.sync() == ["Demo-2-x"]
    mirror.withdraw("Demo-2-x")
    assert mirror.sync() == ["Demo-1-x"]
    mirror.now += GRACE
    assert mirror.update().dropped == (Release.parse("Demo-2-x"),)
    assert mirror.held() == ["Demo-1-x"]


def test_who_subscribes_again_within_the_grace_time_keeps_everything(mirror):
    mirror.publish("Demo-1-x")
    mirror.subscribe("Demo-*")
    mirror.sync()
    mirror.unsubscribe("Demo-*")
    mirror.update()
    assert mirror.row("Demo-1-x").leaves_at is not None
    mirror.subscribe("Demo-1-x")
    assert mirror.sync() == []
    mirror.now += 2 * GRACE
    assert mirror.update().dropped == ()
    assert mirror.held() == ["Demo-1-x"]


def test_what_never_was_complete_goes_at_once(mirror):
    mirror.publish("Demo-1-x")
    mirror.subscribe("Demo-*")
    assert len(mirror.update().due) == 1
    mirror.unsubscribe("Demo-*")
    assert mirror.update().dropped == (Release.parse("Demo-1-x"),)
    assert mirror.row("Demo-1-x") is None


def test_what_was_complete_and_is_damaged_has_the_grace_time_too(mirror):
    """A moment of damage must not cost what a moment of doubt about a subscription does not."""
    mirror.publish("Demo-1-x", "Demo-2-x")
    mirror.subscribe("Demo-*")
    mirror.sync()
    mirror.damage("Demo-1-x")
    mirror.unsubscribe("Demo-*")
    assert mirror.update().dropped == ()
    mirror.damage("Demo-2-x")
    mirror.now += GRACE - 1
    assert mirror.update().dropped == ()
    with mirror.ledger.reading() as connection:
        assert releases.behind_since(connection) is None, "nobody waits for what leaves"
    mirror.now += 1
    assert [str(one) for one in mirror.update().dropped] == ["Demo-1-x", "Demo-2-x"]


def test_what_the_line_lets_lapse_is_not_kept(mirror):
    mirror.publish("Demo-1-x")
    mirror.publish("Demo-2-x", days=-1)
    mirror.rules = {"Demo": Retain(1)}
    mirror.subscribe("Demo-*")
    assert mirror.sync() == ["Demo-1-x"]


def test_what_the_catalog_does_not_name_stays(mirror):
    """Unknown is not unwanted: the catalog may be another one by mistake."""
    mirror.publish("Demo-1-x")
    mirror.subscribe("Demo-*")
    mirror.sync()
    mirror.unsubscribe("Demo-*")
    mirror.catalog.clear()
    mirror.now += 100 * GRACE
    assert mirror.update().dropped == ()
    assert mirror.held() == ["Demo-1-x"]


def test_a_new_placement_is_due_and_the_old_one_held_meanwhile(mirror):
    mirror.publish("Demo-1-x")
    mirror.subscribe("Demo-*")
    mirror.sync()
    release = Release.parse("Demo-1-x")
    mirror.catalog[release] = dataclasses.replace(mirror.catalog[release], placement_number=2)
    assert [one.placement_number for one in mirror.update().due] == [2]
    assert mirror.row("Demo-1-x").state is ReleaseState.COMPLETE
    assert mirror.held() == ["Demo-1-x"]


def test_one_bad_release_waits_while_the_others_are_due(mirror):
    """bandersnatch#1434: one bad package blocked everything."""
    mirror.publish("Demo-1-x", "Demo-2-x", "Demo-3-x")
    mirror.subscribe("Demo-*")
    mirror.update()
    with mirror.ledger.writing() as connection:
        releases.fail(connection, Release.parse("Demo-2-x"), reason="a pack is missing", next_at=NOW + 30)
    found = mirror.update()
    assert sorted(str(one.release) for one in found.due) == ["Demo-1-x", "Demo-3-x"]
    assert found.next_at == NOW + 30
    mirror.now += 30
    assert len(mirror.update().due) == 3


def test_a_clock_that_was_wrong_for_a_while_keeps_nothing_for_years(mirror):
    mirror.publish("Demo-1-x")
    mirror.subscribe("Demo-*")
    mirror.sync()
    mirror.unsubscribe("Demo-*")
    mirror.now = NOW + 365 * DAY
    mirror.update()
    mirror.now = NOW
    mirror.update()
    assert mirror.row("Demo-1-x").leaves_at == NOW + GRACE


def test_what_failed_while_the_clock_was_wrong_is_tried_again_all_the_same(mirror):
    mirror.publish("Demo-1-x")
    mirror.subscribe("Demo-*")
    mirror.update()
    with mirror.ledger.writing() as connection:
        releases.fail(connection, Release.parse("Demo-1-x"), reason="no route", next_at=NOW + 365 * DAY)
    assert len(mirror.update().due) == 1


def test_what_is_pinned_and_known_stays_and_moves_on_without_any_subscription(mirror):
    mirror.publish("Demo-1-any", "Demo-2-any")
    with mirror.ledger.writing() as connection:
        # The one came by other ways; the other is pinned, but nobody has ever begun to bring it.
        releases.want(connection, Release.parse("Demo-1-any"), now=NOW)
        pins.add(connection, Pin("Demo-1-any", "agent", until=NOW + DAY))
        pins.add(connection, Pin("Demo-2-any", "agent"))
        pins.add(connection, Pin("ab" * 32, "agent"))
    assert mirror.sync() == ["Demo-1-any"]
    mirror.publish("Demo-1-any")
    (one,) = (entry for name, entry in mirror.catalog.items() if str(name) == "Demo-1-any")
    mirror.catalog[one.release] = dataclasses.replace(one, placement_number=one.placement_number + 1)
    assert mirror.sync() == ["Demo-1-any"]
    mirror.now = NOW + DAY
    assert mirror.update().dropped == ()
    mirror.now += GRACE
    assert list(map(str, mirror.update().dropped)) == ["Demo-1-any"]


def test_what_is_pinned_and_withdrawn_stays_but_nothing_of_it_is_fetched(mirror):
    mirror.publish("Demo-1-any")
    with mirror.ledger.writing() as connection:
        releases.want(connection, Release.parse("Demo-1-any"), now=NOW)
        pins.add(connection, Pin("Demo-1-any", "agent"))
    assert mirror.sync() == ["Demo-1-any"]
    mirror.withdraw("Demo-1-any")
    mirror.damage("Demo-1-any")
    mirror.now += 2 * GRACE
    found = mirror.update()
    assert (found.due, found.dropped) == ((), ())
    assert mirror.row("Demo-1-any").leaves_at is None
