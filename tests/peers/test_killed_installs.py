"""Installs that are interrupted again and again, at random moments and in chosen system calls, end with the right tree.

What an interruption costs is counted outside of the installer, at the line to the server.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections import Counter

import pytest

from tests.e2e import trees
from tests.e2e.line import line_to
from tests.e2e.site import Outcome, Site
from tests.peers.injection import counted, counting, injecting
from tests.peers.programs import call
from tests.seeds import seeded

pytestmark = pytest.mark.peers

LARGE = "Large-1.0-any"
OLD, NEW = "Small-1.0-any", "Small-1.1-any"
CALLS = ["mkdir,mkdirat", "openat", "pwrite64", "fsync", "syncfs", "rename,renameat,renameat2", "symlink,symlinkat",
         "unlink,unlinkat", "ftruncate", "utimensat", "link,linkat", "futex"]  # fmt: skip
INTERRUPTIONS = 24
UNAVAILABLE = 6
WAYS = ["KILL", "KILL", "KILL", "KILL", "TERM", "INT", "CUT", "CUT"]
CALLS_A_ROUND = 6
CHANGING = ["openat", "fsync", "rename,renameat,renameat2", "symlink,symlinkat", "unlink,unlinkat", "rmdir", "write"]
COMMANDS = {
    "rollback": ("rollback", "Small", "--to", OLD),
    "remove": ("remove", OLD, "--grace", "0"),
    "prune": ("prune", "--keep", "0", "--grace", "0"),
}
DONE_ALREADY = {"rollback": 7, "remove": 3}
"""How a command ends that was killed when all was done: it is current, or it is not there."""
SHARE_BY_TIME = 0.3
FREE_BYTES = 64 * trees.MIB
FREE_SHARE = 0.02
"""An interruption may cost as many bytes, or this share of the release, whichever is more."""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A publisher's site, its store with a release of more than 1 GB in files of all sizes, and the tree."""
    home = tmp_path_factory.mktemp("large")
    site, tree = Site(home / "home"), home / "tree"
    for name, files, file_bytes in (("huge", 3, 180 * trees.MIB), ("big", 50, 9 * trees.MIB), ("small", 600, 100_001)):
        trees.fill(tree / name, seed=len(name), files=files, file_bytes=file_bytes, bits=8)
    done = site.publish(tree, LARGE, home / "store", "--level", "1")
    assert done["bytes_total"] > 10**9
    yield site, home / "store", tree
    shutil.rmtree(home)


class Installing:
    """Installs the large release over a line, again and again, and keeps account of what each complete install cost."""

    def __init__(self, site, large, line, root):
        self.site, self.line, self.root = site, line, root
        publisher, store, self.tree = large
        self.words = ("install", LARGE, "--from", line.url, "--root-keys", publisher.root_keys(store), "--root", root)
        self.needed = int(site.ok(*self.words, "--plan")["bytes_to_download"])
        self.process = None
        self.was_cut = False
        self.begun_at, self.interruptions = line.passed, 0
        self.costs = []

    def interrupt(self, way, moments):
        """Interrupt a running install at a random moment; False if it ended before."""
        self.process = self.process or self.site.start(*self.words)
        if self.ended_before(moments):
            self.complete()
            return False
        self.interruptions += 1
        if way == "CUT":
            self.was_cut = True
            self.line.cut()
            time.sleep(moments.uniform(0, 0.5))
            self.line.mend()
            return True
        self.process.send_signal(getattr(signal, f"SIG{way}"))
        done = Outcome.of(self.process, timeout=30)
        self.process = None
        assert done.code != 0 or way != "KILL"
        return True

    def ended_before(self, moments):
        """Wait until so many bytes have passed, or sometimes so many seconds; whether the install ended before."""
        seconds = moments.uniform(0, 2.5) if moments.random() < SHARE_BY_TIME else None
        moment = time.monotonic() + (seconds if seconds is not None else 60)
        bytes_more = moments.randrange(120 * trees.MIB) if seconds is None else sys.maxsize
        self.line.wait_for(
            self.line.passed + bytes_more, lambda: self.process.poll() is not None or time.monotonic() > moment
        )
        return self.process.poll() is not None

    def end(self):
        self.process = self.process or self.site.start(*self.words)
        done = Outcome.of(self.process, timeout=90)
        self.process = None
        return done

    def complete(self):
        """Let the install end well, compare what there is then, and begin with nothing again."""
        done = self.end()
        if done.code == UNAVAILABLE and self.was_cut:
            # Cut off so often that it gave up, as it may: then the same command continues.
            done = self.end()
        self.was_cut = False
        assert done.code == 0, done.err
        trees.assert_same(self.root / "releases" / LARGE, self.tree)
        assert os.readlink(self.root / "current/Large/any") == f"../../releases/{LARGE}"
        assert os.listdir(self.root / ".pacball/staging") == []
        self.costs.append((self.line.passed - self.begun_at - self.needed, self.interruptions))
        shutil.rmtree(self.root)
        self.begun_at, self.interruptions = self.line.passed, 0


@pytest.mark.timeout(600)
def test_an_install_of_a_gigabyte_that_is_interrupted_at_random_moments(site, large, root):
    publisher, store, _ = large
    moments = seeded("interruptions")
    counted = Counter()
    with publisher.serving(store) as url, line_to(url) as line:
        installing = Installing(site, large, line, root)
        while counted.total() < INTERRUPTIONS:
            way = moments.choice(WAYS)
            counted[way] += installing.interrupt(way, moments)
        installing.complete()
    allowed = max(FREE_BYTES, int(FREE_SHARE * installing.needed))
    documents = 4 * trees.MIB
    for cost, interruptions in installing.costs:
        assert cost <= interruptions * allowed + documents * (1 + interruptions), installing.costs


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A publisher's site, its store with two small releases, and their trees."""
    home = tmp_path_factory.mktemp("small")
    site = Site(home / "home")
    old = trees.one_of_each(home / "old")
    trees.fill(old / "data", seed=3, files=30, file_bytes=100_000)
    new = trees.copy(old, home / "new")
    trees.change(new / "data", seed=4, share=0.4)
    for tree, release in ((old, OLD), (new, NEW)):
        site.publish(tree, release, home / "store")
    return home / "store", {OLD: old, NEW: new}


def check_root(root, published):
    """Whatever is under a release's name is whole, and `current` leads to something whole, or is not there yet."""
    for release in os.listdir(root / "releases") if root.exists() and (root / "releases").exists() else ():
        trees.assert_same(root / "releases" / release, published[release])
    current = root / "current/Small/any"
    if current.is_symlink():
        assert os.path.basename(os.readlink(current)) in os.listdir(root / "releases")


@pytest.fixture(params=[OLD, NEW], ids=["install", "update"])
def prepared(request, site, small, tmp_path):
    """The release to install, and a function that makes a root where that is to be done."""
    store, _ = small
    template = tmp_path / "template"
    if request.param == NEW:
        site.ok("install", OLD, "--from", store, "--root", template)

    def make(name):
        root = tmp_path / name
        if template.exists():
            call("cp", "-a", template, root)
        return root

    return request.param, make


@pytest.mark.timeout(300)
def test_an_install_that_is_killed_in_chosen_system_calls(site, small, prepared, tmp_path):
    store, published = small
    release, make = prepared
    words = lambda root: ("install", release, "--from", store, "--root", root)  # noqa: E731
    moments = seeded(release)
    killed = 0
    site.ok(*words(make("counted")), before=counting(CALLS, tmp_path / "log"))
    found = counted(tmp_path / "log")
    for name in moments.sample(sorted(found), CALLS_A_ROUND):
        most = found[name]
        # In the last call of its kind as often as in any other.
        number = moments.choice((most, moments.randint(1, most)))
        root = make(f"{name}-{number}")
        done = site.run(*words(root), before=injecting(name, "signal=KILL", number))
        assert done.code in (0, -9, 137), (name, number, done.err)
        killed += done.code != 0
        check_root(root, published)
        again = site.ok(*words(root))
        trees.assert_same(root / "releases" / release, published[release])
        assert os.readlink(root / "current/Small/any") == f"../../releases/{release}"
        # Killed between the end of its work and the end of its process, it leaves an attempt to the next.
        assert again["already_installed"] or os.listdir(root / ".pacball/staging") == []
        shutil.rmtree(root)
    assert killed


@pytest.mark.timeout(300)
@pytest.mark.parametrize("verb", COMMANDS)
def test_a_change_of_a_root_that_is_killed_in_chosen_system_calls(site, small, tmp_path, verb):
    store, published = small
    template = tmp_path / "template"
    for release in (OLD, NEW):
        site.ok("install", release, "--from", store, "--root", template)
    moments = seeded(verb)
    words = lambda root: (*COMMANDS[verb], "--root", root)  # noqa: E731
    call("cp", "-a", template, tmp_path / "counted")
    site.ok(*words(tmp_path / "counted"), before=counting(CHANGING, tmp_path / "log"))
    killed = 0
    for name, most in counted(tmp_path / "log").items():
        number = moments.choice((most, moments.randint(1, most)))
        root = tmp_path / f"{name}-{number}"
        call("cp", "-a", template, root)
        done = site.run(*words(root), before=injecting(name, "signal=KILL", number))
        assert done.code in (0, -9, 137), (name, number, done.err)
        killed += done.code != 0
        check_root(root, published)
        again = site.run(*words(root))
        assert again.code == 0 or again.code == DONE_ALREADY.get(verb), (name, number, again.err)
        check_root(root, published)
        present = {OLD, NEW} if verb == "rollback" else {NEW}
        assert set(os.listdir(root / "releases")) == present, (name, number)
        assert os.path.basename(os.readlink(root / "current/Small/any")) == (OLD if verb == "rollback" else NEW)
        assert os.listdir(root / ".pacball/staging") == [], (name, number)
        shutil.rmtree(root)
    assert killed
