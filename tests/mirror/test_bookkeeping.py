"""What a daemon says of its releases, and how it holds its ledger to its store."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing

import pytest

from pacmirror.limits import ServerLimits, SyncLimits
from pacmirror.sync.keeping import Keeping
from pacstore.check import catalog_releases
from pacstore.digest import Digest
from pacstore.ledger import Ledger, orders, packs, pins, releases, subscriptions
from pacstore.ledger.completion import record_complete
from pacstore.ledger.pins import Pin
from pacstore.release import Release
from pacstore.storage import ObjectKind, object_path
from pacstore.store import Store
from pacstore.subscription import Subscription
from tests.mirror.daemons import eventually, running
from tests.store.releases import NAME, NEXT, NOW, Origin, make_tree
from tests.store.trust_world import entry

QUICK = ServerLimits(sync=SyncLimits(look_seconds=0.05))


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    top = tmp_path_factory.mktemp("trees")
    return [make_tree(top / version, version=version, kib=300) for version in ("1", "2")]


@pytest.fixture
def store(tmp_path, trees):
    """A store with two releases."""
    origin = Origin.make(tmp_path / "origin")
    origin.publish(trees[0])
    origin.publish(trees[1], NEXT)
    origin.store.close()
    return origin.store.path


def listed(daemon, query=""):
    return json.loads(daemon.get(f"/v1/releases{query}"))


def without_ledger(store):
    for path in store.glob("private/ledger.sqlite*"):
        path.unlink()


def test_what_is_here_is_told(store):
    with running(store, QUICK) as daemon:
        held = daemon.status()["held"]
        assert held["releases"] == {"complete": 2, "partial": 0, "failed": 0}
        on_disk = [path.stat().st_size for path in store.glob("public/packs/*/*")]
        assert (held["packs"], held["bytes_held"]) == ({"subscribed": len(on_disk), "pulled": 0}, sum(on_disk))
        assert (held["troubles"], held["troubled"]) == (0, [])
        metrics = daemon.metrics()
        assert metrics['pacball_releases{state="complete"}'] == 2
        assert metrics['pacball_held_bytes{kept_for="subscribed"}'] == sum(on_disk)
        found = listed(daemon)
        assert [(one["release"], one["state"], one["placement"]) for one in found["releases"]] == [
            (NAME, "complete", 1),
            (NEXT, "complete", 1),
        ]
        assert found["next"] is None


def test_a_publisher_beside_the_daemon_is_noticed(tmp_path, trees):
    origin = Origin.make(tmp_path / "origin")
    with closing(origin.store), running(origin.store.path, QUICK) as daemon:
        assert daemon.status()["held"]["releases"]["complete"] == 0
        origin.publish(trees[0])
        eventually(lambda: daemon.status()["held"]["releases"]["complete"] == 1)


def test_a_store_that_is_older_than_the_ledger_is_taken_over(store):
    without_ledger(store)
    with running(store, QUICK) as daemon:
        eventually(lambda: daemon.status()["held"]["releases"]["complete"] == 2)
        assert daemon.status()["held"]["packs"]["pulled"] == 0


@pytest.mark.parametrize("known", [True, False])
def test_a_pack_that_is_gone_is_no_complete_release(store, known):
    """cvmfs#3878: a replica trusted what its records said."""
    with Store.open(store, writable=True) as opened:
        old, new = catalog_releases(opened)
        with opened.ledger.reading() as connection:
            own = releases.needed(connection, new.release) - releases.needed(connection, old.release)
    os.unlink(store / "public" / object_path(ObjectKind.PACK, min(own)))
    if not known:
        without_ledger(store)
    with running(store, QUICK) as daemon:
        eventually(lambda: daemon.status()["held"]["releases"] == {"complete": 1, "partial": 1, "failed": 0})
        assert daemon.request(f"/holdings/{NEXT}")[0] == 404
        assert daemon.request(f"/holdings/{NAME}")[0] == 200
        (troubled,) = daemon.status()["held"]["troubled"]
        assert troubled["release"] == NEXT
        assert troubled["reason"]
        assert any(NEXT in warning for warning in daemon.status()["warnings"])


def test_releases_are_told_page_by_page(store):
    with running(store, QUICK) as daemon:
        first = listed(daemon, "?limit=1")
        assert ([one["release"] for one in first["releases"]], first["next"]) == ([NAME], NAME)
        second = listed(daemon, f"?limit=1&after={first['next']}")
        assert [one["release"] for one in second["releases"]] == [NEXT]
        assert listed(daemon, f"?limit=1&after={NEXT}") == {"releases": [], "next": None}
        assert listed(daemon, "?state=failed") == {"releases": [], "next": None}
        assert len(listed(daemon, "?state=complete")["releases"]) == 2


@pytest.mark.parametrize(
    "query", ["?limit=0", "?limit=1001", "?limit=x", "?limit=%D9%A1", "?state=odd", "?page=1", "?limit=1e3"]
)
def test_what_cannot_be_a_page_is_refused(daemon, query):
    status, _, body = daemon.request(f"/v1/releases{query}")
    assert (status, json.loads(body)["error"]) == (400, "Refused")


def test_a_store_that_cannot_be_written_is_served_without_a_ledger(daemon):
    """That of this daemon has no place for staging."""
    assert "held" not in daemon.status()
    status, _, body = daemon.request("/v1/releases")
    assert (status, json.loads(body)["message"].endswith("keeps no ledger")) == (503, True)


@pytest.mark.parametrize("how", ["garbage", "empty", "truncated", "a page"])
def test_a_damaged_ledger_is_put_aside_and_made_anew_from_what_verifies(store, how):
    """Nobody has to come at night, and nothing is taken for complete that is not verified."""
    path = store / "private/ledger.sqlite"
    with Store.open(store, writable=True) as opened:
        with orders.changing(opened.ledger) as connection:
            subscriptions.add(connection, Subscription("Demo-*", 3), now=NOW)
            pins.add(connection, Pin(NAME))
        old, new = catalog_releases(opened)
        with opened.ledger.reading() as connection:
            own = releases.needed(connection, new.release) - releases.needed(connection, old.release)
    os.unlink(store / "public" / object_path(ObjectKind.PACK, min(own)))
    data = path.read_bytes()
    page = 4096
    damaged = {
        "garbage": b"garbage" * 1000,
        "empty": b"",
        "truncated": data[: len(data) // 2],
        "a page": data[: 3 * page] + bytes([0xFF]) * page + data[4 * page :],
    }
    path.write_bytes(damaged[how])
    with running(store, QUICK) as daemon:
        eventually(lambda: daemon.status()["held"]["releases"] == {"complete": 1, "partial": 1, "failed": 0})
        assert daemon.request(f"/holdings/{NEXT}")[0] == 404
        assert daemon.request(f"/holdings/{NAME}")[0] == 200
        assert any("ledger.sqlite.damaged" in warning for warning in daemon.status()["warnings"])
        assert path.with_name("ledger.sqlite.damaged").exists()
        with Store.open(store, writable=False) as opened, opened.ledger.reading() as connection:
            assert subscriptions.listed(connection) == (Subscription("Demo-*", 3),)
            assert [pin.name for pin in pins.listed(connection, now=NOW)] == [NAME]
    with running(store, QUICK) as daemon:
        assert not any("damaged" in warning for warning in daemon.status()["warnings"])


def test_a_newer_ledger_is_left_to_a_newer_pacball(store):
    path = store / "private/ledger.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")
    with running(store, QUICK) as daemon:
        assert "held" not in daemon.status()
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (99,)


def _filled(path, count):
    """The keeping of a store with so many releases, of ten packs each, one of which did not come."""
    store = Store.create(path)
    ids = [Digest.of(str(number).encode()) for number in range(10 * count)]
    with store.ledger.writing() as connection:
        for number in range(count):
            own = dict.fromkeys(ids[10 * number : 10 * number + 10], 100)
            packs.adopt(connection, own, now=NOW)
            release = Release.parse(f"Demo-{number}-x")
            releases.want(connection, release, now=NOW)
            releases.need(connection, release, own)
            releases.set_complete(connection, release, placement_number=1, now=NOW)
        releases.set_partial(connection, release, reason="why", now=NOW)
    return Keeping(store, (), grace_seconds=1.0, limits=SyncLimits(), clock=lambda: NOW, retries=False)


def _steps(keeping):
    """How many steps SQLite's machine takes for the status: the same work is the same number on any machine."""
    steps = 0

    def count():
        nonlocal steps
        steps += 1

    with keeping.store.ledger.reading() as connection:
        connection.connection.dbapi_connection.set_progress_handler(count, 1)
    found = keeping.standing()
    keeping.page(after="Demo-1", limit=3, state=None)
    return steps, found


@pytest.mark.slow
def test_status_costs_the_same_for_two_releases_and_for_two_thousand(tmp_path):
    """cvmfs#3412, bandersnatch#1622: to verify what a mirror holds took 17 days."""
    small, large = _filled(tmp_path / "small", 3), _filled(tmp_path / "large", 2000)
    with closing(small.store), closing(large.store):
        few, _ = _steps(small)
        many, found = _steps(large)
        assert (found.releases["complete"].items, found.held_bytes) == (1999, 10 * 2000 * 100)
        assert (found.troubles, str(found.troubled[0].release), found.behind_since) == (1, "Demo-1999-x", NOW)
        assert few * 0.9 <= many <= few * 1.1


def test_a_release_of_another_catalog_is_left_alone(store):
    with Store.open(store, writable=True) as opened:
        strange = entry("Strange-1-x")
        record_complete(opened.ledger, opened.storage, strange, {}, now=NOW)
    without_ledger(store)
    with running(store, QUICK) as daemon:
        eventually(lambda: daemon.status()["held"]["releases"]["complete"] == 2)
        assert daemon.request("/holdings/Strange-1-x")[0] == 200


def test_several_daemons_may_share_a_ledger(store):
    with running(store, QUICK) as one, running(store, QUICK) as other:
        with closing(Ledger(store / "private/ledger.sqlite")) as ledger, ledger.writing() as connection:
            releases.want(connection, Release.parse("Demo-9-x"), now=NOW)
        for daemon in (one, other):
            eventually(lambda daemon=daemon: daemon.status()["held"]["releases"]["partial"] == 1)
