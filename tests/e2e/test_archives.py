"""Archives that are taken in with the real command, and come back over HTTP, also after interruptions."""

from __future__ import annotations

import gzip
import signal

import pytest

from tests.e2e import trees
from tests.e2e.conftest import NEW, OLD
from tests.e2e.line import line_to
from tests.e2e.site import Site
from tests.store.archive.making import Entry, tar_of, tar_of_directory

pytestmark = pytest.mark.slow


def test_an_archive_is_a_release_and_comes_back(origin, tmp_path):
    site, store = Site(tmp_path / "home"), tmp_path / "store"
    path = tmp_path / "release.tgz"
    path.write_bytes(gzip.compress(tar_of_directory(origin.new), 6, mtime=0))
    site.publish(origin.new, OLD, store)
    done = site.ok("publish", path, NEW, "--to", store)
    assert (done["original"], done["opaque_bytes"], done["bytes_new"]) == (path.name, 0, done["original_new"])
    keys = ("--root-keys", site.root_keys(store))
    shown = site.ok("show", NEW, "--from", store, *keys)
    assert (shown["original"], shown["original_bytes"]) == (path.name, path.stat().st_size)
    assert shown["tree_digest"] == site.ok("show", OLD, "--from", store, *keys)["tree_digest"]
    with site.serving(store) as url:
        words = ("--from", url, *keys)
        fetched = site.ok("fetch", NEW, "--original", "-o", tmp_path / "back", *words)
        assert (tmp_path / "back").read_bytes() == path.read_bytes()
        assert fetched["sha256"] == shown["original_sha256"]
        assert site.ok("fetch", NEW, "--original", "-o", tmp_path / "back", *words)["existed"]
        site.ok("install", NEW, "--root", tmp_path / "root", *words)
        trees.assert_same(tmp_path / "root/releases" / NEW, origin.new)
        refused = site.fails(3, "fetch", OLD, "--original", "-o", tmp_path / "no", *words)
        assert "was published from a directory" in refused.err
    assert site.run("publish", path, OLD, "--to", store).err.count("the file release.tgz is not kept") == 1


def test_an_original_that_was_killed_on_its_way_continues(tmp_path):
    site, tree = Site(tmp_path / "home"), trees.fill(tmp_path / "tree", seed=9, files=48, file_bytes=trees.MIB, bits=8)
    path = tmp_path / "release.tar"
    path.write_bytes(tar_of_directory(tree))
    site.publish(path, OLD, tmp_path / "store")
    with site.serving(tmp_path / "store") as url, line_to(url) as line:
        words = ("fetch", OLD, "--original", "-o", tmp_path / "back", "--from", line.url,
                 "--root-keys", site.root_keys(tmp_path / "store"))  # fmt: skip
        process = site.start(*words)
        assert line.wait_for(30 * trees.MIB, lambda: process.poll() is not None)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        done = site.ok(*words)
    assert done["bytes_resumed"] > 8 * trees.MIB
    assert (tmp_path / "back").read_bytes() == path.read_bytes()


def test_what_is_wrong_with_an_archive_is_told(tmp_path):
    site, store = Site(tmp_path / "home"), tmp_path / "store"
    (tmp_path / "bad.tar").write_bytes(tar_of(Entry("a/../../b", b"1")))
    (tmp_path / "cut.tar").write_bytes(tar_of(Entry("a", bytes(5000)))[:2000])
    (tmp_path / "text").write_text("hello")
    assert "bad.tar: a/../../b: leads out" in site.fails(7, "publish", tmp_path / "bad.tar", OLD, "--to", store).err
    assert "is truncated" in site.fails(4, "publish", tmp_path / "cut.tar", OLD, "--to", store).err
    assert "is no archive" in site.fails(7, "publish", tmp_path / "text", OLD, "--to", store).err
    assert "neither a directory nor" in site.fails(7, "publish", tmp_path / "no", OLD, "--to", store).err
