"""A daemon that reads its store again and again, and repairs it, from its upstreams, peers and seeds."""

from __future__ import annotations

import json
import os
import shutil
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest

from pacmirror.config import PacballConfig, ScrubConfig, SyncConfig, UpstreamConfig
from pacmirror.hours import RateHours
from pacmirror.limits import ScrubLimits, ServerLimits
from pacstore.locks import locked
from pacstore.store import Store
from pacstore.subscription import Subscription
from tests.e2e.site import wait_until
from tests.mirror.daemons import running
from tests.store.damaged_stores import copy_store, frames, heal, held, largest, packs, publish_two, table_of
from tests.store.releases import NAME, NEXT, flip, overwrite

QUICK = ScrubLimits(first_pause_seconds=0, look_seconds=0.05, retry_seconds=0.1, save_seconds=0)
FAST = ScrubConfig(rate_bytes_per_second=None)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return publish_two(tmp_path_factory.mktemp("scrubbing"))


@pytest.fixture
def sound(published):
    return published.store.path


@pytest.fixture
def store(published, tmp_path):
    with Store.open(copy_store(published.store.path, tmp_path / "store"), writable=True) as opened:
        yield opened


@contextmanager
def scrubbing(store, *, scrub=FAST, limits=QUICK, peers=(), seeds=()):
    upstream = UpstreamConfig(peers=tuple(peers), seeds=tuple(seeds))
    limits = ServerLimits(scrub=limits, drain_seconds=5)
    # Who takes the digests of pacballs finds damage, too, sometimes first.
    quiet = PacballConfig(ahead=False)
    with running(store.path, limits, scrub=scrub, upstream=upstream, pacballs=quiet) as daemon:
        yield daemon


def scrub_of(daemon):
    return daemon.status()["scrub"]


def wait_for_pass(daemon):
    wait_until(lambda: scrub_of(daemon)["last_full"]["ended"] and scrub_of(daemon)["state"] == "waiting", seconds=40)
    return scrub_of(daemon)


def test_everything_is_read_and_that_is_told(store):
    with scrubbing(store) as daemon:
        told = wait_for_pass(daemon)
        assert (told["damaged"], told["withdrawn"], told["listed"], told["fault"]) == (0, 0, [], "")
        assert told["last_full"]["objects"] > 10
        assert told["last_full"]["bytes"] > 800_000
        assert daemon.metrics()["pacball_scrub_read_bytes_total"] == told["last_full"]["bytes"]
        assert daemon.metrics()["pacball_scrub_last_full_timestamp_seconds"] > time.time() - 100
        assert daemon.metrics()["pacball_damaged_parts"] == 0
        assert not [warning for warning in daemon.status()["warnings"] if "damaged" in warning]


def test_a_mirror_that_rotted_heals_itself_from_a_peer(store, sound):
    """cvmfs#3878, #3268: silent corruption of mirrors, and no healing."""
    before = {path: (store.public / path).read_bytes() for path in packs(store)}
    for path in packs(store):
        flip(store.public / path, 9)
    with running(sound) as peer, scrubbing(store, peers=[peer.url]) as daemon:
        told = wait_for_pass(daemon)
        assert (told["damaged"], told["repaired"]) == (0, len(before))
        wait_until(lambda: held(store) == [NAME, NEXT])
        for path, data in before.items():
            assert daemon.get(f"/{path}") == data
            assert (store.public / path).read_bytes() == data
        assert daemon.metrics()["pacball_scrub_repaired_parts_total"] == len(before)


def test_what_nobody_has_is_withdrawn_from_service_and_the_rest_of_it_served(store):
    """Never 404, never wrong bytes; good frames still come."""
    path = largest(store)
    data = (store.public / path).read_bytes()
    places = frames(store, path)
    begin, end = places[1]
    flip(store.public / path, begin)
    with scrubbing(store) as daemon:
        wait_for_pass(daemon)
        told = scrub_of(daemon)
        assert (told["damaged"], told["withdrawn"], told["releases_waiting"]) == (1, 1, 2)
        assert told["listed"][0]["path"] == path
        assert told["listed"][0]["frame_offset"] == begin
        assert any("could not be repaired yet" in warning for warning in daemon.status()["warnings"])
        assert held(store) == []
        good = places[0]
        status, headers, body = daemon.request(f"/{path}", f"Range: bytes={good[0]}-{good[1] - 1}")
        assert (status, body) == (206, data[good[0] : good[1]])
        assert headers["etag"] == f'"b3-{path[-64:]}"'
        for words in ((), (f"Range: bytes={begin}-{end - 1}",), (f"Range: bytes={begin - 1}-{begin}",)):
            status, headers, body = daemon.request(f"/{path}", *words)
            assert (status, headers["cache-control"]) == (503, "no-store")
            assert "damaged here" in json.loads(body)["message"]
        tail = data[places[-1][1] :]
        status, _, body = daemon.request(f"/{path}", f"Range: bytes=-{len(tail)}")
        assert (status, body) == (206, tail)
        assert daemon.request(f"/{path}", method="HEAD")[0] == 200


@pytest.mark.parametrize("enabled", [True, False])
def test_what_is_known_of_damage_is_told_at_once_after_a_restart(store, enabled):
    flip(store.public / largest(store), 9)
    with scrubbing(store) as daemon:
        before = wait_for_pass(daemon)
    asleep = replace(QUICK, first_pause_seconds=3600)
    with scrubbing(store, scrub=replace(FAST, enabled=enabled), limits=asleep) as daemon:
        told = scrub_of(daemon)
        for key in ("damaged", "withdrawn", "releases_waiting", "last_full"):
            assert told[key] == before[key]
        assert len(told["listed"]) == 1
        assert daemon.metrics()["pacball_damaged_parts"] == 1
        assert daemon.metrics()["pacball_scrub_last_full_timestamp_seconds"] > 0


def test_what_is_found_by_hand_is_told_also_by_who_does_not_scrub(store):
    with scrubbing(store, scrub=replace(FAST, enabled=False)) as daemon:
        assert scrub_of(daemon)["damaged"] == 0
        flip(store.public / largest(store), 9)
        heal(store)
        wait_until(lambda: scrub_of(daemon)["damaged"] == 1, seconds=40)
        assert scrub_of(daemon)["state"] == "off"


def test_a_document_that_nobody_has_is_withdrawn_too(store):
    path = next(
        str(file.relative_to(store.public)) for file in (store.public / "manifests").rglob("*") if file.is_file()
    )
    link = next(link for link in store.storage.links() if os.path.samefile(store.public / link, store.public / path))
    flip(store.public / path, 50)
    with scrubbing(store) as daemon:
        wait_for_pass(daemon)
        assert scrub_of(daemon)["withdrawn"] == 1
        for gone in (path,):
            status, headers, body = daemon.request(f"/{gone}")
            assert (status, headers["cache-control"]) == (503, "no-store")
            assert "is damaged here" in json.loads(body)["message"]
        assert daemon.request(f"/{link}")[0] == 404
        assert len(held(store)) == 1


@pytest.mark.slow
def test_what_could_not_be_repaired_is_when_somebody_has_it(store, sound, tmp_path):
    """Damage stays known over restarts, and is tried again without a new pass."""
    path = largest(store)
    data = (store.public / path).read_bytes()
    flip(store.public / path, 9)
    with scrubbing(store) as daemon:
        wait_for_pass(daemon)
        assert scrub_of(daemon)["damaged"] == 1
    shutil.copytree(sound, tmp_path / "seed", symlinks=True)
    with scrubbing(store, seeds=[tmp_path / "seed"]) as daemon:
        wait_until(lambda: scrub_of(daemon)["repaired"] and not scrub_of(daemon)["damaged"], seconds=40)
        wait_until(lambda: held(store) == [NAME, NEXT])
        assert daemon.get(f"/{path}") == data


@pytest.mark.slow
def test_a_seed_that_is_an_installed_tree_heals(store, published):
    path = largest(store)
    data = (store.public / path).read_bytes()
    flip(store.public / path, 9)
    top = published.store.path.parents[1]
    with scrubbing(store, seeds=[top / "1", top / "2"]) as daemon:
        wait_for_pass(daemon)
        assert scrub_of(daemon)["repaired"] == 1
    assert (store.public / path).read_bytes() == data


def test_a_pass_goes_on_where_the_last_daemon_was(store):
    """Slowly: the first daemon has not read much when it is stopped."""
    slow = ScrubConfig(rate_bytes_per_second=400_000)
    with scrubbing(store, scrub=slow) as daemon:
        wait_until(lambda: scrub_of(daemon)["pass"]["bytes"] > 0, seconds=40)
        before = scrub_of(daemon)["pass"]
        assert before["begun"]
    with scrubbing(store) as daemon:
        told = wait_for_pass(daemon)
        assert told["last_full"]["begun"] == before["begun"]
        assert daemon.metrics()["pacball_scrub_read_bytes_total"] < told["last_full"]["bytes"]


def test_only_in_the_hours_that_are_configured(store):
    now = time.localtime()
    minute = now.tm_hour * 60 + now.tm_min
    never = RateHours((minute - 60) % 1440, (minute + 60) % 1440, 0)
    with scrubbing(store, scrub=ScrubConfig(rate_bytes_per_second=None, hours=(never,))) as daemon:
        wait_until(lambda: scrub_of(daemon)["state"] == "waiting", seconds=40)
        assert daemon.metrics()["pacball_scrub_read_bytes_total"] == 0


def test_it_can_be_turned_off(store):
    with scrubbing(store, scrub=ScrubConfig(enabled=False)) as daemon:
        assert scrub_of(daemon)["state"] == "off"
        assert daemon.metrics()["pacball_scrub_read_bytes_total"] == 0


def test_of_several_daemons_over_one_store_one_scrubs(store):
    with locked(store.state_dir / "scrub.lock", shared=False, wait_seconds=0, busy="x"), scrubbing(store) as daemon:
        wait_until(lambda: scrub_of(daemon)["state"] == "elsewhere", seconds=40)
        assert scrub_of(daemon)["fault"] == ""
        assert daemon.metrics()["pacball_scrub_read_bytes_total"] == 0
    with scrubbing(store) as daemon:
        wait_for_pass(daemon)


@pytest.mark.slow
def test_a_store_that_goes_away_is_a_fault_and_no_damage(store):
    """cvmfs#4270: errors taken for absence."""
    slow = ScrubConfig(rate_bytes_per_second=400_000)
    with scrubbing(store, scrub=slow) as daemon:
        wait_until(lambda: scrub_of(daemon)["pass"]["bytes"] > 0, seconds=40)
        os.rename(store.public, store.path / "away")
        store.public.mkdir()
        wait_until(lambda: "scrub cannot go on" in " ".join(daemon.status()["warnings"]), seconds=40)
        assert scrub_of(daemon)["damaged"] == 0
        store.public.rmdir()
        os.rename(store.path / "away", store.public)
        wait_until(lambda: scrub_of(daemon)["state"] == "reading", seconds=40)
    assert held(store) == [NAME, NEXT]


@pytest.mark.slow
def test_one_bad_object_does_not_end_the_run(store):
    """cvmfs#2887: one bad chunk ended the whole run."""
    paths = packs(store)
    for path in paths:
        overwrite(store.public / path, b"")
    manifest = next(file for file in (store.public / "manifests").rglob("*") if file.is_file())
    flip(manifest, 50)
    with scrubbing(store) as daemon:
        wait_for_pass(daemon)
        listed = {part["path"] for part in scrub_of(daemon)["listed"]}
        assert listed == {*paths, str(manifest.relative_to(store.public))}


def test_a_file_of_the_right_name_and_other_bytes_is_not_believed(store, sound):
    """ncps#1155: the check certified what was committed too early, since its name was there."""
    path = largest(store)
    data = (store.public / path).read_bytes()
    overwrite(store.public / path, data[: int(table_of(store, path).offsets[1])])
    with running(sound) as peer, scrubbing(store, peers=[peer.url]) as daemon:
        wait_for_pass(daemon)
        assert (store.public / path).read_bytes() == data
        assert scrub_of(daemon)["damaged"] == 0


@pytest.mark.slow
def test_a_mirror_heals_from_its_upstream_and_is_complete_again(sound, tmp_path):
    """Complete in the ledger, damaged, withdrawn with its holdings, fetched again, verified, complete."""
    sync = SyncConfig(subscriptions=(Subscription("*"),), poll_seconds=0.1)
    limits = ServerLimits(scrub=QUICK, drain_seconds=5)

    def is_complete(daemon):
        told = json.loads(daemon.get("/v1/releases"))["releases"]
        return [one["state"] for one in told] == ["complete", "complete"]

    with running(sound) as upstream:
        options = {"upstream": UpstreamConfig(urls=(upstream.url,)), "sync": sync}
        off = ScrubConfig(enabled=False)
        with running(tmp_path / "mirror", limits, scrub=off, **options) as daemon:
            wait_until(lambda: is_complete(daemon), seconds=60)
        with Store.open(tmp_path / "mirror", writable=True) as store:
            before = {path: (store.public / path).read_bytes() for path in packs(store)}
            for path in before:
                flip(store.public / path, 9)
            with running(store.path, limits, scrub=FAST, **options) as daemon:
                wait_until(lambda: scrub_of(daemon)["repaired"] == len(before), seconds=60)
                wait_until(lambda: is_complete(daemon) and held(store) == [NAME, NEXT], seconds=60)
                assert scrub_of(daemon)["damaged"] == 0
            assert {path: (store.public / path).read_bytes() for path in packs(store)} == before
