"""What people are shown before they sign: every change, and nothing that is not there."""

import dataclasses
import re

import pytest
from tuf.api.metadata import TargetFile

from pacstore.release import Release
from pacstore.trust.change import Change
from pacstore.trust.describe import describe
from pacstore.trust.lines import add_release
from pacstore.trust.proposals import check_context
from pacstore.trust.retention import Retain
from pacstore.trust.targets import Withdrawal
from tests.store.trust_world import NOW, Office, document, entry

ONE, TWO = "Atlas-1-x86", "Atlas-2-x86"
LINE = "line-Atlas"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return Office(tmp_path_factory.mktemp("office")).begin(ONE)


@pytest.fixture
def office(base):
    return base.twin()


def shown(office) -> dict[str, list[str]]:
    """What waits, as somebody sees it who has no store; without the dates of expiry, which are the same."""
    change = Change.parse(office.catalog.export().encode(), place="change")
    found = describe(change, check_context(change, None))
    assert all(lines[-1] == "expires 2024-11-13" for lines in found.values())
    return {role: lines[:-1] for role, lines in found.items()}


def keyid(office, name: str) -> str:
    return office.keyid(name)[:16]


def added(name: str) -> str:
    tree = entry(name).tree_digest.hex
    return f"adds {name}: tree {tree}, published 2023-11-14T22:13:20Z, 1000 files, 12345678901 bytes"


def test_a_beginning_shows_all_keys_and_thresholds(tmp_path):
    office = Office(tmp_path)
    office.found()
    ann, bob, cid = sorted(keyid(office, name) for name in ("ann", "bob", "cid"))
    dan, eve = sorted(keyid(office, name) for name in ("dan", "eve"))
    online = office.online.keyid[:16]
    assert shown(office) == {
        "root": [
            f"root: 2 of the keys {ann}, {bob}, {cid}",
            f"targets: 2 of the keys {dan}, {eve}",
            f"snapshot: 1 of the keys {online}",
            f"timestamp: 1 of the keys {online}",
        ],
        "targets": [],
    }


def test_a_new_line(office):
    office.catalog.add_line("Zebra", office.keys("hal"), office.origin, now=NOW)
    assert shown(office) == {
        "line-Zebra": [],
        "targets": [
            f"placement-Zebra: 1 of the keys {office.online.keyid[:16]}",
            f"line-Zebra: 1 of the keys {keyid(office, 'hal')}",
        ],
    }


def test_releases_that_are_added(office):
    office.publish(TWO)
    office.publish("Atlas-3-x86")
    assert shown(office) == {LINE: [added(TWO), added("Atlas-3-x86")]}


def test_however_many_there_are(office):
    names = [f"Atlas-{n}-x86" for n in range(100, 350)]

    def all_at_once(draft) -> bool:
        return sum(add_release(draft, entry(name), beside_pending=False) for name in names) == len(names)

    office.catalog._change(all_at_once, office.origin, now=NOW)
    assert shown(office) == {LINE: [added(name) for name in names]}


def test_a_withdrawal(office):
    withdrawal = Withdrawal(int(NOW), "wrong calibration")
    office.publish(TWO)
    for other in (None, Release.parse(TWO)):
        office.catalog.withdraw(
            Release.parse(ONE), dataclasses.replace(withdrawal, replaced_by=other), office.origin, now=NOW
        )
        instead = f", to be replaced by {TWO}" if other else ""
        assert shown(office)[LINE] == [
            f"withdraws {ONE}: wrong calibration{instead}",
            f"says at of the withdrawal of {ONE}: 2023-11-14T22:13:20Z",
            added(TWO),
        ]


def test_a_provenance_and_a_rule_of_retention(office):
    office.catalog.attach(Release.parse(ONE), document("provenance"), office.origin, now=NOW)
    office.catalog.keep("Atlas", Retain(releases=3, days=7), office.origin, now=NOW)
    assert shown(office) == {
        LINE: [f"adds provenance to {ONE}", "keeps its releases: {'days': 7, 'releases': 3}"],
    }
    office.carry("fay", "gus")
    office.catalog.attach(Release.parse(ONE), document("another"), office.origin, now=NOW)
    office.catalog.keep("Atlas", None, office.origin, now=NOW)
    assert shown(office) == {LINE: [f"REPLACES the provenance of {ONE}", "keeps its releases: for ever"]}


def test_keys_and_thresholds_that_change(office):
    office.catalog.rotate(
        "root", office.origin, now=NOW, add=office.keys("zoe").keys, remove=[office.keyid("cid")], threshold=3
    )
    office.catalog.rotate("targets", office.origin, now=NOW, threshold=1)
    office.catalog.rotate(LINE, office.origin, now=NOW, add=office.keys("ida").keys, threshold=1)
    assert shown(office) == {
        "root": [
            f"root: adds the keys {keyid(office, 'zoe')}",
            f"root: removes the keys {keyid(office, 'cid')}",
            "root: needs 3 signatures, 2 until now",
            "targets: needs 1 signatures, 2 until now",
        ],
        "targets": [f"{LINE}: adds the keys {keyid(office, 'ida')}", f"{LINE}: needs 1 signatures, 2 until now"],
    }


def test_another_online_key(office):
    new = office.keys("new-online").keys[0]
    office.catalog.revoke(office.online.keyid, new, office.origin, now=NOW)
    changes = [
        line
        for role in ("snapshot", "timestamp", "placement-Atlas")
        for line in (f"{role}: adds the keys {new.keyid[:16]}", f"{role}: removes the keys {office.online.keyid[:16]}")
    ]
    assert shown(office) == {"root": changes[:4], "targets": changes[4:]}


def test_what_is_only_signed_anew(office):
    office.catalog.renew(["root", "targets", LINE], office.origin, now=NOW)
    assert shown(office) == {"root": [], "targets": [], LINE: []}


def test_versions_that_jump(office):
    office.catalog.republish(office.origin, now=NOW, above=1000)
    assert shown(office) == {
        "targets": ["goes from version 2 to 1001"],
        LINE: ["goes from version 2 to 1001"],
    }


# What no command does, and a store or a signer refuses for the most part: what is shown does not depend on that.


def altered(office, edit) -> list[str]:
    """What is shown of release TWO being added, with the line changed by `edit`."""
    office.publish(TWO)
    change = office.catalog.export()
    before = check_context(change, None)
    edit(change.roles[LINE].metadata.signed)
    return [line for line in describe(change, before)[LINE][:-1] if line != added(TWO)]


def at(kind: str, name: str = ONE) -> str:
    return f"releases/Atlas/{name}/{kind}"


def says(key: str, value: object, name: str = ONE):
    return lambda line: line.targets[at("manifest", name)].unrecognized_fields["custom"].update({key: value})


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda line: line.targets.pop(at("manifest")), r"REMOVES releases/Atlas/Atlas-1-x86/manifest, whose name .*"),
        (lambda line: line.targets.pop(at("attributes")), r"REMOVES releases/Atlas/Atlas-1-x86/attributes, .*"),
        (lambda line: setattr(line.targets[at("manifest")], "length", 1), "REPLACES the manifest of Atlas-1-x86"),
        (
            lambda line: setattr(line.targets[at("attributes")], "hashes", {"sha256": "00"}),
            "REPLACES the attributes of Atlas-1-x86",
        ),
        (says("digest", "00"), "REPLACES the manifest of Atlas-1-x86"),
        (says("tree_digest", "00"), r"CHANGES tree_digest of Atlas-1-x86 from [0-9a-f]{64} to 00"),
        (says("files", 7), "CHANGES files of Atlas-1-x86 from 1000 to 7"),
        (says("published", "now"), "CHANGES published of Atlas-1-x86 from 2023-11-14T22:13:20Z to now"),
        (says("sbom", "evil"), "CHANGES sbom of Atlas-1-x86 from None to evil"),
        (says("sbom", "evil", TWO), "says sbom of Atlas-2-x86: evil"),
        (says("withdrawn", "yes", TWO), "withdraws Atlas-2-x86: yes"),
        (lambda line: line.targets.pop(at("manifest", TWO)), "adds attributes to Atlas-2-x86"),
        (lambda line: line.targets.update(x=TargetFile(1, {"sha256": "00"}, "x")), "adds x"),
        (lambda line: line.unrecognized_fields.update(note="\x1b[31m"), r"says note: \\x1b\[31m"),
        (lambda line: setattr(line, "delegations", True), "DELEGATES to other roles"),
        (lambda line: setattr(line, "version", 9), "goes from version 2 to 9"),
    ],
)
def test_whatever_else_changes_is_shown(office, edit, expected):
    found = altered(office, edit)
    assert len([line for line in found if re.fullmatch(expected, line)]) == 1, found
    assert all(line.isprintable() for line in found)


def test_a_withdrawal_that_is_taken_back(office):
    office.catalog.withdraw(Release.parse(ONE), Withdrawal(int(NOW), "bad"), office.origin, now=NOW)
    office.carry("fay", "gus")
    found = altered(office, lambda line: line.targets[at("manifest")].unrecognized_fields["custom"].pop("withdrawn"))
    assert found == ["TAKES BACK the withdrawal of Atlas-1-x86"]


def test_a_release_that_is_withdrawn_as_it_is_added(office):
    found = altered(office, says("withdrawn", {"reason": "bad\x1b", "hidden": 1}, TWO))
    assert found == ["withdraws Atlas-2-x86: bad\\x1b", "says hidden of the withdrawal of Atlas-2-x86: 1"]


def test_a_line_that_is_dropped(office):
    office.catalog.renew(["targets"], office.origin, now=NOW)
    change = office.catalog.export()
    before = check_context(change, None)
    change.roles["targets"].metadata.signed.delegations.roles.clear()
    assert describe(change, before)["targets"][:-1] == [
        "placement-Atlas: REMOVED, with all that it signs",
        "line-Atlas: REMOVED, with all that it signs",
    ]
