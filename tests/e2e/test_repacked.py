"""Installers that are in the middle of a release when its origin repacks, and even collects without a grace."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from tests.e2e import trees
from tests.e2e.site import Outcome, Site, wait_until
from tests.e2e.slow import slowed
from tests.e2e.test_interruptions import _staged_bytes

OLD, NEW = "Large-1.0-any", "Large-1.1-any"
LINE_BYTES_PER_SECOND = 3 * trees.MIB


@pytest.fixture(scope="module")
def worn_once(tmp_path_factory):
    """An origin whose only release needs less than half of its packs; its site, store and tree."""
    top = tmp_path_factory.mktemp("worn")
    site = Site(top / "origin")
    old = trees.fill(top / "old", seed=7, files=100, file_bytes=150 * trees.KIB, bits=8)
    new = trees.copy(old, top / "new")
    for directory in sorted(new.iterdir())[2:]:
        shutil.rmtree(directory)
    store = top / "store"
    site.publish(old, OLD, store)
    site.publish(new, NEW, store)
    site.ok("withdraw", OLD, "--store", store, "--reason", "old")
    site.ok("store", "drop", "--store", store, "--grace", "0")
    site.ok("store", "gc", "--store", store, "--grace", "0")
    return site, store, new


@pytest.fixture
def worn(worn_once, tmp_path):
    site, store, new = worn_once
    subprocess.run(["cp", "-a", store, tmp_path / "store"], check=True)  # unlike shutil's, it keeps hard links
    return site, tmp_path / "store", new


def packs(store):
    return {path.name for path in (store / "public/packs").rglob("*") if path.is_file()}


@pytest.mark.large
def test_an_installer_in_the_middle_of_a_release_goes_on_by_the_older_placement(worn, site, root):
    origin, store, tree = worn
    keys = origin.root_keys(store)
    with origin.serving(store) as url, slowed(url, bytes_per_second=LINE_BYTES_PER_SECOND) as slow:
        process = site.start("install", NEW, "--from", slow, "--root-keys", keys, "--root", root)
        wait_until(lambda: _staged_bytes(root) > 0)
        before = packs(store)
        done = origin.ok("store", "repack", "--store", store)
        assert len(done["repacked"]) > 0
        assert origin.ok("store", "gc", "--store", store)["deleted"]["files"] == 0
        assert before < packs(store)
        assert Outcome.of(process, timeout=90).code == 0
    trees.assert_same(root / "releases" / NEW, tree)


@pytest.mark.slow
def test_an_installer_whose_packs_are_gone_asks_for_the_new_placement(worn, site, root):
    origin, store, tree = worn
    keys = origin.root_keys(store)
    with origin.serving(store) as url, slowed(url, bytes_per_second=LINE_BYTES_PER_SECOND) as slow:
        process = site.start("install", NEW, "--from", slow, "--root-keys", keys, "--root", root)
        wait_until(lambda: _staged_bytes(root) > trees.MIB)
        process.kill()
        process.communicate()
        old = packs(store)
        assert origin.ok("store", "repack", "--store", store)["placements"] == 1
        origin.ok("store", "gc", "--store", store, "--grace", "0")
        assert not old <= packs(store)
        again = site.ok("install", NEW, "--from", slow, "--root-keys", keys, "--root", root)
        assert again["bytes_reused"] > 0
    trees.assert_same(root / "releases" / NEW, tree)


@pytest.mark.large
def test_a_repacking_that_is_killed_again_and_again_ends_and_the_release_can_be_installed(worn, site, root):
    origin, store, tree = worn
    keys, before, staging = origin.root_keys(store), packs(store), store / "private/staging"
    for _ in range(2):
        process = origin.start("store", "repack", "--store", store, "--limit-rate", "1M")
        # In the middle of a pack.
        wait_until(lambda: any(path.stat().st_size > 2 * trees.MIB for path in staging.iterdir()))
        process.kill()
        process.communicate()
        assert packs(store) == before
        for path in staging.iterdir():
            os.utime(path, (0, 0))
    done = origin.ok("store", "repack", "--store", store)
    assert (done["failed"], done["placements"]) == ([], 1)
    # What killed ones left a day ago went before it began.
    assert list(staging.iterdir()) == []
    origin.ok("store", "gc", "--store", store, "--grace", "0")
    origin.ok("store", "check", "--store", store)
    assert len(before - packs(store)) == 1
    site.ok("install", NEW, "--from", store, "--root-keys", keys, "--root", root)
    trees.assert_same(root / "releases" / NEW, tree)
