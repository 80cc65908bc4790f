from __future__ import annotations

import hashlib
import os
import random
import shutil
from dataclasses import replace

import pytest

from pacstore import codec
from pacstore.check import catalog_releases, check, statistics
from pacstore.digest import Digest
from pacstore.documents import read_manifest, read_placement
from pacstore.errors import Corrupt, NotFound
from pacstore.index import SCHEMA_VERSION
from pacstore.links import link_targets
from pacstore.pack import HEADER, TableBuilder, ending
from pacstore.progress import Silent
from pacstore.reindex import reindex
from pacstore.release import Release
from pacstore.storage import DocumentKind, ObjectKind, document_path, object_path
from pacstore.store import Store
from pacstore.trust.repository import Catalog
from tests.store.releases import NAME, NEXT, Notes, Origin, flip, leftovers, make_tree, originals, overwrite, write


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A store with two releases that share most of their packs; tests change copies of it."""
    top = tmp_path_factory.mktemp("check")
    origin = Origin.make(top / "origin")
    for version, name in (("1", NAME), ("2", NEXT)):
        origin.publish(make_tree(top / version, version=version, kib=700), name)
    origin.store.close()
    return origin


@pytest.fixture
def copy(published, tmp_path):
    top = shutil.copytree(published.top, tmp_path / "copy")
    store = Store.open(top / "store", writable=True)
    yield Origin(top, store, Catalog.open(store.storage), published.keys)
    store.close()


def users(origin):
    """The releases that use each pack, by its path."""
    found = {}
    for entry in origin.catalog.releases():
        placement = read_placement(origin.store.storage, entry, read_manifest(origin.store.storage, entry))
        for number in range(len(placement.pack_ids)):
            path = object_path(ObjectKind.PACK, placement.pack(number))
            found.setdefault(path, {})[str(entry.release)] = {
                (int(placement.frame_offsets[f]), int(placement.frame_offsets[f] + placement.frame_lengths[f]))
                for f in range(placement.frames)
                if placement.frame_packs[f] == number
            }
    return found


def places(report):
    return {damage.place.split(", frame")[0] for damage in report.damage}


def test_a_sound_store(copy):
    report = copy.check()
    assert (report.damage, report.releases, report.releases_checked) == ([], [], 2)
    assert report.packs == len(list(copy.store.storage.digests(ObjectKind.PACK)))
    assert report.bytes_read > 100_000
    notes = Notes()
    check(copy.store, catalog_releases(copy.store), progress=notes)
    assert notes.phases == ["checking"]
    assert notes.bytes == report.bytes_read


def test_an_empty_store(tmp_path):
    with Store.create(tmp_path / "store") as store:
        assert check(store, catalog_releases(store), progress=Silent()).damage == []
        assert statistics(store).packs == 0
    with Store.open(tmp_path / "store", writable=False) as store:
        assert check(store, [], progress=Silent()).damage == []
        assert statistics(store).chunks == 0


def test_a_docroot_alone(copy):
    copy.store.close()
    shutil.rmtree(copy.store.private)
    assert copy.check().damage == []


def test_one_bit_anywhere_in_a_pack_is_found(copy):
    """And only the releases that need those bytes are named."""
    rng = random.Random(5)
    by_pack = users(copy)
    for _ in range(60):
        path = rng.choice(sorted(by_pack))
        file = copy.store.public / path
        offset, bit = rng.randrange(file.stat().st_size), rng.randrange(8)
        flip(file, offset, bit)
        report = copy.check()
        assert places(report) - {NAME, NEXT} == {path}
        inside = {r for r, frames in by_pack[path].items() if any(a <= offset < b for a, b in frames)}
        end = max(b for frames in by_pack[path].values() for _, b in frames)
        expected = set(by_pack[path]) if offset < 8 or offset >= end else inside
        assert expected <= set(report.releases) <= set(by_pack[path])
        if 8 <= offset < end:
            assert set(report.releases) == inside
        flip(file, offset, bit)
    assert copy.check().damage == []


@pytest.mark.parametrize("name", [NAME, NEXT])
@pytest.mark.parametrize("what", ["manifest", "attributes", "placement", "holdings"])
def test_one_bit_anywhere_in_a_document_is_found(copy, name, what):
    rng = random.Random(6)
    entry = copy.entry(name)
    path = {
        "manifest": object_path(ObjectKind.MANIFEST, entry.manifest.digest),
        "attributes": object_path(ObjectKind.ATTRIBUTES, entry.attributes.digest),
        "placement": document_path(DocumentKind.PLACEMENT, f"{name}.1"),
        "holdings": document_path(DocumentKind.HOLDINGS, name),
    }[what]
    file = copy.store.public / path
    for _ in range(8):
        offset, bit = rng.randrange(file.stat().st_size), rng.randrange(8)
        flip(file, offset, bit)
        report = copy.check()
        assert places(report) == {path}
        assert report.releases == [name]
        flip(file, offset, bit)


@pytest.mark.parametrize("damage", ["empty", "short", "long", "missing", "another"])
def test_files_cut_extended_removed_or_swapped(copy, damage):
    for path in [p for p in copy.public() if p.split("/")[0] not in ("catalog", "store.json", "releases")]:
        file = copy.store.public / path
        data = file.read_bytes()
        others = [p for p in file.parent.parent.rglob("*") if p.is_file() and p != file]
        if damage == "missing":
            file.unlink()
        elif damage == "another" and (not others or others[0].read_bytes() == data):
            continue
        else:
            overwrite(file, {"empty": b"", "short": data[: len(data) // 2], "long": data + b"x",
                             "another": others[0].read_bytes() if others else b""}[damage])  # fmt: skip
        report = copy.check()
        assert [d for d in report.damage if path in d.place], (path, report)
        assert report.releases
        overwrite(write(file, data), data)
    assert copy.check().damage == []


def test_what_no_release_needs_is_read_back_too(copy):
    data = b"an orphan that an interrupted publish left"
    for kind in (ObjectKind.MANIFEST, ObjectKind.ATTRIBUTES, ObjectKind.PROVENANCE):
        with copy.store.storage.stage(kind) as staged:
            staged.write(data)
            staged.publish(Digest.of(data))
    assert copy.check().damage == []
    path = object_path(ObjectKind.MANIFEST, Digest.of(data))
    flip(copy.store.public / path, 3)
    report = copy.check()
    assert (places(report), report.releases) == ({path}, [])


def test_strays_are_named_and_stop_nothing(copy):
    for path in ("packs/.nfs001", "packs/ab/README", "manifests/zz/x", "attributes/tmp", "releases/Demo/tmp"):
        write(copy.store.public / path, b"stray")
    pack = next(copy.store.storage.digests(ObjectKind.PACK))
    write(copy.store.public / f"packs/zz/{pack}", b"misplaced")
    report = copy.check()
    assert places(report) == {
        "packs/.nfs001",
        "packs/ab/README",
        "manifests/zz/x",
        "attributes/tmp",
        "releases/Demo/tmp",
        f"packs/zz/{pack}",
    }
    assert all("is no object of this store" in damage.fault for damage in report.damage)
    assert report.releases == []
    assert statistics(copy.store).packs == report.packs
    assert reindex(copy.store, progress=Silent()).damage == []


def test_frames_of_a_later_kind_are_read_back_by_their_digest(copy):
    builder = TableBuilder()
    builder.add(codec.KIND_ZSTD + 1, b"of a later version", bytes(32), [10])
    data = builder.encode()
    with copy.store.storage.stage(ObjectKind.PACK) as staged:
        staged.write(HEADER + b"of a later version" + ending(data))
        staged.publish(Digest.of(data))
    assert copy.check().damage == []
    flip(copy.store.public / object_path(ObjectKind.PACK, Digest.of(data)), 10)
    assert places(copy.check()) == {object_path(ObjectKind.PACK, Digest.of(data))}


def test_a_frame_whose_chunks_are_others(copy):
    """Its bytes have the right digest and decompress; but a chunk in it is not the one that the table names."""
    builder = TableBuilder()
    packed = codec.compress(b"0123456789", 1)
    builder.add(codec.KIND_ZSTD, packed, bytes(32), [10])
    data = builder.encode()
    with copy.store.storage.stage(ObjectKind.PACK) as staged:
        staged.write(HEADER + packed + ending(data))
        staged.publish(Digest.of(data))
    (damage,) = copy.check().damage
    assert "a chunk is not the one that the table names" in damage.fault
    assert f"{Digest.of(data)}, frame at 8" in damage.place


def meaning(origin):
    """What the index says, without its numbers."""
    with origin.store.index._database.writing() as connection:
        return set(
            connection.exec_driver_sql(
                "SELECT hex(chunks.id), hex(packs.id), frames.offset, chunks.offset, chunks.length FROM chunks"
                " JOIN frames ON frames.number = chunks.frame JOIN packs ON packs.number = frames.pack"
            ).fetchall()
        )


def test_a_rebuilt_index_says_the_same(copy):
    before = meaning(copy)
    report = reindex(copy.store, progress=Silent())
    assert (report.damage, report.packs) == ([], len(copy.store.index.packs()))
    assert {row[0] for row in meaning(copy)} == {row[0] for row in before}
    assert len(meaning(copy) & before) > 0.8 * len(before)
    assert copy.check().damage == []


DAMAGED_INDEX = {
    "deleted": lambda path: path.unlink(),
    "emptied": lambda path: path.write_bytes(b""),
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "garbage": lambda path: path.write_bytes(b"garbage" * 9999),
    "a directory of rows changed": lambda path: [flip(path, at) for at in range(4096, path.stat().st_size, 512)],
}


def test_a_mirror_needs_no_index(copy):
    counted = statistics(copy.store)
    copy.store.close()
    copy.store.index_path.unlink()
    assert [damage.fault for damage in copy.check().damage] != []
    again = copy.again()
    again.store.remember_mirror()
    assert again.check().damage == []
    found = statistics(again.store)
    assert found.chunks >= counted.chunks > 0  # those that were written again count twice
    assert replace(found, chunks=counted.chunks) == counted


@pytest.mark.parametrize("damage", DAMAGED_INDEX)
def test_a_damaged_index_is_named_and_cured(copy, tmp_path, damage):
    copy.store.close()
    DAMAGED_INDEX[damage](copy.store.index_path)
    report = copy.check()
    assert len(report.damage) == 1
    assert "index" in report.damage[0].fault
    assert report.releases == []
    again = copy.again()
    tree = make_tree(tmp_path / "3", version="3", kib=700)
    with pytest.raises(Corrupt, match="store reindex"):
        again.publish(tree, "Demo-1.2-x86_64")
    assert again.listed() == [NAME, NEXT]
    again.store.close()
    again = copy.again()
    assert reindex(again.store, progress=Silent()).damage == []
    assert again.check().damage == []
    done = again.publish(tree, "Demo-1.2-x86_64")
    assert done.bytes_new < done.bytes_total / 2
    assert again.assembled("Demo-1.2-x86_64") == originals(tree)
    assert again.check().damage == []
    assert leftovers(again.store) == []
    again.store.close()


def test_a_newer_index_is_named_and_cured(copy):
    with copy.store.index._database.writing() as connection:
        connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    copy.store.close()
    (damage,) = copy.check().damage
    assert f"has version {SCHEMA_VERSION + 1}" in damage.fault
    again = copy.again()
    reindex(again.store, progress=Silent())
    again.store.close()
    assert copy.check().damage == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE chunks SET offset = offset + 1 WHERE frame = 2",
        "UPDATE chunks SET frame = 1 WHERE frame = 2",
        "UPDATE chunks SET id = randomblob(32) WHERE frame = 2",
        "UPDATE frames SET plain_length = plain_length + 1 WHERE number = 2",
        "INSERT INTO packs (id, length) VALUES (randomblob(32), 1000)",
        "INSERT INTO chunks VALUES (randomblob(32), 1000000, 0, 1)",
    ],
)
def test_an_index_that_differs_from_the_packs_is_named(copy, statement):
    with copy.store.index._database.writing() as connection:
        connection.exec_driver_sql(statement)
    report = copy.check()
    assert report.damage
    assert all("index" in damage.fault for damage in report.damage)
    assert report.releases == []


def test_reindexing_leaves_damaged_packs_out_and_the_next_publish_heals(copy, tmp_path):
    path = max(users(copy), key=lambda p: (copy.store.public / p).stat().st_size)
    flip(copy.store.public / path, 5000)
    report = reindex(copy.store, progress=Silent())
    assert places(report) == {path}
    assert path.rpartition("/")[2] not in [str(pack) for pack, _ in copy.store.index.packs()]
    tree = make_tree(tmp_path / "3", version="3", kib=700)
    copy.publish(tree, "Demo-1.2-x86_64")
    assert copy.assembled("Demo-1.2-x86_64") == originals(tree)
    report = copy.check()
    assert "Demo-1.2-x86_64" not in report.releases


def test_statistics(copy, published):
    found = statistics(copy.store)
    sizes = {path: len(data) for path, data in copy.public().items()}
    assert found.releases == 2
    assert found.releases_bytes == sum(entry.total_bytes for entry in copy.catalog.releases())
    assert found.packs == len([p for p in sizes if p.startswith("packs/")])
    assert found.packs_bytes == sum(n for p, n in sizes.items() if p.startswith("packs/"))
    documents = ("manifests/", "attributes/", "placements/")
    assert found.documents_bytes == sum(n for p, n in sizes.items() if p.startswith(documents))
    assert found.chunks == copy.store.index.counts()[2]


def test_a_missing_holdings_file_is_damage(copy):
    copy.store.storage.remove(DocumentKind.HOLDINGS, NAME)
    with pytest.raises(NotFound):
        copy.store.storage.get(DocumentKind.HOLDINGS, NAME, limit=1)
    assert copy.check().releases == [NAME]


def test_a_release_that_need_not_be_held_and_is_not_is_dropped_not_damaged(copy):
    copy.store.storage.remove(DocumentKind.HOLDINGS, NAME)
    releases = catalog_releases(copy.store)
    report = check(copy.store, releases, progress=Silent(), droppable={Release.parse(NAME)})
    assert (report.damage, report.releases, report.releases_checked, report.releases_dropped) == ([], [], 1, 1)
    report = check(copy.store, releases, progress=Silent(), droppable={Release.parse(NEXT)})
    assert (report.releases, report.releases_dropped) == ([NAME], 0)


def test_a_release_that_need_not_be_held_but_is_is_checked(copy):
    flip(copy.store.public / document_path(DocumentKind.PLACEMENT, f"{NAME}.1"), 100)
    report = check(copy.store, catalog_releases(copy.store), progress=Silent(), droppable={Release.parse(NAME)})
    assert (report.releases, report.releases_dropped) == ([NAME], 0)


def test_a_damaged_file_of_two_names_is_named_once(origin, trees):
    origin.publish(trees[0])
    path = object_path(ObjectKind.MANIFEST, origin.entry().manifest.digest)
    flip(origin.store.public / path, 100)
    assert places(origin.check()) == {path}


def test_all_damaged_documents_of_a_release_are_named(copy):
    """Who replaces one would find the next one only then."""
    entry = copy.entry(NAME)
    paths = {
        object_path(ObjectKind.MANIFEST, entry.manifest.digest),
        object_path(ObjectKind.ATTRIBUTES, entry.attributes.digest),
        document_path(DocumentKind.PLACEMENT, f"{NAME}.1"),
        document_path(DocumentKind.HOLDINGS, NAME),
    }
    for path in paths:
        flip(copy.store.public / path, 30)
    report = copy.check()
    assert places(report) == paths
    assert len(report.damage) == len(paths)
    assert report.releases == [NAME]


def test_a_damaged_placement_of_a_release_that_is_not_held_is_named_once(copy):
    """A mirror keeps those that clients asked it for; other clients are sent them."""
    path = document_path(DocumentKind.PLACEMENT, f"{NAME}.1")
    copy.store.storage.remove(DocumentKind.HOLDINGS, NAME)
    droppable = {Release.parse(NAME)}
    assert check(copy.store, catalog_releases(copy.store), progress=Silent(), droppable=droppable).damage == []
    flip(copy.store.public / path, 100)
    report = check(copy.store, catalog_releases(copy.store), progress=Silent(), droppable=droppable)
    assert places(report) == {path}
    assert (report.releases, report.releases_dropped) == ([], 1)


@pytest.mark.parametrize("damage", ["flipped", "empty", "another"])
def test_a_link_that_is_not_what_its_name_says_is_named(copy, damage):
    """Whether the catalog names it or not. No release is damaged by that."""
    links = list(copy.store.storage.links())
    assert len(links) == 6
    orphan = f"releases/Demo/{NAME}/{'0' * 64}.placement"
    write(copy.store.public / orphan, b"left by an interrupted publish, and damaged")
    for path in (links[1], links[4]):
        file = copy.store.public / path
        data = file.read_bytes()
        other = (copy.store.public / links[2]).read_bytes()
        overwrite(file, {"flipped": bytes([data[0] ^ 1]) + data[1:], "empty": b"", "another": other}[damage])
    report = copy.check()
    assert places(report) == {links[1], links[4], orphan}
    assert (report.releases, report.links_missing) == ([], 0)
    assert link_targets(copy.store.storage, copy.catalog.releases()) == []
    assert places(copy.check()) == {orphan}


def test_an_orphan_link_that_is_what_its_name_says_is_no_damage(copy):
    data = b"left by an interrupted publish"
    write(copy.store.public / f"releases/Demo/{NAME}/{hashlib.sha256(data).hexdigest()}.manifest", data)
    assert copy.check().damage == []


def test_missing_links_are_counted_and_can_be_made(copy):
    shutil.rmtree(copy.store.public / "releases")
    report = copy.check()
    assert (report.damage, report.links_missing) == ([], 6)
    assert link_targets(copy.store.storage, copy.catalog.releases()) == []
    report = copy.check()
    assert (report.damage, report.links_missing) == ([], 0)


def test_of_a_release_without_all_its_documents_no_link_is_promised(copy):
    shutil.rmtree(copy.store.public / "releases")
    copy.store.storage.remove(DocumentKind.PLACEMENT, f"{NAME}.1")
    assert link_targets(copy.store.storage, copy.catalog.releases()) == [Release.parse(NAME)]
    assert len([path for path in copy.store.storage.links() if NEXT in path]) == 3
    assert copy.check().links_missing == 1
