"""Backups on network disks, on disks that are full, and on disks that lose power."""

from __future__ import annotations

import os
import shutil
import time

import pytest

from tests.e2e import trees
from tests.e2e.site import Outcome
from tests.e2e.test_backup import Keeper
from tests.peers.conftest import NEW, OLD
from tests.peers.test_full_disks import fill_up
from tests.peers.volumes import network_volume, volume
from tests.seeds import seeded
from tests.store.backups import checked

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]


@pytest.fixture
def keeper(tmp_path):
    return Keeper(tmp_path / "keeper")


def test_a_backup_on_a_network_disk(tmp_path, keeper, origin):
    """SQLite could not be used there; a closed snapshot can be kept."""
    store, restored = tmp_path / "store", tmp_path / "restored"
    shutil.copytree(origin.store, store)
    with network_volume(tmp_path) as disk:
        words = ("store", "backup", "--store", store, "--to", disk / "backup", "--packs")
        first = keeper.ok(*words)
        assert (first["damage"], first["packs_left_out"]) == ([], 0)
        again = keeper.ok(*words, "--verify")
        assert (again["copied"], again["kept"]) == (0, first["copied"])
        made = keeper.ok("store", "restore", disk / "backup", "--to", restored)
        assert (made["damage"], made["incomplete"], made["index"]) == ([], [], "restored")
        assert checked(restored) == [OLD, NEW]
        refused = keeper.fails(7, "store", "restore", disk / "backup", "--to", disk / "restored")
        assert "--state-dir" in refused.json["hint"]
        words = ("store", "restore", disk / "backup", "--to", disk / "restored", "--state-dir", tmp_path / "state")
        assert keeper.ok(*words)["index"] == "restored"
        assert keeper.ok("store", "check", "--store", disk / "restored")["intact"] is True


@pytest.mark.parametrize("leave_mib", [0, 2, 20])
def test_a_full_disk_stops_a_backup_and_it_continues(tmp_path, keeper, origin, leave_mib):
    with volume("ext4", tmp_path, mib=200) as disk:
        words = ("store", "backup", "--store", origin.store, "--to", disk.path / "backup", "--packs")
        ballast = fill_up(disk.path, leave_mib=leave_mib)
        done = keeper.fails(6, *words)
        assert "no space left on device" in done.err
        assert "run the same command again" in done.json["hint"]
        ballast.unlink()
        kept = len(list((disk.path / "backup/public").rglob("??/*")))
        again = keeper.ok(*words)
        assert (again["damage"], again["kept"] >= kept) == ([], True)
        assert (kept > 0) is (leave_mib > 0)
        assert os.listdir(disk.path / "backup/private/incoming") == []
        keeper.ok("store", "restore", disk.path / "backup", "--to", tmp_path / "restored")
    assert checked(tmp_path / "restored") == [OLD, NEW]


@pytest.mark.parametrize("leave_mib", [0, 2, 20])
def test_a_full_disk_stops_a_restore_and_it_continues(tmp_path, keeper, origin, leave_mib):
    keeper.ok("store", "backup", "--store", origin.store, "--to", tmp_path / "backup", "--packs")
    with volume("ext4", tmp_path, mib=200) as disk:
        words = ("store", "restore", tmp_path / "backup", "--to", disk.path / "store")
        ballast = fill_up(disk.path, leave_mib=leave_mib)
        done = keeper.fails(6, *words)
        assert "no space left on device" in done.err
        keeper.fails(3, "list", "--from", disk.path / "store")
        ballast.unlink()
        assert keeper.ok(*words)["incomplete"] == []
        assert os.listdir(disk.path / "store/private/staging") == []
        assert checked(disk.path / "store") == [OLD, NEW]


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_the_power_goes_while_and_after_a_backup_and_a_restore(tmp_path, keeper, origin, kind):
    moments = seeded(f"backup {kind}")
    with volume(kind, tmp_path, mib=1500) as disk:
        backup, restored = disk.path / "backup", disk.path / "restored"
        commands = {
            "backup": ("store", "backup", "--store", origin.store, "--to", backup, "--packs"),
            "restore": ("store", "restore", backup, "--to", restored),
        }
        for words in commands.values():
            started = time.monotonic()
            keeper.ok(*words)
            seconds = time.monotonic() - started
            path = words[-2] if words[-1] == "--packs" else words[-1]
            for _ in range(3):
                shutil.rmtree(path)
                os.sync()
                cut_during(disk, keeper, words, moments.uniform(0.4, 1.0) * seconds)
                keeper.ok(*words)
                # What has ended is there, whatever comes then.
                disk.cut_power()
                disk.power_on()
                if words is commands["restore"]:
                    assert checked(restored) == [OLD, NEW]
                else:
                    again = keeper.ok(*words, "--verify")
                    assert (again["copied"], again["damage"]) == (0, [])
        install_from(keeper, restored, origin, tmp_path / "root")


def cut_during(disk, keeper, words, moment):
    process = keeper.start(*words)
    time.sleep(moment)
    disk.cut_power()
    process.kill()
    Outcome.of(process, timeout=60)
    disk.power_on()


def install_from(keeper, store, origin, root):
    """What is installed from the store is what was published."""
    keeper.ok("install", NEW, "--from", store, "--root", root)
    trees.assert_same(root / "releases" / NEW, origin.new)
