"""Patterns of generated paths: what meets them, what does not, and what is no pattern."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacstore.errors import Refused
from pacstore.globs import Patterns

MET = [
    ("etc/setup.sh", "etc/setup.sh"),
    ("*.pth", "x.pth"),
    ("*.pth", ".pth"),
    ("a?c", "aéc"),
    ("lib/python3*/x", "lib/python3/x"),
    ("lib/**/__pycache__/**", "lib/__pycache__/a.pyc"),
    ("lib/**/__pycache__/**", "lib/a/b/__pycache__/c/d"),
    ("**/x", "x"),
    ("**/x", "a/b/x"),
    ("a/**", "a/b"),
    ("a/**", "a/b/c/.d"),
    ("a/**/**/b", "a/b"),
    ("**/**/x", "x"),
    ("**/x/**/y", "x/x/y/y"),
    ("a b", "a b"),
    ("a.b", "a.b"),
    ("a+(b)|$^", "a+(b)|$^"),
]
NOT_MET = [
    ("etc/setup.sh", "etc/setup.sh/x"),
    ("etc/setup.sh", "etc/setup_sh"),
    ("etc/setup.sh", "etc"),
    ("*.pth", "a/x.pth"),
    ("a?c", "a/c"),
    ("a?c", "ac"),
    ("a/**", "a"),
    ("a/**", "ab/c"),
    ("a/*", "a/b/c"),
    ("lib/**/__pycache__/**", "lib/a/__pycache__"),
    ("a.b", "axb"),
    ("A", "a"),
]
REFUSED = ["", "/etc", "a//b", "a/", "a/../b", "./a", "..", "**", "*", "**/*", "?/**", "a**", "**a/b", "[ab]", "a{b,c}",
           "a\\b", "a\nb", "a\0b", "x" * 1_025, "/".join("a" * 33), "é" * 513]  # fmt: skip


@pytest.mark.parametrize(("pattern", "path"), MET)
def test_met(pattern, path):
    patterns = Patterns(["no/such", pattern], place="here")
    assert patterns.matches(path)
    for at in range(len(path.split("/"))):
        assert patterns.leads(patterns.of("/".join(path.split("/")[:at])))
    assert patterns.holds(patterns.of(path.rpartition("/")[0]))


@pytest.mark.parametrize(("pattern", "path"), NOT_MET)
def test_not_met(pattern, path):
    assert not Patterns([pattern], place="here").matches(path)


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_pattern(text):
    with pytest.raises(Refused, match="here"):
        Patterns([text], place="here")


def test_too_many():
    Patterns(["a"] * 256, place="here")
    with pytest.raises(Refused, match="more than 256"):
        Patterns(["a"] * 257, place="here")


def test_no_patterns_meet_nothing():
    patterns = Patterns([], place="here")
    assert not patterns.matches("a")
    assert not patterns.leads(patterns.start())


def test_which_directories_must_be_there():
    patterns = Patterns(["lib/**/__pycache__/**", "var/cache/x", "opt/*/y/z", "**/a/**/b/*"], place="here")
    needed = lambda path: set(patterns.needed(patterns.of(path)))  # noqa: E731
    free = lambda path: patterns.free(patterns.of(path))  # noqa: E731
    assert (needed(""), free("")) == ({"lib", "var", "opt", "a"}, False)
    assert (needed("lib/c"), free("lib/c")) == ({"__pycache__", "a"}, False)
    assert (needed("opt"), free("opt")) == ({"a"}, True)
    below = patterns.needed(patterns.of("c"))["a"]
    assert set(patterns.needed(below)) == {"b"}
    assert patterns.holds(patterns.needed(below)["b"])


def test_nasty_patterns_take_no_time():
    begun = time.monotonic()
    patterns = Patterns(["*a" * 60 + "b", "/".join(["**", "a"] * 15)], place="here")
    assert not patterns.matches("a" * 255)
    assert not patterns.matches("/".join("a" * 2_000 + "b"))
    assert time.monotonic() - begun < 60


@given(st.lists(st.sampled_from(["a", "b", "*", "**", "a*"]), min_size=1, max_size=5),
       st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=6))  # fmt: skip
def test_against_the_definition(components, names):
    """The same answer as the definition gives, read as a recursion."""

    def met(pattern, path):
        if not pattern:
            return not path
        if pattern[0] == "**":
            least = 1 if len(pattern) == 1 else 0
            return any(met(pattern[1:], path[n:]) for n in range(least, len(path) + 1))
        head = {"*": ["a", "b", "ab"], "a*": ["a", "ab"]}.get(pattern[0], [pattern[0]])
        return bool(path) and path[0] in head and met(pattern[1:], path[1:])

    if not set("/".join(components)) & {"a", "b"}:
        return
    assert Patterns(["/".join(components)], place="").matches("/".join(names)) == met(components, names)
