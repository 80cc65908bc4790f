"""What people bring to a store, and what a store shows to people: neither gets a signature or a place that it should not have."""

import copy
import dataclasses
import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tuf.api.metadata import Delegations, Metadata, TargetFile

from pacstore.errors import PacballError, Refused, Untrusted
from pacstore.trust import entries
from pacstore.trust.change import Change
from pacstore.trust.metadata import at
from pacstore.trust.proposals import check_context, sign_change
from tests.store.trust_world import (
    DAY,
    NOW,
    SIGNERS,
    Office,
    adds,
    document,
    entry,
    proposal,
    refused,
    signed_file,
    submitted,
)

ONE, TWO = "Atlas-1-x86", "Atlas-2-x86"
LINE = "line-Atlas"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return Office(tmp_path_factory.mktemp("office")).begin(ONE)


@pytest.fixture
def office(base):
    return base.twin()


def removes(path: str):
    return lambda line: line.targets.pop(path)


def path_of(name: str, kind: str) -> str:
    return f"releases/Atlas/{name}/{kind}"


def retargets(kind: str, **fields):
    """Replace the target of release ONE, or what it says in `custom`."""

    def edit(line) -> None:
        target = line.targets[path_of(ONE, kind)]
        for key, value in fields.items():
            if hasattr(target, key):
                setattr(target, key, value)
            else:
                target.unrecognized_fields["custom"][key] = value

    return edit


def test_a_proposal_that_was_made_and_signed_elsewhere_is_committed(office):
    outcome = submitted(office, proposal(office, LINE, adds(TWO), placements=[entry(TWO)]))
    assert outcome.committed == (LINE,)
    assert office.releases() == [ONE, TWO]
    assert office.catalog.releases() == [entry(ONE), entry(TWO)]
    # The same file once more is no change, and no harm.
    change = proposal(office, LINE, adds("Atlas-3-x86"), placements=[entry("Atlas-3-x86")])
    submitted(office, change)
    assert not submitted(office, change).changed


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (removes(path_of(ONE, "manifest")), "no longer has"),
        (removes(path_of(ONE, "attributes")), "no longer has"),
        (lambda line: line.targets.clear(), "no longer has"),
        (retargets("manifest", length=1), "to another tree"),
        (retargets("manifest", hashes={"sha256": "00" * 32}), "to another tree"),
        (retargets("manifest", tree_digest="00" * 32), "to another tree"),
        (retargets("manifest", digest="00" * 32), "to another tree"),
    ],
)
def test_a_line_only_grows(office, edit, message):
    change = proposal(office, LINE, edit)
    refused(office, change, message, hint="names stay bound for ever")
    # Who is asked for a signature is not helped to give it, either.
    with pytest.raises(Refused, match=message):
        check_context(change, None)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (adds("Zebra-1-x86"), "not a path that the line Atlas may sign"),
        (removes(path_of(TWO, "attributes")), "is incomplete in the catalog"),
        (adds("Atlas-2-X86"), "differs only in case from the release Atlas-2-"),
        (retargets("manifest", files=-1), "is not a whole number"),
        (retargets("manifest", published="yesterday"), "nobody could read this line"),
        (retargets("manifest", withdrawn={}), "the reason of its withdrawal"),
        (retargets("manifest", withdrawn=None), "its withdrawal is not an object"),
        (lambda line: line.unrecognized_fields.update(retain=[]), "its retention rule is not an object"),
        (lambda line: setattr(line, "delegations", Delegations({}, {})), "has parts that this pacball would not write"),
        (lambda line: line.targets.update(x=TargetFile(1, {"sha256": "00"}, "x/manifest")), None),
    ],
)
def test_a_line_that_readers_cannot_read_is_refused(office, edit, message):
    def whole(line) -> None:
        adds(TWO)(line)
        edit(line)

    names = ["Atlas-2-X86", "Zebra-1-x86", TWO]
    change = proposal(office, LINE, whole, placements=map(entry, names))
    if message is None:
        # Targets that a reader does not know are none of its business.
        assert submitted(office, change).committed == (LINE,)
        assert office.releases() == [ONE, TWO]
    else:
        refused(office, change, message)


def test_a_release_needs_its_placement(office):
    refused(office, proposal(office, LINE, adds(TWO), placements=[entry("Atlas-3-x86")]), "placement are missing")


@pytest.mark.parametrize(
    ("role", "signers"),
    [
        ("root", ("dan", "eve", "fay", "zoe")),
        ("targets", ("ann", "fay", "zoe")),
        (LINE, ("ann", "dan", "zoe")),
    ],
)
def test_what_none_of_its_keys_has_signed_does_not_wait(office, role, signers):
    def edit(signed) -> None:
        if role == "root":
            for name in signers:
                signed.add_key(office.keys(name).keys[0], "root")

    refused(
        office, proposal(office, role, edit, *signers), "is not signed by any of its keys", hint="pacball trust sign"
    )


def test_too_few_signatures_wait_and_only_good_ones_are_kept(office):
    change = proposal(office, LINE, adds(TWO), "fay", "zoe", "ann", placements=[entry(TWO)])
    outcome = submitted(office, change)
    assert [(one.role, one.missing, one.signed_by) for one in outcome.waiting] == [(LINE, 1, (office.keyid("fay"),))]
    assert list(office.catalog.export().roles[LINE].metadata.signatures) == [office.keyid("fay")]
    assert office.releases() == [ONE]
    assert office.carry("hal").committed == (LINE,)
    assert office.releases() == [ONE, TWO]


def test_versions_and_dates_that_make_no_sense_are_refused(office):
    refused(office, proposal(office, LINE, adds(), version=5000), "goes from version 2 to 5000", hint="propose it anew")
    expired = proposal(office, LINE, lambda line: setattr(line, "expires", at(NOW)))
    refused(office, expired, "has expired before it was committed", hint="propose it anew")
    for base in (0, 1):
        change = proposal(office, LINE, adds())
        change.roles[LINE].base = base
        refused(office, change, "has been changed by others meanwhile", hint="pacball trust export")
        with pytest.raises(Untrusted, match="has not what it is based on"):
            check_context(change, None)
    change = proposal(office, LINE, adds())
    change.roles["line-Nobody"] = change.roles.pop(LINE)
    change.roles["line-Nobody"].base = 0
    refused(office, change, "is no role of this catalog", hint="pacball trust status")


def test_what_the_catalog_has_gone_past_is_refused(office):
    office.publish(TWO)
    old = office.catalog.export()
    assert office.catalog.drop() == (LINE,)
    office.publish("Atlas-3-x86")
    office.carry("fay", "gus")
    refused(office, old, "has been changed by others meanwhile", hint="export it and sign it again")
    assert office.releases() == [ONE, "Atlas-3-x86"]


def test_offered_placements_replace_and_add_nothing_else(office):
    office.publish(TWO)
    honest = office.catalog.export()
    liar = dataclasses.replace(entry(TWO), placement=document("elsewhere"), placement_number=99)
    others = [liar, dataclasses.replace(entry(ONE), placement_number=99), entry("Zebra-1-x86"), entry("Atlas-9-x86")]
    for one in map(entries.encode_placement, others):
        honest.placements[one.path] = one
    data = signed_file(signed_file(honest.encode(), office.ring("fay")), office.ring("gus"))
    outcome = office.catalog.submit(Change.parse(data, place="change"), office.origin, now=NOW)
    assert outcome.committed == (LINE,)
    assert office.catalog.releases() == [entry(ONE), entry(TWO)]
    assert office.catalog.status().releases_waiting == ()


def test_keys_are_not_taken_from_targets_that_have_not_signed(office):
    """A root that is complete, but leaves targets without their signatures, waits until they have them."""
    change = proposal(office, "root", lambda root: root.revoke_key(office.keyid("eve"), "targets") or lower(root))
    # One of two who signed targets is enough for what is there.
    assert submitted(office, change).committed == ("root",)

    def replaced(root) -> None:
        root.add_key(office.keys("zoe").keys[0], "targets")
        root.revoke_key(office.keyid("dan"), "targets")

    outcome = submitted(office, proposal(office, "root", replaced))
    assert outcome.committed == ()
    assert [(one.role, one.missing) for one in outcome.waiting] == [("root", 0)]
    assert office.releases() == [ONE]
    assert office.catalog.refresh(office.origin, now=NOW).committed == ()
    office.catalog.renew(["targets"], office.ring("zoe"), now=NOW)
    office.catalog.refresh(office.origin, now=NOW)
    assert office.catalog.status().root_version == 3
    assert office.releases() == [ONE]


def lower(root) -> None:
    root.roles["targets"].threshold = 1


def test_a_line_is_not_given_keys_that_have_not_signed_it(office):
    def replaced(targets) -> None:
        targets.add_key(office.keys("zoe").keys[0], LINE)
        for name in office.LINE:
            targets.revoke_key(office.keyid(name), LINE)
        targets.delegations.roles[LINE].threshold = 1

    outcome = submitted(office, proposal(office, "targets", replaced))
    assert [(one.role, one.missing) for one in outcome.waiting] == [("targets", 0)]
    assert outcome.committed == ()
    assert office.releases() == [ONE]
    # The line goes on under the keys in force.
    office.publish(TWO, office.ring("fay"))
    assert office.catalog.refresh(office.origin, now=NOW).committed == ()


def test_a_context_that_was_exchanged_is_noticed(office):
    office.publish(TWO)
    good = json.loads(office.catalog.export().encode())
    root = office.catalog.root_bytes
    other = Office(office.ring("ann").directory.parent / "other").begin(ONE)
    other.publish(TWO)
    theirs = json.loads(other.catalog.export().encode())

    def tampered(**parts):
        value = copy.deepcopy(good)
        value["context"] |= parts
        return Change.parse(json.dumps(value).encode(), place="change")

    assert check_context(tampered(), root) is not None
    old = json.loads(office.storage.files["catalog/1.targets.json"])
    for change, message in (
        (tampered(roots=[]), "has no root"),
        (tampered(roots=theirs["context"]["roots"]), "pinned root is not among its roots"),
        (tampered(targets=theirs["context"]["targets"]), "does not verify"),
        (tampered(targets=old), "does not verify"),
        (tampered(targets=None), "does not verify"),
        (tampered(lines=theirs["context"]["lines"]), "does not verify"),
        (tampered(lines={}), "has not what it is based on"),
        (dataclasses.replace(tampered(), context=None), "lacks what it is based on"),
    ):
        with pytest.raises(Untrusted, match=message) as caught:
            check_context(change, root)
        assert caught.value.hint
    # Without a root of one's own, a whole other catalog looks as good: the fingerprint of its root is to be compared.
    assert check_context(Change.parse(json.dumps(theirs).encode(), place="change"), None) is not None


def test_a_later_root_can_be_pinned(office):
    office.catalog.renew(["root"], office.ring("ann"), now=NOW)
    office.carry("bob")
    office.publish(TWO)
    change = office.catalog.export()
    for version in (1, 2):
        assert check_context(change, office.storage.files[f"catalog/{version}.root.json"]) is not None


def test_a_false_signature_does_not_keep_its_owner_from_signing(office):
    office.publish(TWO)
    change = office.catalog.export()
    signature = office.ring("zoe").signer("zoe").sign(b"something else")
    signature.keyid = office.keyid("fay")
    change.roles[LINE].metadata.signatures[signature.keyid] = signature
    assert sign_change(change, office.ring("fay"), check_context(change, None)) == {LINE: [office.keyid("fay")]}
    assert submitted(office, change).waiting[0].missing == 1


def test_only_what_was_asked_for_is_signed(office):
    office.catalog.renew(["root", "targets", LINE], office.ring("zoe"), now=NOW)
    change = office.catalog.export()
    both = office.ring("ann")
    assert sign_change(change, both, check_context(change, None), ["targets"]) == {}
    assert set(sign_change(change, both, check_context(change, None), ["root"])) == {"root"}


JSON = (
    st.none()
    | st.booleans()
    | st.integers(-1, 1 << 70)
    | st.text(max_size=6)
    | st.sampled_from(["00" * 32, "*", {}, []])
)


def places_in(value, path=()):
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*path, key)
        yield from places_in(one, (*path, key))


@settings(max_examples=150, deadline=None)
@given(draw=st.data())
def test_whatever_people_sign_the_catalog_stays_readable(base, draw):
    """The keys of every role sign something that was altered at will: it is refused, or readers can go on, and so can writers."""
    office = base.twin()
    role = draw.draw(st.sampled_from(["root", "targets", LINE]))
    change = proposal(office, role, adds(TWO) if role == LINE else lambda _: None, placements=[entry(TWO)])
    value = change.roles[role].metadata.signed.to_dict()
    path = draw.draw(st.sampled_from(sorted(places_in(value), key=str)))
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    if draw.draw(st.booleans()):
        del inner[path[-1]]
    else:
        inner[path[-1]] = draw.draw(JSON)
    with suppress(PacballError, ValueError, KeyError, TypeError, AttributeError):
        metadata = Metadata.from_dict({"signatures": [], "signed": value})
        for name in SIGNERS[role]:
            metadata.sign(office.ring(name).signer(name), append=True)
        change.roles[role].metadata = metadata
        submitted(office, change)
    office.catalog.refresh(office.origin, now=NOW + DAY)
    office.publish("Atlas-3-x86")
    office.catalog.drop()
    if "expires" not in path:
        assert ONE in office.releases()
