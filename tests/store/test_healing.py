from __future__ import annotations

import os
import random
import resource
import shutil
import signal
from contextlib import contextmanager

import pytest

from pacstore.check import catalog_releases
from pacstore.digest import Digest
from pacstore.ledger import damage, releases
from pacstore.ledger import packs as ledger_packs
from pacstore.ledger.completion import complete
from pacstore.ledger.damage import DamageState
from pacstore.ledger.packs import PackState
from pacstore.partial import PARTIAL_NAME, PartialPacks
from pacstore.storage import ObjectKind
from pacstore.store import Store
from tests.store.damaged_stores import (
    copy_store,
    found,
    frames,
    heal,
    healer,
    held,
    packs,
    publish_two,
    scrub,
    table_of,
)
from tests.store.damaged_stores import damage as damage_of
from tests.store.releases import NAME, NEXT, NOW, Origin, contents, flip, leftovers, overwrite, write


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return publish_two(tmp_path_factory.mktemp("healing"))


@pytest.fixture
def sound(published):
    return published.store.path


@pytest.fixture
def store(published, tmp_path):
    with Store.open(copy_store(published.store.path, tmp_path / "store"), writable=True) as opened:
        yield opened


def state(store):
    """Damage in the ledger, by state, and the rows that are not repaired."""
    with store.ledger.reading() as connection:
        totals = {state.value: total.items for state, total in damage.damage_totals(connection).items()}
        rows = damage.unrepaired(connection, limit=1000)
    return totals, rows


def public(store):
    kinds = ("packs", "manifests", "attributes", "placements", "holdings", "releases")
    return {
        str(path.relative_to(store.public)): path.read_bytes()
        for kind in kinds
        for path in (store.public / kind).rglob("*")
        if path.is_file()
    }


PACK_DAMAGE = {
    "header": lambda data, table: b"PBPACK02" + data[8:],
    "first frame": lambda data, table: data[:8] + b"\xff" + data[9:],
    "last frame": lambda data, table: data[: table.offsets[-1] - 1] + b"\xff" + data[table.offsets[-1] :],
    "table": lambda data, table: data[:-40] + bytes([data[-40] ^ 1]) + data[-39:],
    "footer": lambda data, table: data[:-3] + b"xyz",
    "length in the footer": lambda data, table: data[:-16] + bytes(8) + data[-8:],
    "empty": lambda data, table: b"",
    "short": lambda data, table: data[: len(data) // 2],
    "one byte less": lambda data, table: data[:-1],
    "longer": lambda data, table: data + b"\0" * 5000,
    "zeros": lambda data, table: bytes(len(data)),
    "all frames": lambda data, table: data[:8] + bytes(int(table.offsets[-1]) - 8) + data[int(table.offsets[-1]) :],
}


QUICK = ("header", "last frame", "table", "short", "longer")
KINDS = [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in PACK_DAMAGE]


@pytest.mark.parametrize("kind", KINDS)
def test_a_pack_damaged_anywhere_is_healed_from_another_store(store, sound, kind):
    before = public(store)
    path = max(packs(store), key=lambda path: (store.public / path).stat().st_size)
    overwrite(store.public / path, PACK_DAMAGE[kind]((store.public / path).read_bytes(), table_of(store, path)))
    (healed,) = heal(store, sources=[sound])
    assert (healed.whole, healed.lost) == (True, ())
    assert public(store) == before
    assert damage_of(store) == []
    assert state(store)[1] == []
    assert leftovers(store) == []
    assert (store.public / path).stat().st_mode & 0o777 == 0o444


def test_what_was_flipped_is_listed_and_healed_and_nothing_else_is_fetched(store, sound):
    """cvmfs#3878, #3268: mirrors rot in silence, and nobody heals them."""
    rng = random.Random(11)
    before = public(store)
    flipped = set()
    for path in packs(store):
        for begin, end in rng.sample(frames(store, path), min(3, len(frames(store, path)))):
            flip(store.public / path, rng.randrange(begin, end))
            flipped.add((path, begin, end - begin))
    parts = damage_of(store)
    assert {(part.path, part.offset, part.length) for part in parts} == flipped
    done = heal(store, sources=[sound])
    assert sum(healed.parts for healed in done) == len(flipped)
    assert sum(healed.bytes_got for healed in done) == sum(length for *_, length in flipped)
    assert {giver for healed in done for giver in healed.givers} == {str(sound)}
    assert public(store) == before
    assert state(store)[0] == {"open": 0, "withdrawn": 0, "repaired": len(flipped)}


def test_who_reads_a_damaged_pack_goes_on_reading_the_old_file(store, sound):
    path = packs(store)[0]
    flip(store.public / path, 9)
    with open(store.public / path, "rb") as file:
        old = file.read(100)
        heal(store, sources=[sound])
        file.seek(0)
        assert file.read(100) == old
    assert (store.public / path).read_bytes()[:100] != old


@pytest.mark.slow
def test_two_packs_that_were_swapped(store, sound):
    before = public(store)
    one, other = packs(store)[:2]
    os.rename(store.public / one, store.path / "x")
    os.rename(store.public / other, store.public / one)
    os.rename(store.path / "x", store.public / other)
    assert [healed.whole for healed in heal(store, sources=[sound])] == [True, True]
    assert public(store) == before


@pytest.mark.parametrize("kind", ["flipped", "missing", pytest.param("empty", marks=pytest.mark.slow)])
def test_documents_and_their_links_are_healed_together(store, sound, kind):
    before = public(store)
    for path in [path for path in before if path.split("/")[0] in ("manifests", "attributes", "placements")]:
        if kind == "missing":
            (store.public / path).unlink()
        elif kind == "empty":
            overwrite(store.public / path, b"")
        else:
            flip(store.public / path, 100)
    assert all(healed.whole for healed in heal(store, sources=[sound]))
    assert public(store) == before
    for link in store.storage.links():
        assert (store.public / link).stat().st_nlink == 2
    assert held(store) == [NAME, NEXT]


def test_holdings_and_links_are_made_again_without_any_source(store):
    before = public(store)
    for path in [path for path in before if path.startswith("releases/")]:
        data = (store.public / path).read_bytes()
        (store.public / path).unlink()
        write(store.public / path, b"x" + data[1:])
    for name in (NAME, NEXT):
        overwrite(store.public / "holdings" / name, b"{}")
    heal(store)
    assert public(store) == before
    assert state(store)[1] == []


def test_nothing_of_a_damaged_release_is_offered_until_it_is_whole(store, sound):
    """A release is complete only by verification; any damage clears that, with its holdings, at once."""
    path = next(path for path in packs(store) if len(users(store, path)) == 1)
    (name,) = users(store, path)
    other = NAME if name == NEXT else NEXT
    flip(store.public / path, 9)
    with healer(store, sources=[sound]) as made:
        assert {str(release) for release in made.record(damage_of(store), now=NOW)} == {name}
        assert held(store) == [other]
        assert made.restore(now=NOW) == []
        assert made.heal(path, now=NOW).whole
        assert held(store) == [other]
        assert [str(release) for release in made.restore(now=NOW)] == [name]
    assert held(store) == [NAME, NEXT]


def users(store, path):
    with healer(store) as made:
        return {str(release) for release in made._usage.users([path])}


def test_complete_in_the_ledger_is_cleared_and_set_again(store, sound):
    ledger = store.ledger
    for entry in catalog_releases(store):
        complete(ledger, store.storage, entry, now=NOW)
    path = packs(store)[0]
    flip(store.public / path, 9)
    with healer(store, sources=[sound]) as made:
        concerned = made.record(damage_of(store), now=NOW)
        with ledger.reading() as connection:
            assert {
                release for release, row in releases.every(connection).items() if row.state == "partial"
            } == concerned
            assert ledger_packs.find(connection, Digest.parse(path[-64:])).state is PackState.DAMAGED
        made.heal(path, now=NOW)
        made.restore(now=NOW)
    with ledger.reading() as connection:
        assert {row.state for row in releases.every(connection).values()} == {"complete"}
        assert ledger_packs.find(connection, Digest.parse(path[-64:])).state is PackState.WHOLE


def test_a_release_that_leaves_later_is_healed_and_leaves_when_it_was_to(store, sound):
    old = catalog_releases(store)[0]
    with store.ledger.writing() as connection:
        releases.let_go(connection, old.release, at=NOW + 100)
    flip(store.public / packs(store)[0], 9)
    heal(store, sources=[sound])
    assert held(store) == [NAME, NEXT]
    with store.ledger.reading() as connection:
        row = releases.find(connection, old.release)
    assert (row.state, row.leaves_at) == ("complete", NOW + 100)


def test_what_nobody_has_is_withdrawn_listed_and_its_good_frames_are_kept(store):
    path = max(packs(store), key=lambda path: len(frames(store, path)))
    begin, end = frames(store, path)[1]
    flip(store.public / path, begin)
    (healed,) = heal(store)
    assert (healed.whole, healed.withdrawn) == (False, True)
    assert [(part.offset, part.length) for part in healed.lost] == [(begin, end - begin)]
    assert not (store.public / path).exists()
    partial = PartialPacks(store.private, store.storage).open(Digest.parse(path[-64:]))
    assert partial.missing(range(len(partial.frames))) == [1]
    partial.close()
    totals, rows = state(store)
    assert totals["withdrawn"] == len(rows) == 1
    assert rows[0].part.offset == begin
    assert held(store) == []  # both releases need that pack


def test_what_was_withdrawn_is_whole_again_when_somebody_has_it(store, sound):
    before = public(store)
    path = packs(store)[0]
    flip(store.public / path, 9)
    heal(store)
    assert path not in public(store)
    (healed,) = heal(store, sources=[sound])
    assert (healed.whole, healed.parts) == (True, 1)
    assert public(store) == before
    assert held(store) == [NAME, NEXT]
    assert list(PartialPacks(store.private, store.storage).digests()) == []


def test_sources_that_are_damaged_themselves_give_what_they_have(store, sound, tmp_path):
    """Two sources, each with another half; and one that lies about everything."""
    before = public(store)
    path = max(packs(store), key=lambda path: len(frames(store, path)))
    liar, first, second = (copy_store(sound, tmp_path / name) for name in ("liar", "first", "second"))
    for number, (begin, _) in enumerate(frames(store, path)):
        flip(store.public / path, begin)
        flip((first, second)[number % 2] / "public" / path, begin)
        flip(liar / "public" / path, begin)
    (healed,) = heal(store, sources=[liar, first, second])
    assert healed.whole
    assert set(healed.givers) == {str(first), str(second)}
    assert any("wrong bytes" in fault for fault in healed.faults)
    assert public(store) == before


@pytest.mark.slow
def test_frames_of_which_some_come_are_kept_for_later(store, sound, tmp_path):
    path = max(packs(store), key=lambda path: len(frames(store, path)))
    half = copy_store(sound, tmp_path / "half")
    for number, (begin, _) in enumerate(frames(store, path)):
        flip(store.public / path, begin)
        if number:
            flip(half / "public" / path, begin)
    (healed,) = heal(store, sources=[half])
    assert (healed.whole, healed.parts) == (False, 1)
    partial = PartialPacks(store.private, store.storage).open(Digest.parse(path[-64:]))
    assert partial.missing(range(len(partial.frames))) == list(range(1, len(partial.frames)))
    assert len(healed.lost) == len(partial.frames) - 1
    partial.close()


@pytest.mark.parametrize("layout", ["renamed", "install root", pytest.param("tree", marks=pytest.mark.slow)])
def test_frames_are_made_again_of_an_installed_tree(store, published, tmp_path, layout):
    before = public(store)
    tree = published.store.path.parents[1] / "1"
    if layout == "install root":
        shutil.copytree(tree, tmp_path / "root/releases" / NAME, symlinks=True)
        tree = tmp_path / "root"
    elif layout == "renamed":
        shutil.copytree(tree / "lib", tmp_path / "other/somewhere/else", symlinks=True)
        tree = tmp_path / "other"
    path = max(packs(store), key=lambda path: len(frames(store, path)))
    begin, _ = frames(store, path)[1]
    flip(store.public / path, begin)
    (healed,) = heal(store, trees=[tree])
    assert (healed.whole, healed.givers) == (True, (str(tree),)), healed
    assert public(store) == before


def test_a_tree_that_compresses_otherwise_gives_nothing(store, published, monkeypatch):
    """As with another version of zstd: what comes out has another digest, and is not used."""
    path = max(packs(store), key=lambda path: len(frames(store, path)))
    flip(store.public / path, 9)
    import pacstore.repair.trees as trees  # noqa: PLC0415

    monkeypatch.setattr(trees.codec, "compress", lambda plain, level: b"other")
    (healed,) = heal(store, trees=[published.store.path.parents[1] / "1"])
    assert not healed.whole
    assert any("compresses them otherwise" in fault for fault in healed.faults)


def test_a_lost_table_is_made_again_from_the_releases_that_use_the_pack(store):
    """Without any source: all that a table says of a pack is in the manifests and placements of its releases."""
    before = public(store)
    for path in packs(store):
        data = (store.public / path).read_bytes()
        end = int(table_of(store, path).offsets[-1])
        overwrite(store.public / path, data[:end] + bytes(len(data) - end))
    done = heal(store)
    whole = [healed.path for healed in done if healed.whole]
    assert whole == sorted(path for path in before if path.startswith("packs/"))
    assert public(store) == before


def test_a_pack_that_is_gone_is_fetched_whole(store, sound):
    before = public(store)
    for path in packs(store):
        (store.public / path).unlink()
    assert all(healed.whole for healed in heal(store, sources=[sound]))
    assert public(store) == before


def test_publishers_do_not_refer_to_what_was_withdrawn(store, sound, published, tmp_path):
    origin = Origin(tmp_path, store, published.catalog.__class__.open(store.storage), published.keys)
    path = max(packs(store), key=lambda path: len(frames(store, path)))
    flip(store.public / path, 9)
    heal(store)
    tree = published.store.path.parents[1] / "2"
    origin.publish(tree, "Demo-1.2-x86_64")
    assert contents(store, origin.entry("Demo-1.2-x86_64"))
    heal(store, sources=[sound])
    assert held(store) == [NAME, NEXT, "Demo-1.2-x86_64"]
    assert origin.check().damage == []


def test_damage_that_is_found_again_is_one_row(store):
    flip(store.public / packs(store)[0], 9)
    with healer(store) as made:
        for now in (NOW, NOW + 5):
            made.record(found(scrub(store)), now=now)
    totals, (row,) = state(store)
    assert totals == {"open": 1, "withdrawn": 0, "repaired": 0}
    assert (row.found_at, row.state) == (NOW, DamageState.OPEN)


def test_where_nothing_can_be_written_damage_is_withdrawn_and_repaired_later(store, sound):
    """As on a full disk: to withdraw takes no room."""
    before = public(store)
    path = max(packs(store), key=lambda path: (store.public / path).stat().st_size)
    flip(store.public / path, 9)
    with healer(store, sources=[sound]) as made:
        made.record(damage_of(store), now=NOW)
        with files_no_longer_than(100_000):
            healed = made.heal(path, now=NOW)
        assert (healed.whole, healed.withdrawn) == (False, True)
        assert "file too large" in healed.faults[0]
        assert not (store.public / path).exists()
        assert leftovers(store) == []
        assert made.heal(path, now=NOW).whole
        made.restore(now=NOW)
    assert public(store) == before


def test_damage_that_cannot_be_withdrawn_is_not_said_to_be(store, sound):
    path = max(packs(store), key=lambda path: (store.public / path).stat().st_size)
    flip(store.public / path, 9)
    (store.private / PARTIAL_NAME).write_bytes(b"")  # something else is in the place of the directory
    with healer(store, sources=[sound]) as made:
        made.record(damage_of(store), now=NOW)
        with files_no_longer_than(100_000):
            healed = made.heal(path, now=NOW)
    assert (healed.whole, healed.withdrawn) == (False, False)
    assert (store.public / path).exists()
    totals, _ = state(store)
    assert totals == {"open": 1, "withdrawn": 0, "repaired": 0}


@contextmanager
def files_no_longer_than(size):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_orphans_that_nobody_has_are_put_aside(store):
    data = b"what no release of the catalog names"
    with store.storage.stage(ObjectKind.MANIFEST) as staged:
        staged.write(data)
        staged.publish(Digest.of(data))
    path = f"manifests/{Digest.of(data).hex[:2]}/{Digest.of(data)}"
    flip(store.public / path, 3)
    (healed,) = heal(store)
    assert (healed.path, healed.withdrawn) == (path, True)
    assert not (store.public / path).exists()
    assert len(list((store.private / "damaged").iterdir())) == 1
    assert held(store) == [NAME, NEXT]
