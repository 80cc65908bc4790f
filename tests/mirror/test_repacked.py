"""Mirrors, and clients of mirrors, whose origin repacks: real origins and mirrors over HTTP."""

from __future__ import annotations

import contextlib
import dataclasses
from threading import Event, Thread

import pytest

from pacmirror.config import CollectConfig, SyncConfig, UpstreamConfig
from pacmirror.limits import CacheLimits, SweepLimits
from pacstore.digest import Digest
from pacstore.storage import ObjectKind, object_path
from pacstore.store import Store
from pacstore.subscription import Subscription
from tests.mirror.daemons import eventually, running
from tests.mirror.test_sync import ALL, QUICK, assert_whole, needed, states, told
from tests.store.releases import NOW, contents, originals
from tests.store.repacks import SECOND, THIRD, do_repack, make_worn
from tests.store.sweeping import DAY, gc, packs_here

EAGER = dataclasses.replace(
    QUICK,
    cache=CacheLimits(record_seconds=0.02),
    sweep=SweepLimits(look_seconds=0.02, first_seconds=0.05, every_seconds=0.05),
)
pytestmark = pytest.mark.slow


@pytest.fixture
def worn(tmp_path):
    made = make_worn(tmp_path / "origin")
    with contextlib.closing(made.store):
        yield made


@contextlib.contextmanager
def mirror_of(where, upstream, *, subscriptions=ALL, grace=3600.0):
    sync = SyncConfig(subscriptions=subscriptions, poll_seconds=0.1, grace_seconds=grace)
    options = {"sync": sync, "collect": CollectConfig(grace_seconds=grace)}
    with running(where, EAGER, upstream=UpstreamConfig((upstream.url,)), **options) as daemon:
        yield daemon


def is_here(where, pack):
    return (where / "public" / object_path(ObjectKind.PACK, pack)).exists()


@contextlib.contextmanager
def watching(daemon, wanted):
    """All the while, `daemon` says of all releases that they are complete, and has their holdings."""
    end, seen = Event(), []

    def look():
        while not end.is_set():
            found = states(daemon)
            codes = [daemon.request(f"/holdings/{name}")[0] for name in wanted]
            seen.append((found, codes))

    thread = Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
    assert len(seen) > 1
    assert all(found == dict.fromkeys(wanted, "complete") and set(codes) == {200} for found, codes in seen), seen


def test_a_full_mirror_follows_a_repacking_is_complete_all_the_while_and_lets_old_packs_fall_after_its_grace(
    tmp_path, worn
):
    where, names = tmp_path / "mirror", [SECOND, THIRD]
    with running(worn.store.path, EAGER) as upstream:
        with mirror_of(where, upstream) as mirror:
            eventually(lambda: states(mirror) == dict.fromkeys(names, "complete"))
            with watching(mirror, names):
                done = do_repack(worn)
                eventually(lambda: all(told(mirror, name)["placement"] == 2 for name in names))
            assert all(is_here(where, use.pack) for use in done.repacked)
            assert all(is_here(where, pack) for name in names for pack in needed(worn.origin, name))
        with mirror_of(where, upstream, grace=0.0) as mirror:
            eventually(lambda: not any(is_here(where, use.pack) for use in done.repacked))
            assert states(mirror) == dict.fromkeys(names, "complete")
    assert_whole(where, names)
    with Store.open(where, writable=False) as store:
        for name in names:
            assert contents(store, worn.origin.entry(name)) == originals(worn.trees[name])


def test_a_mirror_that_slept_through_repacking_and_collection_catches_up(tmp_path, worn):
    where, names = tmp_path / "mirror", [SECOND, THIRD]
    with running(worn.store.path, EAGER) as upstream:
        with mirror_of(where, upstream) as mirror:
            eventually(lambda: states(mirror) == dict.fromkeys(names, "complete"))
        do_repack(worn)
        gc(worn.store, now=NOW + 99 * DAY)
        with mirror_of(where, upstream) as mirror:
            eventually(lambda: all(told(mirror, name)["placement"] == 2 for name in names))
            assert states(mirror) == dict.fromkeys(names, "complete")
    assert_whole(where, names)


def test_a_mirror_in_the_middle_of_a_sync_goes_on_with_the_new_placement(tmp_path, worn):
    where, names = tmp_path / "mirror", [SECOND, THIRD]
    with running(worn.store.path, EAGER) as upstream:
        with mirror_of(where, upstream, subscriptions=(Subscription(SECOND),)) as mirror:
            eventually(lambda: states(mirror) == {SECOND: "complete"})
        with mirror_of(where, upstream) as mirror:
            # At any moment of it, that of THIRD has begun or not; what it has yet to ask for may be gone.
            do_repack(worn)
            gc(worn.store, now=NOW + 99 * DAY)
            eventually(lambda: all((told(mirror, name) or {}).get("placement") == 2 for name in names))
            eventually(lambda: states(mirror) == dict.fromkeys(names, "complete"))
    assert_whole(where, names)


def test_who_reads_by_an_older_placement_through_a_cache_goes_on(tmp_path, worn):
    packs = {Digest.parse(name) for name in packs_here(worn.store)}
    with (
        running(worn.store.path, EAGER) as upstream,
        mirror_of(tmp_path / "mirror", upstream, subscriptions=()) as mirror,
    ):
        data = {pack: (worn.store.public / object_path(ObjectKind.PACK, pack)).read_bytes() for pack in packs}
        for pack in packs:
            status, _, body = mirror.request(f"/{object_path(ObjectKind.PACK, pack)}", "Range: bytes=0-99999")
            assert (status, body) == (206, data[pack][:100_000])
        old = {use.pack for use in do_repack(worn).repacked}
        assert old < packs
        for pack in packs:
            assert mirror.get(f"/{object_path(ObjectKind.PACK, pack)}") == data[pack]
        for pack in needed(worn.origin, SECOND):
            assert mirror.get(f"/{object_path(ObjectKind.PACK, pack)}")
