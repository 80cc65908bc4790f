"""Install roots of all kinds: with and without reflinks, network disks, odd names, umasks, links; and clocks that jump."""

from __future__ import annotations

import json
import os
import signal
import stat
import time
from collections.abc import Callable

import pytest

from tests.e2e import trees
from tests.e2e.site import Outcome, wait_until
from tests.e2e.slow import slowed
from tests.peers.conftest import NEW, OLD
from tests.peers.faketime import Clock
from tests.peers.programs import call
from tests.peers.volumes import memory_volume, network_volume, volume
from tests.seeds import seeded

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

JUMPS = ["-1y", "+1y", "-1h", "+1h", "+0"]


@pytest.fixture
def go(site, origin):
    """Install, update, verify, go back and forward in a root, and compare what is there."""

    def run(root, *, before=()):
        published = {OLD: origin.old, NEW: origin.new}
        for release in (OLD, NEW):
            done = site.run("install", release, "--from", origin.store, "--root", root, before=before)
            assert done.code == 0, done.err
            trees.assert_same(root / "releases" / release, published[release])
            assert site.ok("verify", release, "--root", root)["intact"] is True
        assert site.ok("rollback", "Stack", "--root", root, before=before)["release"] == OLD
        assert current(root) == OLD
        site.ok("install", NEW, "--from", origin.store, "--root", root, before=before)
        assert current(root) == NEW
        site.ok("remove", OLD, "--grace", "0", "--root", root, before=before)
        assert os.listdir(root / "releases") == [NEW]
        assert os.listdir(root / ".pacball/staging") == []

    return run


def current(root):
    """The release that `current` leads to."""
    return os.path.basename(os.readlink(root / "current/Stack/x86_64-linux"))


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_file_systems(go, tmp_path, kind):
    with volume(kind, tmp_path, mib=1000) as disk:
        go(disk.path / "root")


def test_a_network_disk(site, tmp_path):
    """Once, and without links in the tree: sshfs cannot tell everywhere where a link leads, which all else asks for."""
    tree, store = trees.fill(tmp_path / "tree", seed=5, files=20, file_bytes=300_000), tmp_path / "store"
    site.publish(tree, OLD, store)
    with network_volume(tmp_path) as disk:
        root = disk / "root"
        words = ("install", OLD, "--from", store, "--root", root)
        process = site.start(*words)
        wait_until(lambda: (root / ".pacball/staging").is_dir() and os.listdir(root / ".pacball/staging"))
        process.kill()
        process.communicate()
        site.ok(*words)
        trees.assert_same(root / "releases" / OLD, tree)
        assert os.listdir(root / ".pacball/staging") == []


def test_a_disk_that_executes_nothing(go, tmp_path):
    with memory_volume(tmp_path, "size=400m,noexec,nosuid,nodev") as disk:
        go(disk / "root")


@pytest.mark.parametrize("name", ["größe und 名前", " ", 'it\'s "$HOME" `x`', "-rf", "a\tb"])
def test_names_of_roots(go, tmp_path, name):
    go(tmp_path / name)


@pytest.mark.parametrize("umask", ["077", "000"])
def test_umasks(go, tmp_path, umask):
    (tmp_path / "above").mkdir()
    root = tmp_path / "above/root"
    go(root, before=("sh", "-c", f'umask {umask}; exec "$0" "$@"'))
    for path in (root, *root.rglob("*")):
        mode = stat.S_IMODE(path.lstat().st_mode)
        if ".pacball" in path.parts:
            assert mode & 0o077 == 0 or path.parent != root
        elif not path.is_symlink():
            executable = path.is_dir() or path.name in ("run", "walk")
            assert mode == (0o755 if executable else 0o644), path


def test_a_root_behind_links(go, tmp_path):
    (tmp_path / "real/place").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "link/root").symlink_to(tmp_path / "real/place")
    go(tmp_path / "link/root")
    assert (tmp_path / "link/root").is_symlink()
    assert (tmp_path / "real/place/current").is_dir()


def test_a_root_that_may_not_be_changed(site, origin, tmp_path):
    (tmp_path / "root").mkdir()
    call("chattr", "+i", tmp_path / "root")
    try:
        done = site.fails(6, "install", OLD, "--from", origin.store, "--root", tmp_path / "root")
        assert "not permitted" in done.err
        assert str(tmp_path / "root") in done.err
        assert os.listdir(tmp_path / "root") == []
    finally:
        call("chattr", "-i", tmp_path / "root")
    site.ok("install", OLD, "--from", origin.store, "--root", tmp_path / "root")


def test_a_root_that_is_a_file(site, origin, tmp_path):
    (tmp_path / "root").write_text("precious")
    done = site.run("install", OLD, "--from", origin.store, "--root", tmp_path / "root")
    assert done.code in (2, 6, 7)
    assert "root" in done.err
    assert (tmp_path / "root").read_text() == "precious"


@pytest.fixture
def clock(tmp_path):
    return Clock(tmp_path / "clock")


def test_the_clock_that_these_tests_use_jumps(clock):
    for years in (2, -2):
        clock.set(f"{years:+}y")
        shown = call("env", *clock.before[1:], "date", "+%s").stdout
        assert abs(int(shown) - time.time() - years * 365 * 86_400) < 3 * 86_400


def jumping(clock: Clock, moments, done: Callable[[], bool]):
    """Let the clock jump until it is done."""
    while not done():
        clock.set(moments.choice(JUMPS))
        time.sleep(0.1)
    clock.set("+0")


def test_the_clock_jumps_during_an_install(site, origin, root, clock):
    moments = seeded("clock")
    with origin.site.serving(origin.store) as url, slowed(url, bytes_per_second=12 * trees.MIB) as slow:
        words = ("install", OLD, "--from", slow, "--root-keys", origin.root_keys, "--root", root)
        site.ok("list", *words[2:6])
        for _ in range(3):
            process = site.start(*words, before=clock.before)
            time.sleep(1)  # its catalog is verified with the right time
            begun = time.monotonic()
            length = moments.uniform(0.3, 1.5)
            jumping(clock, moments, lambda: process.poll() is not None or time.monotonic() > begun + length)  # noqa: B023
            process.send_signal(signal.SIGKILL)
            process.communicate()
        process = site.start(*words, before=clock.before)
        time.sleep(1)
        jumping(clock, moments, lambda: process.poll() is not None)
        done = Outcome.of(process, timeout=60)
    assert done.code == 0, done.err
    trees.assert_same(root / "releases" / OLD, origin.old)
    assert os.listdir(root / ".pacball/staging") == []
    assert site.ok("verify", OLD, "--root", root)["intact"] is True


@pytest.mark.parametrize("jump", ["-1y", "-1h", "+1h", "+1y"])
def test_the_clock_jumps_between_commands(site, origin, root, clock, jump):
    command = lambda release: ("install", release, "--from", origin.store, "--root", root)  # noqa: E731
    site.ok(*command(OLD))
    # What was begun at the right time goes on at a wrong one. A catalog is believed as of then, or refused as expired or too new.
    process = site.start(*command(NEW))
    time.sleep(0.8)
    process.kill()
    process.communicate()
    clock.set(jump)
    done = site.run(*command(NEW), before=clock.before)
    assert done.code in (0, 8), done.err
    if done.code == 8:
        assert "expired" in done.err or "clock" in done.err + done.json["hint"]
        site.ok(*command(NEW))
    assert current(root) == NEW
    trees.assert_same(root / "releases" / NEW, origin.new)
    site.ok("rollback", "Stack", "--root", root, before=clock.before)
    assert current(root) == OLD
    site.ok(*command(NEW))
    pruned = site.run("prune", "--keep", "0", "--root", root, before=clock.before)
    assert pruned.code == 0, pruned.err
    # Nothing goes before its time by a clock that was set back, and what is current never goes.
    assert {NEW} <= set(os.listdir(root / "releases"))
    if jump != "+1y":
        assert OLD in os.listdir(root / "releases")
    for line in (root / ".pacball/history.jsonl").read_text().splitlines():
        json.loads(line)


def test_trash_that_cannot_be_deleted_keeps_nothing_else_from_being_done(site, origin, root):
    for release in (OLD, NEW):
        site.ok("install", release, "--from", origin.store, "--root", root)
    trash = root / ".pacball/trash"
    trash.mkdir(exist_ok=True)
    with memory_volume(trash, "size=1m"):
        done = site.run("remove", OLD, "--grace", "0", "--root", root)
        assert done.code == 0
        assert f"{trash / 'tmpfs'}: something in it cannot be deleted" in done.err
        assert os.listdir(root / "releases") == [NEW]
        assert site.run("prune", "--keep", "0", "--root", root).code == 0
        site.ok("install", OLD, "--from", origin.store, "--root", root)
    assert site.run("prune", "--keep", "1", "--root", root).err == ""
    assert os.listdir(trash) == []
