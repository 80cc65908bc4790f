"""Power loss on ext4 and xfs, at random moments and right after a command has said that it is done.

Everything is on the disk that loses power: the store or the install root, the keys, and the user's state.
"""

from __future__ import annotations

import os
import shutil
import time

import pytest

from tests.e2e import trees
from tests.e2e.site import Outcome, Site
from tests.peers.conftest import NEW, OLD
from tests.peers.programs import program
from tests.peers.volumes import volume
from tests.seeds import seeded

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

ROUNDS = 5
ROUNDS_AT_ONCE = 3
EARLIEST_S = 0.2


@pytest.fixture(params=["ext4", "xfs"])
def disk(request, tmp_path):
    with volume(request.param, tmp_path, mib=3000) as made:
        yield made


def cut_during(disk, site, words, moment):
    """Start a command, cut the power after `moment` seconds, and switch it on again; whether the command had succeeded."""
    process = site.start(*words)
    time.sleep(moment)
    disk.cut_power()
    process.kill()
    done = Outcome.of(process, timeout=60)
    disk.power_on()
    return done.code == 0


def timed(function, *arguments):
    """How many seconds a call takes."""
    started = time.monotonic()
    function(*arguments)
    return time.monotonic() - started


class Publisher:
    """Publishes ever new versions of a tree, and knows which ones were acknowledged."""

    def __init__(self, disk, tree):
        self.site = Site(disk.path / "home")
        self.store = disk.path / "store"
        self.tree = tree
        self.acknowledged = []

    def words(self, name):
        return ("publish", self.tree, name, "--to", self.store)

    def publish(self, name):
        self.site.ok(*self.words(name))
        self.acknowledged.append(name)

    def check(self, *, possible=()):
        """The store has every acknowledged release, maybe `possible`, nothing else, and no damage."""
        listed = {one["release"] for one in self.site.ok("list", "--from", self.store)["releases"]}
        assert set(self.acknowledged) <= listed <= {*self.acknowledged, *possible}
        report = self.site.ok("store", "check", "--store", self.store)
        assert report["intact"]
        # Cut between the commit and its showing, the store's own catalog is one release ahead of what readers see.
        assert len(listed) <= report["releases_checked"] <= len({*self.acknowledged, *possible})


def test_publish_loses_nothing_that_it_acknowledged(disk, tmp_path):
    moments = seeded(disk.kind)
    publisher = Publisher(disk, trees.fill(tmp_path / "tree", seed=1, files=200, file_bytes=400 * trees.KIB))
    seconds = timed(publisher.publish, "Stack-0-any")
    for number in range(1, ROUNDS + 1):
        name = f"Stack-{number}-any"
        trees.change(publisher.tree, seed=number, share=0.6)
        if cut_during(disk, publisher.site, publisher.words(name), moments.uniform(EARLIEST_S, seconds)):
            publisher.acknowledged.append(name)
        publisher.check(possible=[name])
        publisher.publish(name)
    publisher.check()


def test_the_first_publish_of_all_can_be_interrupted(disk, tmp_path):
    moments = seeded(disk.kind)
    publisher = Publisher(disk, trees.fill(tmp_path / "tree", seed=1, files=10, file_bytes=100_000))
    for number in range(ROUNDS):
        publisher.site = Site(disk.path / f"home{number}")
        publisher.store = disk.path / f"store{number}"
        os.sync()
        cut_during(disk, publisher.site, publisher.words("Stack-0-any"), moments.uniform(0.3, 0.9))
        publisher.acknowledged = []
        publisher.publish("Stack-0-any")
        publisher.check()


def test_a_publish_that_has_ended_is_there(disk, tmp_path):
    publisher = Publisher(disk, trees.fill(tmp_path / "tree", seed=1, files=40, file_bytes=400 * trees.KIB))
    for number in range(ROUNDS_AT_ONCE):
        publisher.publish(f"Stack-{number}-any")
        disk.cut_power()
        disk.power_on()
        publisher.check()
        trees.change(publisher.tree, seed=number, share=0.6)


def test_the_power_cut_is_a_real_one(disk, tmp_path):
    """What these tests rest on: with every sync swallowed, what was acknowledged is gone."""
    publisher = Publisher(disk, trees.fill(tmp_path / "tree", seed=1, files=10, file_bytes=100_000))
    publisher.publish("Stack-0-any")
    trees.change(publisher.tree, seed=1, share=1.0)
    syncs = "fsync,fdatasync,syncfs,sync"
    swallowed = (program("strace"), "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null",
                 "-e", f"trace={syncs}", "-e", f"inject={syncs}:retval=0")  # fmt: skip
    publisher.site.ok(*publisher.words("Stack-1-any"), before=swallowed)
    disk.cut_power()
    disk.power_on()
    done = publisher.site.run("list", "--from", publisher.store)
    assert done.code != 0 or len(done.json["releases"]) == 1


def test_install_continues_and_keeps_what_it_has_installed(disk, origin):
    moments = seeded(disk.kind)
    site, root = Site(disk.path / "home"), disk.path / "root"
    old = ("install", OLD, "--from", origin.store, "--root", root)
    seconds = timed(site.ok, *old)
    for _ in range(ROUNDS):
        shutil.rmtree(root)
        os.sync()
        installed = cut_during(disk, site, old, moments.uniform(EARLIEST_S, 1.2 * seconds))
        if installed:
            trees.assert_same(root / "releases" / OLD, origin.old)
        site.ok(*old)
        assert site.ok("verify", OLD, "--root", root)["intact"] is True
        trees.assert_same(root / "releases" / OLD, origin.old)
        assert os.listdir(root / ".pacball/staging") == []


def test_an_install_that_has_ended_is_whole(disk, origin):
    site, root = Site(disk.path / "home"), disk.path / "root"
    for number in range(ROUNDS_AT_ONCE):
        release, tree = ((OLD, origin.old), (NEW, origin.new))[number % 2]
        site.ok("install", release, "--from", origin.store, "--root", root)
        disk.cut_power()
        disk.power_on()
        trees.assert_same(root / "releases" / release, tree)
        assert os.readlink(root / "current/Stack/x86_64-linux") == f"../../releases/{release}"
        assert site.ok("verify", release, "--root", root)["intact"] is True
        assert os.listdir(root / ".pacball/staging") == []
        if number % 2:
            shutil.rmtree(root)
            os.sync()
