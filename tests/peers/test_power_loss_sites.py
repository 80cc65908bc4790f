"""Power loss at an install root, at random moments of every command that changes it.

Afterwards whatever is under a release's name is whole, `current` leads to something whole, and the same command goes on.
"""

from __future__ import annotations

import os
import shutil
import time

import pytest

from tests.e2e import trees
from tests.e2e.site import Outcome, Site
from tests.peers.conftest import NEW, OLD
from tests.peers.volumes import volume
from tests.seeds import seeded

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

UPDATES = 5
SWITCHES = 2


@pytest.fixture(params=["ext4", "xfs"])
def place(request, tmp_path, origin):
    """A root on a disk that loses its power, with the old release; the user's state is on that disk too."""
    with volume(request.param, tmp_path, mib=3000) as disk:
        made = Place(disk, origin)
        made.site.ok(*made.install(OLD))
        yield made


class Place:
    """An install root, its disk, and what is published."""

    def __init__(self, disk, origin):
        self.disk, self.origin = disk, origin
        self.site, self.root = Site(disk.path / "home"), disk.path / "root"
        self.trees = {OLD: origin.old, NEW: origin.new}
        self.moments = seeded(disk.kind)

    def install(self, release):
        return ("install", release, "--from", self.origin.store, "--root", self.root)

    @property
    def current(self):
        """The release that `current` leads to."""
        return os.path.basename(os.readlink(self.root / "current/Stack/x86_64-linux"))

    def cut(self, words, seconds):
        """Start a command and cut the power at a random moment within so many seconds; whether it had succeeded."""
        process = self.site.start(*words)
        time.sleep(self.moments.uniform(0.2, seconds))
        self.disk.cut_power()
        process.kill()
        done = Outcome.of(process, timeout=60)
        self.disk.power_on()
        return done.code == 0

    def check(self):
        """All that can be seen is whole."""
        present = os.listdir(self.root / "releases")
        for release in present:
            trees.assert_same(self.root / "releases" / release, self.trees[release])
            assert self.site.ok("verify", release, "--root", self.root)["intact"] is True
        assert self.current in present

    def timed(self, *words):
        """How many seconds a command takes."""
        started = time.monotonic()
        self.site.ok(*words)
        return time.monotonic() - started


def test_an_update_continues(place):
    seconds = place.timed(*place.install(NEW))
    for _ in range(UPDATES):
        place.site.ok(*place.install(OLD))
        shutil.rmtree(place.root / "releases" / NEW)
        os.sync()
        finished = place.cut(place.install(NEW), 1.2 * seconds)
        place.check()
        assert not finished or place.current == NEW
        place.site.ok(*place.install(NEW))
        place.check()
        assert place.current == NEW
        assert os.listdir(place.root / ".pacball/staging") == []


def test_a_switch_is_done_or_not_done(place):
    place.site.ok(*place.install(NEW))
    seconds = place.timed(*place.install(OLD))
    for _ in range(SWITCHES):
        before = place.current
        after = NEW if before == OLD else OLD
        finished = place.cut(place.install(after), 1.2 * seconds)
        place.check()
        assert place.current in ((after,) if finished else (before, after))
        place.site.ok(*place.install(after))
        assert place.current == after


@pytest.mark.parametrize("verb", ["rollback", "remove", "prune"])
def test_a_change_of_the_root_is_done_or_not_done(place, verb):
    command = {
        "rollback": ("rollback", "Stack", "--to", OLD),
        "remove": ("remove", OLD, "--grace", "0"),
        "prune": ("prune", "--keep", "0", "--grace", "0"),
    }[verb]
    for _ in range(SWITCHES):
        place.site.ok(*place.install(OLD))
        place.site.ok(*place.install(NEW))
        os.sync()
        finished = place.cut((*command, "--root", place.root), 1.2)
        place.check()
        assert place.current == (OLD if finished and verb == "rollback" else place.current)
        again = place.site.run(*command, "--root", place.root)
        assert again.code == 0 or again.code == {"rollback": 7, "remove": 3}.get(verb), again.err
        place.check()
        assert place.current == (OLD if verb == "rollback" else NEW)
        assert (OLD in os.listdir(place.root / "releases")) == (verb == "rollback")
        assert os.listdir(place.root / ".pacball/staging") == []
