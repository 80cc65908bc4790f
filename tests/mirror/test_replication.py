"""A mirror follows the catalogs of its upstreams: unchanged, never backward, and it can say how old it is."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest

from pacmirror.config import SyncConfig, UpstreamConfig
from pacmirror.limits import ReplicationLimits, ServerLimits
from pacstore.errors import Refused
from pacstore.trust.pins import fingerprint
from tests.e2e.attacker import mirroring
from tests.mirror.daemons import eventually, make_store, running
from tests.mirror.scripted import Drip, Pause, answer
from tests.store.signed_catalog import SignedCatalog, flipped

STAMP = "/catalog/timestamp.json"
PROMPT = ServerLimits(catalog_pause_seconds=0, catalog_wait_seconds=60, catalog_retry_seconds=0.05, drain_seconds=5)


@pytest.fixture
def catalog():
    return SignedCatalog("Demo", "Other")


@pytest.fixture
def upstream(tmp_path, catalog):
    """A server over a store with `catalog`, which lies when it is told to."""
    with mirroring(make_store(tmp_path / "origin", catalog) / "public") as made:
        yield made


@contextlib.contextmanager
def mirror_of(store, *upstreams, poll=0.1, limits=PROMPT, **options):
    config = UpstreamConfig(tuple(one.url for one in upstreams))
    with running(store, limits, upstream=config, sync=SyncConfig(poll_seconds=poll), **options) as daemon:
        yield daemon


def serves(daemon, catalog):
    return daemon.request(STAMP)[::2] == (200, catalog.stamp)


def told(daemon):
    return daemon.status()["replication"]


def test_a_mirror_begins_empty_and_follows_its_upstream(tmp_path, catalog, upstream, caplog):
    with mirror_of(tmp_path / "mirror", upstream) as mirror:
        eventually(lambda: serves(mirror, catalog))
        catalog.commit("line-Demo")
        catalog.write(upstream.public)
        eventually(lambda: serves(mirror, catalog))
        eventually(lambda: told(mirror)["upstreams"][0]["state"] == "same")
        found = told(mirror)
        assert (found["version"], found["upstream_version"], found["is_behind"]) == (2, 2, False)
        assert 0 <= found["age_seconds"] < 60
        assert (found["root"], found["root_is_pinned"]) == (fingerprint(catalog.files["catalog/1.root.json"]), False)
        metrics = mirror.metrics()
        assert metrics["pacball_upstream_catalog_version"] == 2
        assert metrics["pacball_replication_failures_total"] == 0
        assert mirror.request("/readyz")[0] == 200
        for path in ("catalog/2.line-Demo.json", "catalog/1.root.json", "catalog/1.targets.json"):
            assert mirror.get(f"/{path}") == catalog.files[path]
    # The same bytes lie where any web server would serve them.
    assert (tmp_path / "mirror/public/catalog/timestamp.json").read_bytes() == catalog.stamp
    believed = [record.getMessage() for record in caplog.records if "is believed" in record.getMessage()]
    assert len(believed) == 1
    assert found["root"] in believed[0]


def test_an_upstream_that_is_down_takes_nothing_away_and_age_is_told_cvmfs_3412(tmp_path, catalog, upstream):
    store = tmp_path / "mirror"
    with mirror_of(store, upstream) as mirror:
        eventually(lambda: serves(mirror, catalog))
        upstream.says(STAMP[1:], answer("500 Oops"))
        eventually(lambda: told(mirror)["upstreams"][0]["failures"] > 1)
        assert serves(mirror, catalog)
        found = told(mirror)
        assert found["upstreams"][0]["state"] == "failing"
        assert "500" in found["upstreams"][0]["error"]
        assert [upstream.url in warning for warning in mirror.status()["warnings"]] == [True]
        age = found["age_seconds"]
        eventually(lambda: told(mirror)["age_seconds"] > age)
    # After a restart it is not known how old it is, and that is said.
    with mirror_of(store, upstream) as mirror:
        assert serves(mirror, catalog)
        assert told(mirror)["age_seconds"] is None
        assert told(mirror)["version"] == 1
        assert mirror.request("/readyz")[0] == 200
        upstream.is_honest()
        catalog.commit("line-Demo")
        catalog.write(upstream.public)
        eventually(lambda: serves(mirror, catalog))
        assert told(mirror)["upstreams"][0]["error"] == ""


def test_a_hostile_upstream_is_told_of_and_another_one_is_followed(tmp_path, catalog, upstream, caplog):
    with (
        mirroring(make_store(tmp_path / "other", catalog) / "public") as hostile,
        mirror_of(tmp_path / "mirror", hostile, upstream) as mirror,
    ):
        eventually(lambda: serves(mirror, catalog))
        catalog.commit("line-Demo")
        path = catalog.path("line-Demo")
        catalog.write(hostile.public)
        hostile.gives(path, flipped(catalog.files[path]))
        eventually(lambda: told(mirror)["upstreams"][0]["failures"])
        assert mirror.get(STAMP) != catalog.stamp
        assert any("could not be followed" in warning for warning in mirror.status()["warnings"])
        # It is known that there is something newer: the online key has signed it.
        assert told(mirror)["is_behind"]
        catalog.write(upstream.public)
        eventually(lambda: serves(mirror, catalog))
        found = told(mirror)
        assert (found["is_behind"], found["upstreams"][1]["error"]) == (False, "")
    said = [record.getMessage() for record in caplog.records if "could not be followed" in record.getMessage()]
    assert len(said) == 1
    assert f"{hostile.url}/{path}" in said[0]


def test_an_upstream_that_stands_still_withholds_nothing(tmp_path, catalog, upstream):
    early = catalog.copy()
    catalog.commit("line-Demo")
    catalog.write(upstream.public)
    with (
        mirroring(make_store(tmp_path / "frozen", early) / "public") as frozen,
        mirror_of(tmp_path / "mirror", frozen, upstream) as mirror,
    ):
        eventually(lambda: serves(mirror, catalog))
        eventually(lambda: told(mirror)["upstreams"][0]["state"] == "older")
        assert told(mirror)["upstreams"][0]["error"] == ""


def test_a_dripping_upstream_keeps_nobody_waiting(tmp_path, catalog, upstream):
    with mirroring(make_store(tmp_path / "slow", catalog) / "public") as slow:
        slow.says(STAMP[1:], answer("200 OK", b" ", length=5000), Drip(b" ", 0.05))
        root = tmp_path / "root.json"
        root.write_bytes(catalog.files["catalog/1.root.json"])
        with mirror_of(tmp_path / "mirror", slow, upstream, trusted_root=root) as mirror:
            eventually(lambda: serves(mirror, catalog))
            for _ in range(3):
                catalog.commit("line-Demo")
                catalog.write(upstream.public)
                eventually(lambda: serves(mirror, catalog))
            assert told(mirror)["upstreams"][0]["version"] is None


def test_the_root_of_the_first_good_upstream_in_their_order_is_believed(tmp_path, catalog, upstream):
    with mirroring(make_store(tmp_path / "dead", catalog) / "public") as dead:
        dead.says(STAMP[1:], answer("500 Oops"))
        slow = [Pause(1), answer("200 OK", catalog.stamp)]
        upstream.says(STAMP[1:], *slow)
        stranger = SignedCatalog("Demo")
        with (
            mirroring(make_store(tmp_path / "other", stranger) / "public") as other,
            mirror_of(tmp_path / "mirror", dead, upstream, other) as mirror,
        ):
            eventually(lambda: serves(mirror, catalog))
            eventually(lambda: told(mirror)["upstreams"][2]["error"])
            assert "not signed by the keys" in told(mirror)["upstreams"][2]["error"]
            assert serves(mirror, catalog)


def test_a_rollback_of_the_upstream_is_not_followed_even_after_a_restart(tmp_path, catalog, upstream):
    early = catalog.copy()
    catalog.commit("line-Demo")
    catalog.write(upstream.public)
    store = tmp_path / "mirror"
    with mirror_of(store, upstream) as mirror:
        eventually(lambda: serves(mirror, catalog))
    early.write(upstream.public)
    for path in (store / "public/catalog").glob("*.json"):
        path.unlink()
    with mirror_of(store, upstream) as mirror:
        eventually(lambda: "went backward" in told(mirror)["upstreams"][0]["error"])
        assert mirror.request(STAMP)[0] == 503
        assert mirror.request("/readyz")[0] == 503
        catalog.write(upstream.public)
        eventually(lambda: serves(mirror, catalog))


def test_damage_to_the_copy_is_made_good_without_anybody_asking_cvmfs_2991(tmp_path, catalog, upstream):
    limits = replace(PROMPT, replication=ReplicationLimits(whole_seconds=0.2))
    with mirror_of(tmp_path / "mirror", upstream, limits=limits) as mirror:
        eventually(lambda: serves(mirror, catalog))
        for path in ("catalog/1.line-Demo.json", "catalog/1.targets.json", "catalog/1.root.json"):
            file = tmp_path / "mirror/public" / path
            file.write_bytes(flipped(catalog.files[path]))
            eventually(lambda file=file, path=path: file.read_bytes() == catalog.files[path])
        eventually(lambda: serves(mirror, catalog))


def test_only_a_catalog_of_the_trusted_root_is_copied(tmp_path, catalog, upstream):
    root = tmp_path / "root.json"
    root.write_bytes(SignedCatalog("Demo").files["catalog/1.root.json"])
    with mirror_of(tmp_path / "mirror", upstream, trusted_root=root) as mirror:
        eventually(lambda: "another root" in told(mirror)["upstreams"][0]["error"])
        assert mirror.request(STAMP)[0] != 200
    root.write_bytes(catalog.files["catalog/1.root.json"])
    with mirror_of(tmp_path / "mirror", upstream, trusted_root=root) as mirror:
        eventually(lambda: serves(mirror, catalog))
        assert told(mirror)["root_is_pinned"]
    root.write_bytes(SignedCatalog("Demo").files["catalog/1.root.json"])
    with (
        pytest.raises(Refused, match="another root than the trusted"),
        mirror_of(tmp_path / "mirror", upstream, trusted_root=root),
    ):
        pass


def test_a_mirror_that_could_sign_is_half_a_configuration(tmp_path, upstream):
    with pytest.raises(Refused, match="signs nothing"), mirror_of(tmp_path / "mirror", upstream, online_keys=tmp_path):
        pass
