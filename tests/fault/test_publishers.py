"""Real publishers that are killed at any moment, and that work at once in one store."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from pacstore.check import catalog_releases, check
from pacstore.progress import Silent
from pacstore.storage import ObjectKind
from pacstore.store import Store
from tests.seeds import seeded
from tests.store.releases import contents, make_tree, noise, originals, write

SCRIPT = Path(__file__).with_name("publisher.py")


class Publisher:
    """A process that publishes what it is told to."""

    def __init__(self, top: Path, process: subprocess.Popen[str]) -> None:
        self.top = top
        self._process = process

    def begin(self, directory: Path, release: str, kill_after: float = 0) -> None:
        """Tell it to publish, and to be killed after so many seconds; 0 is never."""
        self._process.stdin.write(f"{directory} {release} {kill_after}\n")
        self._process.stdin.flush()

    def end(self) -> tuple[list[str], int]:
        """What was acknowledged until it ended, and its exit status; negative for the signal that killed it."""
        acknowledged = []
        while True:
            what, value = self._process.stdout.readline().split()
            if what == "done":
                return acknowledged, int(value)
            acknowledged.append(value)

    def publish(self, directory: Path, release: str, kill_after: float = 0) -> tuple[list[str], int]:
        """Begin, and await the end."""
        self.begin(directory, release, kill_after)
        return self.end()


@contextmanager
def publisher(top: Path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "XDG_CONFIG_HOME": str(top / "config")}
    command = [sys.executable, str(SCRIPT), str(top / "store"), str(top / "keys")]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True, env=environment) as process:
        try:
            yield Publisher(top, process)
        finally:
            process.stdin.close()
            process.wait()


def inspect(top: Path, trees: dict[str, Path], acknowledged: set[str]) -> None:
    """The store opens, has no unfinished file in public, lists what was acknowledged, and is sound.

    `trees`: what may be listed, and the directories that it came from.
    """
    assert [path for path in (top / "store/public").rglob("*") if path.suffix == ".tmp"] == []
    with Store.open(top / "store", writable=False) as store:
        releases = catalog_releases(store)
        assert acknowledged <= {str(entry.release) for entry in releases}
        assert check(store, releases, progress=Silent()).damage == []
        for entry in releases:
            assert contents(store, entry) == originals(trees[str(entry.release)])


def stored_packs(top: Path) -> set[str]:
    return {path.name for path in (top / "store/public/packs").rglob("*") if path.is_file()}


@pytest.mark.slow
def test_publishers_killed_at_any_moment_lose_nothing(tmp_path):
    rng = seeded("publish")
    old = make_tree(tmp_path / "old", version="0", kib=3_000)
    for number in range(40):
        write(old / f"more/f{number:02}", noise(f"more {number}", 700_000))
    trees, acknowledged = {"Kill-0-any": old}, {"Kill-0-any"}
    kills = version = 0
    seconds = 0.2
    with publisher(tmp_path) as process:
        assert process.publish(old, "Kill-0-any") == (["Kill-0-any"], 0)
        while kills < 22:
            version += 1
            name = f"Kill-{version}-any"
            trees[name] = next_version(old, tmp_path / f"{version}", version)
            for _ in range(4):
                finished, status = process.publish(trees[name], name, rng.uniform(0.001, seconds))
                acknowledged |= set(finished)
                kills += status == -signal.SIGKILL
                # As long as this machine needs, more or less: so that every moment has its turn.
                seconds *= 0.7 if finished else 1.3
            before = stored_packs(tmp_path)
            assert process.publish(trees[name], name) == ([name], 0)
            acknowledged.add(name)
            assert before <= stored_packs(tmp_path)
            if version % 3 == 0:
                inspect(tmp_path, trees, acknowledged)
        inspect(tmp_path, trees, acknowledged)


def next_version(old: Path, new: Path, version: int) -> Path:
    """A tree of which a third is new."""
    shutil.copytree(old, new, symlinks=True)
    for number in range(version % 3, 40, 3):
        write(new / f"more/f{number:02}", noise(f"new {version} {number}", 700_000))
    return new


@pytest.mark.slow
def test_a_store_whose_first_publisher_was_killed_at_any_moment_is_usable(tmp_path):
    """Making the store, its catalog and its keys is interrupted, too."""
    tree = make_tree(tmp_path / "tree", kib=100)
    rng = seeded("first publish")
    kills = number = 0
    seconds = 0.1
    while kills < 5:
        top = tmp_path / f"{number}"
        top.mkdir()
        with publisher(top) as process:
            finished, status = process.publish(tree, "First-1-any", rng.uniform(0.001, seconds))
            kills += status == -signal.SIGKILL
            seconds *= 0.7 if finished else 1.3
            assert process.publish(tree, "First-1-any") == (["First-1-any"], 0)
        inspect(top, {"First-1-any": tree}, {"First-1-any"})
        number += 1


@pytest.mark.parametrize("same", [True, False])
def test_publishers_at_once_in_one_store(tmp_path, same):
    """Two processes publish six releases each, of the same names or of others, into a store that neither has made."""
    trees = {}
    with publisher(tmp_path) as one, publisher(tmp_path) as two:
        for round_number in range(6):
            tree = make_tree(tmp_path / f"tree{round_number}", version=f"{round_number}", kib=600)
            names = [f"Same-{round_number}-any"] * 2 if same else [f"Line{who}-{round_number}-any" for who in (1, 2)]
            for process, name in zip((one, two), names, strict=True):
                process.begin(tree, name)
                trees[name] = tree
            assert [process.end() for process in (one, two)] == [([name], 0) for name in names]
    inspect(tmp_path, trees, set(trees))
    with Store.open(tmp_path / "store", writable=False) as store:
        assert len(list(store.storage.digests(ObjectKind.PACK))) == len(store.index.packs())


@pytest.mark.slow
def test_of_two_publishers_of_one_name_with_other_trees_one_wins(tmp_path):
    trees = [make_tree(tmp_path / f"{n}", version=f"{n}", kib=600) for n in (1, 2)]
    won = {}
    with publisher(tmp_path) as one, publisher(tmp_path) as two:
        for number in range(6):
            name = f"Race-{number}-any"
            for process, tree in zip((one, two), trees, strict=True):
                process.begin(tree, name)
            ends = [process.end() for process in (one, two)]
            winners = [tree for tree, (acknowledged, _) in zip(trees, ends, strict=True) if acknowledged]
            assert len(winners) == 1
            won[name] = winners[0]
    inspect(tmp_path, won, set(won))
