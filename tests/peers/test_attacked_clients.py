"""What a client remembers of a catalog, on disks that are full, read-only, far away or without power, and with wrong clocks.

Whatever happens to it: a mirror that goes back to an older state is refused, and with an honest one the client works again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time

import pytest

from tests.e2e.attacker import mirroring
from tests.e2e.forger import Forger
from tests.e2e.forger import date as signed_at
from tests.e2e.site import Outcome
from tests.e2e.victims import NEW, OLD, check_sentence, copied, world_below
from tests.peers.programs import program
from tests.peers.volumes import memory_volume, network_volume, volume

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

BACK = "rolled back: root is version 1, and version 2 was seen"
ROUNDS = 4


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    return world_below(tmp_path_factory.getbasetemp())


@pytest.fixture
def mirror(world):
    with mirroring(world.second) as made:
        yield made


def with_state_on(world, home, disk):
    """An installer that has seen the second state, and remembers it on another file system."""
    shutil.copytree(world.at_second / "home/state", disk / "state", symlinks=True)
    return moved(world.late(home), disk)


def moved(victim, disk):
    """The installer with its state at `disk`/state."""
    shutil.rmtree(victim.home / "home/state")
    (victim.home / "home/state").symlink_to(disk / "state")
    return victim


def goes_back(world, mirror, victim):
    """An older state is refused, with python-tuf's own files and without them."""
    mirror.public = world.first
    victim.refuses(mirror, 8, "rolled back", release=OLD)
    shutil.rmtree(victim.state / "metadata", ignore_errors=True)
    victim.refuses(mirror, 8, BACK, release=OLD)
    mirror.public = world.second


def test_a_state_that_may_not_be_written(world, mirror, tmp_path):
    with volume("ext4", tmp_path, mib=40) as disk:
        victim = with_state_on(world, tmp_path / "victim", disk.path)
        disk.remount("ro")
        victim.refuses(mirror, 6, str(victim.state), "read-only", release=OLD)
        mirror.public = world.first
        victim.refuses(mirror, 6, "read-only", release=OLD)
        disk.remount("rw")
        goes_back(world, mirror, victim)
        victim.installs(mirror, OLD)


@pytest.mark.parametrize("options", ["size=1m", "size=4m,nr_inodes=60"])
def test_a_full_disk(world, mirror, tmp_path, options):
    with memory_volume(tmp_path, options) as disk:
        victim = with_state_on(world, tmp_path / "victim", disk)
        newest = copied(world.second, tmp_path / "public")
        operator = Forger(newest, world.keys.signer("online"))
        # What python-tuf keeps is given up for what must not be forgotten; then there is nothing more to give up.
        operator.snapshot(lambda _: None)
        mirror.public = newest
        fill(disk)
        victim.installs(mirror, OLD)
        goes_back(world, mirror, victim)
        operator.snapshot(lambda _: None)
        mirror.public = newest
        shutil.rmtree(victim.state / "metadata", ignore_errors=True)
        fill(disk)
        victim.refuses(mirror, 6, "no space left", "free some space", release=OLD)
        goes_back(world, mirror, victim)
        empty(disk)
        goes_back(world, mirror, victim)
        mirror.public = newest
        victim.installs(mirror, OLD)


def fill(disk):
    with contextlib.suppress(OSError):
        for number in range(1000):
            (disk / f"ballast{number}").touch()
    with contextlib.suppress(OSError), (disk / "ballast0").open("wb", buffering=0) as ballast:
        while True:
            ballast.write(bytes(4096))


def empty(disk):
    for ballast in disk.glob("ballast*"):
        ballast.unlink()


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_what_was_seen_survives_a_power_cut(world, mirror, tmp_path, kind):
    with volume(kind, tmp_path, mib=320) as disk:
        (disk.path / "state").mkdir()
        os.sync()
        victim = moved(world.late(tmp_path / "victim"), disk.path)
        mirror.public = copied(world.second, tmp_path / "public")
        operator = Forger(mirror.public, world.keys.signer("online"))
        newest = mirror.public
        for number in range(ROUNDS):
            operator.snapshot(lambda _: None)
            victim.site.ok("list", *victim.source(mirror))
            disk.cut_power()
            disk.power_on()
            mirror.public = world.second
            victim.refuses(mirror, 8, f"timestamp is version 5, and version {6 + number} was seen", release=OLD)
            goes_back(world, mirror, victim)
            mirror.public = newest
        victim.installs(mirror, OLD)


def test_the_power_cut_is_a_real_one(world, mirror, tmp_path):
    """What the test above rests on: with every sync swallowed, nothing was seen."""
    syncs = "fsync,fdatasync,syncfs,sync"
    swallowed = (program("strace"), "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null",
                 "-e", f"trace={syncs}", "-e", f"inject={syncs}:retval=0")  # fmt: skip
    with volume("ext4", tmp_path, mib=40) as disk:
        (disk.path / "state").mkdir()
        os.sync()
        victim = moved(world.late(tmp_path / "victim"), disk.path)
        victim.site.ok("list", *victim.source(mirror), before=swallowed)
        disk.cut_power()
        disk.power_on()
        mirror.public = world.first
        victim.installs(mirror, OLD)


def test_a_state_on_a_network_disk(world, mirror, tmp_path):
    with network_volume(tmp_path) as disk:
        (disk / "state").mkdir()
        victim = moved(world.early(tmp_path / "victim"), disk)
        roots = [tmp_path / f"root{number}" for number in range(4)]
        running = [victim.site.start("install", NEW, *victim.source(mirror), "--root", root) for root in roots]
        done = [Outcome.of(process, timeout=90) for process in running]
        assert [(one.code, one.err) for one in done] == [(0, "")] * len(roots)
        goes_back(world, mirror, victim)
        victim.installs(mirror)


# Clocks


def at(when):
    """What runs a command as if it were started at `when`."""
    return (program("faketime"), "-f", f"@{when} 00:00:00")


@pytest.fixture
def clocked(world, tmp_path):
    """An installer that has seen the catalog, and one that has not; libfaketime leaves files and pauses alone."""
    victims = world.late(tmp_path / "late"), world.fresh(tmp_path / "fresh")
    for victim in victims:
        victim.site.environment |= {"NO_FAKE_STAT": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    return victims


def test_a_clock_that_is_far_behind(world, mirror, tmp_path, clocked):
    late, fresh = clocked
    done = fresh.site.fails(8, *fresh.words(mirror), before=at("2001-01-01"))
    check_sentence(done)
    assert "the clock of this machine says 2001-01-01" in done.err
    assert "set the clock" in done.json["hint"]
    assert fresh.installed() == {}
    # Who has seen the catalog knows that it is later.
    late.site.ok(*late.words(mirror, OLD), before=at("2001-01-01"))
    expired = copied(world.second, tmp_path / "expired")
    operator = Forger(expired, world.keys.signer("online"))
    operator.timestamp(lambda signed: signed_at(signed, time.time() - 86_400, days=0.5))
    mirror.public = expired
    listed = late.site.run("list", *late.source(mirror), before=at("2001-01-01"))
    assert "out of date: timestamp" in listed.err
    mirror.public = world.first
    done = late.site.fails(8, *late.words(mirror, OLD), before=at("2001-01-01"))
    assert "rolled back: timestamp is version 3" in done.err
    operator.timestamp(lambda signed: signed_at(signed, time.time(), days=1))
    mirror.public = expired
    for victim in clocked:
        victim.installs(mirror)


def test_a_clock_that_is_far_ahead(world, mirror, tmp_path, clocked):
    late, fresh = clocked
    done = fresh.site.fails(8, *fresh.words(mirror), before=at("2100-01-01"))
    check_sentence(done)
    assert "the catalog is out of date" in done.err
    assert "days ago" in done.err
    assert fresh.installed() == {}
    done = late.site.run(*late.words(mirror, OLD), before=at("2100-01-01"))
    assert done.code == 0
    assert "only what was seen here while it was fresh is believed" in done.err
    # Neither remembers that time: with the right clock both work, and with new metadata too.
    mirror.public = copied(world.second, tmp_path / "public")
    Forger(mirror.public, world.keys.signer("online")).timestamp(lambda signed: signed_at(signed, time.time(), days=1))
    for victim in clocked:
        victim.installs(mirror)
