"""Placements: every chunk in its frame, every frame in its pack, in order, without overlap, nothing unused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacstore.errors import Corrupt, NewerFormat, TooLarge
from pacstore.placement import Placement
from tests import independent_reader as reader
from tests.store.samples import (
    BOUNDED,
    NAME,
    column,
    edit,
    mutations,
    ordinary,
    put,
    smallest,
    take,
)

SAMPLE = ordinary()
GOOD = SAMPLE.placement
MANIFEST, READ = SAMPLE.parsed_manifest(), reader.parse_manifest(SAMPLE.manifest)
TYPES = {
    "pack_lengths": "<u8",
    "frame_packs": "<u4",
    "frame_kinds": "u1",
    "frame_offsets": "<u8",
    "frame_lengths": "<u4",
    "frame_plain_lengths": "<u4",
    "chunk_frames": "<u4",
    "chunk_offsets": "<u4",
}
COLUMNS = {name: column(GOOD, name, dtype) for name, dtype in TYPES.items()}
FRAMES = len(COLUMNS["frame_packs"])
OF_FIRST = int(np.sum(COLUMNS["frame_packs"] == 0))  # so many frames lie in the first pack
OFFSETS, LENGTHS = COLUMNS["frame_offsets"], COLUMNS["frame_lengths"]
END = int(COLUMNS["pack_lengths"][0])
PACK_IDS = dict(take(GOOD)[2])["pack_ids"]


def at(name: str, number: int, value: int) -> bytes:
    """The placement with one element changed."""
    new = COLUMNS[name].copy()
    new[number] = value
    return edit(GOOD, **{name: new.tobytes()})


def every(name: str, value: int) -> bytes:
    return edit(GOOD, **{name: np.full_like(COLUMNS[name], value).tobytes()})


def swapped(first: int, second: int) -> bytes:
    """Two frames change places, chunks with them: only their order is wrong."""
    order = np.arange(FRAMES)
    order[[first, second]] = order[[second, first]]
    new = {name: c[order].tobytes() for name, c in COLUMNS.items() if name.startswith("frame_")}
    digests = np.frombuffer(dict(take(GOOD)[2])["frame_digests"], np.uint8).reshape(-1, 32)[order].tobytes()
    return edit(GOOD, **new, frame_digests=digests, chunk_frames=order[COLUMNS["chunk_frames"]].astype("<u4").tobytes())


HOSTILE = {
    "offset 2^64-1": (at("frame_offsets", 0, 2**64 - 1), Corrupt),
    "offset + length wraps to 0": (at("frame_offsets", 0, 2**64 - int(LENGTHS[0])), Corrupt),
    "offset + length wraps to 100": (at("frame_offsets", 0, 2**64 + 100 - int(LENGTHS[0])), Corrupt),
    "last offset + length wraps into its pack": (
        at("frame_offsets", FRAMES - 1, 2**64 + 99 - int(LENGTHS[-1])),
        Corrupt,
    ),
    "every offset 2^64-1": (every("frame_offsets", 2**64 - 1), Corrupt),
    "offset 2^63": (at("frame_offsets", 0, 2**63), Corrupt),
    "offset 2^63-1": (at("frame_offsets", 0, 2**63 - 1), Corrupt),
    "offset 2^32": (at("frame_offsets", 0, 2**32), Corrupt),
    "offset 0": (at("frame_offsets", 0, 0), Corrupt),
    "offset 7": (at("frame_offsets", 0, 7), Corrupt),
    "frame in the footer": (at("frame_offsets", OF_FIRST - 1, END - 16), Corrupt),
    "frame ends in the footer": (at("frame_offsets", OF_FIRST - 1, END - 15 - int(LENGTHS[OF_FIRST - 1])), Corrupt),
    "frame beyond the pack": (at("frame_offsets", OF_FIRST - 1, END), Corrupt),
    "frames overlap by one byte": (at("frame_offsets", 1, int(OFFSETS[1]) - 1), Corrupt),
    "frames overlap by their length": (at("frame_lengths", 0, int(LENGTHS[0]) + 1), Corrupt),
    "the same frame twice": (at("frame_offsets", 1, int(OFFSETS[0])), Corrupt),
    "frames out of order": (swapped(0, 1), Corrupt),
    "packs out of order": (swapped(OF_FIRST - 1, OF_FIRST), Corrupt),
    "frame of 0 bytes": (at("frame_lengths", 0, 0), Corrupt),
    "frame longer than a frame may be": (at("frame_lengths", FRAMES - 1, (2 << 20) + (64 << 10) + 1), Corrupt),
    "frame of 2^32-1 bytes": (at("frame_lengths", 0, 2**32 - 1), Corrupt),
    "plain length 0": (at("frame_plain_lengths", 0, 0), Corrupt),
    "plain length beyond the limit": (at("frame_plain_lengths", 0, (2 << 20) + 1), Corrupt),
    "plain length 2^32-1": (at("frame_plain_lengths", 0, 2**32 - 1), Corrupt),
    "unknown pack": (at("frame_packs", FRAMES - 1, 2), Corrupt),
    "pack 2^32-1": (at("frame_packs", FRAMES - 1, 2**32 - 1), Corrupt),
    "unused pack": (every("frame_packs", 0), Corrupt),
    "duplicate packs": (edit(GOOD, pack_ids=PACK_IDS[:32] * 2), Corrupt),
    "pack of 0 bytes": (at("pack_lengths", 0, 0), Corrupt),
    "pack of 15 bytes": (at("pack_lengths", 0, 15), Corrupt),
    "pack of 23 bytes": (at("pack_lengths", 0, 23), Corrupt),
    "pack longer than a pack may be": (at("pack_lengths", 0, (4 << 30) + 1), Corrupt),
    "pack of 2^64-1 bytes": (at("pack_lengths", 0, 2**64 - 1), Corrupt),
    "unused frame": (
        edit(
            every("frame_plain_lengths", 2 << 20),
            chunk_frames=np.maximum(COLUMNS["chunk_frames"], np.uint32(1)).tobytes(),
        ),
        Corrupt,
    ),
    "unknown frame": (at("chunk_frames", 0, FRAMES), Corrupt),
    "frame 2^32-1": (at("chunk_frames", 0, 2**32 - 1), Corrupt),
    "chunk one byte outside its frame": (
        at("chunk_offsets", -1, int(COLUMNS["frame_plain_lengths"][-1]) - int(MANIFEST.chunk_lengths[-1]) + 1),
        Corrupt,
    ),
    "chunk at 2^32-1": (at("chunk_offsets", 0, 2**32 - 1), Corrupt),
    "chunk whose end wraps": (at("chunk_offsets", 0, 2**32 - int(MANIFEST.chunk_lengths[0])), Corrupt),
    "number 0": (edit(GOOD, header={"number": 0}), Corrupt),
    "number 2^63": (edit(GOOD, header={"number": 2**63}), TooLarge),
    "packs: 2^64-1": (edit(GOOD, header={"packs": 2**64 - 1}), TooLarge),
    "frames: 2^32": (edit(GOOD, header={"frames": 2**32}), TooLarge),
    "frames: one more": (edit(GOOD, header={"frames": FRAMES + 1}), Corrupt),
    "chunks: one more": (edit(GOOD, header={"chunks": MANIFEST.chunks + 1}), Corrupt),
    "chunks: 2^64-1": (edit(GOOD, header={"chunks": 2**64 - 1}), TooLarge),
    "of another manifest": (edit(GOOD, header={"manifest": bytes(32)}), Corrupt),
    "a release name that is none": (edit(GOOD, header={"release": "../../etc"}), Corrupt),
    "a release that is no text": (edit(GOOD, header={"release": b"Sample-1.0-any"}), Corrupt),
    "newer version": (b"PBPLAC02" + GOOD[8:], NewerFormat),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name):
    data, error = HOSTILE[name]
    with pytest.raises(error) as caught:
        Placement.parse(data, MANIFEST, place="hostile")
    assert type(caught.value) is error
    with pytest.raises(reader.Wrong):
        reader.parse_placement(data, READ, NAME)


def test_good():
    placement = Placement.parse(GOOD, MANIFEST, place="x")
    assert placement.encode() == GOOD
    assert placement.document_name == f"{NAME}.1"
    assert len(placement.pack_ids) == 2
    whole = placement.range_of(0, OF_FIRST - 1)
    assert (whole.pack.raw, whole.offset) == (PACK_IDS[:32], 8)
    assert whole.length == int(LENGTHS[:OF_FIRST].sum())
    number, packs, frames, _ = reader.parse_placement(GOOD, READ, NAME)
    assert (number, len(packs), len(frames)) == (1, 2, FRAMES)


def test_of_an_empty_release():
    sample = smallest()
    placement = Placement.parse(sample.placement, sample.parsed_manifest(), place="x")
    assert (placement.frames, placement.encode()) == (0, sample.placement)
    reader.parse_placement(sample.placement, reader.parse_manifest(sample.manifest), NAME)


def test_gaps_between_frames_and_unknown_kinds_are_allowed():
    moved = edit(at("frame_kinds", 0, 200), frame_offsets=(OFFSETS + OFFSETS.dtype.type(10)).tobytes())
    roomy = edit(moved, pack_lengths=(COLUMNS["pack_lengths"] + np.uint64(1000)).tobytes())
    placement = Placement.parse(roomy, MANIFEST, place="x")
    assert placement.encode() == roomy
    reader.parse_placement(roomy, READ, NAME)


def test_a_frame_may_end_where_its_pack_ends_and_be_as_large_as_allowed():
    length = (2 << 20) + (64 << 10)
    lengths, offsets, packs = LENGTHS.copy(), OFFSETS.copy(), COLUMNS["pack_lengths"].copy()
    lengths[-1], packs[-1], offsets[-1] = length, 4 << 30, (4 << 30) - 16 - length
    data = edit(GOOD, frame_lengths=lengths.tobytes(), pack_lengths=packs.tobytes(), frame_offsets=offsets.tobytes())
    placement = Placement.parse(data, MANIFEST, place="x")
    assert placement.range_of(FRAMES - 1, FRAMES - 1).length == length
    reader.parse_placement(data, READ, NAME)


def test_what_a_later_writer_may_add_is_ignored():
    magic, header, sections = take(GOOD)
    data = put(magic, {**header, "later": {"x": [1]}}, [*sections, ("references", b"12345")])
    assert Placement.parse(data, MANIFEST, place="x").encode() == GOOD
    reader.parse_placement(data, READ, NAME)


NEAR = [0, 7, 8, 9, END - 17, END - 16, END, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 16, 2**64 - 2, 2**64 - 1]
OFFSET = st.one_of(
    st.sampled_from(NEAR),
    st.integers(0, 2**64 - 1),
    st.sampled_from([2**64 - int(n) + step for n in LENGTHS for step in (-1, 0, 8, 100)]).map(lambda n: n % 2**64),
)


@settings(BOUNDED, max_examples=300)
@given(st.data())
def test_any_offsets_and_lengths(verdicts, data):
    """Compared with a reader that counts in integers without end: nothing may wrap."""
    columns = {name: COLUMNS[name].copy() for name in ("frame_offsets", "frame_lengths", "pack_lengths")}
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(("frame_offsets", "frame_offsets", "frame_lengths", "pack_lengths")))
        at = data.draw(st.integers(0, len(columns[name]) - 1))
        old = int(columns[name][at])
        near = st.integers(-2, 2).map(lambda step, old=old: max(0, old + step))
        columns[name][at] = data.draw(near if name == "frame_lengths" else st.one_of(near, OFFSET))
    changed = edit(GOOD, **{name: values.tobytes() for name, values in columns.items()})
    ours, theirs = verdicts.pacstore("placement", changed), verdicts.independent("placement", changed)
    assert (ours is None) == (theirs is None)


@settings(BOUNDED, max_examples=600)
@given(st.data())
def test_mutations(verdicts, data):
    mutated = data.draw(mutations(GOOD))
    ours = verdicts.pacstore("placement", mutated)
    release = Placement.parse(mutated, MANIFEST, place="x").release if ours is None else NAME
    assert (ours is None) == (verdicts.independent("placement", mutated, str(release)) is None)
