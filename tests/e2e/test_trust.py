"""Whom an installer believes: pinned roots, trust on first use, expiry."""

from __future__ import annotations

import time

import pytest

from pacstore.store import Store
from pacstore.trust.keys import KeyRing
from pacstore.trust.metadata import Expiry
from pacstore.trust.repository import Catalog
from tests.e2e import trees
from tests.e2e.conftest import OLD
from tests.e2e.site import Site

DAY_S = 86_400.0


@pytest.fixture
def other(tmp_path):
    """Another publisher with a store of the same name that has a release of the same name."""
    site = Site(tmp_path / "other")
    tree = trees.fill(tmp_path / "evil", seed=9, files=1, file_bytes=1000)
    site.publish(tree, OLD, tmp_path / "store")
    return site, tmp_path / "store"


def test_without_a_root_nothing_is_installed(site, served, root):
    done = site.fails(8, "install", OLD, "--from", served, "--root", root)
    assert "--root-keys" in done.json["hint"]
    assert "--trust-on-first-use" in done.json["hint"]
    assert not root.exists()
    site.fails(8, "list", "--from", served)


def test_trust_on_first_use_is_remembered_and_holds(origin, other, site, tmp_path):
    stranger, store = other
    with origin.site.serving(origin.store) as url:
        first = site.run("list", "--from", url, "--trust-on-first-use")
        assert (first.code, "fingerprint" in first.err) == (0, True)
        assert site.run("list", "--from", url).err == ""
    port = url.rpartition(":")[2]
    # The same URL, another root behind it.
    with stranger.serving(store, "--listen", f"127.0.0.1:{port}") as again:
        assert again == url
        for words in ((), ("--trust-on-first-use",)):
            site.fails(8, "list", "--from", url, *words)
        site.fails(8, "install", OLD, "--from", url, "--root", tmp_path / "root")
        assert not (tmp_path / "root/releases" / OLD).exists()


def test_only_the_catalog_of_the_given_root_is_believed(origin, other, site, served, root):
    stranger, store = other
    wrong = stranger.root_keys(store)
    site.fails(8, "install", OLD, "--from", served, "--root-keys", wrong, "--root", root)
    site.fails(8, "list", "--from", origin.store, "--root-keys", wrong)
    site.ok("list", "--from", served, "--root-keys", origin.root_keys)
    missing = site.fails(3, "list", "--from", served, "--root-keys", root / "no.json")
    assert "does not exist" in missing.err
    damaged = site.home / "damaged.json"
    damaged.write_text(origin.root_keys.read_text().replace('"keyval"', '"keyvalue"'))
    site.fails(7, "list", "--from", served, "--root-keys", damaged)


def test_an_expired_catalog_is_refused_until_it_is_refreshed(site, tmp_path, root):
    tree = trees.fill(tmp_path / "tree", seed=3, files=1, file_bytes=1000)
    store = tmp_path / "store"
    site.publish(tree, OLD, store)
    with Store.open(store, writable=True) as opened:
        # As if it had been signed for a day, two days ago.
        catalog = Catalog.open(opened.storage, expiry=Expiry(timestamp=1.0))
        catalog.refresh(KeyRing(opened.keys_dir), now=time.time() - 2 * DAY_S)
    with site.serving(store) as url:
        source = ("--from", url, "--root-keys", site.root_keys(store))
        done = site.fails(8, "install", OLD, *source, "--root", root)
        assert "expired" in done.err
        assert "pacball catalog refresh" in done.json["hint"]
        assert not (root / "releases" / OLD).exists()
        site.ok("catalog", "refresh", "--store", store, "--timestamp-days", "0.01")
        site.ok("install", OLD, *source, "--root", root)
    trees.assert_same(root / "releases" / OLD, tree)


def test_the_configuration_may_say_it_all(origin, site, served, root):
    config = site.home / "config/pacball/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'source = "{served}"\nroot = "{root}"\nroot_keys = "{origin.root_keys}"\n')
    site.ok("install", OLD)
    trees.assert_same(root / "releases" / OLD, origin.old)
    config.write_text("sauce = 'x'\n")
    site.fails(7, "install", OLD)
