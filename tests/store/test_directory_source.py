from __future__ import annotations

from contextlib import closing
from threading import Thread

import pytest

from pacstore.directory_source import DirectorySource
from pacstore.errors import Corrupt, NotFound, TooLarge, Unavailable
from pacstore.source import PackRange
from pacstore.storage import ObjectKind, object_path
from tests.store.releases import noise, snapshot, write


@pytest.fixture
def published(origin, trees):
    origin.publish(trees[0])
    return origin


def pack_of(origin):
    return max(
        origin.store.storage.digests(ObjectKind.PACK), key=lambda d: origin.store.storage.size(ObjectKind.PACK, d)
    )


@pytest.mark.parametrize("where", ["store", "docroot"])
def test_a_store_and_its_docroot_alone_are_sources(published, where):
    path = published.store.path if where == "store" else published.store.public
    before = snapshot(published.store.path)
    with closing(DirectorySource(path)) as source:
        assert source.name == str(path)
        for name, data in published.public().items():
            assert source.read(name, limit=len(data)) == data
        pack = pack_of(published)
        wanted = [PackRange(pack, 0, 8), PackRange(pack, 100, 1000), PackRange(pack, 100, 1000)]
        data = (published.store.public / object_path(ObjectKind.PACK, pack)).read_bytes()
        assert [(piece, bytes(part)) for piece, part in source.ranges(wanted)] == [
            (piece, data[piece.offset : piece.offset + piece.length]) for piece in wanted
        ]
        assert list(source.ranges([])) == []
        assert source.traffic.requests == len(before) + 3 - len([n for n in before if n.startswith("private")])
        assert source.traffic.bytes_downloaded == sum(map(len, published.public().values())) + 2008
    assert snapshot(published.store.path) == before


def test_what_is_not_there(published, tmp_path):
    source = DirectorySource(published.store.path)
    with pytest.raises(NotFound):
        source.read("holdings/None-1.0-x", limit=10)
    with pytest.raises(TooLarge):
        source.read("store.json", limit=10)
    pack = pack_of(published)
    published.store.storage.delete(ObjectKind.PACK, pack)
    with pytest.raises(NotFound, match=str(pack)):
        list(source.ranges([PackRange(pack, 0, 8)]))
    with pytest.raises(NotFound):
        DirectorySource(tmp_path / "nothing").read("store.json", limit=10)


def test_a_short_pack_and_one_that_cannot_be_read(published):
    source, pack = DirectorySource(published.store.path), pack_of(published)
    size = published.store.storage.size(ObjectKind.PACK, pack)
    with pytest.raises(Corrupt, match="shorter than its placement says") as caught:
        list(source.ranges([PackRange(pack, size - 10, 11)]))
    assert caught.value.place == f"packs/{pack.hex[:2]}/{pack}"
    path = published.store.public / caught.value.place
    path.unlink()
    path.mkdir()
    with pytest.raises(Unavailable, match="directory"):
        list(source.ranges([PackRange(pack, 0, 8)]))


def test_threads_share_a_source(published):
    source, pack = DirectorySource(published.store.path), pack_of(published)
    work = lambda: list(source.ranges([PackRange(pack, 0, 100)] * 50))  # noqa: E731
    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (source.traffic.requests, source.traffic.bytes_downloaded) == (200, 20_000)


def test_nothing_outside_the_docroot_is_part_of_it(published):
    write(published.store.path / "outside", noise("x", 10))
    assert "outside" not in published.public()
