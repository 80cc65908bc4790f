"""What holders of the origin can do: they have the online key, and may write every file of the store. And who lacks that key.

Nothing that they put there gets the signature of somebody who was not shown it.
"""

import dataclasses

import pytest
from tuf.api.metadata import Metadata, MetaFile

from pacstore.errors import Corrupt, PacballError, Untrusted
from pacstore.trust import chain, entries
from pacstore.trust.change import Change
from pacstore.trust.keyring import KeyRing
from pacstore.trust.metadata import COMPACT
from pacstore.trust.retention import Retain
from tests.store.trust_world import NOW, Office, World, adds, document, entry, signed_file

ONE, TWO = "Atlas-1-x86", "Atlas-2-x86"
LINE = "line-Atlas"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return Office(tmp_path_factory.mktemp("office")).begin(ONE)


@pytest.fixture
def office(base):
    return base.twin()


def forge(office, role: str, edit) -> None:
    """Put an unsigned version of a role into the store, with snapshot and timestamp that list it."""
    head = chain.load_head(office.storage)
    metadata = head.envelope(role)
    edit(metadata.signed)
    metadata.signed.version += 1
    head.snapshot.meta[f"{role}.json"] = put(office, role, metadata)
    head.snapshot.version += 1
    signer = office.origin.signer("online")
    snapshot = Metadata(head.snapshot)
    snapshot.sign(signer)
    head.timestamp.snapshot_meta = put(office, "snapshot", snapshot)
    head.timestamp.version += 1
    timestamp = Metadata(head.timestamp)
    timestamp.sign(signer)
    put(office, "timestamp", timestamp)
    office.storage.files["catalog/timestamp.json"] = timestamp.to_bytes(COMPACT)


def put(office, role: str, metadata) -> MetaFile:
    data = metadata.to_bytes(COMPACT)
    office.storage.files[f"catalog/{metadata.signed.version}.{role}.json"] = data
    return MetaFile.from_data(metadata.signed.version, data, ["sha256"])


def test_a_manager_signs_nothing_on_top_of_what_the_origin_has_invented(office):
    forge(office, LINE, adds("Atlas-666-x86"))
    forge(office, "placement-Atlas", lambda role: role.targets.update(placements("Atlas-666-x86")))
    assert len(office.catalog.releases()) == 2
    with pytest.raises(Untrusted):
        office.releases()
    manager = office.ring("fay")
    for change in (
        lambda: office.publish(TWO, manager),
        lambda: office.catalog.renew([LINE], manager, now=NOW),
        lambda: office.catalog.keep("Atlas", Retain(releases=1), manager, now=NOW),
        lambda: office.catalog.republish(manager, now=NOW, above=100),
        lambda: office.catalog.attach(entry(ONE).release, document("provenance"), manager, now=NOW),
    ):
        with pytest.raises(Corrupt, match="is not signed by the keys of its line") as caught:
            change()
        assert caught.value.place == "catalog/3.line-Atlas.json"
        assert "restore" in caught.value.hint
    assert office.catalog.status().waiting == ()


def placements(*names: str):
    return {target.path: target for target in (entries.encode_placement(entry(name)) for name in names)}


def test_invented_targets_are_noticed_by_every_writer(office):
    forge(office, "targets", lambda targets: targets.add_key(office.keys("zoe").keys[0], LINE))
    for change in (
        lambda: office.publish(TWO, office.ring("fay")),
        lambda: office.catalog.rotate(LINE, office.ring("dan"), now=NOW, threshold=1),
        lambda: office.catalog.refresh(office.origin, now=NOW),
    ):
        with pytest.raises(Corrupt, match="does not verify"):
            change()


@pytest.mark.parametrize("signature", ["none", "false"])
def test_a_manager_who_publishes_does_not_sign_what_others_let_wait(office, signature):
    office.publish("Atlas-666-x86")
    if signature == "false":
        claim_signature(office, "fay")
    outcome = office.publish(TWO, office.ring("fay"))
    assert [(one.role, one.missing, one.signed_by) for one in outcome.waiting] == [(LINE, 2, ())]
    # Shown both, fay may sign; that is for people.
    assert {one.split("/")[2] for one in office.catalog.export().placements} == {"Atlas-666-x86", TWO}


def claim_signature(office, name: str) -> None:
    """Let the file of what waits say that somebody has signed it."""
    path = max(office.drafts.files)
    change = Change.parse(office.drafts.files[path], place=path)
    signature = office.ring("zoe").signer("zoe").sign(b"")
    signature.keyid = office.keyid(name)
    for one in change.roles.values():
        one.metadata.signatures[signature.keyid] = signature
    office.drafts.files[path] = change.encode()


def test_what_a_manager_has_signed_is_signed_again_with_what_is_added(office):
    office.publish(TWO, office.ring("fay"))
    outcome = office.publish("Atlas-3-x86", office.ring("fay"))
    assert [(one.missing, one.signed_by) for one in outcome.waiting] == [(1, (office.keyid("fay"),))]
    office.carry("gus")
    assert office.releases() == [ONE, TWO, "Atlas-3-x86"]


def test_a_release_that_waits_under_the_same_tree_but_with_other_documents_is_not_signed(tmp_path):
    world = World(tmp_path)
    mine = entry("AtlasOffline-2-x86")
    evil = dataclasses.replace(mine, manifest=document("evil"), attributes=document("evil"))
    world.catalog.publish(evil, KeyRing(tmp_path / "empty"), now=NOW, sign_later=True)
    outcome = world.catalog.publish(mine, world.keys, now=NOW)
    assert not outcome.changed
    assert outcome.waits("line-AtlasOffline")
    assert world.catalog.release(mine.release) is None
    world.catalog.drop()
    assert world.catalog.publish(mine, world.keys, now=NOW).changed
    assert world.catalog.release(mine.release) == mine


def test_targets_keys_do_not_sign_online_keys_that_only_wait(tmp_path):
    """A line begun while a root waits that names another online key: whoever put that there has not been seen."""
    office = Office(tmp_path)
    office.found()
    office.carry("ann", "bob", "dan", "eve")
    office.catalog.rotate("online", office.origin, now=NOW, add=office.keys("zoe").keys)
    outcome = office.catalog.add_line("Atlas", office.keys("fay"), office.ring("dan"), now=NOW)
    assert {one.role: one.signed_by for one in outcome.waiting}["targets"] == ()


# Publishing without one of the keys.


def test_a_release_waits_for_the_online_key_and_is_committed_by_refresh(office):
    office.publish(TWO, office.ring("fay"))
    data = signed_file(office.catalog.export().encode(), office.ring("gus"))
    outcome = office.catalog.submit(Change.parse(data, place="change"), office.ring("gus"), now=NOW)
    assert [(one.role, one.missing) for one in outcome.waiting] == [(LINE, 0)]
    assert office.releases() == [ONE]
    assert office.catalog.status().releases_waiting == (TWO,)
    assert office.catalog.refresh(office.origin, now=NOW).committed == (LINE,)
    assert office.releases() == [ONE, TWO]


def test_submitting_again_where_the_online_key_is_commits_what_was_complete(office):
    office.publish(TWO)
    data = signed_file(signed_file(office.catalog.export().encode(), office.ring("fay")), office.ring("gus"))
    change = Change.parse(data, place="change")
    assert office.catalog.submit(change, office.ring("gus"), now=NOW).committed == ()
    assert office.catalog.submit(change, office.origin, now=NOW).committed == (LINE,)


def test_publishing_without_a_key_of_the_line_needs_to_be_asked_for(office):
    with pytest.raises(PacballError, match="no key of this line is here") as caught:
        office.catalog.publish(entry(TWO), office.origin, now=NOW)
    assert "--sign-later" in caught.value.hint
    with pytest.raises(PacballError, match="no key of this line is here"):
        office.catalog.check_name(entry(TWO).release, office.origin)
    office.catalog.check_name(entry(TWO).release, office.origin, sign_later=True)
    assert office.catalog.waiting_release(entry(TWO).release) is None
    office.publish(TWO)
    assert office.catalog.waiting_release(entry(TWO).release) == entry(TWO)
    assert not office.publish(TWO).changed
