"""Attributes: times of a tree's entries, and hard-link groups of equal files in one order only."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacstore.attributes import Attributes, encode_attributes
from pacstore.errors import Corrupt, NewerFormat, TooLarge
from pacstore.tree import EntryKind, Tree, TreeBuilder
from tests import independent_reader as reader
from tests.store.samples import BOUNDED, edit, mutations, ordinary, reencode_attributes, smallest

SAMPLE = ordinary()
SOURCE = SAMPLE.attributes


def tree_of_files() -> bytes:
    """0 to 7: equal files; 8: an executable of the same content; 9: another file; 10: a link; 11: a directory;
    12: a file that claims the digest of the first eight, and another size."""
    builder = TreeBuilder()
    for n in range(13):
        kind = {8: EntryKind.EXECUTABLE, 10: EntryKind.SYMLINK, 11: EntryKind.DIRECTORY}.get(n, EntryKind.FILE)
        builder.add(0, bytes([97 + n]), kind)
        if kind.is_file:
            builder.add_content(6 if n == 12 else 5, (b"\x02" if n == 9 else b"\x01") * 32)
        elif kind is EntryKind.SYMLINK:
            builder.add_target(b"t")
    return builder.encode()


TREE = Tree.parse(tree_of_files(), place="x")
READ = reader.parse_tree(tree_of_files())
GOOD = encode_attributes(TREE.digest, range(13), [[0, 3, 5], [1, 2]])


def groups(sizes: list[int], members: list[int], **header: object) -> bytes:
    return edit(
        GOOD, header={"groups": len(sizes), **header}, group_sizes=("<u4", sizes), group_members=("<u4", members)
    )


HOSTILE = {
    "overlapping groups": (groups([2, 2], [0, 1, 1, 2]), Corrupt),
    "the same group twice": (groups([2, 2], [0, 1, 0, 1]), Corrupt),
    "overlapping in the middle": (groups([3, 2], [0, 2, 4, 1, 2]), Corrupt),
    "groups not in order": (groups([2, 2], [1, 2, 0, 3]), Corrupt),
    "members not in order": (groups([3], [0, 5, 3]), Corrupt),
    "a member twice": (groups([3], [0, 3, 3]), Corrupt),
    "a group of one": (groups([1, 2], [0, 1, 2]), Corrupt),
    "a group of none": (groups([0, 2], [1, 2]), Corrupt),
    "a file and an executable": (groups([2], [0, 8]), Corrupt),
    "different contents": (groups([2], [0, 9]), Corrupt),
    "different sizes": (groups([2], [0, 12]), Corrupt),
    "a symbolic link": (groups([2], [0, 10]), Corrupt),
    "a directory": (groups([2], [0, 11]), Corrupt),
    "an entry beyond the tree": (groups([2], [0, 13]), Corrupt),
    "entry 2^32-1": (groups([2], [0, 2**32 - 1]), Corrupt),
    "a size of 2^32-1": (groups([2**32 - 1], [0, 1]), Corrupt),
    "sizes whose sum overflows to what is there": (groups([2**31, 2**31 + 2], [0, 1]), Corrupt),
    "more members than files": (groups([20], [0] * 20), Corrupt),
    "groups: 2^64-1": (groups([2], [0, 1], groups=2**64 - 1), TooLarge),
    "groups: more than files": (groups([2], [0, 1], groups=14), TooLarge),
    "groups: one more": (groups([2], [0, 1], groups=2), Corrupt),
    "of another tree": (edit(GOOD, header={"tree": b"\0" * 32}), Corrupt),
    "entries: one less": (edit(GOOD, header={"entries": 12}), Corrupt),
    "entries: 2^63": (edit(GOOD, header={"entries": 2**63}), TooLarge),
    "times missing": (edit(GOOD, mtimes=b""), Corrupt),
    "a key more": (edit(GOOD, header={"owners": 1}), Corrupt),
    "newer version": (b"PBATTR02" + GOOD[8:], NewerFormat),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name):
    data, error = HOSTILE[name]
    with pytest.raises(error) as caught:
        Attributes.parse(data, TREE, place="hostile")
    assert type(caught.value) is error
    with pytest.raises(reader.Wrong):
        reader.parse_attributes(data, READ)


def test_good():
    attributes = Attributes.parse(GOOD, TREE, place="x")
    assert attributes.groups() == [[0, 3, 5], [1, 2]] == reader.parse_attributes(GOOD, READ)[1]
    assert reencode_attributes(attributes, TREE) == GOOD
    assert Attributes.parse(smallest().attributes, smallest().parsed_tree(), place="x").groups() == []


def test_the_order_in_which_groups_are_given_does_not_matter():
    assert encode_attributes(TREE.digest, range(13), [[2, 1], [5, 0, 3]]) == GOOD


def test_times_before_1970_and_of_64_bits():
    times = [-(2**63), -1, 0, 2**63 - 1, *range(9)]
    data = encode_attributes(TREE.digest, times, [])
    assert Attributes.parse(data, TREE, place="x").mtimes.tolist() == times == reader.parse_attributes(data, READ)[0]


@settings(BOUNDED, max_examples=200)
@given(st.lists(st.integers(2, 4), max_size=4), st.lists(st.integers(0, 13), max_size=12))
def test_any_groups(sizes, members):
    data = groups(sizes, members)
    try:
        attributes = Attributes.parse(data, TREE, place="x")
    except Corrupt:
        with pytest.raises(reader.Wrong):
            reader.parse_attributes(data, READ)
    else:
        assert reencode_attributes(attributes, TREE) == data
        assert reader.parse_attributes(data, READ)[1] == attributes.groups()


@settings(BOUNDED, max_examples=400)
@given(st.data())
def test_mutations(verdicts, data):
    mutated = data.draw(mutations(SOURCE))
    assert (verdicts.pacstore("attributes", mutated) is None) == (verdicts.independent("attributes", mutated) is None)
