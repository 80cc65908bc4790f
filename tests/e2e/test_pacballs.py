"""Releases as single files, with the real command: built, fetched over HTTP, interrupted, and run by a shell."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e import trees
from tests.e2e.conftest import NEW, OLD
from tests.e2e.line import line_to
from tests.e2e.site import Outcome, Site


def test_build_and_fetch_give_the_same_file_and_it_installs(origin, served, site, tmp_path):
    built = site.ok("build", origin.new, NEW, "-o", tmp_path / "built.sh")
    done = site.ok("fetch", NEW, "-o", tmp_path, "--from", served, "--root-keys", origin.root_keys)
    path = Path(done["path"])
    assert path.name == f"{NEW}.b3-{built['tree_digest']}.sh"
    assert path.read_bytes() == (tmp_path / "built.sh").read_bytes()
    assert (done["trust"]["mode"], done["existed"]) == ("pinned", False)
    target = tmp_path / "target"
    subprocess.run(["sh", path, "--prefix", target], check=True, capture_output=True, timeout=60)
    trees.assert_same(target, origin.new)
    again = site.ok("fetch", NEW, "-o", tmp_path, "--from", served, "--root-keys", origin.root_keys)
    assert (again["existed"], again["bytes_downloaded"]) == (True, 0)
    other = site.ok("build", NEW, "--from", origin.store, "-o", tmp_path / "other.sh", "--root-keys", origin.root_keys)
    assert (tmp_path / "other.sh").read_bytes() == path.read_bytes()
    assert set(other) == set(done)


def test_an_older_pacball_saves_most_of_the_download(origin, served, site, tmp_path):
    words = ("--from", served, "--root-keys", origin.root_keys)
    first = site.ok("fetch", OLD, "-o", tmp_path / "old.sh", *words)
    second = site.ok("fetch", NEW, "-o", tmp_path / "new.sh", "--seed", tmp_path / "old.sh", *words)
    assert second["bytes_downloaded"] < first["bytes_downloaded"] / 2
    assert second["bytes_seeded"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_fetch_says_how_to_go_on_and_does(origin, tmp_path, how):
    site, tree = Site(tmp_path / "home"), trees.fill(tmp_path / "tree", seed=9, files=64, file_bytes=trees.MIB, bits=8)
    site.publish(tree, OLD, tmp_path / "store")
    with site.serving(tmp_path / "store") as url, line_to(url) as line:
        words = ("fetch", OLD, "-o", tmp_path, "--from", line.url, "--root-keys", site.root_keys(tmp_path / "store"))
        process = site.start(*words)
        assert line.wait_for(30 * trees.MIB, lambda: process.poll() is not None)
        process.send_signal(how)
        if how is signal.SIGINT:
            done = Outcome.of(process, timeout=30)
            assert done.code == 130
            assert "run the same command again" in done.err
        process.communicate()
        done = site.ok(*words)
    assert done["bytes_resumed"] > 8 * trees.MIB
    assert done["bytes_downloaded"] < 56 * trees.MIB
    site.ok("build", tree, OLD, "-o", tmp_path / "built.sh")
    assert Path(done["path"]).read_bytes() == (tmp_path / "built.sh").read_bytes()


def test_mistakes_are_told(origin, served, site, tmp_path):
    words = ("--from", served, "--root-keys", origin.root_keys)
    (tmp_path / "taken").write_text("precious")
    assert "is not this pacball" in site.fails(7, "fetch", NEW, "-o", tmp_path / "taken", *words).err
    assert "not a directory" in site.fails(7, "fetch", NEW, "-o", tmp_path / "no/where.sh", *words).err
    assert "--seed" in site.fails(3, "fetch", NEW, "-o", tmp_path, "--seed", tmp_path / "no", *words).err
    assert "is not a release name" in site.fails(7, "build", origin.new, "what", "-o", tmp_path).err
    assert "not a directory" in site.fails(7, "build", tmp_path / "taken", NEW, "-o", tmp_path).err
    assert "neither a directory nor a source" in site.fails(7, "build", NEW, "-o", tmp_path).err
    assert "a directory is given, too" in site.fails(7, "build", origin.new, NEW, "-o", tmp_path, *words).err
    assert "one name too many" in site.fails(7, "build", origin.new, NEW, OLD).err
    assert (
        "--as-of: means nothing" in site.fails(7, "build", origin.new, NEW, "--as-of", "2026-01-01", "-o", tmp_path).err
    )
    assert (tmp_path / "taken").read_text() == "precious"
