"""Who must sign what: thresholds, in every order of signatures, and what people may ask for."""

from itertools import permutations

import pytest

from pacstore.backends.memory import MemoryStorage
from pacstore.errors import NotFound, Refused, Untrusted
from pacstore.trust.ceremony import Founding, Keys
from pacstore.trust.change import Change
from pacstore.trust.keyring import KeyRing
from pacstore.trust.repository import Catalog
from tests.store.trust_world import NOW, Office, World, entry, releases_of, signed_file

RELEASE = "Atlas-1-x86"


@pytest.fixture
def office(tmp_path):
    return Office(tmp_path)


def missing(outcome) -> dict[str, int]:
    return {one.role: one.missing for one in outcome.waiting}


@pytest.mark.parametrize("order", list(permutations(("ann", "cid", "dan", "eve"))))
def test_a_catalog_begins_when_all_have_signed_in_whatever_order(office, order):
    assert missing(office.found()) == {"root": 2, "targets": 2}
    for count, name in enumerate(order[:-1], 1):
        outcome = office.carry(name)
        assert outcome.version == 0
        assert sum(missing(outcome).values()) == 4 - count
        assert office.storage.files == {}
    outcome = office.carry(order[-1])
    assert (outcome.version, outcome.committed, outcome.waiting) == (1, ("root", "targets"), ())
    assert office.releases() == []


def test_a_third_signature_does_no_harm(office):
    office.found()
    office.carry("ann", "bob", "cid", "dan", "eve")
    assert office.releases() == []
    assert office.storage.files["catalog/1.root.json"].count(b'"sig"') == 3


def test_signatures_of_others_count_for_nothing(office):
    office.found()
    data = office.catalog.export().encode()
    stranger = office.ring("zoe")
    assert signed_file(data, stranger) == data
    for role, keyid in (("root", "ann"), ("root", "dan"), ("targets", "ann"), ("targets", "dan")):
        change = Change.parse(data, place="change")
        signature = stranger.signer("zoe").sign(change.roles[role].metadata.signed_bytes)
        signature.keyid = office.keyid(keyid)
        change.roles[role].metadata.signatures[signature.keyid] = signature
        outcome = office.catalog.submit(change, office.origin, now=NOW)
        assert not outcome.changed
        assert missing(outcome) == {"root": 2, "targets": 2}
    assert all(not one.metadata.signatures for one in office.catalog.export().roles.values())
    assert office.storage.files == {}


def test_the_key_of_one_role_does_not_sign_another(office):
    office.found()
    outcome = office.carry("ann", "dan", "fay")
    assert {one.role: one.signed_by for one in outcome.waiting} == {
        "root": (office.keyid("ann"),),
        "targets": (office.keyid("dan"),),
    }


@pytest.mark.parametrize("order", list(permutations(("dan", "eve", "gus", "hal"))))
def test_a_line_begins_when_targets_and_line_are_signed_in_whatever_order(office, order):
    office.found()
    office.carry("ann", "bob", "dan", "eve")
    before = dict(office.storage.files)
    outcome = office.catalog.add_line("Atlas", office.keys(*office.LINE, threshold=2), office.origin, now=NOW)
    assert missing(outcome) == {"targets": 2, "line-Atlas": 2}
    for name in order[:-1]:
        assert office.carry(name).committed == ()
        assert office.storage.files == before
    assert office.carry(order[-1]).committed == ("line-Atlas", "targets")
    assert {one.role for one in office.catalog.status().roles} >= {"line-Atlas", "placement-Atlas"}


@pytest.mark.parametrize("order", list(permutations(("fay", "gus", "hal"), 2)))
def test_a_release_of_a_line_of_two_of_three(office, order):
    office.begin()
    outcome = office.publish(RELEASE)
    assert missing(outcome) == {"line-Atlas": 2}
    assert outcome.waits("line-Atlas")
    assert missing(office.carry(order[0])) == {"line-Atlas": 1}
    assert office.catalog.release(entry(RELEASE).release) is None
    assert office.carry(order[1]).committed == ("line-Atlas",)
    assert office.catalog.releases() == [entry(RELEASE)]
    assert office.releases() == [RELEASE]


def test_one_manager_alone_publishes_nothing(office):
    office.begin()
    before = dict(office.storage.files)
    for _ in range(3):
        outcome = (
            office.carry("fay") if office.catalog.status().waiting else office.publish(RELEASE, office.ring("fay"))
        )
        assert missing(outcome) == {"line-Atlas": 1}
    assert office.storage.files == before


def test_the_online_key_needs_no_threshold_of_its_own_but_may_have_one(tmp_path):
    office = Office(tmp_path)
    second = office.origin.create("online-2")
    founding = Founding(office.keys("ann"), office.keys("dan"), Keys((office.online, second), 2))
    office.catalog.found(founding, office.origin, now=NOW)
    assert office.carry("ann", "dan").version == 1
    office.catalog.add_line("Atlas", office.keys("fay"), office.origin, now=NOW)
    office.carry("dan", "fay")
    office.publish(RELEASE)
    office.carry("fay")
    assert office.releases() == [RELEASE]
    alone = KeyRing(tmp_path / "origin-2")
    alone.directory.mkdir(mode=0o700)
    for suffix in (".pem", ".pub"):
        (tmp_path / f"origin/online{suffix}").rename(tmp_path / f"origin-2/online{suffix}")
    with pytest.raises(Refused, match="needs 2 of the keys that the catalog trusts for it, here are 1"):
        office.catalog.refresh(alone, now=NOW)


def test_nothing_is_stamped_before_the_first_signatures(office):
    office.found()
    with pytest.raises(NotFound, match="waits for its first signatures"):
        office.catalog.refresh(office.origin, now=NOW)
    assert office.storage.files == {}
    with pytest.raises(NotFound, match="waits for its first signatures"):
        _ = office.catalog.version
    with pytest.raises(NotFound, match="no root yet") as caught:
        _ = office.catalog.root_bytes
    assert "pacball trust status" in caught.value.hint
    office.carry("ann", "bob", "dan", "eve")
    assert office.catalog.version == 1


def test_a_catalog_that_waits_is_not_begun_a_second_time(office):
    office.found()
    for name in ("zoe", "ann"):
        founding = Founding(office.keys(name), office.keys("dan"), Keys((office.online,)))
        with pytest.raises(Refused, match="waits for its first signatures") as caught:
            office.catalog.found(founding, office.origin, now=NOW)
        assert "pacball trust drop" in caught.value.hint
    assert office.catalog.drop(["targets"]) == ("root", "targets")
    office.catalog.found(
        Founding(office.keys("zoe"), office.keys("dan"), Keys((office.online,))), office.origin, now=NOW
    )
    assert office.carry("zoe", "dan").version == 1
    with pytest.raises(Refused, match="already"):
        office.found()


def test_a_line_is_begun_once(office):
    office.begin()
    keys = office.keys(*office.LINE, threshold=2)
    assert not office.catalog.add_line("Atlas", keys, office.origin, now=NOW).changed
    for other in (
        office.keys("fay"),
        office.keys(*office.LINE, threshold=1),
        office.keys("fay", "gus", "zoe", threshold=2),
    ):
        with pytest.raises(Refused, match="exists already") as caught:
            office.catalog.add_line("Atlas", other, office.origin, now=NOW)
        assert "pacball trust rotate" in caught.value.hint
    office.catalog.add_line("Zebra", keys, office.origin, now=NOW)
    assert not office.catalog.add_line("Zebra", keys, office.origin, now=NOW).changed
    with pytest.raises(Refused, match="differs only in case from the project Zebra"):
        office.catalog.add_line("ZEBRA", keys, office.origin, now=NOW)
    with pytest.raises(Refused, match="is not the name of a project"):
        office.catalog.add_line("../Zebra", keys, office.origin, now=NOW)


@pytest.mark.parametrize("threshold", [0, -1, 3, 1 << 62])
def test_thresholds_that_nobody_can_meet_are_refused(office, threshold):
    office.begin()
    before = (dict(office.storage.files), dict(office.drafts.files))
    two = office.keys("fay", "gus", threshold=threshold)
    with pytest.raises(Refused, match="of 2 keys cannot be asked for") as caught:
        office.catalog.add_line("Zebra", two, office.origin, now=NOW)
    assert "--threshold" in caught.value.hint
    if threshold != 3:
        with pytest.raises(Refused, match="cannot be asked for"):
            office.catalog.rotate("root", office.origin, now=NOW, threshold=threshold)
    assert (office.storage.files, office.drafts.files) == before


def test_the_last_key_of_a_role_stays(office):
    office.begin()
    for role, keys in (("targets", ["dan"]), ("line-Atlas", ["fay", "gus"]), ("online", [])):
        removed = [office.keyid(name) for name in keys] or [office.online.keyid]
        with pytest.raises(Refused, match="cannot be asked for"):
            office.catalog.rotate(role, office.origin, now=NOW, remove=removed)
    with pytest.raises(Refused, match="0 keys cannot be asked for"):
        office.catalog.revoke(office.online.keyid, None, office.origin, now=NOW)


@pytest.mark.parametrize("role", ["snapshot", "placement-Atlas", "nobody", "line-Zebra", "\x1b[31m"])
def test_roles_that_nobody_rotates_or_renews_are_refused(office, role):
    office.begin()
    with pytest.raises(Refused) as caught:
        office.catalog.rotate(role, office.origin, now=NOW, threshold=1)
    assert "\x1b" not in str(caught.value)
    assert caught.value.hint
    with pytest.raises(Refused):
        office.catalog.renew([role], office.origin, now=NOW)
    with pytest.raises(Refused, match="no role trusts this key"):
        office.catalog.revoke("00" * 32, None, office.origin, now=NOW)


def test_what_changes_nothing_is_no_change(office):
    office.begin()
    before = (dict(office.storage.files), dict(office.drafts.files))
    ann = office.keys("ann").keys
    assert not office.catalog.rotate("root", office.origin, now=NOW, add=ann, remove=["00"], threshold=2).changed
    assert not office.catalog.renew([], office.origin, now=NOW).changed
    assert (office.storage.files, office.drafts.files) == before


def test_where_nothing_can_wait_what_is_incomplete_is_refused(tmp_path):
    world = World(tmp_path)
    world.lose("targets")
    before = world.copy()
    catalog = Catalog(world.storage)
    with pytest.raises(Refused, match="nothing can wait here"):
        catalog.renew(["root", "targets"], world.keys, now=NOW)
    assert world.storage.files == before


def test_founding_with_a_threshold_needs_a_place_to_wait(tmp_path):
    office = Office(tmp_path)
    office.catalog = Catalog(MemoryStorage())
    with pytest.raises(Refused, match="nothing can wait here"):
        office.found()


def test_a_store_of_another_root_gets_no_signature(tmp_path):
    mine, other = (Office(tmp_path / name).begin() for name in ("mine", "other"))
    root = mine.catalog.root_bytes
    with pytest.raises(Untrusted, match="does not descend from the root that is known here"):
        Catalog.open(other.storage, other.drafts, pinned=root)
    catalog = Catalog(other.storage, other.drafts, pinned=root)
    with pytest.raises(Untrusted):
        catalog.publish(entry(RELEASE), other.ring("fay"), now=NOW)
    pinned = Catalog.open(mine.storage, mine.drafts, pinned=root)
    assert pinned.publish(entry(RELEASE), mine.ring("fay"), now=NOW).waits("line-Atlas")
    # A later root will do as well.
    mine.catalog.renew(["root"], mine.ring("ann"), now=NOW)
    mine.carry("bob")
    later = mine.storage.files["catalog/2.root.json"]
    assert Catalog.open(mine.storage, mine.drafts, pinned=later).version == mine.catalog.version
    assert releases_of(mine.storage.files, tmp_path / "client", root=later) == []
