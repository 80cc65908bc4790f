"""Tree documents that nobody may write, each with the error that it must end in."""

from __future__ import annotations

from blake3 import blake3

from pacstore.errors import Corrupt, NewerFormat, TooLarge
from pacstore.tree import EntryKind, TreeBuilder
from tests.store.samples import edit, ordinary

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
