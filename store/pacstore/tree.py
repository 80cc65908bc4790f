"""Trees: the files of a release, in preorder, and their reproducible identity (FORMAT.md section 4.1)."""

from __future__ import annotations

import enum
import unicodedata
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from pacstore.digest import DIGEST_BYTES, EMPTY, Bytes, Digest
from pacstore.document import (
    U8,
    U16,
    U64,
    Column8,
    Column16,
    Column64,
    Document,
    Layout,
    Value,
    column_bytes,
    decode,
    encode_beginning,
    starts,
)
from pacstore.errors import Refused, TooLarge, printable
from pacstore.limits import LIMITS
from pacstore.spool import Spool

LAYOUT = Layout(
    letters="TREE",
    title="tree",
    keys=("bytes", "entries", "files", "symlinks"),
    sections=("depths", "kinds", "name_lengths", "names", "sizes", "contents", "target_lengths", "targets"),
    limit_bytes=LIMITS.tree_bytes,
)

_ROWS_AT_ONCE = 65_536


class EntryKind(enum.IntEnum):
    """What an entry is; the number is the format's."""

    DIRECTORY = 0
    FILE = 1
    EXECUTABLE = 2
    SYMLINK = 3

    @property
    def is_file(self) -> bool:
        return self in (EntryKind.FILE, EntryKind.EXECUTABLE)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: its `number` in the tree, its `path` from the top; for files `size` in bytes and the content's digest.

    For symbolic links `target`; `file_number` is -1 for what is no file.
    """

    number: int
    path: str
    kind: EntryKind
    size: int = 0
    content: bytes = b""
    target: str = ""
    file_number: int = -1


def check_name(name: bytes) -> None:
    """Raise Refused unless `name` may be the last component of a path in a tree."""
    fault = _name_fault(name)
    if fault:
        raise Refused(
            f"cannot be part of a release: {fault}", place=printable(name.decode("utf-8", "backslashreplace"))
        )


def _name_fault(name: bytes) -> str:
    if not 0 < len(name) <= LIMITS.name_bytes:
        return f"a name has 1 to {LIMITS.name_bytes} bytes"
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        return "the name is not UTF-8"
    if name in (b".", b"..") or b"/" in name:
        return "'.', '..' and '/' are not names"
    if not text.isprintable() and any(unicodedata.category(c) == "Cc" for c in text):
        return "the name has control characters"
    return ""


def check_target(target: bytes) -> None:
    """Raise Refused unless `target` may be the target of a symbolic link in a tree."""
    try:
        text = target.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused(
            "a link target is not UTF-8", place=printable(target.decode("utf-8", "backslashreplace"))
        ) from error
    if "\0" in text or not 0 < len(target) <= LIMITS.target_bytes:
        raise Refused(f"a link target has 1 to {LIMITS.target_bytes} bytes, none zero", place=printable(text[:200]))


class TreeBuilder:
    """Collects entries in preorder and encodes them. The caller gives them sorted; `Tree.parse` would refuse others.

    What grows fast goes to spools in `directory`.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.depths = array("H")
        self.kinds = bytearray()
        self.name_lengths = bytearray()
        self.names = Spool(directory)
        self.sizes = array("Q")
        self.contents = Spool(directory)
        self.target_lengths = array("H")
        self.targets = Spool(directory)
        self.total_bytes = 0

    def add(self, depth: int, name: bytes, kind: EntryKind) -> None:
        """An entry; a file's `add_content` or a link's `add_target` follows before the tree is encoded, in order."""
        self.add_all([depth], [name], [kind])

    def add_all(self, depths: Sequence[int], names: Sequence[bytes], kinds: Sequence[EntryKind]) -> None:
        """Many entries at once, as by `add`."""
        if len(self.kinds) + len(kinds) > LIMITS.tree_entries:
            place = printable(names[-1].decode())
            raise TooLarge(f"a release has at most {LIMITS.tree_entries} entries", place=place)
        self.depths.extend(depths)
        self.kinds.extend(kinds)
        self.name_lengths.extend(map(len, names))
        self.names.append(b"".join(names))

    def add_content(self, size: int, content: bytes) -> None:
        """The next file's size in bytes and content digest."""
        self.sizes.append(size)
        self.contents.append(content)
        self.total_bytes += size

    def add_target(self, target: bytes) -> None:
        """The next symbolic link's target."""
        self.target_lengths.append(len(target))
        self.targets.append(target)

    def content(self, file: int) -> bytes:
        """The content digest of file number `file`, which was added before."""
        return self.contents.read(file * DIGEST_BYTES, DIGEST_BYTES)

    def blocks(self) -> Iterator[bytes]:
        """The canonical tree document, in pieces."""
        header: dict[str, Value] = {
            "entries": len(self.kinds),
            "files": len(self.sizes),
            "symlinks": len(self.target_lengths),
            "bytes": self.total_bytes,
        }
        columns: list[Bytes | Spool] = [
            column_bytes(self.depths, U16),
            self.kinds,
            self.name_lengths,
            self.names,
            column_bytes(self.sizes, U64),
            self.contents,
            column_bytes(self.target_lengths, U16),
            self.targets,
        ]
        yield encode_beginning(LAYOUT, header, [len(column) for column in columns])
        for column in columns:
            yield from column.blocks() if isinstance(column, Spool) else [bytes(column)]

    def encode(self) -> bytes:
        """The canonical tree document."""
        return b"".join(self.blocks())


@dataclass(frozen=True, eq=False)
class Tree:
    """A parsed tree; the columns are views into the bytes it was parsed from. `contents` is F x 32 bytes."""

    digest: Digest
    depths: Column16
    kinds: Column8
    name_lengths: Column8
    names: memoryview
    sizes: Column64
    contents: Column8
    target_lengths: Column16
    targets: memoryview
    total_bytes: int

    @classmethod
    def parse(cls, data: Bytes, *, place: str) -> Tree:
        """The tree in `data`. Raises Corrupt, TooLarge or NewerFormat for anything that FORMAT.md does not allow."""
        document = decode(LAYOUT, data, place=place)
        tree = cls.of_document(document, Digest.of(data))
        _check_columns(tree, document)
        _check_preorder(tree, document)
        return tree

    @classmethod
    def of_document(cls, document: Document, digest: Digest) -> Tree:
        """The columns of a tree document with this digest, whose content is not checked: for what was parsed before."""
        entries = document.number("entries", LIMITS.tree_entries)
        files = document.number("files", entries)
        links = document.number("symlinks", entries)
        return cls(
            digest=digest,
            depths=cast(Column16, document.column("depths", U16, entries)),
            kinds=cast(Column8, document.column("kinds", U8, entries)),
            name_lengths=cast(Column8, document.column("name_lengths", U8, entries)),
            names=document.sections["names"],
            sizes=cast(Column64, document.column("sizes", U64, files)),
            contents=document.digests("contents", files),
            target_lengths=cast(Column16, document.column("target_lengths", U16, links)),
            targets=document.sections["targets"],
            total_bytes=document.number("bytes", 2**63 - 1),
        )

    @property
    def entries(self) -> int:
        return len(self.kinds)

    @property
    def files(self) -> int:
        return len(self.sizes)

    def walk(self) -> Iterator[Entry]:
        """Every entry, in order. Memory does not grow with the tree."""
        file_number = link = 0
        target_ends = starts(self.target_lengths)
        for number, path in enumerate(_paths(self)):
            kind = EntryKind(int(self.kinds[number]))
            if kind.is_file:
                content = self.contents[file_number].tobytes()
                yield Entry(number, path, kind, int(self.sizes[file_number]), content, file_number=file_number)
                file_number += 1
            elif kind is EntryKind.SYMLINK:
                target = str(self.targets[int(target_ends[link]) : int(target_ends[link + 1])], "utf-8")
                yield Entry(number, path, kind, target=target)
                link += 1
            else:
                yield Entry(number, path, kind)


def _paths(tree: Tree) -> Iterator[str]:
    stack: list[str] = []
    at = 0
    names = tree.names
    for depth, _, length in _rows(tree):
        name = str(names[at : at + length], "utf-8")
        at += length
        del stack[depth:]
        stack.append(name if depth == 0 else f"{stack[depth - 1]}/{name}")
        yield stack[depth]


def _check_columns(tree: Tree, document: Document) -> None:
    kinds = tree.kinds
    if (kinds > EntryKind.SYMLINK).any():
        raise document.corrupt("an entry is of an unknown kind")
    files = (kinds == EntryKind.FILE) | (kinds == EntryKind.EXECUTABLE)
    if int(files.sum()) != tree.files or int((kinds == EntryKind.SYMLINK).sum()) != len(tree.target_lengths):
        raise document.corrupt("the kinds do not agree with the numbers of files and links")
    if int(tree.name_lengths.sum(dtype=np.int64)) != len(tree.names):
        raise document.corrupt("the names do not agree with their lengths")
    if int(tree.target_lengths.sum(dtype=np.int64)) != len(tree.targets):
        raise document.corrupt("the link targets do not agree with their lengths")
    # Summed as Python integers where a forged size could overflow 64 bits.
    if (tree.sizes > 2**63 - 1).any() or _total(tree.sizes) != tree.total_bytes:
        raise document.corrupt("the sizes do not add up to 'bytes'")
    # Compared whole only where the first byte agrees: a comparison of all rows would take as much memory as they do.
    candidates = np.flatnonzero((tree.contents[:, 0] == EMPTY.raw[0]) | (tree.sizes == 0))
    empty = (tree.contents[candidates] == np.frombuffer(EMPTY.raw, dtype=np.uint8)).all(axis=1)
    if (empty != (tree.sizes[candidates] == 0)).any():
        raise document.corrupt("an empty file has a digest of something, or the other way round")


def _total(sizes: Column64) -> int:
    low = int((sizes & np.uint64(0xFFFFFFFF)).sum(dtype=np.uint64))
    return low + (int((sizes >> np.uint64(32)).sum(dtype=np.uint64)) << 32)


def _check_preorder(tree: Tree, document: Document) -> None:
    stack: list[bytes] = []
    path_bytes: list[int] = []
    at = 0
    allowed = 0
    for depth, kind, length in _rows(tree):
        name = bytes(tree.names[at : at + length])
        at += length
        if depth > allowed:
            raise document.corrupt(f"{_show(name)} lies under something that is not a directory")
        fault = _name_fault(name)
        if fault:
            raise document.corrupt(f"{_show(name)}: {fault}")
        if len(stack) > depth and not stack[depth] < name:
            raise document.corrupt(f"{_show(name)} comes after {_show(stack[depth])}")
        del stack[depth:], path_bytes[depth:]
        stack.append(name)
        path_bytes.append(length + (path_bytes[depth - 1] + 1 if depth else 0))
        if path_bytes[depth] > LIMITS.path_bytes:
            raise document.corrupt(f"{_show(name)}: its path is longer than {LIMITS.path_bytes} bytes")
        allowed = depth + 1 if kind == EntryKind.DIRECTORY else depth
    _check_targets(tree, document)


def _rows(tree: Tree) -> Iterator[tuple[int, int, int]]:
    """Depth, kind and name length of each entry; some at a time, since Python's integers take room."""
    for begin in range(0, tree.entries, _ROWS_AT_ONCE):
        part = slice(begin, begin + _ROWS_AT_ONCE)
        yield from zip(
            tree.depths[part].tolist(), tree.kinds[part].tolist(), tree.name_lengths[part].tolist(), strict=True
        )


def _check_targets(tree: Tree, document: Document) -> None:
    at = 0
    for length in tree.target_lengths.tolist():
        target = bytes(tree.targets[at : at + length])
        at += length
        try:
            check_target(target)
        except Refused as error:
            raise document.corrupt(error.message) from error


def _show(name: bytes) -> str:
    return printable(name.decode("utf-8", "backslashreplace"))
