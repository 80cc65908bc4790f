from __future__ import annotations

import os
import random

import pytest

from pacstore.check import catalog_releases
from pacstore.damage import WHOLE, DamagedPart
from pacstore.errors import Unavailable
from pacstore.rereading import Position
from pacstore.scrub import Scrub
from pacstore.storage import DocumentKind, ObjectKind, document_path, object_path
from pacstore.store import Store
from tests.store.damaged_stores import copy_store, found, frames, packs, publish_two, scrub
from tests.store.releases import NAME, NEXT, flip, overwrite, write


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return publish_two(tmp_path_factory.mktemp("scrub"))


@pytest.fixture
def store(published, tmp_path):
    with Store.open(copy_store(published.store.path, tmp_path / "store"), writable=True) as opened:
        yield opened


def test_a_sound_store_is_read_whole_and_nothing_is_found(store):
    steps = scrub(store, expected=[entry.release for entry in catalog_releases(store)])
    assert found(steps) == []
    assert not [step for step in steps if step.unread]
    public = {path: path.stat().st_size for path in store.public.rglob("*") if path.is_file()}
    kinds = ("packs", "manifests", "attributes", "placements")
    read = sum(size for path, size in public.items() if path.relative_to(store.public).parts[0] in kinds)
    again = sum(entry.placement.length for entry in catalog_releases(store))
    # Of packs, all but the first 8 and the last 16 bytes are what is counted.
    assert sum(step.bytes_read for step in steps) == read + again - 24 * len(packs(store))
    assert sum(step.objects for step in steps) == sum(1 for path in public if path.relative_to(store.public).parts[0]
                                                      in (*kinds, "holdings"))  # fmt: skip


def test_one_bit_anywhere_in_a_pack_is_found_in_its_frame_alone(store):
    """cvmfs#3878, #2991: rot is found by reading, not by asking whether a name exists."""
    rng = random.Random(8)
    for _ in range(12):
        path = rng.choice(packs(store))
        file = store.public / path
        offset, bit = rng.randrange(file.stat().st_size), rng.randrange(8)
        inside = [begin for begin, end in frames(store, path) if begin <= offset < end]
        flip(file, offset, bit)
        assert found(scrub(store)) == [DamagedPart(path, inside[0] if inside else WHOLE, "")]
        flip(file, offset, bit)
    assert found(scrub(store)) == []


@pytest.mark.parametrize("kind", ["manifests", "attributes", "placements", "holdings"])
def test_one_bit_anywhere_in_a_document_is_found(store, kind):
    rng = random.Random(9)
    files = [path for path in (store.public / kind).rglob("*") if path.is_file()]
    assert len(files) == 2
    for file in files:
        for _ in range(4):
            offset, bit = rng.randrange(file.stat().st_size), rng.randrange(8)
            flip(file, offset, bit)
            assert [part.path for part in found(scrub(store))] == [str(file.relative_to(store.public))]
            flip(file, offset, bit)


SLOWER = [pytest.param(damage, marks=pytest.mark.slow) for damage in ("empty", "short", "long", "another")]


@pytest.mark.parametrize("damage", ["zeros", "missing", *SLOWER])
def test_files_cut_extended_zeroed_removed_or_swapped_are_found(store, damage):
    paths = [str(p.relative_to(store.public)) for p in store.public.rglob("*") if p.is_file()]
    for path in [path for path in paths if path.split("/")[0] not in ("catalog", "store.json", "releases")]:
        file = store.public / path
        data = file.read_bytes()
        others = [p for p in file.parent.parent.rglob("*") if p.is_file() and p != file]
        if damage == "missing":
            file.unlink()
        elif damage == "another" and (not others or others[0].read_bytes() == data):
            continue
        else:
            overwrite(file, {"empty": b"", "short": data[: len(data) // 2], "long": data + b"x",
                             "zeros": data[:9] + bytes(len(data) - 9),
                             "another": others[0].read_bytes() if others else b""}[damage])  # fmt: skip
        parts = found(scrub(store, expected=[entry.release for entry in catalog_releases(store)]))
        assert {part.path for part in parts} == {path}, (path, parts)
        overwrite(write(file, data), data)
    assert found(scrub(store)) == []


def test_links_that_are_files_of_their_own_are_read(store):
    """Those that are the very file that is read under its other name are not read twice."""
    links = list(store.storage.links())
    for path in links:
        data = (store.public / path).read_bytes()
        (store.public / path).unlink()
        (store.public / path).write_bytes(data)
    assert found(scrub(store)) == []
    flip(store.public / links[0], 5)
    assert [part.path for part in found(scrub(store))] == [links[0]]


def test_a_pass_continues_where_it_was(store):
    """From every position of a pass, the rest finds the rest."""
    flipped = packs(store)[-1]
    flip(store.public / flipped, 9)
    overwrite(store.public / document_path(DocumentKind.HOLDINGS, NAME), b"{}")
    steps = scrub(store)
    everything = found(steps)
    assert len(everything) == 2
    for number, step in enumerate(steps):
        rest = scrub(store, step.position)
        assert {*found(rest), *found(steps[: number + 1])} == set(everything)
        assert sum(s.bytes_read for s in rest) <= sum(s.bytes_read for s in steps)
    assert sum(s.bytes_read for s in rest) < 10_000


def test_a_position_whose_object_is_gone_is_no_obstacle(store):
    position = Position(object_path(ObjectKind.PACK, next(store.storage.digests(ObjectKind.PACK))), 10**6)
    (store.public / position.path).unlink()
    parts = found(scrub(store, position))
    assert {part.path for part in parts} == {position.path}
    assert {part.fault for part in parts} == {"is missing"}


def test_releases_that_are_not_held_need_nothing(store):
    for path in packs(store):
        (store.public / path).unlink()
    for name in (NAME, NEXT):
        store.storage.remove(DocumentKind.HOLDINGS, name)
    assert found(scrub(store)) == []


def test_holdings_that_must_be_there_are_missed(store):
    store.storage.remove(DocumentKind.HOLDINGS, NAME)
    assert found(scrub(store)) == []
    (part,) = found(scrub(store, expected=[catalog_releases(store)[0].release]))
    assert (part.path, part.fault) == (document_path(DocumentKind.HOLDINGS, NAME), "is missing")


def test_holdings_of_an_older_placement_are_no_damage(store):
    name = document_path(DocumentKind.HOLDINGS, NAME)
    data = (store.public / name).read_bytes().replace(b'"placement_number":1', b'"placement_number":7')
    overwrite(store.public / name, data)
    assert found(scrub(store)) == []


@pytest.mark.parametrize("gone", ["marker", "docroot", "packs", "garbled"])
def test_a_store_that_is_not_there_is_an_error_and_not_damage(store, gone):
    """As when its disk is not mounted: cvmfs#4270, errors taken for absence."""
    if gone == "marker":
        (store.public / "store.json").unlink()
    elif gone == "garbled":
        overwrite(store.public / "store.json", b"\0" * 40)
    else:
        os.rename(store.public / gone if gone == "packs" else store.public, store.path / "away")
    with pytest.raises(Unavailable, match="cannot be"):
        scrub(store)


def test_a_store_that_vanishes_in_the_middle_is_an_error_and_not_damage(store):
    scrub = Scrub(store, catalog_releases(store))
    steps = scrub.steps(Position())
    next(steps)
    os.rename(store.public, store.path / "away")
    store.public.mkdir()
    with pytest.raises(Unavailable, match="is its disk mounted"):
        list(steps)
    scrub.close()


def test_what_is_removed_while_a_pass_runs_is_no_damage(store):
    scrub = Scrub(store, [])
    steps = scrub.steps(Position())
    found = [next(steps)]
    for path in packs(store)[1:]:
        (store.public / path).unlink()
    found += steps
    assert not [step for step in found if step.damage or step.unread]
    scrub.close()


def test_what_may_not_be_read_is_not_called_damaged(store):
    """Three answers: whole, damaged, and not known."""
    path = packs(store)[0]
    (store.public / path).unlink()
    os.symlink("loop", store.public / "loop")
    os.symlink(store.public / "loop", store.public / path)
    steps = scrub(store)
    sentences = [sentence for step in steps for sentence in step.unread]
    assert sentences
    assert all("too many levels of symbolic links" in sentence for sentence in sentences)
    assert found(steps) == []


def test_a_release_that_is_dropped_meanwhile_is_not_missed(store):
    """Its holdings go first, then its packs: at no moment is that damage."""
    steps = Scrub(store, catalog_releases(store)).steps(Position("placements"))
    seen = [next(step for step in steps if step.position.path.startswith("placements/"))]
    while seen[-1].position.path != f"holdings/{NAME}":
        seen.append(next(steps))
    # The list of what is held was made by now.
    (store.public / "holdings" / NEXT).unlink()
    for path in packs(store):
        (store.public / path).unlink()
    assert not [part for step in [*seen, *steps] for part in step.damage]
