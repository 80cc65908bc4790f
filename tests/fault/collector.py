"""Collects as `pacball store gc --grace 0` does, over and over: run as `collector.py STORE SEED [KEYS]`, until its input ends.

Each collection is done by a child of its own, and every other one is killed somewhere. Withdrawn releases are dropped first.
With the directory of the catalog's keys, what is mostly dead is repacked before each collection.
"""

from __future__ import annotations

import os
import random
import select
import signal
import sys
import time
from pathlib import Path

from paccli.keychain import open_catalog
from pacstore.check import catalog_releases
from pacstore.errors import Unavailable
from pacstore.housekeeping import drop_holdings, retention_rules
from pacstore.limits import KIB, PackSizes
from pacstore.progress import Silent
from pacstore.repack.repacking import RepackOptions, repack
from pacstore.store import Store
from pacstore.sweep.collection import collect


def main() -> None:
    store, chance = Path(sys.argv[1]), random.Random(sys.argv[2])
    keys = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    rounds = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        child = os.fork()
        if child == 0:
            work(store, keys)
            os._exit(0)
        if rounds % 2:
            time.sleep(chance.uniform(0, 0.15))
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, -signal.SIGKILL), status
        rounds += 1
    os.write(1, f"{rounds}\n".encode())


def work(store: Path, keys: Path | None) -> None:
    now = time.time() + 60
    with Store.open(store, writable=True) as opened:
        storage = opened.storage
        drop_holdings(storage, catalog_releases(opened), retention_rules(storage), now=now, grace_seconds=0)
        if keys is not None:
            repack_all(opened, keys)
        try:
            report = collect(opened, opened.ledger, now=now, grace_seconds=0)
        except Unavailable:  # somebody else writes for too long
            return
        assert report.failed == []


def repack_all(store: Store, keys: Path) -> None:
    catalog, ring = open_catalog(store, keys)
    options = RepackOptions(0.9, PackSizes(256 * KIB, 1024 * KIB))
    report = repack(store, catalog, keys=ring, options=options, progress=Silent(), now=time.time)
    assert report.failed == []


if __name__ == "__main__":
    main()
