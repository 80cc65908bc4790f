from __future__ import annotations

import dataclasses

import pytest

from pacstore.backends.memory import MemoryStorage
from pacstore.errors import Unavailable
from pacstore.housekeeping import drop_holdings, droppable_releases, held_droppable, retention_rules
from pacstore.links import link_targets, links_of
from pacstore.release import Release
from pacstore.storage import DocumentKind, ObjectKind
from pacstore.trust.retention import Retain
from pacstore.trust.targets import Withdrawal
from tests.contract.faulty import FaultyStorage, unavailable
from tests.store.trust_world import DAY, NOW, World, document, entry

OLD, NEW, BAD, OTHER = "Demo-1-x", "Demo-2-x", "Demo-3-x", "Zebra-1-x"
RULES = {"Demo": Retain(1)}


def releases():
    """Demo 1 was pushed out by Demo 2 at NOW; Demo 3 was withdrawn a day later; Zebra keeps everything."""
    old = dataclasses.replace(entry(OLD), published=int(NOW - 9 * DAY))
    withdrawn = dataclasses.replace(entry(BAD), withdrawal=Withdrawal(int(NOW + DAY), "bad"))
    return [entry(OTHER), withdrawn, entry(NEW), old]


@pytest.fixture
def storage():
    storage = MemoryStorage()
    for one in releases():
        storage.put(DocumentKind.HOLDINGS, str(one.release), b"{}")
    return storage


def drop(storage, day, grace=7.0, rules=RULES):
    found = drop_holdings(storage, releases(), rules, now=NOW + day * DAY, grace_seconds=grace * DAY)
    return [str(release) for release in found]


def test_what_lapsed_and_what_was_withdrawn_is_dropped_after_the_grace(storage):
    before = dict(storage.files)
    assert drop(storage, 6.9) == []
    assert storage.files == before
    assert drop(storage, 7) == [OLD]
    assert drop(storage, 7) == []
    assert drop(storage, 8) == [BAD]
    assert list(storage.names(DocumentKind.HOLDINGS)) == [NEW, OTHER]
    assert storage.files.items() <= before.items()


def test_a_line_without_a_rule_loses_only_what_was_withdrawn(storage):
    assert drop(storage, 9999, rules={"Zebra": Retain(5)}) == [BAD]


def test_what_would_be_dropped_is_said_and_not_done(storage):
    before = dict(storage.files)
    found = held_droppable(storage, releases(), RULES, now=NOW + 8 * DAY, grace_seconds=7 * DAY)
    assert [str(release) for release in found] == [OLD, BAD]
    assert storage.files == before
    assert drop(storage, 8) == [OLD, BAD]


def test_an_interrupted_drop_is_finished_by_the_next(storage):
    with pytest.raises(Unavailable):
        drop(FaultyStorage(storage, 2, unavailable, ("remove",)), 99)
    assert list(storage.names(DocumentKind.HOLDINGS)) == [NEW, BAD, OTHER]
    assert drop(storage, 99) == [BAD]


def test_what_is_droppable_does_not_depend_on_what_is_held(storage):
    def found():
        return droppable_releases(releases(), RULES, now=NOW + 99 * DAY, grace_seconds=0)

    assert found() == {Release.parse(OLD), Release.parse(BAD)}
    drop(storage, 99)
    assert found() == {Release.parse(OLD), Release.parse(BAD)}


def test_the_rules_are_those_of_the_catalog(tmp_path):
    world = World(tmp_path)
    world.publish(OTHER)
    assert retention_rules(world.storage) == {}
    world.catalog.keep("Zebra", Retain(3, 40), world.keys, now=NOW)
    assert retention_rules(world.storage) == {"Zebra": Retain(3, 40)}
    assert Retain.from_fields(world.open().retain("Zebra"), place="x") == Retain(3, 40)
    world.catalog.keep("Zebra", None, world.keys, now=NOW)
    assert retention_rules(world.storage) == {}
    assert retention_rules(MemoryStorage()) == {}


def test_the_links_of_a_release_are_where_tuf_looks():
    release = dataclasses.replace(entry(NEW), provenance=document("provenance"))
    links = links_of(release)
    assert [link.path.rpartition(".")[2] for link in links] == ["manifest", "attributes", "placement", "provenance"]
    for link, signed in zip(links, release.documents(), strict=True):
        assert link.path.startswith(f"releases/Demo/{NEW}/{signed.sha256.hex()}.")
    assert [link.file.partition("/")[0] for link in links] == ["manifests", "attributes", "placements", "provenance"]
    assert links[2].file == f"placements/{NEW}.1"
    assert links_of(entry(NEW)) == links[:3]


def test_links_of_some_releases_are_made_although_others_lack_documents():
    storage = MemoryStorage()
    for one in releases()[1:]:
        for kind, signed in ((ObjectKind.MANIFEST, one.manifest), (ObjectKind.ATTRIBUTES, one.attributes)):
            with storage.stage(kind) as staged:
                staged.publish(signed.digest)
        storage.put(DocumentKind.PLACEMENT, f"{one.release}.1", b"")
    assert link_targets(storage, releases()) == [Release.parse(OTHER)]
    assert len(list(storage.links())) == 9
