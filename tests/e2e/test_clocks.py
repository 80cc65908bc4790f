"""Catalogs that have expired, clocks that are wrong, and times that the user names."""

from __future__ import annotations

import json
import time

import pytest

from tests.e2e import signing, trees
from tests.e2e.conftest import NEW, OLD
from tests.e2e.signing import DAY_S
from tests.e2e.site import Site

pytestmark = pytest.mark.slow


@pytest.fixture
def publisher(tmp_path):
    return Site(tmp_path / "publisher")


@pytest.fixture
def tree(tmp_path):
    return trees.fill(tmp_path / "tree", seed=3, files=1, file_bytes=1000)


@pytest.fixture
def store(publisher, tree, tmp_path):
    publisher.publish(tree, OLD, tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def source(publisher, store):
    """The options of an installer whose source is a daemon over the store."""
    with publisher.serving(store) as url:
        yield ("--from", url, "--root-keys", publisher.root_keys(store))


def history(root) -> list[dict]:
    lines = [json.loads(line) for line in (root / ".pacball/history.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == "switch"]


def test_an_expired_catalog_is_refused_until_it_is_refreshed(publisher, site, store, source, tree, root):
    signing.refresh(store, when=time.time() - 2 * DAY_S, days=1)
    done = site.fails(8, "install", OLD, *source, "--root", root)
    assert "timestamp, version" in done.err
    assert "expired at" in done.err
    assert "pacball trust refresh --store" in done.json["hint"]
    assert not (root / "releases" / OLD).exists()
    site.fails(8, "list", *source)
    signing.refresh(store, when=time.time())
    site.ok("install", OLD, *source, "--root", root)
    trees.assert_same(root / "releases" / OLD, tree)
    assert history(root)[0]["trust"]["stale"] is False


def test_what_a_site_has_seen_it_may_still_install(publisher, site, store, source, tree, root, tmp_path):
    # Looking is enough: what was listed while the catalog was fresh counts as seen.
    assert [entry["release"] for entry in site.ok("list", *source)["releases"]] == [OLD]
    publisher.publish(trees.fill(tmp_path / "new", seed=4, files=1, file_bytes=1000), NEW, store)
    signing.refresh(store, when=time.time() - 2 * DAY_S, days=1)
    done = site.run("install", OLD, *source, "--root", root)
    assert done.code == 0
    (warning,) = done.err.splitlines()
    assert warning.startswith("pacball: warning: ")
    assert "out of date: timestamp" in warning
    assert "2 days ago" in warning
    assert done.json["trust"]["stale"] is True
    trees.assert_same(root / "releases" / OLD, tree)
    assert history(root)[0]["trust"] == done.json["trust"]
    new = site.fails(8, "install", NEW, *source, "--root", root)
    assert f"{NEW} was not seen here" in new.err
    listed = site.run("list", *source)
    assert [entry["release"] for entry in listed.json["releases"]] == [OLD]
    assert "not shown, because they were not seen here while it was fresh: 1" in listed.err
    assert "out of date" in site.run("show", OLD, *source).err
    # It is this user's knowledge, and no other's.
    Site(tmp_path / "neighbour").fails(8, "install", OLD, *source, "--root", tmp_path / "elsewhere")


def test_what_people_signed_is_renewed_by_people(site, store, source, root):
    signing.renew(store, "line-Demo", when=time.time() - 400 * DAY_S)
    signing.refresh(store, when=time.time())
    done = site.fails(8, "install", OLD, *source, "--root", root)
    assert "line-Demo, version" in done.err
    assert "pacball trust sign --renew" in done.json["hint"]
    assert "trust refresh" not in done.json["hint"]
    signing.renew(store, "line-Demo", when=time.time())
    site.ok("install", OLD, *source, "--root", root)


def test_a_time_can_be_named_and_is_recorded(site, store, source, tree, root):
    signed = time.time() - 100 * DAY_S
    signing.refresh(store, when=signed, days=1)
    site.fails(8, "install", OLD, *source, "--root", root)
    day = time.strftime("%Y-%m-%d", time.gmtime(signed))
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(signed + 60))
    assert site.run("install", OLD, *source, "--root", root, "--as-of", day).code == 0
    trees.assert_same(root / "releases" / OLD, tree)
    assert site.run("install", OLD, *source, "--root", root.with_name("2"), "--as-of", moment).err == ""
    (first,), (second,) = history(root), history(root.with_name("2"))
    assert time.gmtime(first["trust"]["as_of"])[:5] == (*time.gmtime(signed)[:3], 0, 0)
    assert second["trust"]["as_of"] == int(signed + 60)
    assert second["trust"]["mode"] == "pinned"
    # Nothing was learnt from it, and time went nowhere.
    site.fails(8, "install", OLD, *source, "--root", root.with_name("3"))
    for wrong in ("yesterday", "2024-13-01", "2024-01-01T00:00", ""):
        done = site.fails(7, "install", OLD, *source, "--root", root, f"--as-of={wrong}")
        assert "YYYY-MM-DD" in done.json["hint"]


def test_a_time_can_be_named_wherever_a_catalog_is_read(site, store, source):
    signed = time.time() - 100 * DAY_S
    signing.refresh(store, when=signed, days=1)
    day = time.strftime("%Y-%m-%d", time.gmtime(signed))
    for words in (("list",), ("show", OLD), ("diff", OLD, OLD), ("trust", "verify")):
        assert "expired at" in site.fails(8, *words, *source).err
        assert site.run(*words, *source, "--as-of", day).err == ""


def test_a_catalog_of_which_everything_was_seen_is_out_of_date_all_the_same(site, store, source):
    site.ok("trust", "verify", *source)
    signing.refresh(store, when=time.time() - 2 * DAY_S, days=1)
    site.ok("list", *source)
    assert "pacball trust refresh" in site.fails(8, "trust", "verify", *source).json["hint"]


def test_a_clock_that_is_behind_is_told_so(site, store, source, root):
    signed = time.time() + 3 * DAY_S
    signing.refresh(store, when=signed)
    done = site.fails(8, "install", OLD, *source, "--root", root)
    named = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(signed))
    assert f"but the catalog was signed at {named}" in done.err
    assert "set the clock" in done.json["hint"]
    assert site.ok("install", OLD, *source, "--root", root, "--as-of", named)["trust"]["as_of"] == int(signed)


def test_an_older_catalog_is_refused_even_as_of_then(publisher, site, store, source, root, tmp_path):
    timestamp = store / "public/catalog/timestamp.json"
    old = timestamp.read_bytes()
    publisher.publish(trees.fill(tmp_path / "new", seed=4, files=1, file_bytes=1000), NEW, store)
    # As a daemon that was led astray would serve it: the store's own refuses to go back.
    local = ("--from", store, *source[2:])
    site.ok("list", *local)
    newer = timestamp.read_bytes()
    timestamp.chmod(0o644)
    timestamp.write_bytes(old)
    today = time.strftime("%Y-%m-%d", time.gmtime())
    for words in ((), ("--as-of", today)):
        done = site.fails(8, "install", OLD, *local, "--root", root, *words)
        assert "rolled back: timestamp is version" in done.err
        assert "was seen before" in done.err
    # Who says so explicitly gets what there is.
    assert site.run("install", OLD, *local[:2], "--root", root, "--insecure").code == 0
    timestamp.write_bytes(newer)
    site.ok("install", NEW, *local, "--root", root)
