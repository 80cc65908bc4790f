"""Disks without room for bytes or for files, and disks that may not be written: clear errors, and nothing is lost."""

from __future__ import annotations

import contextlib
import json
import os
import signal

import pytest

from pacstore.reserve import RESERVE_BYTES, RESERVE_NAME
from tests.e2e import trees
from tests.e2e.site import get, wait_until
from tests.peers.conftest import OLD
from tests.peers.programs import call
from tests.peers.volumes import memory_volume, network_volume, volume

pytestmark = pytest.mark.root

FIRST = "Small-1.0-any"
SECOND = "Small-1.1-any"


@pytest.fixture
def small(tmp_path):
    return trees.fill(tmp_path / "small", seed=1, files=4, file_bytes=100_000)


@pytest.fixture
def big(tmp_path):
    """A tree that needs some 25 MB in packs."""
    return trees.fill(tmp_path / "big", seed=2, files=100, file_bytes=400_000)


def fill_up(path, *, leave_mib):
    """Write a file that leaves so much room on the file system, of what is reserved for root too."""
    with (path / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while True:
            ballast.write(bytes(trees.MIB))
    with (path / "ballast").open("ab", buffering=0) as ballast, contextlib.suppress(OSError):
        while True:
            ballast.write(bytes(trees.KIB))
    os.truncate(path / "ballast", (path / "ballast").stat().st_size - leave_mib * trees.MIB)
    os.sync()
    return path / "ballast"


@pytest.mark.parametrize("leave_mib", [0, 1, 6])
def test_a_full_disk_stops_a_publish_and_loses_nothing(tmp_path, site, small, big, leave_mib):
    with volume("ext4", tmp_path, mib=120) as disk:
        store = disk.path / "store"
        site.publish(small, FIRST, store)
        ballast = fill_up(disk.path, leave_mib=leave_mib)
        done = site.fails(6, "publish", big, SECOND, "--to", store)
        assert "no space left on device" in done.err
        assert "nothing is lost" in done.json["hint"]
        assert [one["release"] for one in site.ok("list", "--from", store)["releases"]] == [FIRST]
        assert os.listdir(store / "private/staging") == []
        if leave_mib:  # SQLite cannot even read without room for the little that it keeps beside a database
            assert site.ok("store", "check", "--store", store)["intact"] is True
        site.ok("install", FIRST, "--from", store, "--root", tmp_path / "root")
        ballast.unlink()
        site.publish(big, SECOND, store)
        report = site.ok("store", "check", "--store", store)
        assert (report["intact"], report["releases_checked"]) == (True, 2)
    trees.assert_same(tmp_path / "root/releases" / FIRST, small)


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_mirror_starts_on_a_full_disk_and_serves_what_it_holds(tmp_path, site, small, is_killed):
    """After a reboot in the night, too: it is what makes room again. One that was killed left what SQLite reads a ledger with."""
    origin = tmp_path / "origin"
    site.publish(small, FIRST, origin)
    with memory_volume(tmp_path, "size=64m") as disk, site.serving(origin) as upstream:
        store = disk / "store"

        def held(url):
            return json.loads(get(f"{url}/v1/status")[2])["held"]["releases"]["complete"]

        with site.serving_process(store, "--upstream", upstream) as (url, process):
            site.ok("mirror", "subscribe", "Small-*", "--store", store)
            wait_until(lambda: held(url) == 1, seconds=60)
            wait_until(lambda: reserve_bytes(store) == RESERVE_BYTES, seconds=60)
            process.send_signal(signal.SIGKILL if is_killed else signal.SIGTERM)
            assert process.wait(60) == (-signal.SIGKILL if is_killed else 0)
        fill_up(disk, leave_mib=0)
        with site.mirroring(store, upstream) as url:
            assert held(url) == 1
            site.ok("install", FIRST, "--from", url, "--root-keys", site.root_keys(origin), "--root", tmp_path / "root")
    trees.assert_same(tmp_path / "root/releases" / FIRST, small)


def reserve_bytes(store):
    try:
        return (store / "private" / RESERVE_NAME).stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def test_a_store_cannot_be_begun_on_a_full_disk(tmp_path, site, small):
    with volume("ext4", tmp_path, mib=20) as disk:
        ballast = fill_up(disk.path, leave_mib=0)
        assert "no space" in site.fails(6, "publish", small, FIRST, "--to", disk.path / "store").err
        ballast.unlink()
        site.publish(small, FIRST, disk.path / "store")


@pytest.mark.parametrize("leave_mib", [0, 1, 30])
def test_a_full_disk_stops_an_install_and_it_continues(tmp_path, site, origin, leave_mib):
    with volume("ext4", tmp_path, mib=260) as disk:
        command = ("install", OLD, "--from", origin.store, "--root", disk.path / "root")
        ballast = fill_up(disk.path, leave_mib=leave_mib)
        done = site.fails(6, *command)
        assert "space" in done.err
        assert not (disk.path / "root/releases" / OLD).exists()
        ballast.unlink()
        site.ok(*command)
        trees.assert_same(disk.path / "root/releases" / OLD, origin.old)
        assert os.listdir(disk.path / "root/.pacball/staging") == []


def test_a_disk_that_fills_up_meanwhile_stops_an_install(tmp_path, site, origin):
    """Something else writes, after the room was checked."""
    with volume("ext4", tmp_path, mib=200) as disk, origin.site.serving(origin.store) as url:
        command = ("install", OLD, "--from", url, "--root-keys", origin.root_keys, "--root", disk.path / "root")
        # The room is there when it is asked for, and the file system refuses the 40th write all the same.
        full = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=pwrite64,pwritev,write",
                "-e", "inject=pwrite64,pwritev:error=ENOSPC:when=40+")  # fmt: skip
        done = site.fails(6, *command, before=full)
        assert "no space" in done.err.lower()
        assert not (disk.path / "root/releases" / OLD).exists()
        second = site.ok(*command)
        assert second["bytes_reused"] > 0
        trees.assert_same(disk.path / "root/releases" / OLD, origin.old)


def test_a_file_system_without_inodes(tmp_path, site, origin, small):
    with memory_volume(tmp_path, "size=300m,nr_inodes=60") as disk:
        store, root = disk / "store", disk / "root"
        site.publish(small, FIRST, store)
        for number in range(60):
            try:
                (disk / f"file{number}").touch()
            except OSError:
                break
        assert "no space left" in site.fails(6, "publish", origin.old, SECOND, "--to", store).err
        call("mount", "-o", "remount,nr_inodes=100", disk)
        done = site.fails(6, "install", OLD, "--from", origin.store, "--root", root)
        assert "files" in done.err or "inodes" in done.err
        assert site.ok("store", "check", "--store", store)["intact"] is True
        call("mount", "-o", "remount,nr_inodes=2000", disk)
        site.publish(origin.old, SECOND, store)
        site.ok("install", OLD, "--from", origin.store, "--root", root)
        trees.assert_same(root / "releases" / OLD, origin.old)


def test_a_store_that_may_not_be_written_can_be_read(tmp_path, site, origin, small, big):
    with volume("ext4", tmp_path, mib=300) as disk:
        store, root = disk.path / "store", disk.path / "root"
        site.publish(small, FIRST, store)
        site.publish(big, SECOND, store)
        site.ok("install", FIRST, "--from", store, "--root", root)
        disk.remount("ro")
        assert len(site.ok("list", "--from", store)["releases"]) == 2
        assert site.ok("show", FIRST, "--from", store)["files"] == 4
        assert site.ok("diff", FIRST, SECOND, "--from", store)["added"]
        assert site.ok("store", "check", "--store", store)["intact"] is True
        assert site.ok("store", "stats", "--store", store)["releases"] == 2
        site.ok("install", SECOND, "--from", store, "--root", tmp_path / "root")
        with site.serving(store) as url:
            site.ok("install", FIRST, "--from", url, "--trust-on-first-use", "--root", tmp_path / "root")
        assert site.ok("verify", FIRST, "--root", root)["intact"] is True
        refused = site.fails(6, "publish", origin.old, OLD, "--to", store)
        assert "written" in refused.err or "read-only" in refused.err
        assert str(store) in refused.err
        assert "read-only" in site.fails(6, "install", SECOND, "--from", store, "--root", root).err.lower()
        site.fails(6, "trust", "refresh", "--store", store)
        disk.remount("rw")
        site.publish(origin.old, OLD, store)
        site.ok("install", SECOND, "--from", store, "--root", root)
    trees.assert_same(tmp_path / "root/releases" / SECOND, big)


def test_the_store_but_not_its_databases_may_be_on_a_network_disk(tmp_path, site, small, big):
    with network_volume(tmp_path) as disk:
        store, root = disk / "store", tmp_path / "root"
        done = site.fails(7, "publish", small, FIRST, "--to", store)
        assert "network file system (fuse.sshfs)" in done.err
        assert "--state-dir" in done.json["hint"]
        site.publish(small, FIRST, store, "--state-dir", tmp_path / "state")
        site.publish(big, SECOND, store)
        assert site.ok("store", "check", "--store", store)["intact"] is True
        for release in (FIRST, SECOND):
            site.ok("install", release, "--from", store, "--root", root)
            assert site.ok("verify", release, "--root", root)["intact"] is True
        assert not list(store.rglob("*.sqlite*"))
