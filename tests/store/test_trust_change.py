"""Change files: what they hold comes back, and whatever else is in one is refused in words."""

import copy
import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacstore.errors import Corrupt, NewerFormat, PacballError, TooLarge
from pacstore.holdings import encode_json
from pacstore.trust.change import CHANGE_BYTES, MOST_VERSIONS, Change
from pacstore.trust.describe import describe
from pacstore.trust.proposals import check_context, lacks, sign_change
from tests.store.trust_world import NOW, Office

MANIFEST = "releases/Atlas/Atlas-1-x86/manifest"
PLACEMENT = "releases/Atlas/Atlas-2-x86/placement"


@pytest.fixture(scope="module")
def office(tmp_path_factory):
    office = Office(tmp_path_factory.mktemp("office")).begin("Atlas-1-x86")
    office.publish("Atlas-2-x86")
    office.catalog.rotate("root", office.ring("ann"), now=NOW, add=office.keys("zoe").keys)
    office.catalog.renew(["targets"], office.ring("dan"), now=NOW)
    return office


@pytest.fixture(scope="module")
def data(office):
    """A change file of root, targets and a line."""
    return office.catalog.export().encode()


def parse(data: bytes) -> Change:
    return Change.parse(data, place="change.json")


def test_what_is_written_comes_back(data):
    change = parse(data)
    assert change.encode() == data
    assert sorted(change.roles) == ["line-Atlas", "root", "targets"]
    assert {role: one.base for role, one in change.roles.items()} == {"root": 1, "targets": 2, "line-Atlas": 2}
    assert list(change.placements) == [PLACEMENT]
    assert len(change.context.roots) == 1


def test_an_empty_change_comes_back():
    assert not parse(Change().encode())
    assert parse(Change().encode()) == Change()


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        (b"", Corrupt, "is not JSON"),
        (b"[]", Corrupt, "not a JSON object"),
        (b"{}", Corrupt, "is not a change file"),
        (b'{"kind":"pacball-change"}', Corrupt, "format version"),
        (b'{"kind":"pacball-change","format":2}', NewerFormat, "format version 2"),
        (b'{"kind":"pacball-change","format":1}', Corrupt, "'roles' is missing"),
        (b'{"kind":"pacball-change","kind":"pacball-change","format":1}', Corrupt, "is not JSON"),
        (b"[" * 100_000, Corrupt, "is not JSON"),
    ],
)
def test_what_is_no_change_file_is_refused(text, kind, message):
    with pytest.raises(kind, match=message) as caught:
        parse(text)
    assert caught.value.place == "change.json"


def test_a_huge_file_is_not_parsed():
    with pytest.raises(TooLarge):
        parse(b" " * (CHANGE_BYTES + 1))


def edited(data: bytes, *path, to) -> bytes:
    value = json.loads(data)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    if to is DELETE:
        del inner[path[-1]]
    else:
        inner[path[-1]] = to
    return json.dumps(value).encode()


DELETE = object()
SIGNED = ("metadata", "signed")


@pytest.mark.parametrize(
    ("path", "to"),
    [
        (("above",), -1),
        (("above",), 1 << 62),
        (("above",), MOST_VERSIONS),
        (("above",), True),
        (("above",), 1.0),
        (("above",), DELETE),
        (("roles",), []),
        (("roles", "snapshot"), {}),
        (("roles", "placement-Atlas"), {}),
        (("roles", "root"), None),
        (("roles", "root", "base"), -1),
        (("roles", "root", "base"), 0),
        (("roles", "root", "base"), 2),
        (("roles", "root", "base"), 10**400),
        (("roles", "line-Atlas", "base"), 3),
        (("roles", "line-Atlas", *SIGNED, "version"), 1 << 62),
        (("roles", "line-Atlas", *SIGNED, "version"), "3"),
        (("roles", "line-Atlas", *SIGNED, "version"), 3.5),
        (("roles", "line-Atlas", *SIGNED, "version"), True),
        (("roles", "line-Atlas", *SIGNED, "version"), 0),
        (("roles", "line-Atlas", *SIGNED, "expires"), "never"),
        (("roles", "line-Atlas", *SIGNED, "_type"), "root"),
        (("roles", "line-Atlas", *SIGNED, "_type"), "snapshot"),
        (("roles", "line-Atlas", *SIGNED, "retain"), {"days": 0.5}),
        (("roles", "line-Atlas", *SIGNED, "retain"), "\ud800"),
        (("roles", "line-Atlas", *SIGNED, "targets", MANIFEST), 1),
        (("roles", "line-Atlas", *SIGNED, "targets", MANIFEST, "length"), -1),
        (("roles", "line-Atlas", *SIGNED, "targets", MANIFEST, "length"), "1"),
        (("roles", "line-Atlas", *SIGNED, "targets", MANIFEST, "hashes"), {}),
        (("roles", "line-Atlas", *SIGNED, "targets", MANIFEST, "custom"), float("nan")),
        (("roles", "line-Atlas", "metadata", "note"), "nobody signs this"),
        (("roles", "line-Atlas", "metadata", "signatures"), [{"keyid": "\ud800", "sig": ""}]),
        (("roles", "line-Atlas", "metadata", "signatures"), [{"keyid": "a", "sig": ""}] * 2),
        (("roles", "root", *SIGNED, "roles", "root", "threshold"), 0),
        (("roles", "root", *SIGNED, "roles", "root", "threshold"), "2"),
        (("roles", "root", *SIGNED, "roles", "extra"), {"keyids": [], "threshold": 1}),
        (("roles", "root", *SIGNED, "roles", "root"), DELETE),
        (("roles", "root", *SIGNED, "keys"), {"a": {"keytype": "x", "scheme": "x", "keyval": {}}}),
        (("placements", "x"), {}),
        (("placements", "releases/Atlas/Zebra-1-x86/placement"), {"length": 1, "hashes": {"sha256": "00"}}),
        (("placements", "releases/Atlas/../placement"), {"length": 1, "hashes": {"sha256": "00"}}),
        (("placements", PLACEMENT), None),
        (("placements", PLACEMENT, "length"), -1),
        (("placements", PLACEMENT, "custom"), {"number": 0.5}),
        (("context",), []),
        (("context", "roots"), {}),
        (("context", "roots", 0), None),
        (("context", "targets"), []),
        (("context", "lines"), []),
    ],
)
def test_fields_that_cannot_be_are_refused(data, path, to):
    with pytest.raises(Corrupt, match=r"is not a valid change file|is not JSON") as caught:
        parse(edited(data, *path, to=to))
    assert "\ud800" not in str(caught.value)


def test_too_many_roots_are_refused(data):
    value = json.loads(data)
    value["context"]["roots"] *= 258
    with pytest.raises(Corrupt, match="no list of roots"):
        parse(encode_json(value))


def test_only_the_placements_of_the_roles_that_stay_stay(data):
    change = parse(data)
    assert list(change.only(change.roles).placements) == [PLACEMENT]
    without = change.without(["line-Atlas"])
    assert (sorted(without.roles), without.placements) == (["root", "targets"], {})
    assert change.without(change.roles) == Change()
    assert sorted(change.without(["targets"]).roles) == ["line-Atlas", "root"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(value, at=()):
    """Every place in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*at, key)
        yield from places(one, (*at, key))


@settings(max_examples=120, deadline=None)
@given(draw=st.data())
def test_nothing_that_a_file_says_gets_past_the_errors_of_pacball(office, data, draw):
    value = json.loads(data)
    found = list(places(value))
    for _ in range(draw.draw(st.integers(1, 3))):
        path = draw.draw(st.sampled_from(found))
        to = draw.draw(st.just(DELETE) | JSON | st.sampled_from(found).map(lambda other: at(json.loads(data), other)))
        try:
            value = json.loads(edited(json.dumps(value).encode(), *path, to=to))
        except (KeyError, IndexError, TypeError):
            continue
    twin = office.twin()
    with suppress(PacballError):
        change = parse(json.dumps(value).encode())
        assert parse(change.encode()).encode() == change.encode()
        before = check_context(change, office.catalog.root_bytes)
        assert all(text.isprintable() for lines in describe(change, before).values() for text in lines)
        sign_change(change, office.ring("bob"), before)
        lacks(change, before)
        twin.catalog.submit(change, office.origin, now=NOW)
    twin.catalog.refresh(office.origin, now=NOW)
    assert twin.catalog.releases() == office.catalog.releases()


def at(value, path):
    for key in path:
        value = value[key]
    return copy.deepcopy(value)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_change_or_an_error(text):
    with suppress(PacballError):
        parse(text)
