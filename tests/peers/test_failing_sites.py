"""Install roots on disks that fill up or fail at random points: a clear error, nothing wrong to be seen, and then it goes on."""

from __future__ import annotations

import contextlib
import itertools
import os

import pytest

from tests.e2e import trees
from tests.e2e.site import Outcome, wait_until
from tests.peers.conftest import NEW, OLD
from tests.peers.injection import counted, counting, injecting
from tests.peers.programs import call
from tests.peers.volumes import memory_volume
from tests.seeds import seeded

REASONS = {
    "ENOSPC": "no space left on device",
    "EDQUOT": "disk quota exceeded",
    "EIO": "input/output error",
    "EROFS": "read-only file system",
    "EACCES": "permission denied",
}
CALLS = {
    "pwrite64": ("ENOSPC", "EDQUOT", "EIO"),
    "mkdirat": ("ENOSPC", "EDQUOT", "EROFS"),
    "renameat": ("ENOSPC", "EIO", "EACCES"),
    "symlinkat": ("ENOSPC", "EDQUOT"),
    "linkat": ("EIO", "ENOSPC"),
    "fsync": ("EIO", "ENOSPC", "EDQUOT"),
    "syncfs": ("EIO", "ENOSPC"),
    "fchmod": ("EIO", "EROFS"),
    "utimensat": ("EIO",),
    "unlinkat": ("EIO",),
    "ftruncate": ("ENOSPC", "EIO"),
}
FILLED = 3


def check_root(root, origin, *, before=()):
    """Nothing wrong can be seen, and all releases that were there `before` are."""
    published = {OLD: origin.old, NEW: origin.new}
    present = os.listdir(root / "releases") if (root / "releases").exists() else []
    assert set(before) <= set(present)
    for release in present:
        trees.assert_same(root / "releases" / release, published[release])
    current = root / "current/Stack/x86_64-linux"
    if current.is_symlink():
        assert os.path.basename(os.readlink(current)) in present


def go_on(site, origin, words, root):
    """The same command goes on, and nothing stays behind."""
    again = site.ok(*words)
    trees.assert_same(root / "releases" / words[1], {OLD: origin.old, NEW: origin.new}[words[1]])
    assert again["already_installed"] or os.listdir(root / ".pacball/staging") == []


@pytest.mark.peers
@pytest.mark.timeout(300)
def test_the_nth_call_fails(site, origin, tmp_path):
    moments = seeded("failing calls")
    template = tmp_path / "template"
    site.ok("install", OLD, "--from", origin.store, "--root", template)
    words = lambda root: ("install", NEW, "--from", origin.store, "--root", root)  # noqa: E731
    call("cp", "-a", template, tmp_path / "counted")
    site.ok(*words(tmp_path / "counted"), before=counting(list(CALLS), tmp_path / "log"))
    failures = 0
    for name, most in counted(tmp_path / "log").items():
        error = moments.choice(CALLS[name])
        number = moments.randint(1, most)
        root = tmp_path / f"{name}-{number}"
        call("cp", "-a", template, root)
        done = site.run(*words(root), before=injecting(name, f"error={error}", number))
        assert done.code in (0, 6), (name, error, number, done.err)
        if done.code:
            failures += 1
            assert REASONS[error] in done.err.lower(), (name, error, number, done.err)
            assert done.json["hint"]
        check_root(root, origin, before=[OLD])
        go_on(site, origin, words(root), root)
        call("rm", "-r", root)
    assert failures


def used_bytes(path):
    """How many bytes of a file system are taken."""
    found = os.statvfs(path)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def used_inodes(path):
    """How many inodes of a file system are taken."""
    found = os.statvfs(path)
    return found.f_files - found.f_ffree


def take_all_bytes(where):
    """Fill a file until there is no room."""
    with (where / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while True:
            ballast.write(bytes(trees.MIB))


def take_all_inodes(where):
    """Make files until there are no inodes."""
    with contextlib.suppress(OSError):
        for number in itertools.count():
            (where / str(number)).touch()


@pytest.mark.root
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("options", "used", "most", "take_all"),
    [
        ("size=200m", used_bytes, 70 * trees.MIB, take_all_bytes),
        ("size=300m,nr_inodes=2000", used_inodes, 200, take_all_inodes),
    ],
    ids=["bytes", "inodes"],
)
def test_others_fill_the_disk_meanwhile(site, origin, tmp_path, options, used, most, take_all):
    moments = seeded(options)
    with memory_volume(tmp_path, options) as disk:
        for number in range(FILLED):
            root, others = disk / f"root{number}", disk / f"others{number}"
            others.mkdir()
            words = ("install", OLD, "--from", origin.store, "--root", root)
            limit = moments.randrange(most)
            with site.start(*words) as process:
                wait_until(lambda: used(disk) > limit or process.poll() is not None)  # noqa: B023
                take_all(others)
                done = Outcome.of(process, timeout=60)
            assert done.code in (0, 6), done.err
            if done.code:
                assert "space" in done.err or "inodes free" in done.err
            check_root(root, origin)
            call("rm", "-r", others)
            go_on(site, origin, words, root)
            call("rm", "-r", root)


@pytest.mark.root
def test_too_small_a_disk_is_told_before_anything_begins(site, origin, tmp_path):
    moments = seeded("small disks")
    needed = site.ok("install", OLD, "--from", origin.store, "--root", tmp_path / "nowhere", "--plan")
    assert not (tmp_path / "nowhere").exists()
    for option in (f"size={moments.randrange(1, int(needed['disk_bytes']) >> 20)}m", "size=300m,nr_inodes=150"):
        with memory_volume(tmp_path, option) as disk:
            words = ("install", OLD, "--from", origin.store, "--root", disk / "root")
            plan = site.ok(*words, "--plan")
            assert plan["fits"] is False
            done = site.fails(6, *words)
            assert "nothing was begun" in done.json["hint"]
            assert str(plan["release"]) in done.err
            assert os.listdir(disk / "root/.pacball/staging") == []
        (tmp_path / "tmpfs").rmdir()
