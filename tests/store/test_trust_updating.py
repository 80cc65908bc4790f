"""The cache that clients share, and what those leave who are killed."""

import multiprocessing
import os
import signal
import tempfile
from pathlib import Path

import pytest

from pacstore.errors import Unavailable
from pacstore.trust.updating import LEFTOVER_SECONDS, locking
from tests.store.trust_world import World

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def age(path: Path, seconds: float) -> Path:
    before = path.stat().st_mtime - seconds
    os.utime(path, (before, before))
    return path


def leftovers(directory: Path) -> tuple[Path, Path]:
    """Temporary files as python-tuf and as pacstore call them."""
    descriptor, name = tempfile.mkstemp(dir=directory)
    os.close(descriptor)
    ours = directory / f"{os.urandom(16).hex()}.tmp"
    ours.touch()
    return Path(name), ours


def test_what_killed_clients_left_is_removed_after_a_while(world):
    world.open().releases()
    state = world.metadata_dir().parent
    places = [state, *(state / name for name in ("metadata", "floor", "clock", "seen"))]
    old = [age(path, LEFTOVER_SECONDS + 60) for place in places for path in leftovers(place)]
    new = [age(path, LEFTOVER_SECONDS - 60) for place in places for path in leftovers(place)]
    kept = [path for path in state.rglob("*") if path not in old]
    for path in kept:
        if path not in new and not path.is_symlink():
            age(path, 100 * LEFTOVER_SECONDS)
    world.open().releases()
    assert not [path for path in old if path.exists()]
    assert [path for path in kept if path.exists() or path.is_symlink()] == kept


def test_a_link_in_the_place_of_a_temporary_file_is_not_followed(world, tmp_path):
    world.open()
    precious = tmp_path / "precious"
    precious.touch()
    link = world.metadata_dir() / f"{'ab' * 16}.tmp"
    link.symlink_to(precious)
    before = precious.stat().st_mtime - 10 * LEFTOVER_SECONDS
    os.utime(link, (before, before), follow_symlinks=False)
    world.open()
    assert precious.exists()
    assert not link.is_symlink()


def _hold(path: str, held) -> None:
    with locking(Path(path), 5.0) as locked:
        held.send(locked)
        signal.pause()


def test_the_lock_of_a_killed_client_is_free(tmp_path):
    ours, theirs = SPAWN.Pipe()
    client = SPAWN.Process(target=_hold, args=(str(tmp_path / "lock"), theirs))
    client.start()
    try:
        assert ours.recv() is True
        with locking(tmp_path / "lock", 0.1) as locked:
            assert not locked
    finally:
        client.kill()
        client.join()
    with locking(tmp_path / "lock", 5.0) as locked:
        assert locked


def test_a_client_that_cannot_have_the_lock_leaves_the_cache_alone(world):
    world.open()
    (lock,) = world.state.glob("*/lock")
    with locking(lock, 0.0) as locked:
        assert locked
        before = {path: path.stat().st_mtime_ns for path in world.metadata_dir().rglob("*") if path.is_file()}
        assert world.open(lock_seconds=0.0).releases()
        after = {path: path.stat().st_mtime_ns for path in world.metadata_dir().rglob("*") if path.is_file()}
    assert before == after


def test_a_lock_that_cannot_be_made_is_unavailable(tmp_path):
    (tmp_path / "lock").mkdir()
    with pytest.raises(Unavailable), locking(tmp_path / "lock", 0.0):
        pass
