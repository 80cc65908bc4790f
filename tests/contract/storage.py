"""What every Storage must do: a backend's test file subclasses `StorageContract` and gives it a fixture `storage`."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest

from pacstore.digest import Digest
from pacstore.errors import NotFound, PacballError, Refused, TooLarge
from pacstore.storage import DocumentKind, ObjectKind, Storage, TargetLink, object_path

DATA = b"the bytes of an object" * 1000
DIGEST = Digest.of(DATA)
NO_NAMES = ("", ".", "..", "a/b", "../x", "/etc/passwd", ".hidden", "a..b", "a b", "a\0", "a\n", "é", "x" * 201, "-a")
TARGET = "releases/Demo/Demo-1.0-x"
SHA = "0123456789abcdef" * 4
NO_TARGETS = (
    "",
    "packs/00/00",
    f"{TARGET}/manifest",
    f"{TARGET}/{SHA}.holdings",
    f"{TARGET}/{SHA}.manifest/x",
    f"{TARGET}/{SHA}.manifest\n",
    f"{TARGET}/{SHA.upper()}.manifest",
    f"{TARGET}/{SHA[1:]}.manifest",
    f"releases/Demo/../{SHA}.manifest",
    f"releases/Other/Demo-1.0-x/{SHA}.manifest",
    f"releases/Demo/Demo-1..0-x/{SHA}.manifest",
    f"releases/Demo-1.0-x/{SHA}.manifest",
    f"/{TARGET}/{SHA}.manifest",
    f"../{TARGET}/{SHA}.manifest",
)


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


LINKED = ("manifest", "attributes", "provenance", "placement")


def stored_links(storage: Storage) -> list[TargetLink]:
    """Links to one document of each kind, which are stored; its bytes are the name of its kind."""
    kinds = (ObjectKind.MANIFEST, ObjectKind.ATTRIBUTES, ObjectKind.PROVENANCE)
    files = [
        object_path(kind, store_object(storage, name.encode(), kind)) for kind, name in zip(kinds, LINKED, strict=False)
    ]
    storage.put(DocumentKind.PLACEMENT, "Demo-1.0-x.1", b"placement")
    files.append("placements/Demo-1.0-x.1")
    return [TargetLink(f"{TARGET}/{SHA}.{name}", file) for name, file in zip(LINKED, files, strict=True)]


def read_link(storage: Storage, path: str) -> bytes:
    with closing(storage.open_link(path)) as file:
        return file.read()


class StorageContract:
    @pytest.mark.parametrize("kind", ObjectKind)
    def test_an_object_comes_back(self, storage, kind):
        assert list(storage.digests(kind)) == []
        assert store_object(storage, kind=kind) == DIGEST
        assert read_object(storage, DIGEST, kind) == DATA
        assert storage.size(kind, DIGEST) == len(DATA)
        assert list(storage.digests(kind)) == [DIGEST]
        assert not any(list(storage.digests(other)) for other in ObjectKind if other is not kind)

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

    def test_a_link_has_the_bytes_of_its_file(self, storage):
        assert list(storage.links()) == []
        links = stored_links(storage)
        storage.link(links)
        assert list(storage.links()) == sorted(link.path for link in links)
        for link, kind in zip(links, LINKED, strict=True):
            assert read_link(storage, link.path) == kind.encode()

    def test_links_are_neither_objects_nor_documents(self, storage):
        storage.link(stored_links(storage))
        assert [len(list(storage.digests(kind))) for kind in ObjectKind] == [0, 1, 1, 1, 0]
        assert [len(list(storage.names(kind))) for kind in DocumentKind] == [1, 0, 0]

    def test_linking_again_changes_nothing(self, storage):
        links = stored_links(storage)
        storage.link(links[:2])
        with closing(storage.open_link(links[0].path)) as reader:
            storage.link([])
            storage.link(links)
            storage.link(links[::-1])
            assert reader.read(5) == b"manif"
        assert list(storage.links()) == sorted(link.path for link in links)

    def test_a_link_outlives_its_file(self, storage):
        (link,) = stored_links(storage)[:1]
        storage.link([link])
        storage.delete(ObjectKind.MANIFEST, Digest.of(b"manifest"))
        assert read_link(storage, link.path) == b"manifest"

    def test_a_link_that_is_removed_leaves_its_file(self, storage):
        links = stored_links(storage)
        storage.link(links)
        for _ in range(2):
            storage.unlink(links[0].path)
            assert list(storage.links()) == sorted(link.path for link in links[1:])
        with pytest.raises(NotFound):
            storage.open_link(links[0].path)
        storage.link(links)
        assert read_link(storage, links[0].path) == b"manifest"
        with pytest.raises(Refused, match="not the path of a target"):
            storage.unlink("releases/Demo/../../x")

    def test_a_link_to_something_else_is_replaced(self, storage):
        (link,) = stored_links(storage)[:1]
        other = object_path(ObjectKind.ATTRIBUTES, Digest.of(b"attributes"))
        storage.link([TargetLink(link.path, other)])
        assert read_link(storage, link.path) == b"attributes"
        storage.link([link])
        assert read_link(storage, link.path) == b"manifest"

    def test_links_to_nothing_are_not_found(self, storage):
        manifest, attributes, *_ = stored_links(storage)
        nothing = TargetLink(f"{TARGET}/{SHA}.provenance", object_path(ObjectKind.PROVENANCE, DIGEST))
        with pytest.raises(NotFound):
            storage.link([manifest, nothing, attributes])
        with pytest.raises(NotFound):
            storage.open_link(nothing.path)
        assert nothing.path not in list(storage.links())

    def test_links_made_at_once(self, storage):
        links = stored_links(storage)
        assert in_threads(12, lambda n: storage.link(links[n % 3 :])) == [None] * 12
        for link, kind in zip(links, LINKED, strict=True):
            assert read_link(storage, link.path) == kind.encode()

    @pytest.mark.parametrize("path", NO_TARGETS)
    def test_only_the_paths_of_targets_are_links(self, storage, path):
        with pytest.raises(Refused):
            storage.open_link(path)
        with pytest.raises(Refused):
            TargetLink(path, object_path(ObjectKind.MANIFEST, DIGEST))

    @pytest.mark.parametrize(
        "file",
        ["", f"packs/00/{'0' * 64}", f"manifests/01/{'0' * 64}", "placements/../x", "placements/a..b", "holdings/x"],
    )
    def test_only_documents_of_a_release_are_linked(self, file):
        with pytest.raises(Refused):
            TargetLink(f"{TARGET}/{SHA}.manifest", file)

    def assert_absent(self, storage):
        for call in (storage.open, storage.size):
            with pytest.raises(NotFound):
                call(ObjectKind.PACK, DIGEST)
        assert DIGEST not in list(storage.digests(ObjectKind.PACK))
