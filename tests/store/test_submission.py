"""Changes that come back signed to a store where what they name may have been collected meanwhile."""

from __future__ import annotations

import json

import pytest

from pacstore.errors import Refused
from pacstore.provenance import store_provenance
from pacstore.release import Release
from pacstore.storage import ObjectKind
from pacstore.submission import submit
from pacstore.trust.proposals import check_context, sign_change
from tests.store.releases import NOW, overwrite, snapshot
from tests.store.statements import slsa_1, subject_of
from tests.store.sweeping import DAY, Releases, drop, gc, withdraw
from tests.store.turns import Turns, stepping

OLD, NEW = "Demo-1.0-x", "Demo-1.1-x"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    made = Releases(tmp_path_factory.mktemp("submission") / "origin")
    made.publish(OLD)
    return made


@pytest.fixture
def releases(published, tmp_path):
    return published.copy(tmp_path / "origin")


def signed(releases):
    """What waits, as it comes back from its signers."""
    change = releases.origin.catalog.export()
    sign_change(change, releases.origin.keys, check_context(change, None))
    return change


def come_back(releases, change):
    origin = releases.origin
    return submit(origin.store, origin.catalog, change, origin.keys, now=NOW + 2 * DAY)


def attach(releases, name, **values):
    """A provenance of that release waits, as with a line whose keys are elsewhere."""
    origin, entry = releases.origin, releases.origin.entry(name)
    document = store_provenance(origin.store, entry, json.dumps(slsa_1(subject_of(entry), **values)).encode())
    keys = type(origin.keys)(releases.top / "none")
    assert origin.catalog.attach(Release.parse(name), document, keys, now=NOW).waiting
    return document


def collected(releases):
    releases.origin.catalog.drop()
    for _ in range(2):
        gc(releases.store, now=NOW + DAY)


def refused(releases, change):
    before = snapshot(releases.store.path)
    with pytest.raises(Refused, match="cannot come into the catalog") as caught:
        come_back(releases, change)
    assert {path: data for path, data in snapshot(releases.store.path).items() if "sqlite" not in path} == {
        path: data for path, data in before.items() if "sqlite" not in path
    }
    return caught.value


def test_fear_of_deletion_what_was_collected_while_it_was_being_signed_is_refused(releases):
    releases.publish_later(NEW)
    change = signed(releases)
    collected(releases)
    error = refused(releases, change)
    assert (error.place, "manifests/" in error.message) == (NEW, True)
    assert "pacball publish" in error.hint
    releases.publish(NEW)
    releases.assert_installable()
    releases.assert_sound()


def test_what_waited_all_the_time_or_is_not_collected_yet_is_taken(releases):
    releases.publish_later(NEW)
    change = signed(releases)
    gc(releases.store, now=NOW + DAY)
    releases.origin.catalog.drop()
    gc(releases.store, now=NOW + DAY, grace=DAY)
    assert come_back(releases, change).committed == ("line-Demo",)
    releases.assert_installable()
    assert not come_back(releases, change).changed


def test_a_pack_that_is_missing_or_a_document_that_is_damaged_is_said(releases):
    before = set(releases.store.storage.digests(ObjectKind.PACK))
    releases.publish_later(NEW)
    change = signed(releases)
    (pack, *_) = set(releases.store.storage.digests(ObjectKind.PACK)) - before
    (path,) = releases.store.public.glob(f"packs/**/{pack}")
    path.rename(releases.top / "aside")
    assert str(pack) in refused(releases, change).message
    (releases.top / "aside").rename(path)
    entry = releases.origin.catalog.waiting_release(Release.parse(NEW))
    (document,) = releases.store.public.glob(f"attributes/**/{entry.attributes.digest}")
    overwrite(document, bytes(len(document.read_bytes())))
    assert "is not what the catalog says" in refused(releases, change).message


def test_of_a_release_that_was_dropped_only_the_new_provenance_must_be_here(releases):
    attach(releases, OLD)
    change = signed(releases)
    collected(releases)
    error = refused(releases, change)
    assert ("provenance/" in error.message, "pacball attach" in error.hint) == (True, True)
    releases.publish(NEW)
    document = attach(releases, OLD)
    change = signed(releases)
    withdraw(releases.origin, OLD)
    drop(releases.origin, now=NOW + DAY)
    assert come_back(releases, signed(releases)).committed == ("line-Demo",)
    assert releases.origin.entry(OLD).provenance == document


@pytest.mark.parametrize("steps", range(0, 60, 6))
def test_fear_of_deletion_a_change_that_comes_back_beside_a_collection(releases, steps):
    """It is refused, or it is in the catalog with all that it names."""
    releases.publish_later(NEW)
    change = signed(releases)
    releases.origin.catalog.drop()
    gc(releases.store, now=NOW)
    count = iter(range(steps))
    turns = Turns(lambda left: left[0] if len(left) == 1 or next(count, None) is not None else left[-1])

    def collect():
        with stepping(releases.store, lambda step: turns.step("collector", step)) as store:
            gc(store, now=NOW + DAY, at=lambda step: turns.step("collector", step))

    def take():
        with stepping(releases.store, lambda step: turns.step("submitter", step)) as store:
            submit(store, releases.origin.catalog, change, releases.origin.keys, now=NOW + DAY)

    turns.run(collector=collect, submitter=take)
    releases.again()
    assert isinstance(turns.failures.pop("submitter", None), Refused) is (NEW not in releases.origin.listed())
    assert turns.failures == {}
    releases.trees = {name: tree for name, tree in releases.trees.items() if name in releases.origin.listed()}
    releases.assert_installable()
    releases.assert_sound()
