"""What every Storage must do: a backend's test file subclasses `StorageContract` and gives it a fixture `storage`."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest

from pacstore.digest import Digest
from pacstore.errors import NotFound, PacballError, Refused, TooLarge
from pacstore.storage import DocumentKind, ObjectKind, Storage

DATA = b"the bytes of an object" * 1000
DIGEST = Digest.of(DATA)
NO_NAMES = ("", ".", "..", "a/b", "../x", "/etc/passwd", ".hidden", "a..b", "a b", "a\0", "a\n", "é", "x" * 201, "-a")


def store_object(storage: Storage, data: bytes = DATA, kind: ObjectKind = ObjectKind.PACK) -> Digest:
    with storage.stage(kind) as staged:
        for at in range(0, len(data), 7000):
            staged.write(memoryview(data)[at : at + 7000])
        staged.publish(Digest.of(data))
    return Digest.of(data)


def read_object(storage: Storage, digest: Digest, kind: ObjectKind = ObjectKind.PACK) -> bytes:
    with closing(storage.open(kind, digest)) as file:
        parts = []
        while part := file.read(5000):
            parts.append(part)
    return b"".join(parts)


def in_threads(count: int, work) -> list[object]:
    """What `work(n)` returns, or the error of ours that it raises, in `count` threads that begin together."""
    results: list[object] = [None] * count
    barrier = threading.Barrier(count)

    def run(number: int) -> None:
        barrier.wait()
        try:
            results[number] = work(number)
        except PacballError as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


class StorageContract:
    @pytest.mark.parametrize("kind", ObjectKind)
    def test_an_object_comes_back(self, storage, kind):
        assert list(storage.digests(kind)) == []
        assert store_object(storage, kind=kind) == DIGEST
        assert read_object(storage, DIGEST, kind) == DATA
        assert storage.size(kind, DIGEST) == len(DATA)
        assert list(storage.digests(kind)) == [DIGEST]
        others = [other for other in ObjectKind if other is not kind]
        assert [list(storage.digests(other)) for other in others] == [[], []]

    def test_an_empty_object(self, storage):
        assert read_object(storage, store_object(storage, b"")) == b""

    def test_open_objects_have_positions_of_their_own(self, storage):
        store_object(storage)
        with (
            closing(storage.open(ObjectKind.PACK, DIGEST)) as one,
            closing(storage.open(ObjectKind.PACK, DIGEST)) as two,
        ):
            assert one.seek(0, 2) == len(DATA)
            one.seek(-5, 2)
            assert (one.read(100), two.read(5)) == (DATA[-5:], DATA[:5])

    def test_nothing_is_visible_before_publish(self, storage):
        with storage.stage(ObjectKind.PACK) as staged:
            staged.write(DATA)
            self.assert_absent(storage)
            staged.publish(DIGEST)
            assert read_object(storage, DIGEST) == DATA
        assert read_object(storage, DIGEST) == DATA

    def test_what_is_not_published_is_dropped(self, storage):
        with storage.stage(ObjectKind.PACK) as staged:
            staged.write(DATA)
        self.assert_absent(storage)

    def test_an_error_while_writing_drops_it(self, storage):
        with pytest.raises(KeyError), storage.stage(ObjectKind.PACK) as staged:
            staged.write({}["missing"])
        self.assert_absent(storage)

    def test_publishing_again_changes_nothing(self, storage):
        store_object(storage)
        with closing(storage.open(ObjectKind.PACK, DIGEST)) as reader:
            store_object(storage)
            assert reader.read(10) == DATA[:10]
        assert list(storage.digests(ObjectKind.PACK)) == [DIGEST]
        assert read_object(storage, DIGEST) == DATA

    def test_objects_published_at_once(self, storage):
        datas = [bytes([n % 4]) * 20_000 for n in range(12)]
        assert in_threads(12, lambda n: store_object(storage, datas[n])) == [Digest.of(d) for d in datas]
        assert {read_object(storage, Digest.of(d)) for d in datas} == set(datas)

    def test_objects_are_listed_while_others_come(self, storage):
        def work(number):
            store_object(storage, b"%d" % number)
            return len(list(storage.digests(ObjectKind.PACK)))

        assert all(isinstance(count, int) for count in in_threads(12, work))

    def test_digests_ascend(self, storage):
        stored = [store_object(storage, b"%d" % n) for n in range(40)]
        assert list(storage.digests(ObjectKind.PACK)) == sorted(stored)

    def test_delete(self, storage):
        store_object(storage)
        store_object(storage, kind=ObjectKind.MANIFEST)
        storage.delete(ObjectKind.PACK, DIGEST)
        self.assert_absent(storage)
        assert read_object(storage, DIGEST, ObjectKind.MANIFEST) == DATA
        storage.delete(ObjectKind.PACK, DIGEST)

    def test_absent_objects_are_not_found(self, storage):
        self.assert_absent(storage)
        storage.delete(ObjectKind.PACK, DIGEST)

    @pytest.mark.parametrize("kind", DocumentKind)
    def test_a_document_comes_back(self, storage, kind):
        storage.put(kind, "A-1.0-x.1", b"one")
        assert storage.get(kind, "A-1.0-x.1", limit=3) == b"one"
        storage.put(kind, "A-1.0-x.1", b"another, longer one")
        assert storage.get(kind, "A-1.0-x.1", limit=100) == b"another, longer one"
        assert list(storage.names(kind)) == ["A-1.0-x.1"]

    def test_a_document_that_is_too_large(self, storage):
        storage.put(DocumentKind.HOLDINGS, "name", b"1234")
        with pytest.raises(TooLarge, match="3"):
            storage.get(DocumentKind.HOLDINGS, "name", limit=3)

    def test_create_refuses_what_exists(self, storage):
        storage.create(DocumentKind.CATALOG, "1.root.json", b"first")
        with pytest.raises(Refused):
            storage.create(DocumentKind.CATALOG, "1.root.json", b"second")
        assert storage.get(DocumentKind.CATALOG, "1.root.json", limit=100) == b"first"

    def test_of_many_that_create_at_once_one_succeeds(self, storage):
        for name in ("a", "b", "c"):
            results = in_threads(8, lambda n, name=name: storage.create(DocumentKind.CATALOG, name, b"%d" % n))
            winners = [n for n, result in enumerate(results) if result is None]
            assert len(winners) == 1
            assert all(isinstance(r, Refused) for n, r in enumerate(results) if n not in winners)
            assert storage.get(DocumentKind.CATALOG, name, limit=1) == b"%d" % winners[0]

    def test_readers_see_documents_whole(self, storage):
        values = [bytes([n]) * 50_000 for n in range(4)]
        storage.put(DocumentKind.HOLDINGS, "name", values[0])

        def work(number):
            if number < 2:
                for value in values * 3:
                    storage.put(DocumentKind.HOLDINGS, "name", value)
                return True
            return all(storage.get(DocumentKind.HOLDINGS, "name", limit=50_000) in values for _ in range(30))

        assert in_threads(4, work) == [True] * 4

    def test_names_ascend_and_are_removed(self, storage):
        for name in ("b", "a", "B", "a.1", "a-1"):
            storage.put(DocumentKind.PLACEMENT, name, b"")
        assert list(storage.names(DocumentKind.PLACEMENT)) == ["B", "a", "a-1", "a.1", "b"]
        storage.remove(DocumentKind.PLACEMENT, "a")
        storage.remove(DocumentKind.PLACEMENT, "a")
        assert list(storage.names(DocumentKind.PLACEMENT)) == ["B", "a-1", "a.1", "b"]
        with pytest.raises(NotFound):
            storage.get(DocumentKind.PLACEMENT, "a", limit=1)
        assert list(storage.names(DocumentKind.HOLDINGS)) == []

    @pytest.mark.parametrize("name", NO_NAMES)
    def test_only_plain_file_names_are_names(self, storage, name):
        calls = [
            lambda: storage.put(DocumentKind.CATALOG, name, b"x"),
            lambda: storage.create(DocumentKind.CATALOG, name, b"x"),
            lambda: storage.get(DocumentKind.CATALOG, name, limit=1),
            lambda: storage.remove(DocumentKind.CATALOG, name),
        ]
        for call in calls:
            with pytest.raises(Refused):
                call()

    def assert_absent(self, storage):
        for call in (storage.open, storage.size):
            with pytest.raises(NotFound):
                call(ObjectKind.PACK, DIGEST)
        assert DIGEST not in list(storage.digests(ObjectKind.PACK))
