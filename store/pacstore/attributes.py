"""Attributes: modification times and hard links, beside a release's identity (FORMAT.md section 4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import numpy as np

from pacstore.digest import Bytes, Digest
from pacstore.document import (
    I64,
    U32,
    Column32,
    Document,
    Layout,
    Numbers,
    Value,
    column_bytes,
    decode,
    encode,
    starts,
)
from pacstore.limits import LIMITS
from pacstore.tree import EntryKind, Tree

LAYOUT = Layout(
    letters="ATTR",
    title="attributes document",
    keys=("entries", "groups", "tree"),
    sections=("mtimes", "group_sizes", "group_members"),
    limit_bytes=LIMITS.attributes_bytes,
)


@dataclass(frozen=True, eq=False)
class Attributes:
    """Parsed attributes: `mtimes` in seconds since 1970, one an entry; `group_members` are entry numbers."""

    digest: Digest
    mtimes: Numbers
    group_sizes: Column32
    group_members: Column32

    @classmethod
    def parse(cls, data: Bytes, tree: Tree, *, place: str) -> Attributes:
        """The attributes in `data`, which must be those of `tree`. Raises Corrupt, TooLarge or NewerFormat."""
        document = decode(LAYOUT, data, place=place)
        if document.digest("tree") != tree.digest or document.number("entries", LIMITS.tree_entries) != tree.entries:
            raise document.corrupt("it belongs to another tree")
        groups = document.number("groups", tree.files)
        sizes = cast(Column32, document.column("group_sizes", U32, groups))
        members = int(sizes.sum(dtype=np.int64))
        if members > tree.files:
            raise document.corrupt("more files are linked than there are")
        attributes = cls(
            digest=Digest.of(data),
            mtimes=cast(Numbers, document.column("mtimes", I64, tree.entries)),
            group_sizes=sizes,
            group_members=cast(Column32, document.column("group_members", U32, members)),
        )
        _check_groups(attributes, tree, document)
        return attributes

    def groups(self) -> list[list[int]]:
        """Each group of hard links as ascending entry numbers."""
        ends = starts(self.group_sizes)
        return [self.group_members[a:b].tolist() for a, b in pairwise(ends)]


def encode_attributes(tree: Digest, mtimes: Sequence[int], groups: Sequence[Sequence[int]]) -> bytes:
    """The canonical attributes of the tree with digest `tree`; `groups` of at least two entry numbers each."""
    ordered = sorted(sorted(group) for group in groups)
    header: dict[str, Value] = {"tree": tree.raw, "entries": len(mtimes), "groups": len(ordered)}
    members = [entry for group in ordered for entry in group]
    return encode(
        LAYOUT,
        header,
        [
            column_bytes(mtimes, I64),
            column_bytes([len(group) for group in ordered], U32),
            column_bytes(members, U32),
        ],
    )


def _check_groups(attributes: Attributes, tree: Tree, document: Document) -> None:
    sizes, members = attributes.group_sizes, attributes.group_members.astype(np.int64)
    if (sizes < 2).any() or (members >= tree.entries).any():
        raise document.corrupt("a hard-link group is too small or names no entry")
    first = starts(sizes)[:-1]
    rising = np.diff(members) > 0
    rising[first[1:] - 1] = True
    if not rising.all() or (np.diff(members[first]) <= 0).any() or len(np.unique(members)) != len(members):
        raise document.corrupt("the hard-link groups are not in order")
    file_numbers = file_numbers_of(tree)[members]
    leaders = np.repeat(first, sizes)
    if (file_numbers < 0).any():
        raise document.corrupt("a hard-link group has a member that is no file")
    kinds, sizes_of, contents = tree.kinds[members], tree.sizes[file_numbers], tree.contents[file_numbers]
    same = (kinds == kinds[leaders]) & (sizes_of == sizes_of[leaders]) & (contents == contents[leaders]).all(axis=1)
    if not same.all():
        raise document.corrupt("the members of a hard-link group differ")


def file_numbers_of(tree: Tree) -> Numbers:
    """For each entry its file number, or -1."""
    files = (tree.kinds == EntryKind.FILE) | (tree.kinds == EntryKind.EXECUTABLE)
    return np.where(files, np.cumsum(files) - 1, -1).astype(np.int64)
