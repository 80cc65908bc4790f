"""Parts: what a tree should hold, cut by directories into pieces of work, each of which can be compared without the rest.

So a piece can be sent to another process, and no process but one holds the whole tree.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from pacstore.attributes import Attributes
from pacstore.digest import DIGEST_BYTES
from pacstore.document import Numbers, starts
from pacstore.install.actions.generated import Generated, Made
from pacstore.install.jobs import jobs
from pacstore.install.tree.paths import TOP, Children, Numbers32, Paths
from pacstore.install.upkeep.findings import NO_ENTRY
from pacstore.limits import MIB
from pacstore.tree import EntryKind

_JOB_ENTRIES = 1_024
_LARGE_BYTES = 64 * MIB
Owner = tuple[int, int | None]


@dataclass(frozen=True, eq=False)
class Expected:
    """What a tree should be. `attributes`: None where they are not known; `owner`: user and group id, a group of None is any."""

    paths: Paths
    attributes: Attributes | None = None
    owner: Owner | None = None
    generated: Generated | None = None


class Part(NamedTuple):
    """Some of the entries of one directory, whose path from the top is `path`; the top's is empty.

    Of each entry its number, name, kind, size (0 but for files) and the content's digest (anything but for files: 32 bytes each,
    one after another); `targets` of those that are symbolic links, `linked`: those whose inodes are asked for. `made`: what
    commands made of the directory, by name, with the entry that had the name. `names`: all that the directory should hold,
    if that is compared with this part.
    """

    path: bytes
    entries: list[int]
    kinds: list[int]
    sizes: list[int]
    entry_names: list[bytes]
    contents: bytes
    targets: dict[int, bytes]
    linked: frozenset[int]
    made: dict[bytes, tuple[Made, int]]
    names: frozenset[bytes] | None


@dataclass(frozen=True, slots=True)
class Piece:
    """Parts of bounded size, and who everything should belong to."""

    parts: list[Part]
    owner: Owner | None


class Cutting:
    """Cuts a tree into pieces; 12 bytes an entry for as long as it is used."""

    def __init__(self, expected: Expected) -> None:
        self._expected = expected
        self._paths = expected.paths
        self._tree = expected.paths.tree
        self._children = Children(expected.paths)
        self._name_starts = starts(self._tree.name_lengths)
        self._links = np.flatnonzero(self._tree.kinds == EntryKind.SYMLINK)
        self._target_starts = starts(self._tree.target_lengths)
        self._made = _by_directory(expected.generated)
        attributes = expected.attributes
        members = attributes.group_members if attributes is not None else ()
        self._linked = np.zeros(self._tree.entries if len(members) else 0, dtype=np.bool_)
        if len(members):
            self._linked[members] = True

    def pieces(self) -> Iterator[Piece]:
        """All pieces: first large files, which would keep one worker busy when all others are done."""
        order, parents = self._children.order, self._children.parents
        sizes = self._sizes(order)
        large: list[tuple[int, int]] = []
        later: list[tuple[int, int]] = []
        for first, last in jobs(sizes, most=_JOB_ENTRIES):
            (large if sizes[first] >= _LARGE_BYTES else later).append((first, last))
        for first, last in large + later:
            parts = list(self._parts(order[first:last], parents, sizes[first:last].tolist(), first))
            yield Piece(parts, self._expected.owner)
        yield from self._without_entries()

    def _parts(self, entries: Numbers32, parents: Numbers32, sizes: list[int], first: int) -> Iterator[Part]:
        """The parts of a run of `entries`, of which each directory's stand together; the run begins at `first` of all."""
        own = parents[first : first + len(entries)]
        edges = [0, *(np.flatnonzero(own[1:] != own[:-1]) + 1).tolist(), len(own)]
        numbers, names = entries.tolist(), self._names(entries)
        kinds = self._tree.kinds[entries].tolist()
        contents = self._contents(entries)
        linked = self._linked[entries].any() if len(self._linked) else False
        links = EntryKind.SYMLINK in kinds
        for begin, end in pairwise(edges):
            directory = int(own[begin])
            # With the first of its entries a directory is listed.
            listed = begin > 0 or first == 0 or int(parents[first - 1]) != directory
            whole = end < len(own) or first + end == len(parents) or int(parents[first + end]) != directory
            path = b"" if directory == TOP else self._paths.path(directory)
            yield Part(
                path,
                numbers[begin:end],
                kinds[begin:end],
                sizes[begin:end],
                names[begin:end],
                contents[begin * DIGEST_BYTES : end * DIGEST_BYTES],
                self._targets(numbers[begin:end], kinds[begin:end]) if links else {},
                self._linked_of(numbers[begin:end]) if linked else frozenset(),
                self._made_in(path, directory),
                self._listing(directory, names[begin:end] if whole else None) if listed else None,
            )

    def _without_entries(self) -> Iterator[Piece]:
        """Directories in which nothing should be, and those that commands made, which are none of the tree."""
        empty = np.setdiff1d(np.flatnonzero(self._tree.kinds == EntryKind.DIRECTORY), self._children.parents)
        paths = [(self._paths.path(directory), directory) for directory in empty.tolist()]
        if not self._tree.entries:
            paths.append((b"", TOP))
        generated = self._expected.generated
        for path, made in generated.paths.items() if generated is not None else ():
            if made.kind is EntryKind.DIRECTORY:
                paths.append((path.encode(), NO_ENTRY))
        for at in range(0, len(paths), _JOB_ENTRIES):
            parts = [self._bare(path, directory) for path, directory in paths[at : at + _JOB_ENTRIES]]
            yield Piece(parts, self._expected.owner)

    def _bare(self, path: bytes, directory: int) -> Part:
        made = self._made_in(path, directory)
        return Part(path, [], [], [], [], b"", {}, frozenset(), made, frozenset(made))

    def _names(self, entries: Numbers32) -> list[bytes]:
        names = self._tree.names
        begins, ends = self._name_starts[entries].tolist(), self._name_starts[entries + 1].tolist()
        return [bytes(names[begin:end]) for begin, end in zip(begins, ends, strict=True)]

    def _file_numbers(self, entries: Numbers32) -> Numbers:
        """The file number of each of `entries` that is a file; for others that of some file."""
        found = np.searchsorted(self._paths.file_entries, entries)
        return np.minimum(found, len(self._paths.file_entries) - 1)

    def _contents(self, entries: Numbers32) -> bytes:
        if not len(self._paths.file_entries):
            return b""
        return self._tree.contents[self._file_numbers(entries)].tobytes()

    def _sizes(self, entries: Numbers32) -> Numbers:
        """The bytes of each of `entries` that is a file; 0 for others."""
        by_entry = np.zeros(self._tree.entries, dtype=np.int64)
        by_entry[self._paths.file_entries] = self._tree.sizes
        return by_entry[entries]

    def _targets(self, entries: list[int], kinds: list[int]) -> dict[int, bytes]:
        links = [entry for entry, kind in zip(entries, kinds, strict=True) if kind == EntryKind.SYMLINK]
        found = {}
        for entry, link in zip(links, np.searchsorted(self._links, links).tolist(), strict=True):
            begin, end = self._target_starts[link : link + 2].tolist()
            found[entry] = bytes(self._tree.targets[begin:end])
        return found

    def _linked_of(self, entries: list[int]) -> frozenset[int]:
        return frozenset(entry for entry in entries if self._linked[entry])

    def _listing(self, directory: int, names: list[bytes] | None) -> frozenset[bytes]:
        """All names that a directory should have: its entries', which are `names` if they are known, and what was made there."""
        if names is None:
            names = self._names(self._children.of(directory))
        made = self._made.get(b"" if directory == TOP else self._paths.path(directory)) if self._made else None
        return frozenset(names).union(made) if made else frozenset(names)

    def _made_in(self, path: bytes, directory: int) -> dict[bytes, tuple[Made, int]]:
        """What commands made in a directory; `directory` is NO_ENTRY for one that they made."""
        made = self._made.get(path) if self._made else None
        if not made:
            return {}
        children = self._children.of(directory) if path == b"" or directory >= 0 else np.zeros(0, dtype=np.int32)
        entries = dict(zip(self._names(children), children.tolist(), strict=True))
        return {name: (one, entries.get(name, NO_ENTRY)) for name, one in made.items()}


def _by_directory(generated: Generated | None) -> dict[bytes, dict[bytes, Made]]:
    """What commands made, by the path of the directory and the name in it."""
    found: defaultdict[bytes, dict[bytes, Made]] = defaultdict(dict)
    for path, made in generated.paths.items() if generated is not None else ():
        above, _, name = path.encode().rpartition(b"/")
        found[above][name] = made
    return dict(found)
