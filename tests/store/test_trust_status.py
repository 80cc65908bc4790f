"""What the catalog's own status says: of roles, of what waits and for whom, before, during and after."""

import pytest

from pacstore.errors import Refused
from pacstore.release import Release
from pacstore.trust.status import RoleStatus
from pacstore.trust.targets import Withdrawal
from tests.store.trust_signing import sign_timestamp
from tests.store.trust_world import DAY, NOW, Office, World

ONE, TWO = "Atlas-1-x86", "Atlas-2-x86"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return Office(tmp_path_factory.mktemp("office")).begin(ONE)


@pytest.fixture
def office(base):
    return base.twin()


def ids(office, *names: str) -> tuple[str, ...]:
    return tuple(sorted(map(office.keyid, names)))


def test_of_a_catalog_that_waits_for_its_first_signatures(tmp_path):
    office = Office(tmp_path)
    office.found()
    office.carry("bob")
    status = office.catalog.status()
    assert (status.version, status.root_version, status.signed_at, status.roles) == (0, 0, None, ())
    root, targets = status.waiting
    assert (root.role, root.version, root.missing) == ("root", 1, 1)
    assert (root.signed_by, root.may_sign) == (ids(office, "bob"), ids(office, "ann", "cid"))
    assert (targets.role, targets.missing, targets.may_sign) == ("targets", 2, ids(office, "dan", "eve"))
    assert targets.expires == NOW + 365 * DAY


def test_of_every_role(office):
    status = office.catalog.status()
    assert (status.version, status.root_version, status.signed_at) == (office.catalog.version, 1, NOW)
    assert {role.role: role for role in status.roles}["line-Atlas"] == RoleStatus(
        "line-Atlas", 2, NOW + 365 * DAY, 2, ids(office, *office.LINE)
    )
    assert [(role.role, role.threshold) for role in status.roles] == [
        ("root", 2),
        ("targets", 2),
        ("snapshot", 1),
        ("timestamp", 1),
        ("placement-Atlas", 1),
        ("line-Atlas", 2),
    ]
    assert (status.waiting, status.releases_waiting) == ((), ())


def test_of_releases_that_wait(office):
    office.publish(TWO)
    office.publish("Atlas-3-x86")
    assert office.catalog.status().releases_waiting == (TWO, "Atlas-3-x86")
    office.carry("fay", "gus")
    assert office.catalog.status().releases_waiting == ()


def test_of_a_root_that_waits_for_the_keys_of_both(office):
    office.catalog.rotate(
        "root",
        office.origin,
        now=NOW,
        add=office.keys("zoe", "yan").keys,
        remove=[office.keyid("ann"), office.keyid("bob")],
    )
    (waiting,) = office.catalog.status().waiting
    assert (waiting.missing, waiting.may_sign) == (2, ids(office, "ann", "bob", "cid", "zoe", "yan"))
    # Two of the new ones are not enough, nor are two of the old ones: cid is both.
    office.carry("zoe", "yan")
    (waiting,) = office.catalog.status().waiting
    assert (waiting.missing, waiting.may_sign) == (2, ids(office, "ann", "bob", "cid"))
    assert office.carry("cid").waiting[0].missing == 1
    assert office.carry("ann").committed == ("root",)
    assert office.releases() == [ONE]


def test_what_has_expired_before_it_was_complete_is_not_committed(office):
    office.catalog.renew(["root"], office.origin, now=NOW)
    late = NOW + 365 * DAY
    outcome = office.carry("ann", "bob", now=late)
    assert [(one.role, one.missing, one.expires) for one in outcome.waiting] == [("root", 0, late)]
    assert outcome.committed == ()
    office.catalog.refresh(office.origin, now=late)
    assert office.catalog.status().root_version == 1
    office.catalog.renew(["root"], office.origin, now=late)
    assert office.carry("ann", "bob", now=late).committed == ("root",)


def test_a_timestamp_that_does_not_say_when_it_was_signed(tmp_path):
    world = World(tmp_path)
    for value in ("yesterday", None, 7):
        sign_timestamp(world, lambda signed, value=value: signed.unrecognized_fields.update(signed_at=value))
        newest = f"catalog/{world.catalog.version}.timestamp.json"
        world.storage.files[newest] = world.storage.files["catalog/timestamp.json"]
        assert world.catalog.status().signed_at is None
    world.catalog.refresh(world.keys, now=NOW + DAY)
    assert world.catalog.status().signed_at == NOW + DAY


def test_what_is_dropped_waits_no_more(office):
    office.publish(TWO)
    office.catalog.renew(["root", "targets"], office.origin, now=NOW)
    office.catalog.add_line("Zebra", office.keys("zoe"), office.origin, now=NOW)
    assert office.catalog.drop(["nobody"]) == ()
    assert office.catalog.drop(["line-Atlas"]) == ("line-Atlas",)
    assert office.catalog.status().releases_waiting == ()
    # Targets that begin a line are nothing without that line's own metadata, and the other way round.
    assert office.catalog.drop(["line-Zebra"]) == ("line-Zebra", "targets")
    assert [one.role for one in office.catalog.status().waiting] == ["root"]
    assert office.catalog.drop() == ("root",)
    assert office.catalog.drop() == ()
    office.catalog.add_line("Zebra", office.keys("zoe"), office.origin, now=NOW)
    assert office.carry("dan", "eve", "zoe").committed == ("line-Zebra", "targets")
    assert office.releases() == [ONE]


def test_what_is_asked_of_releases_that_are_not_there_is_refused(office):
    name, other = Release.parse(ONE), Release.parse(TWO)
    for wrong, replaced_by in ((other, None), (name, other), (name, name)):
        with pytest.raises(Refused):
            office.catalog.withdraw(wrong, Withdrawal(int(NOW), "bad", replaced_by), office.origin, now=NOW)
    with pytest.raises(Refused, match="has no line in this catalog"):
        office.catalog.keep("Zebra", None, office.origin, now=NOW)
    office.catalog.withdraw(name, Withdrawal(int(NOW), "bad"), office.origin, now=NOW)
    assert not office.catalog.withdraw(name, Withdrawal(int(NOW) + 5, "bad"), office.origin, now=NOW).changed
    office.publish(TWO)
    with pytest.raises(Refused, match="withdrawn itself"):
        office.catalog.withdraw(other, Withdrawal(int(NOW), "bad", name), office.origin, now=NOW)
