"""Releases are mirrored whole, one by one, and kept so: real origins and mirrors over HTTP."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from contextlib import closing

import pytest

from pacmirror.config import SyncConfig, UpstreamConfig
from pacmirror.limits import EventLimits, ReplicationLimits, ServerLimits, SyncLimits
from pacstore.check import catalog_releases
from pacstore.documents import read_manifest, read_placement
from pacstore.holding import is_held, packs_of
from pacstore.ledger import subscriptions
from pacstore.limits import KIB
from pacstore.links import links_of
from pacstore.publish import Published
from pacstore.release import Release
from pacstore.storage import DocumentKind, ObjectKind, object_path
from pacstore.store import Store
from pacstore.subscription import Subscription
from pacstore.trust.targets import SignedDocument, Withdrawal
from tests.e2e.attacker import mirroring
from tests.mirror.daemons import eventually, running
from tests.store.releases import NAME, NEXT, NOW, Origin, flip, make_tree, noise, snapshot, write

QUICK = ServerLimits(
    drain_seconds=5,
    catalog_pause_seconds=0,
    catalog_retry_seconds=0.05,
    replication=ReplicationLimits(least_seconds=0.02, backoff_seconds=0.05),
    events=EventLimits(backoff_seconds=0.05, look_seconds=0.05),
    sync=SyncLimits(look_seconds=0.05, backoff_seconds=0.1, backoff_max_seconds=0.3, passing_backoff_max_seconds=0.3),
)
ALL = (Subscription("*"),)


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    top = tmp_path_factory.mktemp("trees")
    made = [make_tree(top / version, version=version, kib=300) for version in ("1", "2")]
    for tree in made:
        # So that each has packs of its own.
        write(tree / "more/own", noise(f"more {tree.name}", 900 * KIB))
    return made


@pytest.fixture
def origin(tmp_path, trees):
    """A store with two releases that share packs."""
    origin = Origin.make(tmp_path / "origin")
    with closing(origin.store):
        origin.publish(trees[0])
        origin.publish(trees[1], NEXT)
        yield origin


@pytest.fixture
def upstream(origin):
    """A web server over the origin's public files, which may be changed behind its back."""
    with mirroring(origin.store.public) as server:
        yield server


@contextlib.contextmanager
def mirror_of(where, *upstreams, subscriptions=ALL, grace=3600.0, limits=QUICK):
    config = UpstreamConfig(tuple(one.url for one in upstreams))
    sync = SyncConfig(subscriptions=subscriptions, poll_seconds=0.1, grace_seconds=grace)
    with running(where, limits, upstream=config, sync=sync) as daemon:
        yield daemon


def states(daemon):
    found = json.loads(daemon.get("/v1/releases"))["releases"]
    return {one["release"]: one["state"] for one in found}


def told(daemon, name):
    found = json.loads(daemon.get("/v1/releases"))["releases"]
    return next((one for one in found if one["release"] == name), None)


def needed(origin, name):
    """The packs of a release."""
    entry = origin.entry(name)
    storage = origin.store.storage
    return packs_of(read_placement(storage, entry, read_manifest(storage, entry)))


def only_of(origin, name, other):
    return min(needed(origin, name).keys() - needed(origin, other).keys())


def assert_whole(where, names):
    """Whatever is held is whole, by a look at every byte."""
    with Store.open(where, writable=False) as store:
        held = sorted(store.storage.names(DocumentKind.HOLDINGS))
        assert held == sorted(names)
        mirror = Origin(where, store, None, None)
        report = mirror.check()
        bad = {damage.place for damage in report.damage if not damage.place.startswith("index")}
        assert not bad & {place for place in bad if place.startswith(("packs", "manifests", "attributes"))}
        for entry in catalog_releases(store):
            if str(entry.release) in names:
                assert is_held(store.storage, entry)
                assert {link.path for link in links_of(entry)} <= set(store.storage.links())


def test_a_mirror_holds_what_it_subscribes_to_and_nothing_else(tmp_path, origin, upstream):
    where = tmp_path / "mirror"
    with mirror_of(where, upstream, subscriptions=(Subscription("Demo-1.1-*"),)) as mirror:
        eventually(lambda: states(mirror) == {NEXT: "complete"})
        assert mirror.request(f"/holdings/{NEXT}")[0] == 200
        row = told(mirror, NEXT)
        assert row["bytes_held"] == row["bytes_total"] == sum(needed(origin, NEXT).values())
        eventually(lambda: mirror.status()["held"]["packs"]["subscribed"] == len(needed(origin, NEXT)))
        status = mirror.status()
        assert status["sync"]["lag_seconds"] == status["sync"]["queued"] == 0
        assert status["sync"]["subscriptions"] == [{"releases": "Demo-1.1-*", "keep": None}]
        assert mirror.metrics()["pacball_sync_lag_seconds"] == 0
    assert_whole(where, [NEXT])
    ours, theirs = snapshot(where / "public"), snapshot(origin.store.public)
    assert ours.items() <= theirs.items()


def test_all_of_it_is_the_same_bytes_for_every_web_server(tmp_path, origin, upstream):
    where = tmp_path / "mirror"
    with mirror_of(where, upstream) as mirror:
        eventually(lambda: states(mirror) == {NAME: "complete", NEXT: "complete"})
    theirs = snapshot(origin.store.public)
    assert {p: d for p, d in snapshot(where / "public").items() if not p.startswith("catalog/")} == {
        p: d for p, d in theirs.items() if not p.startswith("catalog/")
    }
    # Each byte of the packs came once.
    packs = sum(needed(origin, NAME).values()) + sum(
        length for pack, length in needed(origin, NEXT).items() if pack not in needed(origin, NAME)
    )
    sent = sum(len(data) for path, data in theirs.items() if path.startswith("packs/"))
    assert packs == sent


def test_a_subscription_takes_effect_without_a_restart(tmp_path, origin, upstream):
    where = tmp_path / "mirror"
    with mirror_of(where, upstream, subscriptions=()) as mirror:
        eventually(lambda: mirror.status()["replication"]["releases"] == 2)
        assert states(mirror) == {}
        with Store.open(where, writable=True) as beside, beside.ledger.writing() as connection:
            subscriptions.add(connection, Subscription("Demo-*", 1), now=NOW)
        eventually(lambda: states(mirror) == {NEXT: "complete"})


@pytest.mark.parametrize("how", ["absent", "wrong", "document"])
def test_one_bad_release_does_not_block_the_others(tmp_path, origin, upstream, how):
    """bandersnatch#1434: one bad package blocked everything."""
    pack = only_of(origin, NAME, NEXT)
    path = origin.store.public / object_path(ObjectKind.PACK, pack)
    if how == "document":
        path = origin.store.public / object_path(ObjectKind.MANIFEST, origin.entry(NAME).manifest.digest)
    good = path.read_bytes()
    if how == "absent":
        path.unlink()
    else:
        flip(path, 50 if how == "document" else 200_000)
    where = tmp_path / "mirror"
    with mirror_of(where, upstream) as mirror:
        eventually(lambda: states(mirror) == {NAME: "failed", NEXT: "complete"})
        eventually(lambda: told(mirror, NAME)["attempts"] >= 3)
        row = told(mirror, NAME)
        assert path.name in row["reason"]
        assert row["next_attempt"]
        eventually(lambda: any(NAME in warning for warning in mirror.status()["warnings"]))
        assert mirror.status()["sync"]["lag_seconds"] > 0
        assert not (where / "public/holdings" / NAME).exists()
        # The origin mends it; nobody needs to touch the mirror.
        path.unlink(missing_ok=True)
        path.write_bytes(good)
        eventually(lambda: states(mirror) == {NAME: "complete", NEXT: "complete"})
        eventually(lambda: mirror.status()["held"]["troubles"] == 0)
        assert told(mirror, NAME)["reason"] == ""
    assert_whole(where, [NAME, NEXT])


def test_an_upstream_that_is_gone_is_no_reason_to_drop_anything(tmp_path, origin):
    where = tmp_path / "mirror"
    with mirroring(origin.store.public) as upstream, mirror_of(where, upstream) as mirror:
        eventually(lambda: set(states(mirror).values()) == {"complete"})
    with mirror_of(where, upstream) as mirror:
        assert states(mirror) == {NAME: "complete", NEXT: "complete"}
        assert mirror.request(f"/holdings/{NAME}")[0] == 200


def test_what_is_no_longer_subscribed_leaves_after_the_grace_time(tmp_path, origin, upstream):
    where = tmp_path / "mirror"
    with mirror_of(where, upstream) as mirror:
        eventually(lambda: set(states(mirror).values()) == {"complete"})
    with mirror_of(where, upstream, subscriptions=(Subscription("Demo-*", 1),)) as mirror:
        eventually(lambda: told(mirror, NAME)["leaves"] is not None)
        assert mirror.request(f"/holdings/{NAME}")[0] == 200
    with mirror_of(where, upstream, subscriptions=(Subscription("Demo-*", 1),), grace=0.0) as mirror:
        eventually(lambda: states(mirror) == {NEXT: "complete"})
        assert not (where / f"public/holdings/{NAME}").exists()
        # Clients are told all the same that it can be had here, from the upstream.
        assert mirror.request(f"/holdings/{NAME}")[0] == 200
        # Its own packs are what anybody may have asked for once.
        eventually(lambda: mirror.status()["held"]["packs"]["pulled"] > 0)
    assert_whole(where, [NEXT])


def test_a_withdrawal_reaches_the_mirror(tmp_path, origin, upstream):
    """bandersnatch#307, zot#3102: deletions never reached the mirrors."""
    where = tmp_path / "mirror"
    with mirror_of(where, upstream, grace=0.0) as mirror:
        eventually(lambda: states(mirror) == {NAME: "complete", NEXT: "complete"})
        origin.catalog.withdraw(Release.parse(NAME), Withdrawal(int(NOW), "bad"), origin.keys, now=NOW)
        eventually(lambda: states(mirror) == {NEXT: "complete"})
        assert mirror.request(f"/holdings/{NAME}")[0] == 404


def test_a_new_placement_is_followed(tmp_path, origin, upstream):
    where = tmp_path / "mirror"
    with mirror_of(where, upstream) as mirror:
        eventually(lambda: set(states(mirror).values()) == {"complete"})
        before = (where / "public/holdings" / NAME).read_bytes()
        entry, storage = origin.entry(NAME), origin.store.storage
        placement = read_placement(storage, entry, read_manifest(storage, entry))
        data = dataclasses.replace(placement, number=2).encode()
        storage.put(DocumentKind.PLACEMENT, f"{NAME}.2", data)
        changed = dataclasses.replace(entry, placement=SignedDocument.of_all([data]), placement_number=2)
        storage.link(links_of(changed))
        origin.catalog.replace_placements({entry.release: (changed.placement, 2)}, origin.keys, now=NOW)
        eventually(lambda: told(mirror, NAME)["placement"] == 2)
        assert (where / "public/holdings" / NAME).read_bytes() != before
        assert states(mirror) == {NAME: "complete", NEXT: "complete"}


def test_a_new_release_is_mirrored_without_anybody_asking(tmp_path, origin, trees):
    with running(origin.store.path, QUICK) as upstream, mirror_of(tmp_path / "mirror", upstream) as mirror:
        eventually(lambda: states(mirror) == {NAME: "complete", NEXT: "complete"})
        assert isinstance(origin.publish(trees[0], "Demo-1.2-x"), Published)
        eventually(lambda: states(mirror).get("Demo-1.2-x") == "complete")


def test_a_mirror_of_a_mirror_gets_all_of_it(tmp_path, origin, upstream):
    with mirror_of(tmp_path / "near", upstream) as near, mirror_of(tmp_path / "far", near) as far:
        eventually(lambda: states(far) == {NAME: "complete", NEXT: "complete"})
    assert_whole(tmp_path / "far", [NAME, NEXT])


def test_what_is_lost_while_the_mirror_is_down_is_fetched_again(tmp_path, origin, upstream):
    where = tmp_path / "mirror"
    with mirror_of(where, upstream) as mirror:
        eventually(lambda: set(states(mirror).values()) == {"complete"})
    os.unlink(where / "public" / object_path(ObjectKind.PACK, only_of(origin, NEXT, NAME)))
    upstream.forget()
    with mirror_of(where, upstream) as mirror:
        eventually(lambda: set(states(mirror).values()) == {"complete"})
        # Only that.
        asked = {path for path in upstream.asked if path.startswith("packs/")}
        assert asked == {object_path(ObjectKind.PACK, only_of(origin, NEXT, NAME))}
    assert_whole(where, [NAME, NEXT])
