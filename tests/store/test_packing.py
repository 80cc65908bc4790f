from __future__ import annotations

import threading
import time
import tracemalloc
from contextlib import closing

import pytest
from blake3 import blake3

from pacstore import codec
from pacstore.backends.memory import MemoryStorage
from pacstore.errors import Corrupt, Unavailable
from pacstore.frames import FrameReader
from pacstore.index import ChunkIndex
from pacstore.limits import KIB, MIB, PackSizes
from pacstore.pack import read_table
from pacstore.packing import Packer, PackingOptions
from pacstore.storage import ObjectKind
from tests.contract.faulty import FaultyStorage, Killed, disk_full, killed
from tests.store.releases import OPTIONS, noise, prose


@pytest.fixture
def index(tmp_path):
    with closing(ChunkIndex(tmp_path / "index.sqlite")) as index:
        yield index


def chunks(count, size=40_000, seed="", fill=noise):
    datas = [fill(f"{seed} {n}", size + n % 1000) for n in range(count)]
    return [(blake3(data).digest(), data) for data in datas]


def pack(storage, index, items, options=OPTIONS):
    with Packer(storage, index, options) as packer:
        places = [packer.add(chunk_id, data) for chunk_id, data in items]
        packer.finish()
    return packer, places


def tables(storage):
    found = {}
    for digest in storage.digests(ObjectKind.PACK):
        with closing(storage.open(ObjectKind.PACK, digest)) as file:
            found[digest] = read_table(file, place=str(digest))
    return found


def workers():
    return [t for t in threading.enumerate() if t.name.startswith(("compress", "finish"))]


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("fill", [noise, prose])
def test_chunks_come_back_from_where_the_packer_said(index, threads, fill):
    storage, items = MemoryStorage(), chunks(60, fill=fill)
    packer, places = pack(storage, index, items, PackingOptions(level=1, threads=threads, sizes=OPTIONS.sizes))
    frames = {place.number: place for place in index.frames(packer.index_numbers)}
    with closing(FrameReader(storage)) as reader:
        for (chunk_id, data), place in zip(items, places, strict=True):
            where = frames[packer.index_numbers[place.frame]]
            assert reader.plain(where.pack, where.frame)[place.offset : place.offset + len(data)] == data
            assert index.find([chunk_id])[chunk_id].frame == where.number
    assert packer.stored_bytes == sum(storage.size(ObjectKind.PACK, pack) for pack in storage.digests(ObjectKind.PACK))


def test_frames_and_packs_keep_order_and_size(index):
    storage, items = MemoryStorage(), chunks(60)
    packer, places = pack(storage, index, items)
    assert [place.frame for place in places] == sorted(place.frame for place in places)
    found = tables(storage)
    assert len(found) == 4
    assert all(t.plain_lengths.max() < 128 * KIB + 41_000 for t in found.values())
    in_order = [place.pack for place in index.frames(packer.index_numbers)]
    ids = b"".join(found[p].chunk_ids.tobytes() for p in dict.fromkeys(in_order))
    assert ids == b"".join(chunk_id for chunk_id, _ in items)


def test_a_frame_has_at_most_4096_chunks(index):
    storage = MemoryStorage()
    pack(storage, index, chunks(9000, 1, fill=lambda seed, _: seed.encode()))
    (table,) = tables(storage).values()
    assert [int(b - a) for a, b in zip(table.first_chunks, table.first_chunks[1:], strict=False)] == [4096, 4096, 808]


def test_packs_of_small_chunks_end_before_they_fill_the_memory(index):
    storage = MemoryStorage()
    items = chunks(70_000, 1, fill=lambda seed, _: seed.encode())
    packer, _ = pack(storage, index, items, PackingOptions(level=1))
    assert sorted(len(t.chunk_ids) for t in tables(storage).values()) == [70_000 % 16_384, *[16_384] * 4]
    assert len(packer._known) == 0


def test_nothing_added_makes_nothing(index):
    storage = MemoryStorage()
    packer, _ = pack(storage, index, [])
    assert (storage.files, packer.stored_bytes, index.counts()) == ({}, 0, (0, 0, 0))


def test_what_is_found_without_the_index_is_forgotten_when_the_index_knows_it(index):
    items = chunks(80)
    with Packer(MemoryStorage(), index, OPTIONS) as packer:
        for chunk_id, data in items:
            packer.add(chunk_id, data)
            assert packer.find(chunk_id) is not None
        for chunk_id, _ in items:
            assert packer.find(chunk_id) is not None or chunk_id in index.find([chunk_id])
        assert len(packer._known) < 70
        packer.finish()
        assert packer._known == {}


def test_a_chunk_stored_again_is_not_forgotten_with_its_first_pack(index):
    first, *others = chunks(80)
    with Packer(MemoryStorage(), index, OPTIONS) as packer:
        packer.add(*first)
        for item in others:
            packer.add(*item)
        again = packer.add(*first)
        assert packer.find(first[0]) == again
        for item in chunks(14, seed="more"):
            packer.add(*item)
        assert packer.find(first[0]) == again
        packer.finish()
        place = index.find([first[0]])[first[0]]
        assert place.frame == packer.index_numbers[again.frame]


def test_chunks_keep_no_larger_memory_alive(index):
    """Of every segment of 4 MiB that was read, one small chunk is new."""
    with Packer(MemoryStorage(), index, PackingOptions(level=1)) as packer:
        tracemalloc.start()
        try:
            for number in range(40):
                segment = memoryview(bytes([number]) * (4 * MIB))
                packer.add(blake3(b"%d" % number).digest(), segment[: 20 * KIB])
            del segment
            assert tracemalloc.get_traced_memory()[0] < 8 * MIB
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("call", ["stage", "write", "publish"])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_an_error_of_the_disk_reaches_the_caller_and_leaves_nothing_half_done(index, call, at):
    storage = MemoryStorage()
    faulty = FaultyStorage(storage, at, disk_full, only=(call,))
    with pytest.raises(Unavailable, match=r"no space left.*free some space"):
        pack(faulty, index, chunks(60))
    assert workers() == []
    good = set(tables(storage))
    assert {digest for digest, _ in index.packs()} == good
    pack(storage, index, chunks(60))
    assert good <= set(tables(storage))


def interrupted(storage, index, error):
    with Packer(storage, index, OPTIONS) as packer:
        for item in chunks(60):
            packer.add(*item)
        raise error


def test_an_error_while_frames_and_packs_are_under_way_ends_every_thread(index):
    storage = MemoryStorage()
    for error in (KeyboardInterrupt, ValueError):
        with pytest.raises(error):
            interrupted(storage, index, error)
        assert workers() == []
    assert {digest for digest, _ in index.packs()} == set(tables(storage))


def test_killed_in_the_finishing_thread(index):
    with pytest.raises(Killed):
        pack(FaultyStorage(MemoryStorage(), 1, killed, only=("publish",)), index, chunks(60))
    assert workers() == []


def test_an_index_that_fails_is_an_error(tmp_path, index):
    storage = MemoryStorage()
    index.close()
    (tmp_path / "index.sqlite").write_bytes(b"x" * 10_000)
    with pytest.raises(Exception, match="index"):
        pack(storage, index, chunks(60))


class Slow(MemoryStorage):
    """Notices how many packs are open at once."""

    def __init__(self):
        super().__init__()
        self.open_packs = self.most = 0

    def stage(self, kind):
        inner = super().stage(kind)
        storage = self

        class Context:
            def __enter__(self):
                storage.open_packs += 1
                storage.most = max(storage.most, storage.open_packs)
                return inner.__enter__()

            def __exit__(self, *error):
                time.sleep(0.02)
                storage.open_packs -= 1
                return inner.__exit__(*error)

        return Context()


def test_a_slow_disk_holds_the_packer_back(index):
    storage = Slow()
    pack(storage, index, chunks(300))
    assert storage.open_packs == 0
    assert storage.most <= 5


def test_what_does_not_fit_a_frame_is_refused_before_it_is_visible(index):
    storage = MemoryStorage()
    sizes = PackSizes(frame_plain_bytes=3 * MIB)
    with pytest.raises(Corrupt, match="length is out of bounds"):
        pack(storage, index, chunks(90), PackingOptions(level=1, sizes=sizes))
    assert storage.files == {}


def test_a_packer_decodes_with_the_codec_of_the_format(index):
    storage, items = MemoryStorage(), chunks(3)
    pack(storage, index, items)
    ((digest, table),) = tables(storage).items()
    with closing(FrameReader(storage)) as reader:
        assert reader.plain(digest, table.frame(0)) == b"".join(data for _, data in items)
    assert table.frame(0).kind == codec.KIND_ZSTD


def test_new_frames_are_read_back_if_asked(index):
    storage, items = MemoryStorage(), chunks(30)
    pack(storage, index, items, PackingOptions(read_back=True, sizes=PackSizes(frame_plain_bytes=64 * KIB)))
    plain = MemoryStorage()
    pack(plain, index, items, PackingOptions(sizes=PackSizes(frame_plain_bytes=64 * KIB)))
    assert storage.files == plain.files
