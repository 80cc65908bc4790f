"""A mirror whose disk is full or fails passes on what it fetches; it says so, and keeps again when it can."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from pacmirror.cache.filler import Filler
from pacmirror.config import UpstreamConfig
from pacmirror.limits import CacheLimits
from pacmirror.upstream import Upstream
from pacstore.errors import Unavailable
from pacstore.partial import PartialPacks
from pacstore.store import Store
from tests.mirror.mirrors import files_of, run, until
from tests.mirror.mischief import serving
from tests.store.packs import noise_pack

PACK = noise_pack(40, 30_000)
OTHER = noise_pack(5, 30_000, seed="other")
FILES = files_of(PACK, OTHER)


class Disk:
    """Partial packs on a disk that is `full`: nothing can be begun, or nothing written, or nothing synced."""

    def __init__(self, inner):
        self.inner = inner
        self.full = ""

    def open(self, pack):
        return File(self.inner.open(pack), self)

    def begin(self, pack, table):
        self.fail("begin")
        return File(self.inner.begin(pack, table), self)

    def fail(self, step):
        if self.full == step:
            raise Unavailable("no space left on device", place="the disk")

    def __getattr__(self, name):
        return getattr(self.inner, name)


class File:
    def __init__(self, inner, disk):
        self.inner = inner
        self.disk = disk

    def write_verified(self, number, data):
        self.disk.fail("write")
        self.inner.write_verified(number, data)

    def write(self, number, data):
        self.disk.fail("write")
        self.inner.write(number, data)

    def publish(self):
        self.disk.fail("publish")
        self.inner.publish()

    def __getattr__(self, name):
        return getattr(self.inner, name)


@contextlib.asynccontextmanager
async def filling(tmp_path, origin, **limits):
    store = Store.create(tmp_path / "mirror")
    disk = Disk(PartialPacks(store.private, store.storage))
    upstream = Upstream(UpstreamConfig(urls=(origin.url,)))
    filler = Filler(disk, store.storage, upstream, limits=CacheLimits(disk_retry_seconds=0.2, **limits))
    await filler.start()
    try:
        yield filler, disk, store
    finally:
        filler.stop()
        await filler.end()


async def read_through(filler):
    """What a client would be sent of the whole pack, one frame after another."""
    data = bytearray()
    async with filler.filling(PACK.id) as one:
        filler.ask(one, range(40))
        for number in range(40):
            await filler.wait(one, number, urgent=True)
            frame = one.bytes_in_memory(one.frames.begin(number), one.frames.begin(number + 1))
            if not frame:
                with one.partial.open_file() as file:
                    file.seek(one.frames.begin(number))
                    frame = file.read(one.frames.length(number))
            data += frame
    return bytes(data)


FRAMES = PACK.data[8 : PACK.frames.begin(40)]


@pytest.mark.parametrize("step", ["begin", "write"])
def test_frames_pass_through_within_bounds(tmp_path, step, caplog):
    async def work():
        async with filling(tmp_path, origin, memory_bytes=150_000) as (filler, disk, _):
            disk.full = step
            assert await asyncio.gather(*(read_through(filler) for _ in range(5))) == [FRAMES] * 5
            status = filler.status()
            assert status["memory_held_bytes"] <= 150_000
            assert status["disk"] == "the disk: no space left on device"
            assert "are passed on and not kept" in filler.warnings()[0]
            with pytest.raises(Unavailable, match="no space"):
                await filler.fetch(PACK.id)

    with serving(FILES) as origin:
        run(work)
    told = [record for record in caplog.records if "not kept" in record.message]
    assert len(told) == 1


@pytest.mark.parametrize("step", ["begin", "write"])
def test_when_there_is_room_again_packs_are_kept_again(tmp_path, step, caplog):
    async def work():
        async with filling(tmp_path, origin) as (filler, disk, store):
            disk.full = step
            assert await read_through(filler) == FRAMES
            disk.full = ""
            await asyncio.sleep(0.25)
            await filler.fetch(PACK.id)
            assert (store.public / PACK.path).read_bytes() == PACK.data
            assert filler.status()["disk"] == ""
            assert filler.status()["memory_held_bytes"] == 0
            assert filler.warnings() == []

    with serving(FILES) as origin:
        run(work)
    assert "can be written to the disk again" in caplog.text


@pytest.mark.parametrize("is_read", [False, True])
def test_what_was_to_be_mirrored_on_a_full_disk_is_when_there_is_room_though_nothing_else_is_asked_for(
    tmp_path, is_read
):
    """Also while a client keeps on reading that very pack from memory."""

    async def work():
        async with filling(tmp_path, origin) as (filler, disk, store), contextlib.AsyncExitStack() as reading:
            disk.full = "begin"
            with pytest.raises(Unavailable, match="no space"):
                await filler.fetch(PACK.id)
            if is_read:
                await reading.enter_async_context(filler.filling(PACK.id))
            disk.full = ""
            await asyncio.sleep(0.25)
            await filler.fetch(PACK.id)
            assert (store.public / PACK.path).read_bytes() == PACK.data
            assert filler.status()["disk"] == ""
            await reading.aclose()
            await until(lambda: not filler.status()["filling"] and not filler.status()["queued"])
            assert filler.status()["under_way"] == 0

    with serving(FILES) as origin:
        run(work)


def test_a_pack_that_was_opened_on_a_full_disk_is_kept_though_a_client_still_reads_it(tmp_path):
    """Otherwise whoever needs it on disk fetches one frame again and again, for ever."""

    async def work():
        async with filling(tmp_path, origin) as (filler, disk, store):
            disk.full = "begin"
            async with filler.filling(PACK.id) as one:
                filler.ask(one, range(2))
                await filler.wait(one, 0, urgent=True)
                disk.full = ""
                await asyncio.sleep(0.25)
                await filler.fetch(OTHER.id)
                await filler.fetch(PACK.id)
                assert (store.public / PACK.path).read_bytes() == PACK.data
                await filler.wait(one, 39, urgent=True)

    with serving(FILES) as origin:
        run(work)
    assert origin.bytes_sent < 2 * len(PACK.data)


def test_a_pack_that_cannot_be_made_durable_is_not_public(tmp_path):
    async def work():
        async with filling(tmp_path, origin) as (filler, disk, store):
            disk.full = "publish"
            with pytest.raises(Unavailable, match="no space"):
                await filler.fetch(PACK.id)
            assert not (store.public / PACK.path).exists()
            disk.full = ""
            await asyncio.sleep(0.25)
            await filler.fetch(PACK.id)
            assert (store.public / PACK.path).read_bytes() == PACK.data

    with serving(FILES) as origin:
        run(work)


def test_nothing_is_fetched_that_nobody_waits_for_while_the_disk_is_full(tmp_path):
    async def work():
        async with filling(tmp_path, origin, ahead_frames=2) as (filler, disk, _):
            disk.full = "begin"
            async with filler.filling(PACK.id) as one:
                filler.ask(one, range(40))
                await filler.wait(one, 0, urgent=True)
            await until(lambda: not filler.status()["under_way"])

    with serving(FILES) as origin:
        run(work)
    assert origin.bytes_sent < 64 * 1024 + 4 * 30_000


def test_what_was_wanted_before_an_hour_at_which_nothing_is_fetched_comes_all_the_same(tmp_path):
    async def work():
        async with filling(tmp_path, origin, ahead_frames=2) as (filler, disk, _):
            disk.full = "begin"
            async with filler.filling(PACK.id) as one:
                filler.ask(one, range(40))
                await filler.wait(one, 0, urgent=True)
                await until(lambda: not filler.status()["under_way"])
                filler._upstream.is_closed = True
                await filler.wait(one, 20, urgent=True)

    with serving(FILES) as origin:
        run(work)


@pytest.mark.parametrize("step", ["begin", "write"])
def test_what_is_in_memory_is_kept_as_soon_as_there_is_room(tmp_path, step):
    async def work():
        async with filling(tmp_path, origin) as (filler, disk, store):
            disk.full = step
            assert await read_through(filler) == FRAMES
            sent, disk.full = origin.bytes_sent, ""
            await asyncio.sleep(0.25)
            assert await read_through(filler) == FRAMES
            await until((store.public / PACK.path).exists)
            return origin.bytes_sent - sent

    with serving(FILES) as origin:
        assert run(work) < 70_000  # the table
