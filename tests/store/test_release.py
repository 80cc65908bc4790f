"""Release names: the grammar, and what to write instead."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacstore.errors import Refused
from pacstore.release import Release
from tests import independent_reader as reader
from tests.store.samples import BOUNDED

GOOD = {
    "AtlasOffline-17.2.0-x86_64-slc6-gcc46-opt": ("AtlasOffline", "17.2.0", "x86_64-slc6-gcc46-opt"),
    "a-1-b": ("a", "1", "b"),
    "A_1-v1_2.x-any": ("A_1", "v1_2.x", "any"),
    "a-0-.hidden": ("a", "0", ".hidden"),
    "a-1--": ("a", "1", "-"),
    "a-1---": ("a", "1", "--"),
    "a-1._-_": ("a", "1._", "_"),
    "a-1.-b": ("a", "1.", "b"),
    "a-1-" + "x" * 146: ("a", "1", "x" * 146),
}
BAD = {
    "": "PROJECT-VERSION-PLATFORM",
    "a": "PROJECT-VERSION-PLATFORM",
    "a-1": "PROJECT-VERSION-PLATFORM",
    "a-1-": "PROJECT-VERSION-PLATFORM",
    "-1-b": "project",
    "1a-1-b": "project",
    "_a-1-b": "project",
    "a.b-1-c": "project",
    "a--b": "version",
    "a-_1-b": "version",
    "a-.1-b": "version",
    "a-1+2-b": "version",
    "a-1~rc1-b": "version",
    "a-1-b/c": "platform",
    "a-1-b c": "platform",
    "a-1-b\n": "platform",
    "a-1-\u00e4": "platform",
    "a-\u0661-b": "version",
    "\u00e4-1-b": "project",
    "a-1-\ud800": "platform",
    "a-1-b\0": "platform",
    "a\n-1-b": "project",
    "a-1\n-b": "version",
    "a-1-..": "'..'",
    "a-1..2-b": "'..'",
    "a-1-b.": "end with",
    "../../etc-1-b": "project",
    "a-1-" + "x" * 147: "150 bytes",
    "a" * 1_000_000: "150 bytes",
}
SUGGESTED = {
    "a-1+2-b": "a-1_2-b",
    "a-1~rc1-b": "a-1_rc1-b",
    "a-1-b c": "a-1-b_c",
    "a-1-b.": "a-1-b",
    "a-1..2-b": "a-1.2-b",
    "a-1-b/c": "a-1-b_c",
}


@pytest.mark.parametrize("name", GOOD)
def test_good(name):
    release = Release.parse(name)
    assert (release.project, release.version, release.platform) == GOOD[name]
    assert str(release) == name
    assert reader.is_release_name(name)


@pytest.mark.parametrize("name", BAD, ids=lambda name: ascii(name)[:30])
def test_bad(name):
    with pytest.raises(Refused, match=BAD[name]) as caught:
        Release.parse(name)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
    assert not reader.is_release_name(name)


@pytest.mark.parametrize("name", SUGGESTED)
def test_what_to_write_instead(name):
    with pytest.raises(Refused) as caught:
        Release.parse(name)
    assert caught.value.hint == f"write {SUGGESTED[name]}"
    Release.parse(SUGGESTED[name])


@settings(BOUNDED, max_examples=400)
@given(st.one_of(st.text(max_size=12), st.from_regex(r"[A-c_][A-c0-2_]?-[.0a_]{1,3}-[-._0aZ\n+]{1,4}", fullmatch=True)))
def test_any_name(name):
    try:
        release = Release.parse(name)
    except Refused:
        assert not reader.is_release_name(name)
    else:
        assert str(release) == name
        assert reader.is_release_name(name)
