"""Verifying, repairing and removing on disks that are full or read-only, and where another user swaps names with links."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest

from tests.e2e import trees
from tests.e2e.site import Outcome, Site
from tests.peers.programs import require_root
from tests.peers.racer import OTHER, racing
from tests.peers.test_full_disks import fill_up
from tests.peers.volumes import volume

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

ONE, TWO = "Mend-1.0-any", "Mend-1.1-any"
LEAST_SWAPS = 500


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with two releases of many directories, and the trees."""
    home = tmp_path_factory.mktemp("mending")
    site = Site(home / "home")
    for number, name in enumerate((ONE, TWO)):
        tree = trees.one_of_each(home / name)
        for file in range(60):
            path = tree / f"d{file % 7}/e{file % 5}/{file}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(trees.content(file + 1000 * number * (file % 2), 50_000))
        (tree / "large").write_bytes(trees.content(number, 8 * trees.MIB, bits=8))
        site.publish(tree, name, home / "store")
    return home / "store", home


@pytest.fixture
def site(tmp_path, store):
    site = Site(tmp_path / "home")
    site.ok("list", "--from", store[0])
    return site


def install(site, store, root):
    for name in (ONE, TWO):
        site.ok("install", name, "--from", store[0], "--root", root)


def harm(top):
    (top / "d1/e1/1").unlink()
    with (top / "large").open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"damaged")
    shutil.rmtree(top / "d2")
    (top / "d3").chmod(0o700)


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_full_disk(tmp_path, site, store, kind):
    with volume(kind, tmp_path, mib=320) as disk:
        root = disk.path / "root"
        install(site, store, root)
        harm(root / "releases" / TWO)
        before = trees._describe(root / "releases" / TWO)
        ballast = fill_up(disk.path, leave_mib=0)
        done = site.run("verify", TWO, "--repair", "--from", store[0], "--root", root)
        assert (done.code, done.json["exit_code"]) == (6, 6)
        assert "free some space and run the same command again" in done.json["hint"]
        after = trees._describe(root / "releases" / TWO)
        assert {path for path in before if before[path] != after[path]} <= {"d3"}
        freed = site.ok("remove", ONE, "--grace", "0", "--root", root)["removed"][0]["bytes_freed"]
        assert freed > 8 * trees.MIB
        ballast.unlink()
        site.ok("verify", TWO, "--repair", "--from", store[0], "--root", root)
        assert site.ok("verify", "--strict", "--root", root)["intact"] is True
        trees.assert_same(root / "releases" / TWO, store[1] / TWO)


def test_a_disk_that_may_not_be_written(tmp_path, site, store):
    with volume("ext4", tmp_path, mib=320) as disk:
        root = disk.path / "root"
        install(site, store, root)
        (root / "releases" / TWO / "d1/e1/1").unlink()
        disk.remount("ro")
        assert site.ok("verify", ONE, "--root", root)["intact"] is True
        done = site.run("verify", TWO, "--root", root)
        assert (done.code, [one["path"] for one in done.json["releases"][0]["damage"]]) == (1, ["d1/e1/1"])
        assert [one["release"] for one in site.ok("releases", "--root", root)["releases"]] == [ONE, TWO]
        for words in (["verify", TWO, "--repair"], ["rollback", "Mend"], ["remove", ONE, "--grace", "0"]):
            done = site.fails(6, *words, "--root", root)
            assert "read-only" in done.err.lower()
        disk.remount("rw")
        assert (root / "current/Mend/any").resolve().name == TWO


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_power_loss_while_releases_come_and_go(tmp_path, site, store, kind):
    with volume(kind, tmp_path, mib=320) as disk:
        root = disk.path / "root"
        install(site, store, root)
        for number in range(6):
            harm(root / "releases" / TWO)
            os.sync()
            words = (
                ["verify", TWO, "--repair", "--from", store[0]],
                ["remove", ONE, "--grace", "0"],
                ["rollback", "Mend"],
            )[number % 3]
            process = site.start(*words, "--root", root)
            time.sleep(0.35 + 0.07 * number)
            disk.cut_power()
            process.kill()
            acknowledged = Outcome.of(process, timeout=30).code == 0
            disk.power_on()
            if acknowledged and words[0] == "rollback":
                assert os.readlink(root / "current/Mend/any").endswith(ONE)
            site.ok("verify", "--repair", "--from", store[0], "--root", root)
            there = [one["release"] for one in site.ok("releases", "--root", root)["releases"]]
            assert not (acknowledged and words[0] == "remove" and ONE in there)
            assert TWO in there
            assert (root / "current/Mend/any/large").exists()
            install(site, store, root)
            assert site.ok("verify", "--strict", "--root", root)["intact"] is True


@pytest.fixture
def public():
    """A directory that everybody may enter."""
    require_root()
    top = Path(tempfile.mkdtemp(prefix="pacball-mending-"))
    top.chmod(0o755)
    yield top
    shutil.rmtree(top)


def give(*paths):
    for path in paths:
        path.mkdir(exist_ok=True)
        os.chown(path, OTHER.pw_uid, OTHER.pw_gid)


def seen(top):
    """All that could show that somebody was at `top`."""
    found = {}
    for path in (top, *sorted(top.rglob("*"))):
        status = path.lstat()
        found[str(path)] = (status.st_mode, status.st_uid, status.st_ino, status.st_ctime_ns, status.st_nlink)
    return found


def test_links_lead_neither_repairs_nor_removals_astray(public, site, store):
    root, outside = public / "root", public / "outside"
    for name in ("d1/e1", "e1", "d2/e3", "releases", "tree"):
        (outside / name).mkdir(parents=True)
    for name in ("1", "large", "d1/e1/1", "e1/1"):
        (outside / name).write_text("precious")
        (outside / name).chmod(0o600)
    before = seen(outside)
    patterns = (
        f"{root}/releases/{TWO}/*",
        f"{root}/releases/{TWO}/*/*",
        f"{root}/.pacball/trash/*",
        f"{root}/.pacball/trash/*/*",
        f"{root}/.pacball/aside/*",
    )
    swapped = 0
    for _ in range(4):
        shutil.rmtree(root, ignore_errors=True)
        install(site, store, root)
        tree = root / "releases" / TWO
        give(tree, *(path for path in tree.rglob("*") if path.is_dir() and not path.is_symlink()))
        give(*(root / ".pacball" / name for name in ("", "trash", "aside")))
        harm(tree)
        with racing(outside, *patterns) as swaps:
            for words in (["verify", TWO, "--repair", "--from", store[0]],) * 2 + (["remove", ONE, "--grace", "0"],):
                done = site.run(*words, "--root", root)
                assert done.code in (0, 1, 2, 3, 4, 6, 7), done.err
                assert seen(outside) == before
        swapped += swaps.count
    assert swapped > LEAST_SWAPS
