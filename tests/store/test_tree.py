"""Trees: preorder, names, sizes; whatever is accepted is canonical, whatever is not is refused by both parsers."""

import time
import unicodedata

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from pacstore.errors import Corrupt, NewerFormat, Refused, TooLarge
from pacstore.tree import EntryKind, Tree, TreeBuilder, check_name, check_target
from tests import independent_reader as reader
from tests.store.samples import BOUNDED, Item, column, edit, mutations, ordinary, reencode_tree, smallest, tree_of

D, F, X, L = EntryKind
TREE = ordinary().tree
EMPTY = blake3(b"").digest()


def names(*given: bytes, kinds: tuple[int, ...] = (), depths: tuple[int, ...] = ()) -> bytes:
    """A tree of directories (or entries of these kinds) with these last components, whatever they are."""
    builder = TreeBuilder()
    for n, name in enumerate(given):
        kind = EntryKind(kinds[n]) if kinds else D
        builder.add(depths[n] if depths else 0, name, kind)
        if kind.is_file:
            builder.add_content(0, EMPTY)
        elif kind is L:
            builder.add_target(b"t")
    return builder.encode()


def files(*sizes: int, total: int | None = None, contents: tuple[bytes, ...] = ()) -> bytes:
    """A tree of files a, b, ... that claim these sizes."""
    builder = TreeBuilder()
    for n in range(len(sizes)):
        builder.add(0, bytes([97 + n]), F)
        builder.add_content(0, contents[n] if contents else bytes(32))
    claimed = sum(sizes) if total is None else total
    return edit(builder.encode(), header={"bytes": claimed}, sizes=("<u8", sizes))


def link(target: bytes) -> bytes:
    builder = TreeBuilder()
    builder.add(0, b"l", L)
    builder.add_target(target)
    return builder.encode()


BAD_NAMES = {
    "..": b"..",
    ".": b".",
    "empty": b"",
    "NUL": b"a\0b",
    "newline": b"a\nb",
    "trailing CR": b"a\r",
    "escape": b"\x1b[31m",
    "delete": b"\x7f",
    "C1 control": "a\u0085b".encode(),
    "last C1 control": "\u009f".encode(),
    "slash": b"a/b",
    "absolute": b"/etc",
    "not UTF-8": b"a\xff",
    "overlong slash": b"\xc0\xaf",
    "surrogate": b"\xed\xa0\x80",
    "cut in a character": "\u6f22".encode()[:2],
}
GOOD_NAMES = [
    "...",
    "..a",
    " ",
    "a b",
    "-rf",
    "\u00a0",
    "\u202e",
    "\u6f22\u5b57",
    "a\u0308",
    "\U0001f600",
    "x" * 255,
    "\\",
    "\ufffe",
]
SPREAD = "\u6f22".encode()
HOSTILE = {
    **{f"name: {name}": (names(value), Corrupt) for name, value in BAD_NAMES.items()},
    "two halves of a character as two names": (
        edit(names(b"ab", b"c"), name_lengths=("u1", [2, 1]), names=SPREAD),
        Corrupt,
    ),
    "duplicate": (names(b"a", b"a"), Corrupt),
    "wrong order": (names(b"b", b"a"), Corrupt),
    "order of paths, not of names": (names(b"a.b", b"a", b"c", depths=(0, 0, 1)), Corrupt),
    "duplicate below": (names(b"a", b"b", b"b", depths=(0, 1, 1)), Corrupt),
    "first entry not at the top": (names(b"a", depths=(1,)), Corrupt),
    "depth jumps": (names(b"a", b"b", depths=(0, 2)), Corrupt),
    "depth 65,535": (names(b"a", b"b", depths=(0, 65_535)), Corrupt),
    "child of a file": (names(b"a", b"b", kinds=(1, 0), depths=(0, 1)), Corrupt),
    "child of a symbolic link": (names(b"a", b"b", kinds=(3, 1), depths=(0, 1)), Corrupt),
    "child of an executable": (names(b"a", b"b", kinds=(2, 1), depths=(0, 1)), Corrupt),
    "path of 4,097 bytes": (names(*[b"x" * 255] * 16, b"yy", depths=tuple(range(17))), Corrupt),
    "depth of 2,049": (names(*[b"x"] * 2049, depths=tuple(range(2049))), Corrupt),
    "unknown kind": (edit(names(b"a"), kinds=b"\x04"), Corrupt),
    "kind 255": (edit(names(b"a"), kinds=b"\xff"), Corrupt),
    "kinds and counts differ": (edit(names(b"a"), kinds=b"\x01"), Corrupt),
    "target with NUL": (link(b"a\0"), Corrupt),
    "target empty": (link(b""), Corrupt),
    "target not UTF-8": (link(b"\xff"), Corrupt),
    "target of 4,096 bytes": (link(b"x" * 4096), Corrupt),
    "target of 65,535 bytes": (link(b"x" * 65_535), Corrupt),
    "size 2^63": (files(2**63), TooLarge),
    "size 2^63, bytes 0": (files(2**63, total=0), Corrupt),
    "sizes that overflow to 0": (files(2**63, 2**63, total=0), Corrupt),
    "sizes that overflow to 1": (files(2**64 - 1, 2, total=1), Corrupt),
    "sizes whose sum is 2^63": (files(2**62, 2**62), TooLarge),
    "sizes whose halves overflow": (files(2**63 - 1, 2**63 - 1, 2, total=0), Corrupt),
    "bytes too small": (files(5, total=4), Corrupt),
    "empty file with another digest": (files(0), Corrupt),
    "file with the digest of no bytes": (files(5, contents=(EMPTY,)), Corrupt),
    "10 M entries claimed": (edit(names(b"a"), header={"entries": 10_000_000}), Corrupt),
    "10,000,001 entries claimed": (edit(names(b"a"), header={"entries": 10_000_001}), TooLarge),
    "2^64-1 entries claimed": (edit(names(b"a"), header={"entries": 2**64 - 1}), TooLarge),
    "more files than entries": (edit(names(b"a"), header={"files": 2}), TooLarge),
    "entries is a text": (edit(names(b"a"), header={"entries": "1"}), Corrupt),
    "names too short": (edit(names(b"ab"), names=b"a"), Corrupt),
    "names too long": (edit(names(b"ab"), names=b"abc"), Corrupt),
    "name of 0 bytes": (edit(names(b"a", b"b"), name_lengths=b"\x02\x00"), Corrupt),
    "targets too short": (edit(link(b"ab"), targets=b"a"), Corrupt),
    "depths of another length": (edit(names(b"a"), depths=b"\0\0\0\0"), Corrupt),
    "newer version": (b"PBTREE02" + TREE[8:], NewerFormat),
    "a manifest": (ordinary().manifest, Corrupt),
}


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
