"""The catalog as a daemon serves it: verified, never older than before, and the last good one when the store has none."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace

import pytest

from pacmirror.limits import ServerLimits
from tests.mirror.daemons import RELEASE, eventually, make_store, running
from tests.store.signed_catalog import SignedCatalog, flipped, put

STAMP = "/catalog/timestamp.json"
EAGER = ServerLimits(catalog_pause_seconds=0, catalog_wait_seconds=60, catalog_retry_seconds=0.05, drain_seconds=5)
DAY = 86_400.0


@pytest.fixture
def catalog():
    return SignedCatalog("Demo", "Other")


@pytest.fixture
def store(tmp_path, catalog):
    return make_store(tmp_path, catalog)


def tree(top):
    """Every file below `top`, with its content and times, but for what the daemon remembers."""
    files = [path for path in top.rglob("*") if path.is_file() and not path.name.startswith(("served.json", "ledger."))]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_what_is_served_is_told(store, catalog):
    before = tree(store)
    with running(store, EAGER) as daemon:
        assert daemon.get(STAMP) == catalog.stamp
        found = daemon.status()
        metrics = daemon.metrics()
    assert found["version"]
    assert found["warnings"] == []
    told = found["catalog"]
    assert {key: told[key] for key in ("version", "root_version", "state", "fault")} == {
        "version": 1,
        "root_version": 1,
        "state": "good",
        "fault": "",
    }
    assert 0 <= told["age_seconds"] < 600
    assert told["signed_at"] == time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(catalog.now))
    assert set(told["expires"]) == {"root", "timestamp", *catalog.signed}
    assert told["expires_first"] == told["expires"]["timestamp"]
    assert metrics["pacball_catalog_version"] == 1
    assert metrics["pacball_catalog_state"] == 1
    assert 0 <= metrics["pacball_catalog_timestamp_age_seconds"] < 600
    expiry = metrics['pacball_catalog_expiry_timestamp_seconds{role="line-Demo"}']
    assert abs(expiry - catalog.now - 365 * DAY) <= 1
    assert metrics["pacball_catalog_refused_total"] == metrics["pacball_catalog_refresh_failures_total"] == 0
    assert metrics[f'pacball_build_info{{version="{found["version"]}"}}'] == 1
    # A daemon without keys writes nothing but this.
    assert tree(store) == before
    assert (store / "private/served.json").stat().st_mode & 0o777 == 0o600


def test_a_new_state_is_served_at_once(store, catalog):
    with running(store, EAGER) as daemon:
        for project in ("Demo", "Other", "Demo"):
            catalog.commit(f"line-{project}")
            catalog.write(store / "public")
            assert daemon.get(STAMP) == catalog.stamp
        assert daemon.status()["catalog"]["version"] == 4


def test_the_timestamp_is_sent_like_any_file(store, catalog):
    with running(store, EAGER) as daemon:
        _, headers, _ = daemon.request(STAMP)
        assert daemon.request(STAMP, f"If-None-Match: {headers['etag']}")[0] == 304
        status, part, body = daemon.request(STAMP, "Range: bytes=5-14")
        assert (status, body) == (206, catalog.stamp[5:15])
        assert part["content-range"] == f"bytes 5-14/{len(catalog.stamp)}"
        assert daemon.request(STAMP, "Range: bytes=99999-")[0] == 416
        status, headers, body = daemon.request(STAMP, method="HEAD")
        assert (status, headers["content-length"], body) == (200, str(len(catalog.stamp)), b"")


def test_damage_in_a_new_state_keeps_the_last_good_one(store, catalog, caplog):
    with running(store, EAGER) as daemon:
        old = daemon.get(STAMP)
        catalog.commit("line-Demo")
        good = catalog.files[catalog.path("line-Demo")]
        catalog.files[catalog.path("line-Demo")] = flipped(good)
        catalog.write(store / "public")
        for _ in range(5):
            assert daemon.get(STAMP) == old
            time.sleep(0.06)  # it is tried again meanwhile
        told = daemon.status()
        assert (told["catalog"]["state"], told["catalog"]["version"]) == ("last-good", 1)
        assert "catalog/2.line-Demo.json" in told["catalog"]["fault"]
        assert told["catalog"]["fault"] in told["warnings"][0]
        assert daemon.get("/catalog/1.line-Other.json") == catalog.files["catalog/1.line-Other.json"]
        metrics = daemon.metrics()
        assert (metrics["pacball_catalog_state"], metrics["pacball_catalog_refused_total"]) == (0, 1)
        # timestamp.json itself does not change when the file is repaired.
        put(store / "public" / catalog.path("line-Demo"), good)
        eventually(lambda: daemon.get(STAMP) == catalog.stamp)
        assert daemon.status()["catalog"]["state"] == "good"
        assert daemon.status()["warnings"] == []
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert "version 1 still is" in errors[0]
    assert any("again" in record.getMessage() for record in caplog.records if record.levelname == "WARNING")


@pytest.mark.parametrize("role", ["line-Demo", "placement-Demo", "targets"])
def test_what_another_key_signed_is_not_served(store, catalog, role):
    with running(store, EAGER) as daemon:
        old = daemon.get(STAMP)
        catalog.sign_with[role] = catalog.keys["line-Other"]
        catalog.commit(role)
        catalog.write(store / "public")
        assert daemon.get(STAMP) == old
        assert "not signed by the keys of its role" in daemon.status()["catalog"]["fault"]
        del catalog.sign_with[role]
        catalog.commit(role)
        catalog.write(store / "public")
        assert daemon.get(STAMP) == catalog.stamp


def test_a_timestamp_that_is_put_back_is_not_served_not_even_after_a_restart(store, catalog):
    old = catalog.stamp
    catalog.commit("line-Demo")
    catalog.write(store / "public")
    with running(store, EAGER) as daemon:
        assert daemon.get(STAMP) == catalog.stamp
        put(store / "public" / STAMP[1:], old)
        assert daemon.get(STAMP) == catalog.stamp
        assert "timestamp is version 1, and version 2 was served before" in daemon.status()["catalog"]["fault"]
    with running(store, EAGER) as daemon:
        assert daemon.get(STAMP) == catalog.stamp
        assert daemon.status()["catalog"]["state"] == "last-good"
        put(store / "public" / STAMP[1:], catalog.stamp)
        assert daemon.get(STAMP) == catalog.stamp
        assert daemon.status()["catalog"]["state"] == "good"


def test_a_store_that_is_put_back_as_a_whole_gives_a_reason_until_it_is_newer(store, catalog, tmp_path):
    backup = tmp_path / "backup"
    shutil.copytree(store / "public/catalog", backup)
    catalog.commit("line-Demo")
    catalog.write(store / "public")
    with running(store, EAGER) as daemon:
        assert daemon.get(STAMP) == catalog.stamp
        shutil.rmtree(store / "public/catalog")
        shutil.copytree(backup, store / "public/catalog")
        status, headers, body = daemon.request(STAMP)
        assert (status, json.loads(body)["error"], headers["cache-control"]) == (503, "Unavailable", "no-store")
        assert "version 2 was served before" in json.loads(body)["message"]
        assert "retry-after" in headers
        told = daemon.status()["catalog"]
        assert (told["state"], told["version"], told["expires"], told["age_seconds"]) == ("none", None, {}, None)
        assert "pacball_catalog_version" not in daemon.metrics()
        # Everything else is served as it is.
        assert daemon.get("/catalog/1.line-Demo.json")
        assert daemon.get(f"/holdings/{RELEASE}")
        catalog.write(store / "public")
        eventually(lambda: daemon.request(STAMP)[2] == catalog.stamp)


def test_another_catalog_in_its_place_is_not_served(store, catalog):
    with running(store, EAGER) as daemon:
        assert daemon.get(STAMP) == catalog.stamp
        other = SignedCatalog("Demo")
        other.commit("line-Demo")
        other.write(store / "public")
        assert daemon.request(STAMP)[0] == 503
        assert "1.root.json: is another one than was served before" in daemon.status()["catalog"]["fault"]
    # Who means it removes what is remembered, as the message says.
    (store / "private/served.json").unlink()
    with running(store, EAGER) as daemon:
        assert daemon.get(STAMP) == other.stamp


def test_a_store_that_disappears_and_comes_back(store, catalog):
    with running(store, EAGER) as daemon:
        assert daemon.get(STAMP) == catalog.stamp
        (store / "public").rename(store / "elsewhere")
        status, _, body = daemon.request(STAMP)
        assert (status, "is it mounted?" in json.loads(body)["message"]) == (503, True)
        assert daemon.status()["catalog"]["state"] == "none"
        assert daemon.metrics()["pacball_catalog_refused_total"] == 0
        (store / "public").mkdir()
        assert daemon.request(STAMP)[0] == 503
        (store / "public").rmdir()
        (store / "elsewhere").rename(store / "public")
        assert daemon.get(STAMP) == catalog.stamp
        assert daemon.status()["catalog"]["state"] == "good"


def test_a_timestamp_that_is_gone_is_not_a_catalog_that_never_was(store, catalog, tmp_path):
    with running(store, EAGER) as daemon:
        assert daemon.get(STAMP) == catalog.stamp
        (store / "public" / STAMP[1:]).unlink()
        assert daemon.get(STAMP) == catalog.stamp
        assert "is gone" in daemon.status()["catalog"]["fault"]
        shutil.rmtree(store / "public/catalog")
        (store / "public/catalog").mkdir()
        eventually(lambda: daemon.request(STAMP)[0] == 503)
    fresh = make_store(tmp_path / "fresh", catalog)
    shutil.rmtree(fresh / "public/catalog")
    with running(fresh, EAGER) as daemon:
        status, _, body = daemon.request(STAMP)
        assert (status, json.loads(body)["error"]) == (404, "NotFound")
        told = daemon.status()
        assert (told["catalog"]["state"], told["catalog"]["fault"], told["warnings"]) == ("none", "", [])
        assert daemon.metrics()["pacball_catalog_state"] == 0
        catalog.write(fresh / "public")
        assert daemon.get(STAMP) == catalog.stamp


def test_with_nothing_good_ever_known_the_reason_is_the_answer(store, catalog):
    path = store / "public/catalog/1.line-Demo.json"
    good = path.read_bytes()
    put(path, flipped(good))
    with running(store, EAGER) as daemon:
        status, _, body = daemon.request(STAMP)
        assert status == 503
        assert "catalog/1.line-Demo.json: does not verify" in json.loads(body)["message"]
        assert daemon.get("/catalog/1.root.json") == catalog.files["catalog/1.root.json"]
        assert not (store / "private/served.json").exists()
        put(path, good)
        eventually(lambda: daemon.request(STAMP)[0] == 200)


def test_damage_that_is_found_after_a_restart_takes_nothing_from_the_other_lines(store, catalog):
    with running(store, EAGER) as daemon:
        assert daemon.get(STAMP) == catalog.stamp
    path = store / "public/catalog/1.line-Demo.json"
    put(path, flipped(path.read_bytes()))
    with running(store, EAGER) as daemon:
        assert daemon.get(STAMP) == catalog.stamp
        told = daemon.status()["catalog"]
        assert (told["state"], "1.line-Demo.json" in told["fault"]) == ("last-good", True)


def test_a_private_part_that_cannot_be_written_is_said(store, catalog):
    old = catalog.stamp
    catalog.commit("line-Demo")
    catalog.write(store / "public")
    shutil.rmtree(store / "private")
    with running(store, EAGER) as daemon:
        assert daemon.get(STAMP) == catalog.stamp
        (warning,) = daemon.status()["warnings"]
        assert warning.startswith("private/served.json: ")
        assert "only until the daemon ends" in warning
        put(store / "public" / STAMP[1:], old)
        assert daemon.get(STAMP) == catalog.stamp
    assert not (store / "private").exists()


def test_a_damaged_memory_is_said_and_begun_anew(store, catalog):
    record = store / "private/served.json"
    record.write_bytes(b'{"format":1}')
    with running(store, EAGER) as daemon:
        assert daemon.get(STAMP) == catalog.stamp
        assert "is damaged" in daemon.status()["warnings"][0]
    assert len(record.read_bytes()) > 1000
    with running(store, EAGER) as daemon:
        assert daemon.status()["warnings"] == []


def test_what_another_daemon_over_the_store_served_counts_too(store, catalog):
    old = catalog.copy()
    with running(store, EAGER) as one:
        assert one.get(STAMP) == catalog.stamp
        catalog.commit("line-Demo")
        catalog.write(store / "public")
        with running(store, EAGER) as two:
            assert two.get(STAMP) == catalog.stamp
        put(store / "public" / STAMP[1:], old.stamp_again())
        assert one.get(STAMP) == catalog.stamp
        assert "timestamp version 2 is not the same" in one.status()["catalog"]["fault"]


def test_a_new_root_is_seen_without_a_new_timestamp(store, catalog):
    with running(store, EAGER) as daemon:
        assert daemon.status()["catalog"]["root_version"] == 1
        catalog.write_root()
        catalog.write(store / "public")
        assert daemon.status()["catalog"]["root_version"] == 2
        (store / "public/catalog/2.root.json").unlink()
        catalog.commit()
        catalog.write(store / "public")
        (store / "public/catalog/2.root.json").unlink()
        eventually(lambda: "root is version 1, and version 2 was served" in daemon.status()["catalog"]["fault"])


def test_an_expired_catalog_is_served_with_a_warning(tmp_path):
    catalog = SignedCatalog("Demo", now=time.time() - 40 * DAY)
    with running(make_store(tmp_path, catalog), replace(EAGER, listed_roles=3)) as daemon:
        assert daemon.get(STAMP) == catalog.stamp
        told = daemon.status()
        assert told["catalog"]["state"] == "good"
        assert abs(told["catalog"]["age_seconds"] - 40 * DAY) < 600
        assert sorted(told["catalog"]["expires"]) == ["placement-Demo", "snapshot", "timestamp"]
        assert len(told["warnings"]) == 3
        assert all("expired at" in warning and "pacball trust refresh" in warning for warning in told["warnings"])
        assert sum(name.startswith("pacball_catalog_expiry") for name in daemon.metrics()) == 3


def test_warnings_are_logged_once(tmp_path, caplog):
    catalog = SignedCatalog("Demo", now=time.time() - 40 * DAY)
    with running(make_store(tmp_path, catalog), replace(EAGER, watch_seconds=0.05)) as daemon:
        daemon.get(STAMP)
        eventually(lambda: len(caplog.records) >= 3)
        time.sleep(0.3)
    assert sum("pacball trust refresh" in record.getMessage() for record in caplog.records) == 3


def test_a_catalog_that_nobody_asks_for_is_watched_too(store, catalog):
    with running(store, replace(EAGER, watch_seconds=0.05)):
        record = store / "private/served.json"
        eventually(record.exists)
        before = record.read_bytes()
        catalog.commit("line-Demo")
        catalog.write(store / "public")
        eventually(lambda: record.read_bytes() != before)
