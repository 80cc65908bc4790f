"""Manifests: chunks that fill their files, one length an id, the only chunk of a file is the file."""

import time

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from pacstore.document import decode, encode
from pacstore.errors import Corrupt, NewerFormat, PacballError, TooLarge
from pacstore.manifest import LAYOUT, LAYOUT_WITH_ORIGINAL, Manifest
from pacstore.tree import EntryKind
from tests import independent_reader as reader
from tests.memory import taking_at_most
from tests.store.samples import (
    BOUNDED,
    Item,
    build,
    column,
    edit,
    mutations,
    ordinary,
    put,
    reencode_manifest,
    smallest,
    stream,
    take,
)

SAMPLE = ordinary()
GOOD = SAMPLE.manifest
LENGTHS, COUNTS = column(GOOD, "chunk_lengths", "<u4"), column(GOOD, "chunk_counts", "<u4")
IDS = column(GOOD, "chunk_ids", "u1").reshape(-1, 32)
MULTIPLE = int(np.flatnonzero(COUNTS > 1)[0])
FIRST = int(COUNTS[:MULTIPLE].sum())
CHUNKER = take(GOOD)[1]["chunker"]


def lengths(**changes: int) -> bytes:
    new = LENGTHS.copy()
    for at, value in changes.items():
        new[FIRST + int(at[1:])] = value
    return edit(GOOD, chunk_lengths=new.tobytes())


def ids(at: int, value: bytes) -> bytes:
    new = IDS.copy()
    new[at] = np.frombuffer(value, np.uint8)
    return edit(GOOD, chunk_ids=new.tobytes())


def counts(at: int, value: int) -> bytes:
    new = COUNTS.copy()
    new[at] = value
    return edit(GOOD, chunk_counts=new.tobytes())


def chunker(**changes: object) -> bytes:
    return edit(GOOD, header={"chunker": {**CHUNKER, **changes}})


def other_tree(data: bytes) -> bytes:
    magic, header, sections = take(GOOD)
    return put(magic, header, [(n, data if n == "tree" else s) for n, s in sections])


SINGLE = int(np.flatnonzero(COUNTS == 1)[0])
HOSTILE = {
    "single chunk with another id": (ids(int(COUNTS[:SINGLE].sum()), b"\x01" * 32), Corrupt),
    "equal ids with different lengths": (ids(FIRST, IDS[FIRST + 1].tobytes()), Corrupt),
    "a chunk of 0 bytes": (lengths(_0=0, _1=int(LENGTHS[FIRST] + LENGTHS[FIRST + 1])), Corrupt),
    "a chunk longer than max": (lengths(_0=262_145), Corrupt),
    "a chunk of 2^32-1 bytes": (lengths(_0=2**32 - 1), Corrupt),
    "a file one byte short": (lengths(_0=int(LENGTHS[FIRST]) - 1), Corrupt),
    "lengths that add up over the borders of files": (
        edit(GOOD, chunk_lengths=np.roll(LENGTHS, 1).tobytes()),
        Corrupt,
    ),
    "counts that do not add up": (counts(0, int(COUNTS[0]) + 1), Corrupt),
    "a count of 2^32-1": (counts(0, 2**32 - 1), Corrupt),
    "chunks: 2^64-1": (edit(GOOD, header={"chunks": 2**64 - 1}), TooLarge),
    "chunks: 100,000,001": (edit(GOOD, header={"chunks": 100_000_001}), TooLarge),
    "chunks: 100,000,000": (edit(GOOD, header={"chunks": 100_000_000}), Corrupt),
    "chunks: one less": (edit(GOOD, header={"chunks": len(LENGTHS) - 1}), Corrupt),
    "unknown chunker": (chunker(name="fastcdc-2030"), NewerFormat),
    "other parameters": (chunker(max=524_288), NewerFormat),
    "a parameter more": (chunker(salt=1), NewerFormat),
    "max 2^64-1": (chunker(max=2**64 - 1), NewerFormat),
    "chunker without a number": (chunker(min="16384"), Corrupt),
    "chunker without a name": (chunker(name=5), Corrupt),
    "chunker is a text": (edit(GOOD, header={"chunker": "fastcdc-2020"}), Corrupt),
    "another tree than the header's": (other_tree(smallest().tree), Corrupt),
    "tree digest of 31 bytes": (edit(GOOD, header={"tree": b"x" * 31}), Corrupt),
    "tree digest as text": (edit(GOOD, header={"tree": "x" * 32}), Corrupt),
    "a tree that is no tree": (other_tree(b"x" * 40), Corrupt),
    "a tree of a newer version": (other_tree(b"PBTREE02" + SAMPLE.tree[8:]), NewerFormat),
    "newer version": (b"PBMANI03" + GOOD[8:], NewerFormat),
    "truncated": (GOOD[:-1], Corrupt),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name):
    data, error = HOSTILE[name]
    began = time.monotonic()
    with taking_at_most(16 << 20), pytest.raises(error) as caught:
        Manifest.parse(data, place="hostile")
    assert time.monotonic() - began < 60
    assert type(caught.value) is error
    with pytest.raises(reader.Wrong):
        reader.parse_manifest(data)


def test_good():
    manifest = Manifest.parse(GOOD, place="x")
    other = reader.parse_manifest(GOOD)
    assert (manifest.digest.raw, manifest.chunk_lengths.tolist()) == (other.digest, other.lengths)
    assert (manifest.length, manifest.chunks) == (len(GOOD), len(LENGTHS))
    assert Manifest.parse(smallest().manifest, place="x").chunks == 0


@settings(BOUNDED, max_examples=25)
@given(st.lists(st.tuples(st.sampled_from((0, 1, 16_384, 40_000, 300_000)), st.integers(0, 3)), max_size=4))
def test_round_trip(files):
    sample = build(
        [Item(f"f{n}", EntryKind.FILE, stream(str(seed), size)) for n, (size, seed) in enumerate(files)],
        frame_bytes=50_000,
    )
    manifest = Manifest.parse(sample.manifest, place="x")
    assert reencode_manifest(manifest) == sample.manifest
    assert reader.parse_manifest(sample.manifest).counts == manifest.chunk_counts.tolist()


@settings(BOUNDED, max_examples=400)
@given(st.data())
def test_mutations(verdicts, data):
    mutated = data.draw(mutations(GOOD))
    assert (verdicts.pacstore("manifest", mutated) is None) == (verdicts.independent("manifest", mutated) is None)


def original(changes=(), *, sections=(), rows=((512, 0), (1024, 2**32 - 1)), recompression=None):
    """A manifest of one file of 70,000 bytes in a tar, whose header and end are residue, changed."""
    data = stream("one", 70_000)
    sample = build([Item("f", EntryKind.FILE, data)])
    lengths = [int(n) for n in column(sample.manifest, "chunk_lengths", "<u4")]
    residue = bytes(1536)
    _, header, sections_before = take(sample.manifest)
    parts = dict(sections_before)
    described = {
        "name": "a.tar",
        "length": 71_536,
        "sha256": bytes(32),
        "before": 0,
        "after": 0,
        "plain": 71_536,
        "recompression": recompression or {},
        **dict(changes),
    }
    found = {
        **parts,
        "chunk_lengths": np.array([*lengths, len(residue)], "<u4").tobytes(),
        "chunk_ids": parts["chunk_ids"] + blake3(residue).digest(),
        "literal_lengths": np.array([n for n, _ in rows], "<u4").tobytes(),
        "literal_files": np.array([f for _, f in rows], "<u4").tobytes(),
        **dict(sections),
    }
    header = {**header, "chunks": len(found["chunk_lengths"]) // 4, "original": described}
    layout = LAYOUT_WITH_ORIGINAL
    return encode(layout, header, [found[name] for name in layout.sections])


ZLIB = {"tool": "zlib", "version": "1", "skipped": 0, "level": 6}
BAD_ORIGINALS = {
    "a name that leads away": {"changes": {"name": "../a"}},
    "a name that is no text": {"changes": {"name": 1}},
    "a digest too short": {"changes": {"sha256": bytes(31)}},
    "another length": {"changes": {"length": 71_537}},
    "a length of 2^63": {"changes": {"length": 2**63}},
    "another plain length": {"changes": {"plain": 71_535}},
    "more before it": {"changes": {"before": 1}},
    "no numbers": {"changes": {"before": b""}},
    "a key too many": {"changes": {"more": 1}},
    "a file that is not there": {"rows": ((512, 1), (1024, 2**32 - 1))},
    "a file twice": {"rows": ((512, 0), (1024, 0))},
    "a literal too long": {"rows": ((513, 0), (1024, 2**32 - 1))},
    "a column too short": {"sections": {"literal_files": bytes(4)}},
    "no residue": {"sections": {"chunk_lengths": column(build([Item("f", EntryKind.FILE, stream("one", 70_000))]).manifest,
                                                        "chunk_lengths", "<u4").tobytes()}},
    "a recompression without a tool": {"recompression": {"level": 6}},
    "a setting that is no number": {"recompression": {**ZLIB, "level": "6"}},
    "a tool of many characters": {"recompression": {**ZLIB, "tool": "z" * 201}},
    "many settings": {"recompression": {**ZLIB, **{f"s{n}": n for n in range(20)}}},
    "a stream shorter than its ends": {
        "recompression": ZLIB, "changes": {"length": 10, "before": 1536, "plain": 70_000}, "rows": ((0, 0),)
    },
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_ORIGINALS)
def test_hostile_originals(name):
    data = original(**BAD_ORIGINALS[name])
    with pytest.raises(Corrupt):
        Manifest.parse(data, place="hostile")
    with pytest.raises(reader.Wrong):
        reader.parse_manifest(data)


def test_an_original():
    for data in (original(), original({"length": 5}, recompression=ZLIB)):
        manifest = Manifest.parse(data, place="x")
        found = manifest.original
        assert (manifest.chunks - manifest.tree_chunks, found.residue_bytes, found.plain_bytes) == (1, 1536, 71_536)
        assert (
            encode(
                LAYOUT_WITH_ORIGINAL, {**take(data)[1], "original": found.header()}, [part for _, part in take(data)[2]]
            )
            == data
        )
        other = reader.parse_manifest(data)
        assert (other.rows, other.original["length"]) == ([(512, 0), (1024, 2**32 - 1)], found.length)


def test_readers_of_before_refuse_an_original_as_newer():
    with pytest.raises(NewerFormat, match="is a manifest of format version 2"):
        decode(LAYOUT, original(), place="x")


@settings(BOUNDED, max_examples=60)
@given(st.data())
def test_mutations_of_originals(data):
    mutated = data.draw(mutations(original(recompression=ZLIB)))
    ours = theirs = True
    try:
        Manifest.parse(mutated, place="x")
    except PacballError:
        ours = False
    try:
        reader.parse_manifest(mutated)
    except reader.Wrong:
        theirs = False
    assert ours == theirs
