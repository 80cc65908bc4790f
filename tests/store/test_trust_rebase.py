"""What waits, and what others commit meanwhile: neither is lost, and nobody's signature gets under what they have not seen."""

import pytest

from pacstore.errors import Refused
from pacstore.release import Release
from pacstore.trust.change import Change
from pacstore.trust.pending import read_pending, replace_pending
from pacstore.trust.repository import Catalog
from pacstore.trust.retention import Retain
from pacstore.trust.targets import Withdrawal
from tests.store.trust_world import NOW, Crash, HookedStorage, Office, crash, document, entry, signed_file

ONE, TWO, THREE, FOUR = (f"Atlas-{n}-x86" for n in (1, 2, 3, 4))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return Office(tmp_path_factory.mktemp("office")).begin(ONE)


@pytest.fixture
def office(base):
    return base.twin()


def waiting(office) -> dict[str, int]:
    return {one.role: one.missing for one in office.catalog.status().waiting}


def at_once(office, act, *names: str) -> None:
    """What waits is kept from before; meanwhile others, who do not see it, commit what `act` does and these people sign."""
    other = office.twin()
    other.drafts.files.clear()
    act(other)
    if names:
        other.carry(*names)
    office.storage.files.update(other.storage.files)


def test_a_line_that_waits_is_brought_onto_what_others_have_committed(office):
    office.publish(TWO)
    office.catalog.withdraw(Release.parse(ONE), Withdrawal(int(NOW), "bad"), office.origin, now=NOW)
    office.catalog.keep("Atlas", Retain(releases=2), office.origin, now=NOW)
    office.carry("fay")

    def act(other) -> None:
        other.publish(THREE)
        other.catalog.attach(Release.parse(ONE), document("provenance"), other.origin, now=NOW)

    at_once(office, act, "fay", "gus")
    # It must be signed again: nobody has seen the two together.
    assert waiting(office) == {"line-Atlas": 2}
    office.carry("gus", "hal")
    assert office.releases() == [ONE, TWO, THREE]
    one = office.catalog.release(Release.parse(ONE))
    assert (one.withdrawal, one.provenance) == (Withdrawal(int(NOW), "bad"), document("provenance"))
    line = office.catalog.status().roles[-1]
    assert (line.role, line.version) == ("line-Atlas", 4)


def test_what_others_have_committed_of_the_same_stays(office):
    office.catalog.keep("Atlas", Retain(releases=2), office.origin, now=NOW)
    office.carry("fay", "gus")
    office.publish(TWO)
    office.catalog.keep("Atlas", None, office.origin, now=NOW)

    def act(other) -> None:
        other.catalog.publish(entry(TWO, tree="theirs"), other.origin, now=NOW, sign_later=True)
        other.catalog.withdraw(Release.parse(ONE), Withdrawal(int(NOW), "theirs"), other.origin, now=NOW)

    at_once(office, act, "fay", "gus")
    assert waiting(office) == {"line-Atlas": 2}
    office.carry("fay", "gus")
    assert office.catalog.release(Release.parse(TWO)).tree_digest == entry(TWO, tree="theirs").tree_digest
    assert office.catalog.release(Release.parse(ONE)).withdrawal.reason == "theirs"
    # That nothing is dropped any more was ours, and is kept.
    assert b"retain" not in office.storage.files["catalog/5.line-Atlas.json"]
    assert office.releases() == [ONE, TWO]


def test_what_others_have_committed_just_so_waits_no_more(office):
    office.publish(TWO)
    office.catalog.keep("Atlas", Retain(days=3), office.origin, now=NOW)

    def act(other) -> None:
        other.publish(TWO)
        other.catalog.keep("Atlas", Retain(days=3), other.origin, now=NOW)

    at_once(office, act, "fay", "gus")
    assert waiting(office) == {}
    assert office.catalog.status().releases_waiting == ()


def test_a_line_that_others_have_begun_too_keeps_their_keys(office):
    office.catalog.add_line("Zebra", office.keys("zoe"), office.origin, now=NOW)
    office.catalog.publish(entry("Zebra-1-x86"), office.origin, now=NOW, sign_later=True)
    at_once(
        office,
        lambda other: other.catalog.add_line("Zebra", other.keys("yan"), other.origin, now=NOW),
        *("dan", "eve", "yan"),
    )
    assert waiting(office) == {"line-Zebra": 1}
    office.carry("yan")
    assert office.releases() == [ONE, "Zebra-1-x86"]


def test_two_lines_begun_at_once_are_both_begun(office):
    office.catalog.add_line("Zebra", office.keys("zoe"), office.origin, now=NOW)
    at_once(
        office,
        lambda other: other.catalog.add_line("Yak", other.keys("yan"), other.origin, now=NOW),
        *("dan", "eve", "yan"),
    )
    assert waiting(office) == {"line-Zebra": 1, "targets": 2}
    assert office.carry("dan", "eve", "zoe").committed == ("line-Zebra", "targets")
    assert {one.role for one in office.catalog.status().roles} >= {"line-Yak", "line-Zebra", "line-Atlas"}
    assert office.releases() == [ONE]


def test_changes_of_keys_at_once_are_both_made(office):
    office.catalog.rotate("root", office.origin, now=NOW, add=office.keys("zoe").keys)
    office.catalog.rotate("line-Atlas", office.origin, now=NOW, add=office.keys("ida").keys)

    def act(other) -> None:
        other.catalog.rotate("targets", other.origin, now=NOW, threshold=1)
        other.catalog.add_line("Yak", other.keys("yan"), other.origin, now=NOW)

    at_once(office, act, "ann", "bob", "dan", "eve", "yan")
    assert waiting(office) == {"root": 2, "targets": 1}
    office.carry("ann", "cid", "dan")
    roles = {one.role: one for one in office.catalog.status().roles}
    assert office.keyid("zoe") in roles["root"].keyids
    assert office.keyid("ida") in roles["line-Atlas"].keyids
    assert roles["targets"].threshold == 1
    assert "line-Yak" in roles
    assert office.releases() == [ONE]


def test_of_two_changes_of_the_same_keys_the_committed_one_stays(office):
    office.catalog.rotate("root", office.origin, now=NOW, add=office.keys("zoe").keys)
    at_once(
        office,
        lambda other: other.catalog.rotate("root", other.origin, now=NOW, add=other.keys("yan").keys),
        *("ann", "bob"),
    )
    assert waiting(office) == {}
    assert office.keyid("yan") in {one.role: one for one in office.catalog.status().roles}["root"].keyids


def test_a_line_that_waits_while_the_online_key_is_rotated_gets_the_new_one(office):
    office.catalog.add_line("Zebra", office.keys("zoe"), office.origin, now=NOW)
    office.carry("dan")
    new = (
        office.origin.create("online-2")
        if "online-2" not in office.origin.names()
        else office.origin.public("online-2")
    )
    at_once(
        office,
        lambda other: other.catalog.revoke(other.online.keyid, new, other.origin, now=NOW),
        *("ann", "bob", "dan", "eve"),
    )
    assert waiting(office) == {"line-Zebra": 1, "targets": 2}
    assert office.carry("dan", "eve", "zoe").committed == ("line-Zebra", "targets")
    roles = {one.role: one.keyids for one in office.catalog.status().roles}
    assert roles["placement-Zebra"] == roles["placement-Atlas"] == roles["timestamp"] == (new.keyid,)
    assert office.releases() == [ONE]


def test_what_waits_goes_on_waiting_while_others_publish_beside_it(office):
    office.publish(TWO)
    both = office.origin
    for name in ("fay", "gus"):
        lend(office, name, both)
    try:
        for name in (THREE, FOUR):
            outcome = office.catalog.publish(entry(name), both, now=NOW)
            assert outcome.committed == ("line-Atlas",)
            assert not outcome.waits("line-Atlas")
            assert waiting(office) == {"line-Atlas": 2}
        assert office.releases() == [ONE, THREE, FOUR]
    finally:
        for name in ("fay", "gus"):
            take_back(both, name)
    office.carry("gus", "hal")
    assert office.releases() == [ONE, TWO, THREE, FOUR]


def lend(office, name: str, ring) -> None:
    """A copy of somebody's key."""
    for suffix in (".pem", ".pub"):
        source, target = (one.directory / f"{name}{suffix}" for one in (office.ring(name), ring))
        target.write_bytes(source.read_bytes())
        target.chmod(source.stat().st_mode)


def take_back(ring, name: str) -> None:
    for suffix in (".pem", ".pub"):
        (ring.directory / f"{name}{suffix}").unlink()


def test_what_is_complete_is_committed_before_others_publish(office):
    """Its signatures would be worth nothing on top of theirs, and those who gave them are not there."""
    office.publish(TWO, office.ring("fay"))
    data = office.catalog.export()
    complete = Change.parse(signed_file(data.encode(), office.ring("gus")), place="change")
    assert office.catalog.submit(complete, office.ring("gus"), now=NOW).committed == ()
    outcome = office.publish(THREE)
    assert (outcome.committed, outcome.settled) == (("line-Atlas",), ("line-Atlas",))
    assert outcome.waits("line-Atlas")
    assert office.releases() == [ONE, TWO]
    assert waiting(office) == {"line-Atlas": 2}


def test_what_a_crash_has_left_under_its_name_does_not_keep_it_from_being_committed(office):
    """Two who publish: one crashed, and its file has the version that the other's, which waits, would get."""
    office.publish(TWO)
    other = office.twin()
    other.drafts.files.clear()
    other.catalog.publish(entry(THREE), other.origin, now=NOW, sign_later=True)
    other.catalog = Catalog(HookedStorage(other.storage, 1, crash), other.drafts)
    with pytest.raises(Crash):
        other.carry("fay", "gus")
    office.storage.files.update(other.storage.files)
    assert "catalog/3.line-Atlas.json" in office.storage.files
    office.carry("fay", "gus")
    assert office.releases() == [ONE, TWO]
    assert office.catalog.refresh(office.origin, now=NOW).waiting == ()


def test_a_role_that_nobody_delegates_to_any_more_does_not_stop_the_rest(office):
    """What older versions could leave behind: a line that waits without the targets that begin it."""
    office.catalog.add_line("Zebra", office.keys("zoe"), office.origin, now=NOW)
    number, change = read_pending(office.drafts)
    del change.roles["targets"]
    replace_pending(office.drafts, number, change)
    assert waiting(office) == {}
    office.catalog.refresh(office.origin, now=NOW)
    office.publish(TWO)
    office.carry("fay", "gus")
    assert office.releases() == [ONE, TWO]


def test_a_line_that_shrinks_is_not_committed_from_there_either(office):
    """The private part of a store, as somebody has left it who could write there, and had the signatures of careless people."""
    office.publish(TWO)
    number, change = read_pending(office.drafts)
    metadata = change.roles["line-Atlas"].metadata
    metadata.signed.targets = {path: one for path, one in metadata.signed.targets.items() if ONE not in path}
    for name in ("fay", "gus"):
        metadata.sign(office.ring(name).signer(name), append=True)
    replace_pending(office.drafts, number, change)
    with pytest.raises(Refused, match="no longer has"):
        office.catalog.refresh(office.origin, now=NOW)
    assert office.catalog.drop() == ("line-Atlas",)
    office.catalog.refresh(office.origin, now=NOW)
    assert office.releases() == [ONE]
