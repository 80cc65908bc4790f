from __future__ import annotations

import os

import pytest

from pacstore.errors import Corrupt, NotFound, Refused
from pacstore.ledger.pins import Pin
from pacstore.storage import DocumentKind, ObjectKind
from pacstore.store import Store
from pacstore.trust.retention import Retain
from tests.contract.faulty import FaultyStorage, Killed, killed
from tests.store.releases import NOW, flip, originals, overwrite, snapshot
from tests.store.sweeping import DAY, WEEK, Releases, drop, gc, marked, packs_here, packs_needed, pin, trial, withdraw

OLD, NEW, NEXT = "Demo-1.0-x", "Demo-1.1-x", "Demo-1.2-x"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    made = Releases(tmp_path_factory.mktemp("published") / "origin")
    made.publish(OLD)
    made.publish(NEW)
    return made


@pytest.fixture
def releases(published, tmp_path):
    return published.copy(tmp_path / "origin")


def drop_old(releases, *, now=NOW):
    withdraw(releases.origin, OLD, now=now)
    drop(releases.origin, now=now + DAY)


def killing(number):
    """What kills whoever comes to the step with that number."""
    left = iter(range(number))

    def step(name):
        if next(left, None) is None:
            raise Killed(name)

    return step


def paths_of_catalog(public):
    return {path for path in public if path.startswith("catalog/")}


def test_what_releases_refer_to_stays_for_ever(releases):
    gc(releases.store)
    before = snapshot(releases.store.public)
    for year in range(3):
        report = gc(releases.store, now=NOW + year * 365 * DAY)
        assert (report.releases, report.deleted.files, report.waiting.files) == (2, 0, 0)
    assert snapshot(releases.store.public) == before
    releases.assert_sound()
    assert marked(releases.store) == {}


def test_a_dropped_release_goes_after_the_grace_and_no_other_loses_anything(releases):
    own = packs_needed(releases.origin, OLD) - packs_needed(releases.origin, NEW)
    kept = packs_needed(releases.origin, NEW)
    assert own
    drop_old(releases)
    report = gc(releases.store, now=NOW + DAY, grace=WEEK)
    assert (report.deleted.files, report.dropped, report.next_at) == (0, 1, NOW + 8 * DAY)
    assert gc(releases.store, now=NOW + 8 * DAY - 1, grace=WEEK).deleted.files == 0
    assert own <= packs_here(releases.store)
    report = gc(releases.store, now=NOW + 8 * DAY, grace=WEEK)
    assert report.deleted.files >= len(own) + 3
    assert packs_here(releases.store) == kept
    releases.assert_gone(OLD)
    releases.assert_installable(but={OLD})
    releases.assert_sound()
    assert releases.store.index.packs() == [(d, releases.store.storage.size(ObjectKind.PACK, d))
                                            for d in releases.store.storage.digests(ObjectKind.PACK)]  # fmt: skip


def test_links_do_not_keep_the_bytes_of_what_was_collected(releases):
    drop_old(releases)
    top = releases.store.public / "releases/Demo" / OLD
    assert len(list(top.iterdir())) == 3
    before = sum(os.stat(p).st_blocks for p in releases.store.public.rglob("*") if p.is_file() and p.stat().st_nlink)
    report = gc(releases.store, now=NOW + DAY)
    after = {p.stat().st_ino: p.stat().st_blocks for p in releases.store.public.rglob("*") if p.is_file()}
    assert list(top.iterdir()) == []
    assert all(p.stat().st_nlink == 2 for p in (releases.store.public / "manifests").rglob("*") if p.is_file())
    assert report.deleted.bytes > 0
    assert before > sum(after.values())


def test_fear_of_deletion_a_trial_says_what_would_go_and_why_the_rest_stays(releases):  # kopia#4769, restic#2473
    drop_old(releases)
    assert trial(releases.store, now=NOW + DAY, grace=WEEK).waiting.files > 3
    gc(releases.store, now=NOW + DAY, grace=WEEK)
    before = snapshot(releases.store.public)
    said = trial(releases.store, now=NOW + 8 * DAY, grace=WEEK)
    assert snapshot(releases.store.public) == before
    done = gc(releases.store, now=NOW + 8 * DAY, grace=WEEK)
    assert said.deleted == done.deleted
    assert said.deleted.bytes == sum(len(before[path]) for path in before.keys() - snapshot(releases.store.public)
                                     if not path.startswith("releases/"))  # fmt: skip


def test_pins_keep_what_nothing_else_does(releases):  # attic#83
    own = packs_needed(releases.origin, OLD)
    one = min(own - packs_needed(releases.origin, NEW))
    drop_old(releases)
    pin(releases.store, OLD, owner="rucio:sw.Demo")
    pin(releases.store, one, until=NOW + 20 * DAY)
    report = gc(releases.store, now=NOW + DAY)
    assert (report.pins, report.releases) == (2, 2)
    assert own <= packs_here(releases.store)
    assert releases.origin.assembled(OLD) == originals(releases.tree(OLD))
    pin(releases.store, OLD, owner="rucio:sw.Demo", until=NOW + 2 * DAY)
    gc(releases.store, now=NOW + 3 * DAY)
    assert packs_here(releases.store) == packs_needed(releases.origin, NEW) | {one}
    gc(releases.store, now=NOW + 20 * DAY)
    assert packs_here(releases.store) == packs_needed(releases.origin, NEW)


@pytest.mark.parametrize("values", [{"name": "x"}, {"name": OLD, "owner": " "}, {"name": OLD, "owner": "a\nb"},
                                    {"name": OLD, "reason": "x" * 1001}, {"name": OLD, "reason": "\x1b[2J"}])  # fmt: skip
def test_pins_that_cannot_be_shown_are_refused(values):
    with pytest.raises(Refused):
        Pin(**values)


def test_a_release_that_waits_for_signatures_keeps_its_packs(releases):
    gc(releases.store)
    releases.publish_later(NEXT)
    before = snapshot(releases.store.public)
    assert gc(releases.store, now=NOW + 99 * DAY).deleted.files == 0
    assert snapshot(releases.store.public) == before
    releases.origin.catalog.drop()
    gc(releases.store, now=NOW + 99 * DAY)
    gc(releases.store, now=NOW + 99 * DAY)
    assert len(packs_here(releases.store)) == len(
        packs_needed(releases.origin, OLD) | packs_needed(releases.origin, NEW)
    )
    assert [path for path in snapshot(releases.store.public) if NEXT in path] == []


def test_what_an_interrupted_publish_left_goes_after_the_grace(releases):
    before = snapshot(releases.store.public)
    storage, releases.store.storage = releases.store.storage, FaultyStorage(releases.store.storage, 1, killed, ("put",))
    with pytest.raises(Killed):
        releases.publish(NEXT)
    releases.store.storage = storage
    left = snapshot(releases.store.public).keys() - before.keys()
    assert {path.partition("/")[0] for path in left} == {"packs", "manifests", "attributes", "placements", "releases"}
    assert gc(releases.store, grace=WEEK).waiting.files == len(left) + len(
        [m for m in marked(releases.store) if m.startswith("catalog/")]
    )
    assert snapshot(releases.store.public).keys() >= left
    gc(releases.store, now=NOW + WEEK, grace=WEEK)
    assert not snapshot(releases.store.public).keys() & left
    releases.publish(NEXT)
    releases.assert_installable()


def test_an_interrupted_publish_that_is_tried_again_in_its_grace_uses_what_it_left(releases):
    storage, releases.store.storage = releases.store.storage, FaultyStorage(releases.store.storage, 1, killed, ("put",))
    with pytest.raises(Killed):
        releases.publish(NEXT)
    releases.store.storage = storage
    gc(releases.store, grace=WEEK)
    packs = packs_here(releases.store)
    releases.publish(NEXT)
    assert packs_here(releases.store) == packs
    gc(releases.store, now=NOW + 2 * WEEK, grace=WEEK)
    assert packs_here(releases.store) == packs
    releases.assert_installable()


def test_a_placement_that_cannot_be_read_keeps_every_pack_and_is_named(releases):
    drop_old(releases)
    placement = releases.store.public / f"placements/{NEW}.1"
    data = placement.read_bytes()
    overwrite(placement, data[:-1] + bytes([data[-1] ^ 1]))
    packs = packs_here(releases.store)
    for _ in range(2):
        report = gc(releases.store, now=NOW + 9 * DAY)
        assert report.unjudged_releases == 1
        assert [damage.place for damage in report.unjudged] == [f"placements/{NEW}.1"]
    assert packs_here(releases.store) == packs
    placement.unlink()
    assert gc(releases.store, now=NOW + 9 * DAY).unjudged_releases == 1
    assert packs_here(releases.store) == packs
    placement.write_bytes(data)
    gc(releases.store, now=NOW + 9 * DAY)
    assert packs_here(releases.store) == packs_needed(releases.origin, NEW)
    releases.assert_installable(but={OLD})


def test_errors_are_not_absence_without_a_readable_catalog_nothing_goes(releases):  # cvmfs#4270
    drop_old(releases)
    gc(releases.store, now=NOW + DAY, grace=WEEK)
    timestamp = releases.store.public / "catalog/timestamp.json"
    targets = max((releases.store.public / "catalog").glob("*.line-Demo.json"), key=lambda p: int(p.name.split(".")[0]))
    data = targets.read_bytes()
    flip(targets, 100)
    before = snapshot(releases.store.public)
    with pytest.raises(Corrupt):
        gc(releases.store, now=NOW + 99 * DAY)
    targets.write_bytes(data)
    for path in (releases.store.public / "catalog").iterdir():
        path.unlink()
    with pytest.raises(NotFound, match="no catalog"):
        gc(releases.store, now=NOW + 99 * DAY)
    assert not timestamp.exists()
    assert snapshot(releases.store.public).keys() == before.keys() - paths_of_catalog(before)


def test_a_clock_that_was_wrong_shortens_no_grace(releases):
    drop_old(releases)
    gc(releases.store, now=NOW + 365 * DAY, grace=WEEK)
    packs = packs_here(releases.store)
    assert gc(releases.store, now=NOW + DAY, grace=WEEK).next_at == NOW + 8 * DAY
    gc(releases.store, now=NOW + 8 * DAY - 1, grace=WEEK)
    assert packs_here(releases.store) == packs
    gc(releases.store, now=NOW + 8 * DAY, grace=WEEK)
    assert packs_here(releases.store) == packs_needed(releases.origin, NEW)


def test_a_rule_that_keeps_more_again_saves_what_was_only_marked(releases):
    releases.origin.catalog.keep("Demo", Retain(days=1), releases.origin.keys, now=NOW)
    drop(releases.origin, now=NOW + 2 * DAY)
    report = gc(releases.store, now=NOW + 2 * DAY, grace=WEEK)
    assert (report.releases, report.dropped) == (0, 2)
    assert report.waiting.files > 6
    releases.origin.catalog.keep("Demo", None, releases.origin.keys, now=NOW + 2 * DAY)
    report = gc(releases.store, now=NOW + 99 * DAY, grace=WEEK)
    assert report.releases == 2
    assert not [path for path in marked(releases.store) if not path.startswith("catalog/")]
    assert releases.origin.assembled(OLD) == originals(releases.tree(OLD))


def test_metadata_of_the_catalog_that_were_replaced_go_and_every_root_and_timestamp_stays(releases):
    for hours in range(1, 6):
        releases.origin.catalog.refresh(releases.origin.keys, now=NOW + hours * 3600)
    before = paths_of_catalog(snapshot(releases.store.public))
    gc(releases.store, now=NOW + DAY)
    after = paths_of_catalog(snapshot(releases.store.public))
    gone = before - after
    assert gone
    assert all(path.split(".")[1] in ("snapshot", "targets", "line-Demo", "placement-Demo") for path in gone)
    for role in ("snapshot", "targets", "line-Demo", "placement-Demo"):
        assert len([path for path in after if path.split(".")[1] == role]) == 1
    releases.again()
    releases.publish(NEXT)
    releases.assert_installable()
    releases.assert_sound()


def test_holdings_of_what_is_in_no_catalog_go_first_and_what_they_name_after_them(releases):
    storage, releases.store.storage = (
        releases.store.storage,
        FaultyStorage(releases.store.storage, 2, killed, ("put", "create")),
    )
    with pytest.raises(Killed):
        releases.publish(NEXT)
    releases.store.storage = storage
    storage.put(DocumentKind.HOLDINGS, NEXT, storage.get(DocumentKind.HOLDINGS, OLD, limit=9999).replace(
        OLD.encode(), NEXT.encode()))  # fmt: skip
    packs = packs_here(releases.store)
    gc(releases.store)
    assert not (releases.store.public / "holdings" / NEXT).exists()
    for _ in range(2):
        gc(releases.store)
    assert packs_here(releases.store) < packs
    assert [path for path in snapshot(releases.store.public) if NEXT in path] == []
    releases.assert_installable()


@pytest.mark.slow
def test_a_collection_that_is_killed_at_any_step_is_finished_by_the_next(releases, tmp_path):
    drop_old(releases)
    steps: list[str] = []
    counted = releases.copy(tmp_path / "counted")
    gc(counted.store, now=NOW + DAY, at=steps.append)
    assert {"mark", "condemn", "list leases", "note leases", "look again", "delete", "unmark"} <= set(steps)
    wanted = snapshot(counted.store.public)
    # Of the files that go one after another, the first two and the last of each run.
    numbers = [n for n in range(len(steps)) if steps[n - 2 : n + 2] != [steps[n]] * 4]
    for number in numbers:
        killed_one = releases.copy(tmp_path / str(number))

        with pytest.raises(Killed):
            gc(killed_one.store, now=NOW + DAY, at=killing(number))
        killed_one.again()
        killed_one.assert_installable(but={OLD})
        gc(killed_one.store, now=NOW + DAY)
        assert snapshot(killed_one.store.public) == wanted
        assert marked(killed_one.store) == {}
        assert killed_one.store.index.all_condemned() == []
        killed_one.store.close()
    killed_one.assert_sound()


def test_a_collection_that_is_killed_after_a_pack_is_gone_leaves_nothing_of_it_in_the_index(releases):
    drop_old(releases)
    gone = []

    class DyingStorage(FaultyStorage):
        def delete(self, kind, digest):
            self._storage.delete(kind, digest)
            if kind is ObjectKind.PACK:
                gone.append(digest)
                raise Killed(digest)

    storage, releases.store.storage = releases.store.storage, DyingStorage(releases.store.storage)
    with pytest.raises(Killed):
        gc(releases.store, now=NOW + DAY)
    releases.store.storage = storage
    assert gone[0] in [pack for pack, _ in releases.store.index.packs()]
    releases.again()
    gc(releases.store, now=NOW + DAY)
    assert gone[0] not in [pack for pack, _ in releases.store.index.packs()]
    releases.assert_sound()
    releases.assert_installable(but={OLD})


def test_a_store_without_an_index_is_collected_too(releases):
    drop_old(releases)
    releases.store.close()
    for path in releases.store.private.glob("index.sqlite*"):
        path.unlink()
    with Store.open(releases.store.path, writable=True) as store:
        gc(store, now=NOW + DAY)
        assert packs_here(store) == packs_needed(releases.origin, NEW)
        assert not store.index_path.exists()
