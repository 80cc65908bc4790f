import contextlib
import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuf.api.metadata import TargetFile

from pacstore.errors import Corrupt, Refused
from pacstore.limits import LIMITS
from pacstore.release import Release
from pacstore.trust import entries
from pacstore.trust.targets import CatalogRelease, Withdrawal
from tests.store.trust_world import NOW, RELEASE, document, entry

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.sampled_from(["digest", "tree_digest", "bytes", "files", "published", "number", "withdrawn", "other"])
OTHER = Release.parse("AtlasOffline-17.2.1-x86_64-slc6-gcc46-opt")
WITHDRAWN = Withdrawal(int(NOW) + 5, "Wrong field map: use 17.2.1 – «sorry»", OTHER)
PLACE = f"releases/AtlasOffline/{RELEASE}/manifest"


def full_entry() -> CatalogRelease:
    return dataclasses.replace(entry(), withdrawal=WITHDRAWN, provenance=document("provenance"))


def targets_of(release: CatalogRelease) -> dict[str, TargetFile]:
    return {target.path: target for target in [*entries.encode_line(release), entries.encode_placement(release)]}


def decoded(targets: dict[str, TargetFile]) -> CatalogRelease | None:
    return entries.decode(entry().release, targets, targets)


def with_withdrawal(value: object) -> CatalogRelease | None:
    targets = targets_of(entry())
    targets[PLACE].custom["withdrawn"] = json.loads(json.dumps(value))
    return decoded(targets)


@pytest.mark.parametrize(
    "release",
    [
        entry(),
        full_entry(),
        dataclasses.replace(full_entry(), provenance=None),
        dataclasses.replace(entry(), provenance=document("provenance")),
        dataclasses.replace(entry(), withdrawal=Withdrawal(0, "x")),
    ],
)
def test_what_is_encoded_is_decoded(release):
    targets = targets_of(release)
    assert entries.decode(release.release, targets, targets) == release
    assert list(entries.decode_all("AtlasOffline", targets, targets)) == [release]


def test_the_targets_are_those_of_the_format():
    targets = targets_of(full_entry())
    assert sorted(path.rpartition("/")[2] for path in targets) == ["attributes", "manifest", "placement", "provenance"]
    assert targets[PLACE].custom["withdrawn"] == {
        "at": "2023-11-14T22:13:25Z",
        "reason": WITHDRAWN.reason,
        "replaced_by": str(OTHER),
    }
    provenance = targets[f"releases/AtlasOffline/{RELEASE}/provenance"]
    assert provenance.custom == {"digest": document("provenance").digest.hex}
    assert set(entries.paths_of(entry().release)) == set(targets)
    assert not {"withdrawn", "provenance"} & targets_of(entry())[PLACE].custom.keys()


@given(path=st.sampled_from(sorted(targets_of(full_entry()))), key=FIELDS, value=JSON)
def test_any_custom_field_is_read_rightly_or_refused(path, key, value):
    targets = targets_of(full_entry())
    targets[path].custom[key] = value
    with contextlib.suppress(Corrupt):
        found = decoded(targets)
        assert targets_of(found).keys() == targets.keys()


@given(path=st.sampled_from(sorted(targets_of(full_entry()))), value=JSON)
def test_any_custom_value_is_read_rightly_or_refused(path, value):
    targets = targets_of(full_entry())
    targets[path].unrecognized_fields["custom"] = value
    with contextlib.suppress(Corrupt):
        assert decoded(targets) is None


@given(path=st.text() | st.text().map(lambda text: f"releases/AtlasOffline/{text}/manifest"))
def test_any_path_is_a_release_of_the_line_or_refused(path):
    targets = targets_of(entry())
    targets[path] = next(iter(targets.values()))
    with contextlib.suppress(Corrupt):
        assert [found.release.project for found in entries.decode_all("AtlasOffline", targets, targets)] == [
            "AtlasOffline"
        ]


AT = "2023-11-14T22:13:25Z"


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (None, "not an object"),
        (True, "not an object"),
        ("withdrawn", "not an object"),
        ([], "not an object"),
        ({}, "reason"),
        ({"at": AT}, "reason"),
        ({"at": AT, "reason": ""}, "reason"),
        ({"at": AT, "reason": 5}, "reason"),
        ({"at": AT, "reason": "x" * 1001}, "reason"),
        ({"at": AT, "reason": "two\nlines"}, "reason"),
        ({"at": AT, "reason": "\x1b[31m"}, "reason"),
        ({"at": AT, "reason": "\x9b31m"}, "reason"),
        ({"at": AT, "reason": "half \ud800"}, "reason"),
        ({"reason": "x"}, "time of withdrawal"),
        ({"at": 1700000000, "reason": "x"}, "time of withdrawal"),
        ({"at": "2023-11-14", "reason": "x"}, "time of withdrawal"),
        ({"at": "2023-11-14T22:13:25+00:00", "reason": "x"}, "time of withdrawal"),
        ({"at": "2023-11-14T22:13:25Z\n", "reason": "x"}, "time of withdrawal"),
        ({"at": "2023-11-4T22:13:25Z", "reason": "x"}, "time of withdrawal"),
        ({"at": "\u0662023-11-14T22:13:25Z", "reason": "x"}, "time of withdrawal"),
        ({"at": "2023-02-29T22:13:25Z", "reason": "x"}, "time of withdrawal"),
        ({"at": AT, "reason": "x", "replaced_by": None}, "replaces it"),
        ({"at": AT, "reason": "x", "replaced_by": ""}, "replaces it"),
        ({"at": AT, "reason": "x", "replaced_by": "17.2.1"}, "replaces it"),
        ({"at": AT, "reason": "x", "replaced_by": ["A-1-x"]}, "replaces it"),
        ({"at": AT, "reason": "x", "replaced_by": RELEASE}, "by itself"),
    ],
)
def test_a_malformed_withdrawal_is_corrupt(value, fault):
    with pytest.raises(Corrupt, match=fault) as caught:
        with_withdrawal(value)
    assert caught.value.place == PLACE


def test_what_later_versions_add_to_a_withdrawal_is_ignored():
    found = with_withdrawal({"at": AT, "reason": "x" * 1000, "severity": {"high": True}})
    assert found.withdrawal == Withdrawal(int(NOW) + 5, "x" * 1000)


def test_a_reason_that_a_later_unicode_can_print_is_read():
    """Whether a character is printable depends on the version of Unicode; readers of all versions must agree."""
    assert with_withdrawal({"at": AT, "reason": "\u0378 \u200b"}).withdrawal.reason == "\u0378 \u200b"


@pytest.mark.parametrize(
    ("withdrawal", "fault"),
    [
        (Withdrawal(5, ""), "has 0 characters"),
        (Withdrawal(5, "x" * 1001), "has 1001 characters"),
        (Withdrawal(5, "two\nlines"), r"cannot be printed: two\\nlines"),
        (Withdrawal(5, "\x1b[31mred"), "cannot be printed"),
        (Withdrawal(5, "half \ud800"), "cannot be printed"),
        (Withdrawal(5, "reversed \u202e"), "cannot be printed"),
        (Withdrawal(5, "   "), "cannot be printed"),
        (Withdrawal(10**15, "x"), "no time"),
        (Withdrawal(-(10**11), "x"), "no time"),
        (Withdrawal(5, "x", Release.parse(RELEASE)), "replaced by itself"),
    ],
)
def test_a_withdrawal_that_says_nothing_sensible_is_refused(withdrawal, fault):
    with pytest.raises(Refused, match=fault) as caught:
        entries.encode_line(dataclasses.replace(entry(), withdrawal=withdrawal))
    assert caught.value.place == RELEASE


@given(
    st.builds(
        Withdrawal,
        st.integers(-(10**11), 10**12),
        st.text(min_size=1, max_size=30),
        st.sampled_from([None, OTHER, entry().release]),
    )
)
def test_every_withdrawal_that_is_encoded_is_decoded(withdrawal):
    release = dataclasses.replace(entry(), withdrawal=withdrawal)
    try:
        targets = targets_of(release)
    except Refused:
        return
    assert decoded(targets) == release


def test_a_provenance_beyond_its_limit_is_corrupt():
    provenance = dataclasses.replace(document("x"), length=LIMITS.provenance_bytes + 1)
    with pytest.raises(Corrupt, match="length"):
        decoded(targets_of(dataclasses.replace(entry(), provenance=provenance)))


def test_a_provenance_without_a_release_is_no_release():
    targets = targets_of(full_entry())
    del targets[PLACE]
    assert decoded(targets) is None
    assert list(entries.decode_all("AtlasOffline", targets, targets)) == []


@pytest.mark.parametrize("text", ["2023-11-14T22:13:5Z", " 2023-11-14T22:13:05Z", "2023-11-14T22:13:60Z", ""])
def test_a_time_of_publication_has_one_spelling(text):
    targets = targets_of(entry())
    targets[PLACE].custom["published"] = text
    with pytest.raises(Corrupt, match="time of publication"):
        decoded(targets)
