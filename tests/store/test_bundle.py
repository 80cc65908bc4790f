"""Bundles: all of a release but its packs, as one object of the store."""

from __future__ import annotations

import hashlib
import zlib
from contextlib import closing

import pytest

from pacstore.check import check
from pacstore.checksums import Checksums, checksums_of, checksums_of_all
from pacstore.digest import Digest
from pacstore.directory_source import DirectorySource
from pacstore.errors import Corrupt, NotFound, Refused
from pacstore.progress import Silent
from pacstore.release import Release
from pacstore.repair.documents import DocumentRepairer
from pacstore.storage import ObjectKind
from pacstore.store import Store
from pacstore.volumes.bundle import bundle_file, bundles_in, keep_bundle, make_bundle, open_bundle
from tests.store.backups import Pair
from tests.store.carried import NAMES, carry_in, carry_out, members_of, root_of, state_of
from tests.store.damaged_stores import copy_store, found, scrub
from tests.store.releases import NOW, Notes, Origin, flip
from tests.store.sweeping import DAY, gc, pin, trial, withdraw

FIRST, SECOND, THIRD = NAMES


@pytest.fixture
def origin(tmp_path, trees):
    """An origin with two releases."""
    origin = Origin.make(tmp_path)
    for tree, name in zip(trees[:2], NAMES[:2], strict=True):
        origin.publish(tree, name)
    yield origin
    origin.store.close()


def bundle_of(origin, name=FIRST, *, now=NOW, fresh=False):
    store = origin.store
    return make_bundle(store, Release.parse(name), root=root_of(store.path), clock=lambda: now, fresh=fresh)


def test_a_bundle_has_all_of_a_release_but_its_packs(origin):
    made = bundle_of(origin)
    path = bundle_file(origin.store, made.digest)
    data = path.read_bytes()
    assert (made.digest, made.length) == (Digest.of(data), len(data))
    assert made.entry == origin.entry(FIRST)
    sizes = {pack: origin.store.storage.size(ObjectKind.PACK, pack) for pack in made.packs}
    assert sizes == made.packs
    with closing(open_bundle(path)) as volume:
        assert volume.contents.releases == (Release.parse(FIRST),)
    public, members = state_of(origin.store.path), members_of(path)
    assert all(public[f"public/{name}"] == data for name, data in members.items())
    assert {name.partition("/")[0] for name in members} == {
        "store.json", "catalog", "manifests", "attributes", "placements", "holdings"
    }  # fmt: skip


@pytest.mark.slow
def test_the_same_bundle_is_given_until_the_catalog_says_something_else_of_the_release(origin, trees):
    made = bundle_of(origin)
    origin.publish(trees[2], THIRD)
    assert bundle_of(origin).digest == made.digest
    newer = bundle_of(origin, fresh=True)
    assert newer.digest != made.digest
    assert bundle_of(origin).digest == newer.digest
    # A damaged one is no bundle any more.
    flip(bundle_file(origin.store, newer.digest), -1_100)
    assert bundle_of(origin).digest == made.digest
    withdraw(origin, FIRST)
    with pytest.raises(Refused, match="was withdrawn"):
        bundle_of(origin)
    with pytest.raises(NotFound, match="is not in the catalog"):
        bundle_of(origin, "Demo-9.9-x86_64")


def test_a_bundle_stays_while_its_release_is_pinned_and_goes_after_the_grace(origin):
    pin(origin.store, FIRST, owner="rucio", until=NOW + DAY)
    kept, other = bundle_of(origin), bundle_of(origin, SECOND)
    gc(origin.store, grace=DAY)
    gc(origin.store, now=NOW + DAY - 1, grace=DAY)
    assert dict(bundles_in(origin.store)) == {
        kept.digest: Release.parse(FIRST), other.digest: Release.parse(SECOND)
    }  # fmt: skip
    gc(origin.store, now=NOW + DAY - 1, grace=DAY - 1)
    assert [digest for digest, _ in bundles_in(origin.store)] == [kept.digest]
    assert trial(origin.store, now=NOW + DAY - 1).deleted.files == 0
    gc(origin.store, now=NOW + DAY)
    assert list(bundles_in(origin.store)) == []


@pytest.mark.slow
def test_a_bundle_that_comes_while_a_collection_is_under_way_is_looked_at(origin):
    pin(origin.store, FIRST)
    made = []

    def at(step):
        if step == "mark" and not made:
            made.append(bundle_of(origin))

    gc(origin.store, at=at)
    gc(origin.store)
    assert [digest for digest, _ in bundles_in(origin.store)] == [made[0].digest]


@pytest.mark.slow
def test_a_damaged_bundle_is_found_and_never_collected_unseen(origin):
    pin(origin.store, FIRST)
    made = bundle_of(origin)
    path = bundle_file(origin.store, made.digest)
    flip(path, 600)
    gc(origin.store)
    assert list(bundles_in(origin.store)) == [(made.digest, None)]
    report = check(origin.store, [], progress=Silent())
    assert [damage.place for damage in report.damage] == [str(path.relative_to(origin.store.public))]


@pytest.mark.slow
def test_only_bundles_are_taken_for_bundles_and_only_under_their_names(origin, tmp_path):
    made = bundle_of(origin)
    path = bundle_file(origin.store, made.digest)
    carry_out(origin.store.path, tmp_path / "whole.tar", [FIRST])
    carry_out(origin.store.path, tmp_path / "none.tar", [])
    carry_out(origin.store.path, tmp_path / "since.tar", [SECOND], since=[FIRST])
    for name in ("whole", "none", "since"):
        with pytest.raises(Refused, match="no bundle of one release") as caught:
            open_bundle(tmp_path / f"{name}.tar")
        assert "--without-packs" in caught.value.hint
    with Store.create(tmp_path / "site") as site:
        for _ in range(2):
            keep_bundle(site, path, made.digest)
        assert bundle_file(site, made.digest).read_bytes() == path.read_bytes()
        other = Digest.of(b"other")
        with pytest.raises(Corrupt, match=f"is not the bundle {other}"):
            keep_bundle(site, path, other)
        cut = tmp_path / "cut"
        cut.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(Corrupt, match="is truncated"):
            keep_bundle(site, cut, made.digest)
        assert [digest for digest, _ in bundles_in(site)] == [made.digest]


@pytest.mark.slow
def test_a_bundle_alone_is_refused_by_a_store_that_lacks_the_packs(origin, tmp_path):
    path = bundle_file(origin.store, bundle_of(origin).digest)
    with pytest.raises(Refused, match=r"lacks [0-9]+ packs"):
        carry_in([path], tmp_path / "mirror", root=root_of(origin.store.path))
    assert not (tmp_path / "mirror").exists()


def test_checksums_are_those_of_the_bytes_and_taken_once(origin):
    made, store = bundle_of(origin), origin.store
    wanted = [(ObjectKind.PACK, pack) for pack in made.packs]
    wanted += [(ObjectKind.MANIFEST, made.entry.manifest.digest), (ObjectKind.BUNDLE, made.digest)]
    notes = Notes()
    found = checksums_of_all(store, [*wanted, *wanted], progress=notes)
    for kind, digest in wanted:
        with closing(store.storage.open(kind, digest)) as file:
            data = file.read()
        assert found[kind, digest] == Checksums(len(data), f"{zlib.adler32(data):08x}", hashlib.md5(data).hexdigest())
    assert notes.bytes
    again = Notes()
    assert checksums_of_all(store, wanted, progress=again) == found
    assert again.bytes == 0


@pytest.mark.slow
def test_checksums_of_what_is_damaged_or_gone_are_not_given(origin):
    made, store = bundle_of(origin), origin.store
    first, second = sorted(made.packs)[:2]
    checksums_of(store, ObjectKind.PACK, second, progress=Silent())
    path = store.public / f"packs/{first.hex[:2]}/{first}"
    flip(path, 200)
    with pytest.raises(Corrupt, match=r"frame|digest"):
        checksums_of(store, ObjectKind.PACK, first, progress=Silent())
    path.unlink()
    with pytest.raises(NotFound):
        checksums_of(store, ObjectKind.PACK, first, progress=Silent())
    # What was taken is not read again: what has another length is not it.
    known = store.public / f"packs/{second.hex[:2]}/{second}"
    known.chmod(0o644)
    with known.open("ab") as file:
        file.write(b"more")
    with pytest.raises(Corrupt, match="bytes, not"):
        checksums_of(store, ObjectKind.PACK, second, progress=Silent())


@pytest.mark.slow
def test_checksums_are_forgotten_with_what_they_are_of(origin):
    store = origin.store
    made = bundle_of(origin)
    checksums_of(store, ObjectKind.BUNDLE, made.digest, progress=Silent())
    gc(store)
    with pytest.raises(NotFound):
        checksums_of(store, ObjectKind.BUNDLE, made.digest, progress=Silent())
    again, notes = bundle_of(origin), Notes()
    assert again.digest == made.digest
    checksums_of(store, ObjectKind.BUNDLE, made.digest, progress=notes)
    assert notes.bytes == made.length


@pytest.mark.slow
def test_stores_that_were_made_before_there_were_bundles_have_none(origin, tmp_path):
    store = origin.store
    (store.public / "bundles").rmdir()
    pin(store, FIRST)
    assert list(bundles_in(store)) == []
    gc(store)
    assert not found(scrub(store))
    assert not check(store, [], progress=Silent()).damage
    made = bundle_of(origin)
    assert [digest for digest, _ in bundles_in(store)] == [made.digest]


@pytest.mark.slow
def test_a_bundle_that_is_hostile_stops_no_collection(origin):
    pin(origin.store, FIRST)
    made, (few, many, no_tar) = bundle_of(origin), (b"", b"\0" * 5_000, b"x" * 100_000)
    header = bundle_file(origin.store, made.digest).read_bytes()[:512]
    long = header.replace(header[124:136], b"00020000000\0") + b"[" * (4 << 20) + b"\0" * 1_024
    for data in (few, many, no_tar, header, long):
        with origin.store.storage.stage(ObjectKind.BUNDLE) as staged:
            staged.write(data)
            staged.publish(Digest.of(data))
    gc(origin.store)
    assert {digest for digest, release in bundles_in(origin.store) if release} == {made.digest}


@pytest.mark.slow
def test_backups_have_bundles_too(origin, tmp_path):
    pin(origin.store, FIRST)
    made = bundle_of(origin)
    pair = Pair(origin, tmp_path)
    pair.back_up(packs=True)
    pair.restore()
    pair.assert_restored()
    with Store.open(pair.restored, writable=True) as restored:
        gc(restored)
        assert [digest for digest, _ in bundles_in(restored)] == [made.digest]


@pytest.mark.slow
def test_a_damaged_bundle_is_fetched_again_or_put_aside(origin, tmp_path):
    store = origin.store
    pin(store, FIRST)
    made = bundle_of(origin)
    path, sound = bundle_file(store, made.digest), copy_store(store.path, tmp_path / "sound")
    place = str(path.relative_to(store.public))
    flip(path, 2_000)
    assert [part.path for part in found(scrub(store))] == [place]
    DocumentRepairer(store, [], [DirectorySource(sound)]).repair(place)
    assert not found(scrub(store))
    flip(path, 2_000)
    assert DocumentRepairer(store, [], []).repair(place).withdrawn
    assert list(bundles_in(store)) == []
    # Of the same state of the catalog it is made again, byte for byte.
    assert bundle_of(origin).digest == made.digest
