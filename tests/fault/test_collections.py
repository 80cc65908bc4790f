"""Real publishers beside real collections without any grace, all of them killed at any moment."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from paccli.keychain import open_or_create_catalog
from pacstore.check import catalog_releases, check
from pacstore.housekeeping import droppable_releases
from pacstore.progress import Silent
from pacstore.release import Release
from pacstore.store import Store
from pacstore.trust.targets import Withdrawal
from tests.fault.test_publishers import publisher
from tests.seeds import seeded
from tests.store.releases import contents, make_tree, noise, originals, write
from tests.store.sweeping import gc, marked

SCRIPT = Path(__file__).with_name("collector.py")


@contextmanager
def collector(top: Path, seed: object, *keys: Path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(SCRIPT), str(top / "store"), str(seed), *map(str, keys)]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True, env=environment) as process:
        yield process
        rounds, _ = process.communicate("end\n", timeout=60)
        assert process.returncode == 0
        assert int(rounds) > 1


def withdraw(top: Path, name: str) -> None:
    with Store.open(top / "store", writable=True) as store:
        catalog, ring = open_or_create_catalog(store, top / "keys", None, None, lambda _: None)
        catalog.withdraw(Release.parse(name), Withdrawal(int(time.time()), "bad"), ring, now=time.time())


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "repacks"), [(1, False), (2, False), (3, True)])
def test_fear_of_deletion_publishers_beside_collections_and_all_are_killed(tmp_path, seed, repacks):
    """restic#3806, #2473, kopia#4769: what a publisher relies on is not pruned beneath it, and nobody waits for a prune."""
    chance = seeded(f"collections {seed}")
    trees = {}
    shared = noise("shared by all", 600_000)
    for number in range(8):
        name = f"Demo-1.{number}-x"
        trees[name] = make_tree(tmp_path / name, version=str(number // 2), kib=300)
        write(trees[name] / "shared", shared)
        write(trees[name] / "own", noise(f"{number // 2}", 700_000))
    acknowledged: list[str] = []
    with publisher(tmp_path) as process:
        assert process.publish(trees["Demo-1.0-x"], "Demo-1.0-x") == (["Demo-1.0-x"], 0)
        acknowledged.append("Demo-1.0-x")
        with collector(tmp_path, seed, *([tmp_path / "keys"] if repacks else [])):
            for name in list(trees)[1:]:
                for _ in range(2):
                    acknowledged += process.publish(trees[name], name, chance.uniform(0.02, 0.4))[0]
                done, status = process.publish(trees[name], name)
                assert status == 0, "a publisher beside a collection failed"
                acknowledged += done
                if chance.random() < 0.6:
                    withdraw(tmp_path, acknowledged[-2])
    with Store.open(tmp_path / "store", writable=True) as store:
        for _ in range(3):
            gc(store, now=time.time() + 60)
        assert marked(store) == {}
        releases = catalog_releases(store)
        assert set(acknowledged) == {str(entry.release) for entry in releases} == set(trees)
        droppable = droppable_releases(releases, {}, now=time.time(), grace_seconds=0)
        assert check(store, releases, progress=Silent(), droppable=droppable).damage == []
        for entry in releases:
            if entry.withdrawal is None:
                assert contents(store, entry) == originals(trees[str(entry.release)])
        assert store.leases.live() == frozenset()
