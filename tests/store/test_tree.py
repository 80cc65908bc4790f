"""Trees: preorder, names, sizes; whatever is accepted is canonical, whatever is not is refused by both parsers."""

import time
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacstore.errors import Refused, TooLarge
from pacstore.tree import EntryKind, Tree, TreeBuilder, check_name, check_target
from tests import independent_reader as reader
from tests.store.hostile_trees import BAD_NAMES, GOOD_NAMES, HOSTILE, TREE, files, link, names
from tests.store.samples import BOUNDED, Item, column, mutations, reencode_tree, smallest, tree_of

D, F, X, L = EntryKind


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name):
    data, error = HOSTILE[name]
    began = time.monotonic()
    with pytest.raises(error) as caught:
        Tree.parse(data, place="hostile")
    assert time.monotonic() - began < 60
    assert type(caught.value) is error
    assert str(caught.value).isprintable()
    with pytest.raises(reader.Wrong):
        reader.parse_tree(data)


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_names_that_are_allowed(name):
    data = names(name.encode())
    assert [e.path for e in Tree.parse(data, place="x").walk()] == [name] == reader.parse_tree(data).paths
    check_name(name.encode())


@pytest.mark.parametrize("name", BAD_NAMES)
def test_publishing_refuses_the_same_names(name):
    with pytest.raises(Refused):
        check_name(BAD_NAMES[name])


@settings(BOUNDED, max_examples=300)
@given(st.text(alphabet=st.characters(codec="utf-8"), min_size=1, max_size=8))
def test_any_name(name):
    allowed = "/" not in name and name not in (".", "..") and all(unicodedata.category(c) != "Cc" for c in name)
    if allowed:
        check_name(name.encode())
        assert reader.parse_tree(names(name.encode())).paths == [name]
    else:
        with pytest.raises(Refused):
            check_name(name.encode())
        with pytest.raises(reader.Wrong):
            reader.parse_tree(names(name.encode()))


@pytest.mark.parametrize("target", [b"", b"\0", b"a\0b", b"x" * 4096, b"\xff"])
def test_publishing_refuses_the_same_targets(target):
    with pytest.raises(Refused):
        check_target(target)


def test_limits_are_reached():
    deep = names(*[b"x" * 255] * 16, depths=tuple(range(16)))
    assert len(list(Tree.parse(deep, place="x").walk())[-1].path) == 4095
    deepest = names(*[b"x"] * 2048, depths=tuple(range(2048)))
    assert reader.parse_tree(deepest).paths[-1] == list(Tree.parse(deepest, place="x").walk())[-1].path
    most = files(2**62, 2**62 - 1)
    assert Tree.parse(most, place="x").total_bytes == 2**63 - 1
    target = link(b"x" * 4095)
    assert next(Tree.parse(target, place="x").walk()).target == "x" * 4095
    assert Tree.parse(smallest().tree, place="x").entries == 0
    assert reader.parse_tree(smallest().tree).paths == []


def test_walk():
    entries = list(Tree.parse(TREE, place="x").walk())
    assert [e.path for e in entries] == reader.parse_tree(TREE).paths
    assert [e.path for e in entries][:4] == ["bin", "bin/run", "bin/run-too", "bin.d"]
    assert entries[3].target == "/nowhere/at all"
    assert [e.file_number for e in entries] == [-1, 0, 1, -1, -1, 2, 3, 4, 5, -1, 6, -1, 7]


COMPONENT = st.text(alphabet="ab.-\u00e9", min_size=1, max_size=3).filter(lambda s: s not in (".", ".."))
NODE = st.recursive(
    st.one_of(
        st.tuples(st.sampled_from((F, X)), st.binary(max_size=5)),
        st.tuples(st.just(L), st.binary(min_size=1, max_size=1).map(lambda b: b.hex().encode())),
    ),
    lambda inner: st.dictionaries(COMPONENT, inner, max_size=4),
    max_leaves=12,
)


def flatten(top: dict, above: str = "") -> list[Item]:
    items = []
    for name in sorted(top, key=str.encode):
        path, node = above + name, top[name]
        items += [Item(path, D), *flatten(node, path + "/")] if isinstance(node, dict) else [Item(path, *node)]
    return items


@settings(BOUNDED, max_examples=150)
@given(st.dictionaries(COMPONENT, NODE, max_size=5))
def test_round_trip(top):
    items = flatten(top)
    data = tree_of(items)
    tree = Tree.parse(data, place="x")
    assert reencode_tree(tree) == data
    assert [e.path for e in tree.walk()] == [i.path for i in items] == reader.parse_tree(data).paths
    assert tree.digest.raw == reader.parse_tree(data).digest


@settings(BOUNDED, max_examples=400)
@given(st.data())
def test_mutations(verdicts, data):
    mutated = data.draw(mutations(TREE))
    assert (verdicts.pacstore("tree", mutated) is None) == (verdicts.independent("tree", mutated) is None)


def test_a_broad_tree_is_parsed_quickly():
    count = 100_000
    builder = TreeBuilder()
    for n in range(count):
        builder.add(0, b"%06d" % n, D)
    began = time.monotonic()
    assert Tree.parse(builder.encode(), place="x").entries == count
    assert time.monotonic() - began < 60
    assert np.all(column(builder.encode(), "depths", "<u2") == 0)


def test_a_builder_takes_no_more_entries_than_a_tree_may_have():
    builder = TreeBuilder()
    builder.kinds = bytearray(10_000_000)
    with pytest.raises(TooLarge):
        builder.add(0, b"one more", D)
