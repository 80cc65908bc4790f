"""A daemon that makes room before it is needed, and deletes what nothing refers to, seen by its clients."""

from __future__ import annotations

import contextlib
import dataclasses
import time

import pytest

from pacmirror.config import CollectConfig, SyncConfig, UpstreamConfig
from pacmirror.limits import CacheLimits, SweepLimits
from pacstore.ledger import packs, pins
from pacstore.ledger.packs import KeptFor, PackState
from pacstore.ledger.pins import Pin
from pacstore.store import Store
from pacstore.subscription import Subscription
from tests.e2e.attacker import mirroring
from tests.mirror.daemons import eventually, running
from tests.mirror.mirrors import files_of
from tests.mirror.mischief import serving
from tests.mirror.scripted import answer
from tests.mirror.test_sync import QUICK, needed, states
from tests.store.packs import noise_pack
from tests.store.releases import NAME, NEXT, Origin, make_tree, noise, write
from tests.store.sweeping import drop, withdraw
from tests.store.sweeping import files_of as files_named

PACKS = [noise_pack(10, 40_000, seed=f"room {number}") for number in range(8)]
SIZE = len(PACKS[0].data)
EAGER = dataclasses.replace(
    QUICK,
    cache=CacheLimits(record_seconds=0.02),
    sweep=SweepLimits(look_seconds=0.02, first_seconds=0.05, every_seconds=0.05),
)


@pytest.fixture(scope="module")
def upstream():
    with serving(files_of(*PACKS)) as server:
        yield server


@contextlib.contextmanager
def mirror_with(where, upstream, quota, **options):
    urls = UpstreamConfig(urls=(upstream.url,))
    with running(where / "mirror", EAGER, upstream=urls, quota_bytes=quota, **options) as daemon:
        yield daemon


def is_here(daemon, pack):
    return (daemon.store / "public" / pack.path).exists()


def here(daemon):
    return [number for number, pack in enumerate(PACKS) if is_here(daemon, pack)]


def told(daemon):
    return daemon.status()["sweep"]


def recorded(daemon):
    """The packs of the ledger."""
    with Store.open(daemon.store, writable=False) as store, store.ledger.reading() as connection:
        return {row.pack: row for row in packs.every(connection)}


def pull(daemon, number):
    assert daemon.get(f"/{PACKS[number].path}") == PACKS[number].data


def pull_and_keep(daemon, number):
    pull(daemon, number)
    eventually(lambda: (row := recorded(daemon).get(PACKS[number].id)) and row.state is PackState.WHOLE)


def test_what_was_not_used_for_longest_leaves_before_the_quota_is_full(tmp_path, upstream):
    with mirror_with(tmp_path, upstream, 4 * SIZE) as mirror:
        for number in range(3):
            pull_and_keep(mirror, number)
        before = recorded(mirror)[PACKS[0].id].last_used
        pull(mirror, 0)
        eventually(lambda: recorded(mirror)[PACKS[0].id].last_used > before)
        assert here(mirror) == [0, 1, 2]
        pull_and_keep(mirror, 3)
        eventually(lambda: here(mirror) == [0, 2, 3])
        pull(mirror, 4)
        eventually(lambda: here(mirror) == [0, 3, 4])
        eventually(lambda: told(mirror)["evicted_packs"] == 2)
        section = told(mirror)
        assert (section["evicted_packs"], section["evicted_bytes"], section["quota_bytes"]) == (2, 2 * SIZE, 4 * SIZE)
        assert section["held_bytes"] <= 0.9 * 4 * SIZE
        assert section["passes_through"] is False
        assert mirror.metrics()["pacball_sweep_evicted_packs_total"] == 2
        pull(mirror, 1)
        assert not any("max_bytes" in one for one in mirror.status()["warnings"])


def test_parts_of_packs_count_by_what_they_take_on_disk_and_leave_too(tmp_path, upstream):
    with mirror_with(tmp_path, upstream, 2 * SIZE) as mirror:
        for pack in PACKS:
            status, _, body = mirror.request(f"/{pack.path}", "Range: bytes=0-100000")
            assert (status, body) == (206, pack.data[:100_001])
        partials = mirror.store / "private/partial"
        eventually(lambda: told(mirror)["evicted_packs"] >= 1 or told(mirror)["held_bytes"] >= 8 * 100_000)
        eventually(lambda: told(mirror)["held_bytes"] <= 0.95 * 2 * SIZE)
        eventually(lambda: sum(p.stat().st_blocks * 512 for p in partials.rglob("*") if p.is_file()) <= 2 * SIZE)
        for number in range(len(PACKS)):
            pull(mirror, number)


def test_pinned_packs_never_leave_and_what_finds_no_room_is_passed_on(tmp_path, upstream):  # attic#83
    with mirror_with(tmp_path, upstream, None) as mirror:
        for number in range(3):
            pull_and_keep(mirror, number)
        eventually(lambda: here(mirror) == [0, 1, 2])
        with Store.open(mirror.store, writable=True) as store, store.ledger.writing() as connection:
            for number in range(3):
                pins.add(connection, Pin(PACKS[number].id.hex))
    with mirror_with(tmp_path, upstream, 2 * SIZE) as mirror:
        with Store.open(mirror.store, writable=True) as store:
            eventually(lambda: told(mirror)["passes_through"])
            assert any("max_bytes" in warning for warning in mirror.status()["warnings"])
            for _ in range(2):
                for number in (3, 4, 5):
                    pull(mirror, number)
            assert here(mirror) == [0, 1, 2]
            assert mirror.metrics()["pacball_sweep_passes_through"] == 1
            with store.ledger.writing() as connection:
                pins.remove(connection, PACKS[0].id.hex, "operator")
                pins.remove(connection, PACKS[1].id.hex, "operator")
        eventually(lambda: not told(mirror)["passes_through"])
        pull(mirror, 6)
        eventually(lambda: is_here(mirror, PACKS[6]) or told(mirror)["evicted_packs"] > 2)
        assert is_here(mirror, PACKS[2])


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    top = tmp_path_factory.mktemp("trees")
    made = [make_tree(top / version, version=version, kib=300) for version in ("1", "2")]
    for tree in made:
        write(tree / "more/own", noise(f"more {tree.name}", 900 * 1024))
    return made


@pytest.fixture
def origin(tmp_path, trees):
    origin = Origin.make(tmp_path / "origin")
    origin.publish(trees[0])
    origin.publish(trees[1], NEXT)
    yield origin
    origin.store.close()


def test_what_is_subscribed_to_is_kept_whatever_the_quota_says(tmp_path, origin):
    with mirroring(origin.store.public) as server:
        sync = SyncConfig(subscriptions=(Subscription(NAME),), poll_seconds=0.1)
        with mirror_with(tmp_path, server, 100_000, sync=sync) as mirror:
            eventually(lambda: states(mirror).get(NAME) == "complete" and told(mirror)["passes_through"])
            others = needed(origin, NEXT).keys() - needed(origin, NAME).keys()
            assert others
            for pack in others:
                path = f"packs/{pack.hex[:2]}/{pack.hex}"
                assert mirror.get(f"/{path}") == (origin.store.public / path).read_bytes()
            assert {row.pack for row in recorded(mirror).values() if row.kept_for is KeptFor.SUBSCRIBED} == needed(
                origin, NAME
            ).keys()
            assert states(mirror) == {NAME: "complete"}
            # What came with the table of a small pack may be here for a moment.
            eventually(lambda: recorded(mirror).keys() == needed(origin, NAME).keys())


def test_a_ledger_that_is_made_anew_lets_nothing_leave_that_is_held(tmp_path, origin):
    with mirroring(origin.store.public) as server:
        sync = SyncConfig(subscriptions=(Subscription(NAME),), poll_seconds=0.1)
        with mirror_with(tmp_path, server, None, sync=sync) as mirror:
            eventually(lambda: states(mirror) == {NAME: "complete"})
        public = mirror.store / "public"
        held = {path.name for path in public.glob("packs/*/*")}
        for path in (*mirror.store.glob("private/ledger.sqlite*"), *public.glob("catalog/*")):
            path.unlink()
        server.says("catalog/timestamp.json", answer("503 Service Unavailable", b""))
        with mirror_with(tmp_path, server, 100_000, sync=sync) as mirror:
            eventually(lambda: mirror.status()["replication"]["upstreams"][0]["failures"] > 3)
            assert {path.name for path in public.glob("packs/*/*")} == held
            server.is_honest()
            eventually(lambda: states(mirror) == {NAME: "complete"} and told(mirror)["passes_through"])
            assert told(mirror)["evicted_packs"] == 0


def test_what_falls_out_of_the_subscriptions_leaves_without_a_quota_too(tmp_path, origin):  # bandersnatch#307, zot#3102
    with mirroring(origin.store.public) as server:
        both, one = (Subscription("*"),), (Subscription(NEXT),)
        options = {"collect": CollectConfig(grace_seconds=0)}
        sync = SyncConfig(subscriptions=both, poll_seconds=0.1, grace_seconds=0)
        with mirror_with(tmp_path, server, None, sync=sync, **options) as mirror:
            eventually(lambda: states(mirror) == {NAME: "complete", NEXT: "complete"})
        sync = dataclasses.replace(sync, subscriptions=one)
        with mirror_with(tmp_path, server, None, sync=sync, **options) as mirror:
            eventually(lambda: recorded(mirror).keys() == needed(origin, NEXT).keys())
            assert states(mirror) == {NEXT: "complete"}
            public = mirror.store / "public/packs"
            assert {path.name for path in public.rglob("*") if path.is_file()} == {p.hex for p in needed(origin, NEXT)}


def test_an_origin_that_is_told_to_collect_does_and_another_does_not(origin):
    withdraw(origin, NAME, now=time.time() - 99)
    drop(origin, now=time.time())
    kept = {pack.hex for pack in needed(origin, NEXT)}
    packs_dir = origin.store.public / "packs"
    with running(origin.store.path, EAGER) as daemon:
        assert told(daemon)["collects"] is False
        assert told(daemon)["last_collected"] is None
    assert files_named(origin.store, NAME)
    with running(origin.store.path, EAGER, collect=CollectConfig(True, 0)) as daemon:
        eventually(lambda: told(daemon)["last_collected"])
        assert told(daemon)["deleted_files"] > 3
        assert daemon.metrics()["pacball_sweep_deleted_files_total"] > 3
    assert files_named(origin.store, NAME) == []
    assert {path.name for path in packs_dir.rglob("*") if path.is_file()} == kept
