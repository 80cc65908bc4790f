from __future__ import annotations

import os
import random
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from blake3 import blake3

from pacstore.codec import KIND_ZSTD
from pacstore.errors import Corrupt, NewerFormat, PacballError, Unavailable
from pacstore.index import SCHEMA_VERSION, ChunkIndex
from pacstore.pack import Table, TableBuilder
from tests.store.releases import as_nobody


def make_table(seed, frames=3, chunks=5):
    builder = TableBuilder()
    for frame in range(frames):
        ids = [blake3(f"{seed} {frame} {n}".encode()).digest() for n in range(chunks)]
        builder.add(KIND_ZSTD, f"{seed} {frame}".encode(), b"".join(ids), [100 + n for n in range(chunks)])
    return Table.parse(builder.encode(), place=seed)


def ids_of(table):
    return [row.tobytes() for row in table.chunk_ids]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "index.sqlite"


@pytest.fixture
def index(path):
    with closing(ChunkIndex(path)) as index:
        yield index


def test_what_is_added_is_found(path, index):
    one, two = make_table("one"), make_table("two")
    assert index.add(one) == 1
    assert index.add(two) == 4
    found = index.find([*ids_of(one), *ids_of(two), bytes(32)])
    assert (found[ids_of(one)[7]].frame, found[ids_of(one)[7]].offset, found[ids_of(one)[7]].length) == (2, 201, 102)
    assert len(found) == 30
    places = list(index.frames([5, 1, 5]))
    assert [(p.number, p.pack, p.pack_length) for p in places] == [
        (1, one.id, one.pack_length),
        (5, two.id, two.pack_length),
    ]
    assert places[1].frame.offset == int(two.offsets[1])
    assert (places[1].frame.length, places[1].frame.digest) == (int(two.lengths[1]), two.digests[1].tobytes())
    assert index.packs() == sorted([(one.id, one.pack_length), (two.id, two.pack_length)])
    assert index.counts() == (2, 6, 30)
    with closing(ChunkIndex(path)) as again:
        assert again.find(ids_of(one)) == index.find(ids_of(one))


def test_adding_again_changes_nothing(index):
    one, two = make_table("one"), make_table("two")
    assert [index.add(t) for t in (one, two, one, two, one)] == [1, 4, 1, 4, 1]
    assert index.counts() == (2, 6, 30)


def test_the_later_place_of_a_chunk_wins(index):
    builder = TableBuilder()
    again = ids_of(make_table("one"))[3]
    builder.add(KIND_ZSTD, b"frame", again, [103])
    table = Table.parse(builder.encode(), place="")
    index.add(make_table("one"))
    number = index.add(table)
    assert index.find([again])[again].frame == number
    assert index.confirm(make_table("one")) == 14
    assert index.confirm(table) == 1


def test_a_table_without_frames(index):
    table = Table.parse(TableBuilder().encode(), place="")
    index.add(table)
    index.add(table)
    assert index.counts() == (1, 0, 0)
    assert index.confirm(table) == 0


def test_numbers_are_never_given_again(index):
    index.add(make_table("one"))
    index.clear()
    assert index.counts() == (0, 0, 0)
    assert index.add(make_table("one")) == 4
    with pytest.raises(Corrupt, match=r"lacks frames.*run the same command again"):
        list(index.frames([1]))


def test_many_lookups_at_once(index):
    table = make_table("many", 10, 400)
    index.add(table)
    ids = ids_of(table)
    missing = [blake3(b"%d" % n).digest() for n in range(2000)]
    assert set(index.find(ids + missing)) == set(ids)
    assert index.find([]) == {}
    assert len(list(index.frames(range(1, 11)))) == 10


def test_publishers_that_add_at_once_get_numbers_of_their_own(path):
    """Each with a connection of its own to a database that nobody has made yet."""
    tables = [[make_table(f"{thread} {n}", frames=4) for n in range(10)] for thread in range(4)]
    firsts: list[int] = []
    errors: list[BaseException] = []
    barrier = threading.Barrier(4)

    def work(number):
        try:
            barrier.wait()
            with closing(ChunkIndex(path)) as index:
                firsts.extend([index.add(table) for table in tables[number]])
        except Exception as error:  # noqa: BLE001 - compared below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(firsts) == list(range(1, 161, 4))
    with closing(ChunkIndex(path)) as index:
        assert index.counts() == (40, 160, 800)
        assert sum(index.confirm(table) for some in tables for table in some) == 800
        index.check()


def test_a_missing_index_is_made_only_where_that_is_allowed(path):
    for options in ({"make": False}, {"read_only": True}):
        with pytest.raises(Corrupt, match=r"the index is damaged: it is missing.*store reindex"):
            ChunkIndex(path, **options)
    assert not path.exists()
    ChunkIndex(path).close()
    ChunkIndex(path, make=False).close()
    ChunkIndex(path, read_only=True).close()


def test_an_empty_file_is_no_index(path):
    path.write_bytes(b"")
    for options in ({"make": False}, {"read_only": True}):
        with pytest.raises(Corrupt, match="it is empty"):
            ChunkIndex(path, **options)


def test_a_newer_index_is_named(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(NewerFormat, match=f"has version {SCHEMA_VERSION + 1}.*newer pacball") as caught:
        ChunkIndex(path)
    assert caught.value.place == str(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_index_appears_whole_or_not_at_all(path, monkeypatch):
    """Killed before its name is given, nothing is there; the next one makes it."""

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "link", die)
        with pytest.raises(KeyboardInterrupt):
            ChunkIndex(path)
    assert not path.exists()
    with closing(ChunkIndex(path)) as index:
        index.add(make_table("one"))
        assert index.counts() == (1, 3, 15)


def test_of_many_that_make_an_index_at_once_each_gets_the_same_one(tmp_path):
    """SQLite itself fails at once where two processes change one database to a write-ahead log."""
    for attempt in range(20):
        path = tmp_path / f"{attempt}.sqlite"
        barrier = threading.Barrier(8)

        def work(number, path=path, barrier=barrier):
            barrier.wait()
            with closing(ChunkIndex(path)) as index:
                index.add(make_table(str(number), frames=1))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        with closing(ChunkIndex(path)) as index:
            assert index.counts()[0] == 8
    assert {entry.suffix for entry in tmp_path.iterdir()} == {".sqlite"}


def test_an_index_that_cannot_be_opened(shared_path):
    path = shared_path / "index.sqlite"
    ChunkIndex(path).close()
    path.chmod(0)

    def attempt():
        with pytest.raises(Unavailable, match="unable to open") as caught:
            ChunkIndex(path)
        return caught.value.place

    assert as_nobody(attempt, owner_of=shared_path) == str(path)


def test_reading_in_a_place_that_cannot_be_written(shared_path):
    path = shared_path / "state/index.sqlite"
    path.parent.mkdir()
    table = make_table("one")
    with closing(ChunkIndex(path)) as index:
        index.add(table)
    path.chmod(0o400)
    path.parent.chmod(0o500)

    def attempt():
        with closing(ChunkIndex(path, read_only=True)) as index:
            index.check()
            return index.confirm(table), os.listdir(path.parent)

    assert as_nobody(attempt, owner_of=shared_path) == (15, ["index.sqlite"])


WRONG_ROWS = {
    "UPDATE chunks SET offset = offset + 1 WHERE frame = 2": "other chunks",
    "UPDATE chunks SET length = length + 1 WHERE frame = 2": "other chunks",
    "UPDATE chunks SET frame = 3 WHERE frame = 2": "other chunks",
    "UPDATE chunks SET frame = -3 WHERE frame = 2": "no place",
    "UPDATE chunks SET offset = 'x' WHERE frame = 2": "no place",
    "UPDATE chunks SET offset = -1 WHERE frame = 2": "no place",
    "UPDATE chunks SET offset = 1 << 40 WHERE frame = 2": "no place",
    "UPDATE frames SET offset = offset + 1 WHERE number = 2": "other frames",
    "UPDATE frames SET length = length + 1 WHERE number = 2": "other frames",
    "UPDATE frames SET plain_length = plain_length + 1 WHERE number = 2": "other frames",
    "UPDATE frames SET kind = 2 WHERE number = 2": "other frames",
    "UPDATE frames SET digest = zeroblob(32) WHERE number = 2": "other frames",
    "UPDATE frames SET digest = zeroblob(31) WHERE number = 2": "no place",
    "UPDATE frames SET digest = 'text' WHERE number = 2": "no place",
    "UPDATE frames SET length = -1 WHERE number = 2": "no place",
    "DELETE FROM frames WHERE number = 2": "other frames",
    "UPDATE packs SET length = length + 1": "other frames",
    "UPDATE packs SET id = zeroblob(31)": "other frames|no digest",
}


@pytest.mark.parametrize("statement", WRONG_ROWS)
def test_wrong_rows_are_found(path, index, statement):
    table = make_table("one")
    index.add(table)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()
    with pytest.raises(Corrupt, match=WRONG_ROWS[statement]):
        assert index.packs() == [index.confirm(table)]


def damaged(data, rng):
    """An index file as a bad disk gives it back: some bits changed, cut, or another's bytes."""
    how = rng.randrange(10)
    if how == 0:
        return data[: rng.randrange(len(data))]
    if how == 1:
        return rng.randbytes(rng.randrange(1, 20_000))
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 8, 200))):
        changed[rng.randrange(len(changed) if rng.random() < 0.8 else 100)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def test_a_damaged_index_gives_our_errors_or_what_confirm_can_judge(path):
    tables = [make_table(f"{n}", 4, 200) for n in range(3)]
    with closing(ChunkIndex(path)) as index:
        for table in tables:
            index.add(table)
        expected = index.find(ids_of(tables[0]))
    data = path.read_bytes()
    rng = random.Random(7)
    named = 0
    for _ in range(150):
        for leftover in path.parent.iterdir():
            leftover.unlink()
        path.write_bytes(damaged(data, rng))
        try:
            with closing(ChunkIndex(path, make=False)) as index:
                index.check()
                assert sum(index.confirm(table) for table in tables) == index.counts()[2]
                found = index.find(ids_of(tables[0]))
                list(index.frames({place.frame for place in found.values()}))
                index.packs()
                assert all(found[i] == expected[i] for i in found)
                index.add(make_table("more"))
        except (PacballError, AssertionError):
            named += 1
    assert named > 60


def test_chunks_of_a_condemned_pack_are_found_no_more_while_its_frames_stay(index):
    one, two = make_table("one"), make_table("two")
    first = index.add(one)
    index.add(two)
    for _ in range(2):
        index.condemn(one.id, one)
    assert index.condemned(one.id)
    assert index.all_condemned() == [one.id]
    assert not index.condemned(two.id)
    assert index.find(ids_of(one)) == {}
    assert len(index.find(ids_of(two))) == 15
    assert [place.pack for place in index.frames(range(first, first + 3))] == [one.id] * 3


def test_a_condemned_pack_whose_table_cannot_be_read_is_found_no_more(index):
    one, two = make_table("one"), make_table("two")
    index.add(one)
    index.add(two)
    index.condemn(two.id, None)
    assert len(index.find([*ids_of(one), *ids_of(two)])) == 15


def test_a_condemned_pack_that_is_added_again_is_as_before(index):
    one = make_table("one")
    index.add(one)
    before = index.find(ids_of(one))
    index.condemn(one.id, one)
    assert index.add(one) == 1
    assert index.find(ids_of(one)) == before
    assert index.all_condemned() == []
    assert index.counts() == (1, 3, 15)


def test_a_pack_that_comes_back_takes_no_chunk_from_a_later_one(index):
    one = make_table("one")
    builder = TableBuilder()
    builder.add(KIND_ZSTD, b"frame", ids_of(one)[3], [103])
    later = Table.parse(builder.encode(), place="")
    index.add(one)
    number = index.add(later)
    index.condemn(one.id, one)
    assert len(index.find(ids_of(one))) == 1
    index.add(one)
    found = index.find(ids_of(one))
    assert (len(found), found[ids_of(one)[3]].frame) == (15, number)


def test_a_pack_is_forgotten_only_while_it_is_condemned(index):
    one, two = make_table("one"), make_table("two")
    for table in (one, two):
        index.add(table)
        index.condemn(table.id, table)
    index.claim(one.id)
    for pack, expected in ((one.id, False), (two.id, True), (two.id, False)):
        with index.forgetting(pack) as still:
            assert still is expected
    assert index.packs() == [(one.id, one.pack_length)]
    assert index.counts()[:2] == (1, 3)
    assert index.add(make_table("three")) == 7


def test_what_fails_while_a_pack_is_deleted_leaves_it_condemned(index):
    one = make_table("one")
    index.add(one)
    index.condemn(one.id, one)
    with pytest.raises(Unavailable, match="disk"), index.forgetting(one.id):
        raise Unavailable("the disk fails")
    assert index.all_condemned() == [one.id]
    assert index.counts()[:2] == (1, 3)


def test_a_pack_that_the_index_never_knew_can_be_condemned_and_claimed(index):
    one = make_table("one")
    index.condemn(one.id, one)
    index.claim(one.id)
    assert index.all_condemned() == []
    index.condemn(one.id, None)
    index.add(one)
    assert index.all_condemned() == []
    assert len(index.find(ids_of(one))) == 15


def test_an_index_of_the_version_before_learns_to_condemn(path):
    one = make_table("one")
    with closing(ChunkIndex(path)) as index:
        index.add(one)
    with closing(sqlite3.connect(path)) as database:
        database.execute("DROP TABLE condemned")
        database.execute("PRAGMA user_version = 1")
    with closing(ChunkIndex(path, read_only=True)) as index:
        assert len(index.find(ids_of(one))) == 15
    with closing(ChunkIndex(path)) as index:
        assert index.all_condemned() == []
        index.condemn(one.id, one)
        assert index.all_condemned() == [one.id]
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (2,)
