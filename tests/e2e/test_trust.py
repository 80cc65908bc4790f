"""Whom an installer believes: pinned roots, trust on first use, expiry."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from pacstore.trust.pins import fingerprint
from tests.e2e import signing, trees
from tests.e2e.conftest import NEW, OLD
from tests.e2e.site import Site


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


def test_the_configuration_may_say_it_all(origin, site, served, root):
    config = site.home / "config/pacball/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'source = "{served}"\nroot = "{root}"\nroot_keys = "{origin.root_keys}"\n')
    site.ok("install", OLD)
    trees.assert_same(root / "releases" / OLD, origin.old)
    for wrong in ("sauce = 'x'", "insecure = true", "insecure = 'true'", "as_of = '2024-01-01'"):
        config.write_text(wrong + "\n")
        assert str(config) in site.fails(7, "install", OLD, "--from", served, "--root", root).err


def trust_of(root: Path) -> dict:
    """Why the release that was switched to last was believed."""
    return json.loads((root / ".pacball/history.jsonl").read_text().splitlines()[-1])["trust"]


@pytest.fixture
def roots(site, tmp_path):
    """The directories of pinned roots of a system and of this site's user."""
    site.environment["PACBALL_SYSTEM_CONFIG_DIR"] = str(tmp_path / "system")
    return tmp_path / "system/roots", site.home / "config/pacball/roots"


@pytest.mark.parametrize("whose", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_pinned_root_is_found_in_its_directory(origin, other, site, served, root, roots, whose):
    stranger, store = other
    for directory in roots:
        directory.mkdir(parents=True)
        shutil.copy(stranger.root_keys(store), directory / "another catalog.json")
    done = site.fails(8, "install", OLD, "--from", served, "--root", root)
    assert fingerprint(origin.root_keys.read_bytes()) in done.err
    assert str(roots[0]) in done.err
    assert str(roots[1]) in done.err
    assert "--root-keys" in done.json["hint"]
    shutil.copy(origin.root_keys, roots[whose] / "this.json")
    assert site.run("install", OLD, "--from", served, "--root", root).err == ""
    assert trust_of(root)["mode"] == "pinned"
    assert trust_of(root)["root"] == fingerprint(origin.root_keys.read_bytes())
    # The same directories serve for the other catalog.
    with stranger.serving(store) as url:
        site.ok("install", OLD, "--from", url, "--root", root.with_name("2"))
    (roots[whose] / "bad.json").write_text("{}")
    assert str(roots[whose] / "bad.json") in site.fails(7, "list", "--from", served).err


def test_a_later_root_may_be_pinned(tmp_path, site, root, roots):
    publisher = Site(tmp_path / "publisher")
    store = tmp_path / "store"
    publisher.publish(trees.fill(tmp_path / "tree", seed=3, files=1, file_bytes=1000), OLD, store)
    signing.renew(store, "root", when=time.time())
    roots[0].mkdir(parents=True)
    shutil.copy(store / "public/catalog/2.root.json", roots[0])
    with publisher.serving(store) as url:
        site.ok("install", OLD, "--from", url, "--root", root)
        assert trust_of(root)["root"] == fingerprint((roots[0] / "2.root.json").read_bytes())


def test_the_order_of_what_says_which_root_to_trust(origin, other, site, served, root, roots):
    stranger, store = other
    wrong, right = stranger.root_keys(store), origin.root_keys
    config = site.home / "config/pacball/config.toml"
    config.parent.mkdir(parents=True)
    site.ok("list", "--from", served, "--trust-on-first-use")
    config.write_text(f'root_keys = "{wrong}"\n')
    site.fails(8, "list", "--from", served)
    site.ok("list", "--from", served, "--root-keys", right)
    config.unlink()
    roots[0].mkdir(parents=True)
    shutil.copy(right, roots[0])
    site.ok("install", OLD, "--from", served, "--root", root)
    assert trust_of(root)["mode"] == "pinned"
    # Remembered is remembered, also where directories of roots were made later.
    (roots[0] / "root.json").unlink()
    site.ok("install", NEW, "--from", served, "--root", root)
    assert trust_of(root)["mode"] == "first-use"


def test_the_system_may_say_it_all(origin, site, served, root, roots):
    roots[0].mkdir(parents=True)
    (roots[0].parent / "config.toml").write_text(f'source = "{served}"\nroot = "{root}"\n')
    shutil.copy(origin.root_keys, roots[0])
    site.ok("install", OLD)
    (roots[0].parent / "config.toml").write_text("insecure = true\n")
    assert str(roots[0].parent) in site.fails(7, "install", OLD).err


def test_insecure_says_what_it_does_not_check_and_is_recorded(origin, site, served, root):
    done = site.run("install", OLD, "--from", served, "--root", root, "--insecure")
    assert done.code == 0
    (warning,) = done.err.splitlines()
    for word in (
        "warning",
        "--insecure",
        "not checked",
        "expired",
        "older",
        fingerprint(origin.root_keys.read_bytes()),
    ):
        assert word in warning
    trees.assert_same(root / "releases" / OLD, origin.old)
    assert trust_of(root)["mode"] == "insecure"
    # It remembers nothing: the next call knows no more than the first.
    assert not (site.home / "state/pacball").exists()
    site.fails(8, "install", NEW, "--from", served, "--root", root)
    for words in (("--root-keys", origin.root_keys), ("--trust-on-first-use",), ("--as-of", "2024-01-01")):
        done = site.fails(7, "install", NEW, "--from", served, "--root", root, "--insecure", *words)
        assert words[0] in done.err
    assert site.run("list", "--from", served, "--insecure").code == 2


def test_insecure_compares_every_byte_all_the_same(origin, site, root, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(origin.store, store)
    (manifest,) = (store / "public/manifests").rglob(str(site.ok("show", OLD, "--from", store)["manifest_digest"]))
    data = bytearray(manifest.read_bytes())
    data[-1] ^= 1
    manifest.unlink()
    manifest.write_bytes(data)
    site.fails(4, "install", OLD, "--from", store, "--root", root, "--insecure")
    assert not (root / "releases" / OLD).exists()


def test_a_store_that_others_may_change_does_not_vouch_for_itself(origin, site, root, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(origin.store, store)
    site.ok("install", OLD, "--from", store, "--root", root)
    assert trust_of(root)["mode"] == "local"
    catalog = store / "public/catalog"
    catalog.chmod(0o777)
    done = site.fails(8, "install", NEW, "--from", store, "--root", root)
    assert f"everybody may write to {catalog}" in done.err
    assert fingerprint(origin.root_keys.read_bytes()) in done.err
    site.ok("install", NEW, "--from", store, "--root", root, "--root-keys", origin.root_keys)
    assert "fingerprint" in site.run("list", "--from", store, "--trust-on-first-use").err
    # It is the directory that is remembered, however it is named.
    (tmp_path / "link").symlink_to(store)
    assert site.run("list", "--from", tmp_path / "link").err == ""
    shutil.copytree(store, tmp_path / "another")
    site.fails(8, "list", "--from", tmp_path / "another")


def test_withdrawn_releases_are_refused_unless_allowed(tmp_path, site, root):
    publisher = Site(tmp_path / "publisher")
    store, tree = tmp_path / "store", trees.fill(tmp_path / "tree", seed=3, files=1, file_bytes=1000)
    publisher.publish(tree, OLD, store)
    site.ok("install", OLD, "--from", store, "--root", root)
    publisher.ok("withdraw", OLD, "--store", store, "--reason", "it deletes data")
    for where in (root, tmp_path / "another"):
        done = site.fails(7, "install", OLD, "--from", store, "--root", where)
        assert "it deletes data" in done.err
        assert "--allow-withdrawn" in done.json["hint"]
    assert site.ok("verify", OLD, "--root", root)["intact"] is True
    done = site.run("install", OLD, "--from", store, "--root", tmp_path / "another", "--allow-withdrawn")
    assert (done.code, "it deletes data" in done.err) == (0, True)
    assert trust_of(tmp_path / "another")["withdrawn"] is True
