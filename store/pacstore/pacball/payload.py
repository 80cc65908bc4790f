"""The payload of a pacball as numbers: where in it the header and the content of every entry of a release lie."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pacstore.attributes import Attributes
from pacstore.document import Numbers, starts
from pacstore.install.tree.paths import TOP, Paths
from pacstore.pacball.members import BLOCK_BYTES, END, Member, header_bytes, padding
from pacstore.tree import EntryKind, Tree

DISK_BLOCK_BYTES = 4_096
"""What a stub takes every file and directory to occupy at least, and in multiples."""

_PIECE_BYTES = 1 << 16
_ROWS_AT_ONCE = 4_096


class Payload:
    """The tar of a release: `total_bytes` long; its members stand in the order of the tree's entries.

    `begins[e]` to `begins[e + 1]` is the member of entry e, `contents[f]` the first byte of file f's content. Files that are hard
    links to an earlier one, whose entry is `leaders[e]` (-1 for all others), have no content.
    """

    def __init__(self, tree: Tree, attributes: Attributes) -> None:
        self.paths = Paths(tree)
        self._tree = tree
        self._mtimes = attributes.mtimes
        self.leaders = _leaders(tree, attributes)
        sizes = np.zeros(tree.entries, dtype=np.int64)
        sizes[self.paths.file_entries] = tree.sizes
        sizes[self.leaders >= 0] = 0
        path_bytes = _path_bytes(self.paths)
        targets = np.zeros(tree.entries, dtype=np.int64)
        targets[tree.kinds == EntryKind.SYMLINK] = tree.target_lengths
        targets[self.leaders >= 0] = path_bytes[self.leaders[self.leaders >= 0]]
        headers = header_bytes(path_bytes + (tree.kinds == EntryKind.DIRECTORY), targets)
        self._sizes = sizes
        self._target_starts = starts(tree.target_lengths)
        self._links = np.cumsum(tree.kinds == EntryKind.SYMLINK) - 1
        self.begins = starts(headers + sizes + -sizes % BLOCK_BYTES)
        self.contents: Numbers = (self.begins[:-1] + headers)[self.paths.file_entries]
        self.total_bytes = int(self.begins[-1]) + len(END)

    @property
    def disk_kib(self) -> int:
        """What an installed copy takes up at least, in KiB."""
        own = self._sizes[self.leaders < 0]
        return int(np.maximum(own + -own % DISK_BLOCK_BYTES, DISK_BLOCK_BYTES).sum()) // 1024

    def file_of(self, entry: int) -> int:
        """The number of the first file that is `entry` or comes after it."""
        return int(np.searchsorted(self.paths.file_entries, entry))

    def members(self, first: int = 0, last: int | None = None) -> Iterator[Member]:
        """The members of the entries `first` to `last`, the latter excluded."""
        tree, last = self._tree, self._tree.entries if last is None else last
        link = int(self._links[first - 1]) + 1 if first else 0
        stack = self._ancestors(first)
        for begin in range(first, last, _ROWS_AT_ONCE):
            part = slice(begin, min(begin + _ROWS_AT_ONCE, last))
            rows = zip(
                range(begin, part.stop),
                tree.kinds[part].tolist(),
                tree.depths[part].tolist(),
                self._mtimes[part].tolist(),
                self._sizes[part].tolist(),
                self.leaders[part].tolist(),
                strict=True,
            )
            for entry, kind, depth, mtime, size, leader in rows:
                name = self.paths.name(entry)
                path = stack[depth - 1] + b"/" + name if depth else name
                del stack[depth:]
                stack.append(path)
                if leader >= 0:
                    time = int(self._mtimes[leader])
                    yield Member(path, EntryKind(kind), time, target=self.paths.path(leader), linked=True)
                elif kind == EntryKind.SYMLINK:
                    yield Member(path, EntryKind.SYMLINK, mtime, target=self._target(link))
                else:
                    yield Member(path, EntryKind(kind), mtime, size)
                link += kind == EntryKind.SYMLINK

    def _ancestors(self, entry: int) -> list[bytes]:
        """The paths of the directories that enclose an entry, the outermost first."""
        found: list[bytes] = []
        if entry < self._tree.entries:
            parent = int(self.paths.parents[entry])
            while parent != TOP:
                found.append(self.paths.path(parent))
                parent = int(self.paths.parents[parent])
        return found[::-1]

    def _target(self, link: int) -> bytes:
        begin, end = (int(n) for n in self._target_starts[link : link + 2])
        return bytes(self._tree.targets[begin:end])

    def around_contents(self) -> Iterator[tuple[int, bytes, int]]:
        """Everything but the content of files, ascending: where a piece begins, the piece, and the number of the file whose
        content follows it, -1 for none.
        """
        begin, piece = 0, b""
        file = -1
        for member in self.members():
            file += member.kind.is_file
            piece += member.header()
            if member.size or len(piece) >= _PIECE_BYTES:
                yield begin, piece, file if member.size else -1
                begin += len(piece) + member.size
                piece = padding(member.size)
        yield begin, piece + END, -1


def _leaders(tree: Tree, attributes: Attributes) -> NDArray[np.int64]:
    leaders = np.full(tree.entries, TOP, dtype=np.int64)
    if len(attributes.group_sizes):
        members = attributes.group_members.astype(np.int64)
        first = starts(attributes.group_sizes)[:-1]
        leaders[members] = np.repeat(members[first], attributes.group_sizes)
        leaders[members[first]] = TOP
    return leaders


def _path_bytes(paths: Paths) -> NDArray[np.int64]:
    """The length of each entry's path. Directories are as deep as a path has bytes, at most."""
    tree = paths.tree
    lengths = tree.name_lengths.astype(np.int64)
    for depth in range(1, int(tree.depths.max(initial=0)) + 1):
        deep = tree.depths == depth
        lengths[deep] += lengths[paths.parents[deep]] + 1
    return lengths
