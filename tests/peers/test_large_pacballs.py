"""Pacballs beyond 2^32 bytes: built, fetched, installed by their stubs; and served, interrupted and resumed over HTTP."""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess

import pytest

from tests.e2e import trees
from tests.e2e.site import Site, get
from tests.peers.programs import program
from tests.store.pacball.shells import Machine

pytestmark = [pytest.mark.large, pytest.mark.timeout(1800)]

HUGE = "Huge-1.0-any"
HUGE_BYTES = (8 << 30) + 12_345


@pytest.fixture
def home(tmp_path_factory):
    made = tmp_path_factory.mktemp("large")
    yield made
    shutil.rmtree(made)


def test_a_file_of_more_than_eight_gigabytes(home):
    site, tree = Site(home / "home"), home / "tree"
    (tree / "z").mkdir(parents=True)
    with open(tree / "huge.bin", "wb") as file:
        file.truncate(HUGE_BYTES)
        file.seek(5 << 30)
        file.write(trees.content(1, 1 << 20))
    (tree / "z/last").write_bytes(trees.content(2, 100_000))
    site.publish(tree, HUGE, home / "store")
    words = ("--from", home / "store", "--root-keys", site.root_keys(home / "store"))
    fetched = site.ok("fetch", HUGE, "-o", home, *words)["path"]
    built = site.ok("build", tree, HUGE, "-o", home / "built.sh")["path"]
    assert filecmp.cmp(fetched, built, shallow=False)
    (home / "built.sh").unlink()
    for kind in ("busybox sh", "dash", "mksh"):
        target = home / kind.split()[0]
        machine = Machine(tuple(kind.split()), home / "tmp")
        with machine.start(fetched, "--prefix", target, cwd=home) as process:
            assert process.wait(900) == 0, process.stderr.read()
        assert filecmp.cmp(tree / "huge.bin", target / "huge.bin", shallow=False)
        assert filecmp.cmp(tree / "z/last", target / "z/last", shallow=False)
        shutil.rmtree(target)


def test_a_pacball_beyond_two_to_the_32_over_http(home):
    """Whole by aria2 and its metalink, continued by curl and wget before and behind 2^32, and ranges around it."""
    edge = 1 << 32
    site, tree = Site(home / "home"), home / "tree"
    tree.mkdir()
    with open(tree / "huge.bin", "wb") as file:
        file.truncate(edge + (200 << 20))
        for at in (1 << 30, edge - 500_000, edge + (100 << 20)):
            file.seek(at)
            file.write(trees.content(at, 1 << 20))
    (tree / "last").write_bytes(trees.content(2, 100_000))
    site.publish(tree, HUGE, home / "store", "--pacball")
    built = home / "built.sh"
    name = os.path.basename(site.ok("build", tree, HUGE, "-o", home)["path"])
    (home / name).rename(built)
    with site.serving(home / "store") as url:
        pacball = f"{url}/pacballs/{name}"
        for begin in (edge - 1_000, edge - 1, edge, edge + 70_000_000):
            status, headers, body = get(pacball, {"Range": f"bytes={begin}-{begin + 999_999}"})
            with open(built, "rb") as file:
                file.seek(begin)
                assert (status, body) == (206, file.read(1_000_000)), begin
            assert headers["content-range"].endswith(f"/{built.stat().st_size}")
        got = home / "got.sh"
        for words, begin in (
            (("curl", "-sSf", "-C", "-", "-o", got, pacball), edge + 12_345),
            (("wget", "-q", "-c", "-O", got, pacball), edge - 12_345),
        ):
            with open(built, "rb") as whole, open(got, "wb") as half:
                left = begin
                while left:
                    left -= os.sendfile(half.fileno(), whole.fileno(), None, min(left, 1 << 30))
            subprocess.run([program(words[0]), *map(str, words[1:])], check=True, timeout=600)
            assert filecmp.cmp(got, built, shallow=False), words[0]
        got.unlink()
        argv = [program("aria2c"), "-q", "--follow-metalink=mem", "--file-allocation=none", "-x4", "-s4"]
        subprocess.run([*argv, "-d", home / "out", f"{pacball}.meta4"], check=True, timeout=900)
        assert filecmp.cmp(home / "out" / name, built, shallow=False)
