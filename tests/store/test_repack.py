from __future__ import annotations

import pytest

from pacstore.check import check
from pacstore.errors import Corrupt, Refused, Unavailable
from pacstore.holding import is_held
from pacstore.ledger import packs as pack_rows
from pacstore.ledger import releases as release_rows
from pacstore.limits import KIB, PackSizes
from pacstore.progress import Silent
from pacstore.reindex import reindex
from pacstore.repack.repacking import RepackOptions
from pacstore.storage import DocumentKind, ObjectKind, object_path
from pacstore.store import Store
from pacstore.trust.keyring import KeyRing
from tests.contract.faulty import FaultyStorage, Killed, disk_full, killed
from tests.store.releases import NOW, SMALL, Notes, contents, flip, leftovers, originals, snapshot
from tests.store.repacks import (
    FIRST,
    FOURTH,
    SECOND,
    THIRD,
    bytes_of_packs,
    do_repack,
    make_worn,
    needed_bytes,
    try_repack,
)
from tests.store.sweeping import DAY, WEEK, gc, marked, packs_here, packs_needed, pin, withdraw

LATER = NOW + DAY


@pytest.fixture(scope="module")
def worn_once(tmp_path_factory):
    return make_worn(tmp_path_factory.mktemp("worn") / "origin")


@pytest.fixture
def worn(worn_once, tmp_path):
    return worn_once.copy(tmp_path / "origin")


def numbers_of(releases):
    return {str(entry.release): entry.placement_number for entry in releases.origin.catalog.releases()}


def test_most_of_a_store_is_won_back_and_every_release_stays_whole(worn):
    before = bytes_of_packs(worn)
    said = try_repack(worn)
    done = do_repack(worn)
    assert (done.placements, done.passed, done.failed, done.left) == (2, 0, [], [])
    assert numbers_of(worn) == {FIRST: 1, SECOND: 2, THIRD: 2}
    assert (said.repacked, said.live_bytes, said.new_packs) == (done.repacked, done.live_bytes, done.new_packs)
    assert 0 <= done.new_bytes - said.new_bytes < KIB
    worn.assert_installable(but={FIRST})
    worn.assert_sound()
    gc(worn.store, now=LATER + WEEK, grace=WEEK)
    worn.assert_installable(but={FIRST})
    worn.assert_sound()
    assert before - bytes_of_packs(worn) == done.won_bytes
    assert before > 2 * needed_bytes(SECOND, THIRD) > 1.9 * bytes_of_packs(worn)
    again = do_repack(worn)
    assert (again.repacked, again.placements, again.new_packs) == ([], 0, 0)


def test_a_trial_changes_nothing(worn):
    worn.store.close()
    # Whoever reads a database in WAL mode makes the files beside it.
    before = {path: data for path, data in snapshot(worn.store.path).items() if not path.endswith(("-shm", "-wal"))}
    assert try_repack(worn).won_bytes > 0
    after = {path: data for path, data in snapshot(worn.store.path).items() if not path.endswith(("-shm", "-wal"))}
    assert after == before


def test_old_packs_stay_for_the_grace_that_begins_now_for_who_has_an_older_placement(worn):
    entries = [worn.origin.entry(name) for name in (SECOND, THIRD)]
    done = do_repack(worn)
    old = {use.pack.hex for use in done.repacked}
    assert {object_path(ObjectKind.PACK, use.pack) for use in done.repacked} < marked(worn.store).keys()
    report = gc(worn.store, now=LATER + WEEK - 1, grace=WEEK)
    assert (report.deleted.files, report.next_at) == (0, LATER + WEEK)
    for entry in entries:
        assert contents(worn.store, entry) == originals(worn.trees[str(entry.release)])
    gc(worn.store, now=LATER + WEEK, grace=WEEK)
    assert not packs_here(worn.store) & old
    assert [name for name in worn.store.storage.names(DocumentKind.PLACEMENT) if name.endswith(".1")] == []


@pytest.mark.slow
def test_later_publishes_refer_to_the_new_packs_and_bring_no_old_ones_back(worn):
    done = do_repack(worn)
    worn.publish(FOURTH)
    needed = packs_needed(worn.origin, FOURTH)
    # b and c are nowhere else than in packs that are dead now.
    old = {use.pack.hex for use in done.repacked}
    gc(worn.store, now=LATER + WEEK, grace=WEEK)
    worn.assert_installable(but={FIRST})
    assert packs_here(worn.store) & old == needed & old
    again = do_repack(worn, options=RepackOptions(0.9, SMALL), now=LATER + WEEK)
    assert {use.pack.hex for use in again.repacked} >= needed & old
    gc(worn.store, now=LATER + 2 * WEEK, grace=WEEK)
    assert not packs_here(worn.store) & old
    worn.assert_installable(but={FIRST})
    worn.assert_sound()


def test_a_publish_that_needs_what_was_moved_alone_needs_no_old_pack(worn):
    done = do_repack(worn)
    worn.trees |= dict.fromkeys(("Demo-2.0-x", "Demo-2.1-x"), worn.trees[THIRD])
    old = {use.pack.hex for use in done.repacked}
    worn.publish("Demo-2.0-x")
    assert not packs_needed(worn.origin, "Demo-2.0-x") & old
    reindex(worn.store, progress=Silent())
    worn.publish("Demo-2.1-x")
    assert not packs_needed(worn.origin, "Demo-2.1-x") & old


def test_pinned_packs_and_those_of_pinned_releases_are_left_alone_and_told(worn):
    whole = try_repack(worn).repacked
    pin(worn.store, THIRD, owner="rucio:sw.Demo")
    one = next(use for use in whole if use.pack.hex not in packs_needed(worn.origin, THIRD))
    pin(worn.store, one.pack.hex)
    before = packs_needed(worn.origin, THIRD)
    done = do_repack(worn)
    assert {use.pack: use.reason for use in done.left} == {
        use.pack: "pinned by operator" if use == one else f"{THIRD} is pinned by rucio:sw.Demo" for use in whole
    }
    assert (done.repacked, done.new_packs, numbers_of(worn)[THIRD]) == ([], 0, 1)
    assert packs_needed(worn.origin, THIRD) == before


@pytest.mark.slow
def test_packs_of_what_waits_for_signatures_are_left_alone_and_those_of_others_in_its_line_are_not(worn):
    worn.publish_later(FOURTH)
    done = do_repack(worn)
    assert {use.reason for use in done.left} <= {f"{FOURTH} waits for signatures"}
    assert done.repacked
    worn.assert_installable(but={FIRST})
    gc(worn.store, now=LATER + WEEK, grace=WEEK)
    assert not packs_here(worn.store) & {use.pack.hex for use in done.repacked}


def test_only_an_origin_repacks(worn):
    worn.store.remember_mirror()
    for work in (do_repack, try_repack):
        with pytest.raises(Refused, match="is a mirror"):
            work(worn)


def test_without_the_online_key_nothing_is_copied(worn, tmp_path):
    before = snapshot(worn.store.public)
    worn.origin.keys = KeyRing(tmp_path / "none")
    with pytest.raises(Refused, match="keys that the catalog trusts"):
        do_repack(worn)
    assert snapshot(worn.store.public) == before


@pytest.mark.slow
def test_a_damaged_pack_is_named_and_stays_while_the_others_are_repacked(worn):
    whole = try_repack(worn)
    bad = whole.repacked[0]
    path = worn.store.public / object_path(ObjectKind.PACK, bad.pack)
    frames = snapshot(worn.store.public)[object_path(ObjectKind.PACK, bad.pack)]
    for offset in range(100, len(frames) - 9000, 100 * KIB):
        flip(path, offset)
    done = do_repack(worn)
    assert [damage.place.split(",")[0] for damage in done.failed] == [object_path(ObjectKind.PACK, bad.pack)]
    assert done.repacked == whole.repacked[1:]
    path.write_bytes(frames)
    worn.assert_installable(but={FIRST})
    gc(worn.store, now=LATER + WEEK, grace=WEEK)
    worn.assert_installable(but={FIRST})
    assert bad.pack.hex in packs_here(worn.store)
    rest = do_repack(worn)
    assert rest.repacked == [bad]
    gc(worn.store, now=LATER + 2 * WEEK, grace=WEEK)
    worn.assert_installable(but={FIRST})
    worn.assert_sound()


def test_a_placement_that_cannot_be_read_lets_nothing_be_repacked(worn):
    (worn.store.public / f"placements/{THIRD}.1").unlink()
    with pytest.raises(Corrupt, match=f"what {THIRD} needs"):
        do_repack(worn)


def test_what_was_copied_is_not_collected_before_a_placement_names_it(worn):
    small = RepackOptions(0.5, PackSizes(pack_bytes=100 * KIB))
    reports = []

    def collect(_):
        with Store.open(worn.store.path, writable=True) as other:
            reports.extend(gc(other, now=LATER) for _ in range(3))

    with Store.open(worn.store.path, writable=True) as store:
        # Before the third new pack.
        store.storage = FaultyStorage(store.storage, 3, collect, ("stage",), once=True)
        done = do_repack(worn, store=store, options=small)
    assert [report.condemned.files for report in reports] == [2, 2, 2]
    assert (done.new_packs, done.placements, done.failed) == (3, 2, [])
    gc(worn.store, now=LATER)
    worn.assert_installable(but={FIRST})
    worn.assert_sound()


class DyingBeforeHoldings(FaultyStorage):
    def put(self, kind, name, data):
        if kind is DocumentKind.HOLDINGS:
            raise Killed(name)
        self._storage.put(kind, name, data)


def test_one_that_ended_between_catalog_and_holdings_keeps_old_packs_until_the_next_lets_holdings_follow(worn):
    with Store.open(worn.store.path, writable=True) as store:
        store.storage = DyingBeforeHoldings(store.storage)
        with pytest.raises(Killed):
            do_repack(worn, store=store)
    worn.again()
    entries = {name: worn.origin.entry(name) for name in (SECOND, THIRD)}
    assert {entry.placement_number for entry in entries.values()} == {2}
    assert not any(is_held(worn.store.storage, entry) for entry in entries.values())
    before = packs_here(worn.store)
    for _ in range(3):
        gc(worn.store, now=LATER)
    assert packs_here(worn.store) == before
    worn.assert_installable(but={FIRST})
    assert do_repack(worn).placements == 0
    assert all(is_held(worn.store.storage, entry) for entry in entries.values())
    gc(worn.store, now=LATER)
    assert packs_here(worn.store) < before
    worn.assert_installable(but={FIRST})
    worn.assert_sound()


def test_a_check_that_began_before_a_repacking_finds_no_damage(worn):
    entries = [worn.origin.entry(name) for name in (SECOND, THIRD)]
    assert do_repack(worn).placements == 2
    with Store.open(worn.store.path, writable=False) as store:
        assert check(store, entries, progress=Silent()).damage == []


def test_a_release_that_is_not_held_whole_keeps_its_packs(worn):
    worn.store.storage.remove(DocumentKind.HOLDINGS, THIRD)
    done = do_repack(worn)
    assert {use.reason for use in done.left} == {f"{THIRD} is not held whole"}
    assert numbers_of(worn)[THIRD] == 1
    assert THIRD not in set(worn.store.storage.names(DocumentKind.HOLDINGS))


@pytest.mark.slow
def test_the_ledger_and_the_holdings_say_what_the_catalog_says(worn):
    do_repack(worn)
    with worn.store.ledger.reading() as connection:
        rows = release_rows.every(connection)
        assert {str(name): row.placement_number for name, row in rows.items()} == {SECOND: 2, THIRD: 2}
        for name in (SECOND, THIRD):
            here = release_rows.needed(connection, worn.origin.entry(name).release)
            assert {pack.hex for pack in here} == packs_needed(worn.origin, name)
        assert {row.pack.hex for row in pack_rows.every(connection)} >= packs_needed(worn.origin, SECOND)


def test_what_a_repacking_copies_is_counted(worn):
    notes = Notes()
    done = do_repack(worn, progress=notes)
    assert (notes.phases, notes.bytes) == (["repacking"], done.live_bytes)


def test_a_full_disk_loses_nothing_and_the_next_attempt_goes_on(worn):
    with Store.open(worn.store.path, writable=True) as store:
        store.storage = FaultyStorage(store.storage, 3, disk_full, ("write",))
        with pytest.raises(Unavailable):
            do_repack(worn, store=store)
    assert leftovers(worn.store) == []
    worn.again()
    worn.assert_installable(but={FIRST})
    assert do_repack(worn).placements == 2
    worn.assert_installable(but={FIRST})


def test_what_was_copied_before_an_interruption_is_not_copied_again(worn):
    with Store.open(worn.store.path, writable=True) as store:
        store.storage = FaultyStorage(store.storage, 1, killed, ("create",))
        with pytest.raises(Killed):
            do_repack(worn, store=store)
    worn.again()
    done = do_repack(worn)
    assert (done.new_packs, done.found_bytes, done.placements) == (0, done.live_bytes, 2)
    worn.assert_installable(but={FIRST})
    worn.assert_sound()


@pytest.mark.slow
def test_a_copy_that_was_damaged_since_is_made_anew(worn):
    before = packs_here(worn.store)
    with Store.open(worn.store.path, writable=True) as store:
        store.storage = FaultyStorage(store.storage, 1, killed, ("create",))
        with pytest.raises(Killed):
            do_repack(worn, store=store)
    worn.again()
    (copy,) = packs_here(worn.store) - before
    for offset in (100, 140 * KIB, 270 * KIB):
        flip(worn.store.public / f"packs/{copy[:2]}/{copy}", offset)
    done = do_repack(worn)
    assert (done.new_packs, done.placements, done.failed) == (1, 2, [])
    gc(worn.store, now=LATER)
    gc(worn.store, now=LATER)
    worn.assert_installable(but={FIRST})
    worn.assert_sound()


@pytest.mark.slow
def test_a_release_that_is_withdrawn_after_an_interruption_is_dropped_as_ever(worn):
    with Store.open(worn.store.path, writable=True) as store:
        store.storage = FaultyStorage(store.storage, 1, killed, ("put",))
        with pytest.raises(Killed):
            do_repack(worn, store=store)
    worn.again()
    assert numbers_of(worn)[THIRD] == 2
    withdraw(worn.origin, THIRD, now=LATER)
    done = do_repack(worn)
    assert (done.repacked, done.placements) == ([], 0)
    worn.assert_sound()


MUTATING = ("stage", "publish", "create", "link", "put", "remove")


@pytest.mark.slow
def test_a_repacking_that_is_killed_at_any_step_is_finished_by_the_next(worn, tmp_path):
    counted = worn.copy(tmp_path / "counted")
    faulty = counted.store.storage = FaultyStorage(counted.store.storage, 0, killed, MUTATING)
    do_repack(counted)
    assert {"stage", "publish", "create", "link", "put"} <= set(faulty.calls)
    wanted = bytes_of_packs(counted)
    for number in range(1, len(faulty.calls) + 1):
        releases = worn.copy(tmp_path / str(number))
        releases.store.storage = FaultyStorage(releases.store.storage, number, killed, MUTATING)
        with pytest.raises(Killed):
            do_repack(releases)
        releases.again()
        releases.assert_installable(but={FIRST})
        do_repack(releases)
        releases.assert_sound()
        gc(releases.store, now=LATER + WEEK, grace=WEEK)
        # What the killed one left unused is marked by this collection, and goes with the next.
        gc(releases.store, now=LATER + 2 * WEEK, grace=WEEK)
        releases.assert_installable(but={FIRST})
        assert bytes_of_packs(releases) <= wanted
        assert packs_here(releases.store) == packs_needed(releases.origin, SECOND) | packs_needed(
            releases.origin, THIRD
        )
        assert marked(releases.store) == {}
        releases.assert_sound()
        releases.store.close()
