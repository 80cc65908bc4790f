"""An installer that is stopped (SIGSTOP) anywhere, while another one installs the same release, ends well when it continues.

Whatever it was at, and whether the other one took it for living or for dead: never a wrong tree, and nothing is left behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e import trees
from tests.e2e.site import PACBALL, Outcome, wait_until
from tests.peers.conftest import NEW, OLD
from tests.peers.programs import program, require_root

pytestmark = pytest.mark.peers

MOMENTS = [
    ("mkdir,mkdirat", 8),
    ("preadv,preadv2", 5),
    ("preadv,preadv2", 60),
    ("pwrite64,pwritev", 2),
    ("utimensat", 20),
    ("symlink,symlinkat", 2),
    ("syncfs", 1),
    ("fsync", 2),
    ("rename,renameat", 2),
    ("rename,renameat", 3),
    ("rename,renameat", 4),
]


class Stopped:
    """A command that stops itself in the `number`-th of some system calls of any of its threads; killed with its block."""

    def __init__(self, site, log, calls, number, *words):
        self.log = log
        argv = (program("strace"), "-f", "-o", log, "-e", f"trace={calls}",
                "-e", f"inject={calls}:signal=SIGSTOP:when={number}")  # fmt: skip
        self.process = site.start(*words, before=argv)

    def __enter__(self):
        wait_until(self._is_stopped, seconds=90)
        return self

    def __exit__(self, *_):
        self.kill()

    def _is_stopped(self):
        assert self.process.poll() is None, f"it ended and was not stopped: {self.process.returncode}"
        return self.log.exists() and "--- stopped by SIGSTOP ---" in self.log.read_text(errors="replace")

    def _signal(self, number):
        """To the command itself, which strace has started."""
        with contextlib.suppress(OSError, IndexError, ValueError):
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
            os.kill(int(children.read_text().split()[0]), number)

    def kill(self):
        self._signal(signal.SIGKILL)
        self.process.wait(30)
        self.process.stdout.close()
        self.process.stderr.close()

    def finish(self):
        """Let it go on, as often as another thread stops it again, to its end."""
        while self.process.poll() is None:
            self._signal(signal.SIGCONT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.1)
        return Outcome.of(self.process, timeout=30)


@pytest.fixture
def command(origin, site, root):
    """The installation of the new release, where the old one is installed."""
    words = ("--from", origin.store, "--root-keys", origin.root_keys, "--root", root)
    site.ok("install", OLD, *words)
    return ("install", NEW, *words)


def assert_well(site, origin, root):
    trees.assert_same(root / "releases" / NEW, origin.new)
    trees.assert_same(root / "releases" / OLD, origin.old)
    assert site.ok("verify", "--root", root)["intact"] is True
    assert os.listdir(root / ".pacball/staging") == []


@pytest.mark.parametrize(("calls", "number"), MOMENTS)
def test_stopped_while_another_installs(tmp_path, origin, site, root, command, calls, number):
    with Stopped(site, tmp_path / "log", calls, number, *command) as first:
        assert site.ok(*command)["tree_digest"]
        done = first.finish()
    assert done.code == 0, done
    assert_well(site, origin, root)


def take_for_dead(root):
    """All who are at work are on another machine now, and were silent for long."""
    for path in (root / ".pacball/staging").glob("*/owner.json"):
        owner = json.loads(path.read_text())
        path.write_text(json.dumps({**owner, "machine": "another//"}))
        os.utime(path, (0, 0))


@pytest.mark.parametrize(("calls", "number"), MOMENTS)
def test_stopped_and_taken_for_dead(tmp_path, origin, site, root, command, calls, number):
    """Its files are taken away, and another installs the release with them."""
    with Stopped(site, tmp_path / "log", calls, number, *command) as first:
        take_for_dead(root)
        assert site.ok(*command)["tree_digest"]
        done = first.finish()
    assert done.code == 0, done
    assert_well(site, origin, root)


@pytest.mark.parametrize(("calls", "number"), [("syncfs", 1), ("rename,renameat", 5), ("preadv,preadv2", 60)])
def test_stopped_and_taken_for_dead_by_one_that_is_stopped_too(tmp_path, origin, site, root, command, calls, number):
    """The first begins anew, while the second has its files."""
    with Stopped(site, tmp_path / "log", "syncfs", 1, *command) as first:
        take_for_dead(root)
        with Stopped(site, tmp_path / "log2", calls, number, *command) as second:
            outcomes = [first.finish(), second.finish()]
    assert [done.code for done in outcomes] == [0, 0], outcomes
    assert_well(site, origin, root)


class Contained:
    """A command in a process name space of its own, as in a container of the same name. `pid` is its number here."""

    def __init__(self, site, *words):
        require_root()
        argv = [
            program("unshare"),
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child",
            PACBALL,
            *map(str, words),
            "--json",
        ]
        self.process = subprocess.Popen(
            argv, env=site.environment, cwd=site.home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        wait_until(lambda: children.read_text().split(), seconds=30)
        self.pid = int(children.read_text().split()[0])


@pytest.mark.root
@pytest.mark.parametrize("killed", [True, False])
def test_an_installer_in_another_container(origin, site, root, command, killed):
    """Its number means nothing here: only its silence tells that it ended."""
    with origin.site.serving(origin.store) as url:
        slow = [*command]
        slow[slow.index("--from") + 1] = url
        contained = Contained(site, *slow, "--limit-rate", "4M")
        trees_begun = lambda: [p for p in (root / ".pacball/staging").glob("*/tree/data/*/*") if p.is_file()]  # noqa: E731
        wait_until(trees_begun, seconds=60)
        os.kill(contained.pid, signal.SIGKILL if killed else signal.SIGSTOP)
        if killed:
            contained.process.wait(30)
        (attempt,) = (root / ".pacball/staging").iterdir()
        begun = trees_begun()
        assert site.ok(*command)["bytes_reused"] > 0
        assert all(path.exists() for path in begun)
        if not killed:
            os.kill(contained.pid, signal.SIGCONT)
            assert Outcome.of(contained.process, timeout=60).code == 0
        else:
            contained.process.communicate()
            now = os.stat(attempt / "owner.json").st_mtime
            os.utime(attempt / "owner.json", (now - 700, now - 700))
            site.ok("prune", "--keep", "5", "--root", root)
            (root / "releases" / NEW).rename(root / "away")
            site.ok(*command)
    assert_well(site, origin, root)


def test_ten_installers_at_once(origin, site, root, command):
    processes = [site.start(*command) for _ in range(10)]
    outcomes = [Outcome.of(process, timeout=110) for process in processes]
    assert [done.code for done in outcomes] == [0] * 10, outcomes
    assert_well(site, origin, root)


def test_what_another_release_left_is_kept_for_it(origin, site, root, tmp_path):
    words = ("--from", origin.store, "--root-keys", origin.root_keys, "--root", root)
    with Stopped(site, tmp_path / "log", "pwrite64,pwritev", 10, "install", OLD, *words) as first:
        site.ok("install", NEW, *words)
        first.kill()
    begun = {path.stat().st_ino for path in (root / ".pacball/staging").glob("*/tree/**/*.bin")}
    assert begun
    assert site.ok("install", OLD, *words)["bytes_reused"] > 0
    assert begun & {path.stat().st_ino for path in (root / "releases" / OLD).rglob("*.bin")}
    assert_well(site, origin, root)
