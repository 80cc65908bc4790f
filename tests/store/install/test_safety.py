"""Nothing is ever written through a symbolic link, and two installers do not harm each other."""

import contextlib
import errno
import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pacstore.errors import PacballError
from pacstore.install.options import InstallOptions
from pacstore.install.tree import directories
from pacstore.install.tree.directories import Directories, open_beneath, open_by_steps, open_directory
from pacstore.install.tree.paths import Paths
from tests.store.install.world import NAME, FakeSource, World, look, noise, put, tree_of

WAYS = [open_beneath, open_by_steps, open_directory]


@pytest.fixture
def top(tmp_path):
    (tmp_path / "top/a/b/c").mkdir(parents=True)
    (tmp_path / "outside/b").mkdir(parents=True)
    (tmp_path / "top/out").symlink_to(tmp_path / "outside")
    (tmp_path / "top/in").symlink_to("a")
    (tmp_path / "top/a/file").write_text("")
    descriptor = os.open(tmp_path / "top", os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize("way", WAYS)
def test_a_directory_is_opened(way, top):
    descriptor = way(top, b"a/b")
    assert os.listdir(descriptor) == ["c"]
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("path", [b"out", b"out/b", b"in", b"in/b", b"a/file", b"a/none"])
def test_links_and_files_are_not_entered(way, top, path):
    with pytest.raises(OSError) as caught:
        way(top, path)
    assert caught.value.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENOENT, errno.EXDEV)


def test_where_openat2_is_missing(monkeypatch, top):
    def missing(*_):
        raise OSError(errno.ENOSYS, "missing")

    monkeypatch.setattr(directories, "open_beneath", missing)
    os.close(open_directory(top, b"a/b/c"))
    with pytest.raises(OSError):
        open_directory(top, b"out/b")


@pytest.mark.parametrize("way", WAYS)
def test_few_descriptors_are_enough(world, entry, tree, way):
    paths = Paths(tree_of(world, entry))
    descriptor = os.open(tree, os.O_RDONLY)
    opened = Directories(descriptor, paths, limit=2, open_path=way)
    before = len(os.listdir("/proc/self/fd"))
    for entry_number in list(paths.directories()) * 3:
        found = os.fstat(opened.open(entry_number))
        assert found.st_ino == (tree / os.fsdecode(paths.path(entry_number))).stat().st_ino
        assert len(os.listdir("/proc/self/fd")) <= before + 2
    opened.close()
    os.close(descriptor)
    assert len(os.listdir("/proc/self/fd")) == before - 1


def test_no_descriptors_are_left_open(entry, source, root):
    before = len(os.listdir("/proc/self/fd"))
    put(entry, source, root)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("limit", [2, 128])
def test_a_race_for_the_directories_of_an_attempt(tmp_path, limit):
    """Someone swaps directories of the tree being written with links to elsewhere: nothing ever arrives there."""
    tree, outside, root = tmp_path / "tree", tmp_path / "outside", tmp_path / "root"
    for number in range(300):
        (tree / f"d{number % 7}/e/f").mkdir(parents=True, exist_ok=True)
        (tree / f"d{number % 7}/e/f/{number}").write_bytes(noise(str(number), 300))
    (outside / "e/f").mkdir(parents=True)
    world = World(frame_bytes=3000)
    entry = world.publish(tree)
    stop = threading.Event()
    attacker = threading.Thread(target=swap, args=(root, outside, stop))
    attacker.start()
    failed = 0
    begun = time.monotonic()
    # On a busy machine the attacker needs more time to succeed once.
    while (passed := time.monotonic() - begun) < 2 or (not failed and passed < 60):
        try:
            put(entry, FakeSource(world), root, options=InstallOptions(range_bytes=3000, open_directories=limit))
        except PacballError:
            failed += 1
        release = root / "releases" / NAME
        with contextlib.suppress(FileNotFoundError):
            release.rename(tmp_path / f"done-{time.monotonic_ns()}")
    stop.set()
    attacker.join()
    assert failed
    assert sorted(path.relative_to(outside).as_posix() for path in outside.rglob("*")) == ["e", "e/f"]


def swap(root: Path, outside: Path, stop: threading.Event) -> None:
    number = 0
    while not stop.is_set():
        for tree in list(root.glob(".pacball/staging/*/tree")):
            for name in [f"d{number % 7}", f"d{number % 7}/e"]:
                number += 1
                if (tree / name).parent.is_symlink():
                    continue
                with contextlib.suppress(OSError):
                    (tree / name).rename(root / f"taken-{number}")
                    (tree / name).symlink_to(outside if "/" not in name else outside / "e")


def test_two_installers_at_once(world, tree, entry, root):
    done = []
    barrier = threading.Barrier(2)

    def run():
        barrier.wait()
        done.append(put(entry, FakeSource(world), root, options=InstallOptions(range_bytes=200_000)))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 2
    assert sorted(one.switched for one in done) in ([False, True], [True, True])
    assert look(root / "releases" / NAME) == look(tree)
    assert os.listdir(root / ".pacball/staging") == []


def test_another_installer_wins(world, tree, entry, root):
    def spoil(number, _piece, data):
        if number == 2:
            put(entry, FakeSource(world), root)
        return data

    done = put(entry, FakeSource(world, spoil), root)
    assert not done.switched
    assert look(done.path) == look(tree)
    # One that was killed between the end of its work and the end of its process leaves an attempt, which the next one sweeps.
    assert done.already_installed or os.listdir(root / ".pacball/staging") == []


CHILD = """
import pickle, sys, time
from pathlib import Path
from tests.store.install.world import FakeSource, put
from pacstore.install.options import InstallOptions
world, entry = pickle.load(open(sys.argv[1], "rb"))
def slow(number, piece, data):
    time.sleep(0.004)
    return data
print("ready", flush=True)
put(entry, FakeSource(world, slow), Path(sys.argv[2]), options=InstallOptions(range_bytes=100_000))
"""


def test_killed_at_any_moment(world, tree, entry, root, tmp_path):
    world.places.clear()
    (tmp_path / "world").write_bytes(pickle.dumps((world, entry)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = 0
    for attempt in range(10):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, tmp_path / "world", root], stdout=subprocess.PIPE, env=environment
        )
        with child:
            child.stdout.readline()
            time.sleep(0.035 * attempt)
            killed += child.poll() is None
            child.kill()
        sizes = [path.lstat().st_size for path in root.rglob("*") if path.is_file()]
        assert sum(sizes) < 2 * entry.total_bytes
    done = put(entry, FakeSource(world), root)
    assert killed
    assert look(done.path) == look(tree)
    assert os.readlink(root / "current/Sample/any") == f"../../releases/{NAME}"
    # One that was killed between the end of its work and the end of its process leaves an attempt, which the next one sweeps.
    assert done.already_installed or os.listdir(root / ".pacball/staging") == []
