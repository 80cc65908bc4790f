"""The catalog while it changes: many who ask at once, verification that takes long, and how often there is any."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from pacmirror.catalog import ServedCatalog
from pacmirror.config import Config
from pacmirror.files import PublicFiles
from tests.mirror.daemons import eventually, make_store, running
from tests.mirror.test_catalog import EAGER, STAMP
from tests.store.signed_catalog import SignedCatalog


@pytest.fixture
def catalog():
    return SignedCatalog("Demo", "Other")


@pytest.fixture
def store(tmp_path, catalog):
    return make_store(tmp_path, catalog)


def test_many_readers_during_changes_see_whole_states_and_only_newer_ones(store, catalog):
    known = {catalog.stamp: 1}
    stop = threading.Event()

    def read(daemon):
        seen = []
        while not stop.is_set():
            seen.append(daemon.get(STAMP))
        return seen

    with running(store, replace(EAGER, catalog_wait_seconds=0.01)) as daemon, ThreadPoolExecutor(8) as pool:
        readers = [pool.submit(read, daemon) for _ in range(8)]
        for number in range(12):
            bad = number % 4 == 2
            catalog.sign_with = {"line-Demo": catalog.keys["line-Other"]} if bad else {}
            catalog.commit("line-Demo", "placement-Demo")
            catalog.write(store / "public")
            if not bad:
                known[catalog.stamp] = catalog.version
            time.sleep(0.05)
        eventually(lambda: daemon.get(STAMP) == catalog.stamp)
        stop.set()
        seen = [reader.result() for reader in readers]
    for stamps in seen:
        versions = [known[stamp] for stamp in stamps]
        assert versions == sorted(versions)
    assert len({stamp for stamps in seen for stamp in stamps}) > 1


def test_a_large_line_is_verified_while_the_state_before_is_served(store, catalog):
    with running(store, replace(EAGER, catalog_wait_seconds=0)) as daemon:
        eventually(lambda: daemon.request(STAMP)[0] == 200)
        old = daemon.get(STAMP)
        catalog.fill("Demo", 4000)
        catalog.commit("line-Demo", "placement-Demo")
        catalog.write(store / "public")
        seen = []
        eventually(lambda: seen.append(daemon.get(STAMP)) or seen[-1] == catalog.stamp)
    assert seen[0] == old
    assert set(seen) == {old, catalog.stamp}


class Counting(PublicFiles):
    """Counts how often the timestamp is read, which is how often the catalog is verified; each takes a while."""

    def __init__(self, config):
        super().__init__(config)
        self.reads = 0
        self.reading = threading.Event()
        self.broken = False

    def read(self, path, *, limit):
        if path.endswith("/timestamp.json"):
            self.reads += 1
            self.reading.set()
            time.sleep(0.05)
        if self.broken and "line-" in path:
            raise RuntimeError("a fault of a library")
        return super().read(path, limit=limit)


def serving(store, limits, use):
    async def run():
        config = Config(store, limits=limits)
        files = Counting(config)
        served = ServedCatalog(config, files)
        await use(served, files)
        await served.close()

    asyncio.run(run())


def test_one_verification_serves_all_who_ask(store, catalog):
    async def use(served, files):
        assert set(await asyncio.gather(*(served.timestamp() for _ in range(50)))) == {catalog.stamp}
        assert files.reads == 1
        catalog.commit("line-Demo")
        catalog.write(store / "public")
        assert set(await asyncio.gather(*(served.timestamp() for _ in range(50)))) == {catalog.stamp}
        assert files.reads == 2
        await served.look()
        assert files.reads == 2

    serving(store, EAGER, use)


def test_what_was_committed_before_the_request_is_waited_for_behind_an_older_verification(store, catalog):
    async def use(served, files):
        first = asyncio.create_task(served.timestamp())
        await asyncio.to_thread(files.reading.wait)
        catalog.commit("line-Demo")
        catalog.write(store / "public")
        assert await served.timestamp() == catalog.stamp
        await first
        assert files.reads <= 3

    serving(store, EAGER, use)


def test_however_often_the_catalog_changes_it_is_verified_seldom(store, catalog):
    async def use(served, files):
        old = await served.timestamp()
        for _ in range(20):
            catalog.stamp_again()
            catalog.write(store / "public")
            assert await served.timestamp() == old
        assert files.reads == 1

    serving(store, replace(EAGER, catalog_pause_seconds=300, catalog_wait_seconds=0.01), use)


def test_a_fault_that_nobody_thought_of_does_not_end_it(store, catalog):
    async def use(served, files):
        good = await served.timestamp()
        files.broken = True
        catalog.commit("line-Demo")
        catalog.write(store / "public")
        assert await served.timestamp() == good
        assert "RuntimeError" in served.standing.fault
        files.broken = False
        for _ in range(1000):
            await asyncio.sleep(0.02)
            if await served.timestamp() != good:
                break
        assert (await served.timestamp(), served.standing.fault) == (catalog.stamp, "")

    serving(store, EAGER, use)
