"""Frames of kind 1: nothing is decompressed that is not exactly one plain, bounded Zstandard frame."""

import resource
import time

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pacstore.codec import KIND_ZSTD, compress, decompress
from pacstore.errors import Corrupt, NewerFormat, PacballError, TooLarge
from tests import independent_reader as reader
from tests.store.samples import BOUNDED, MIB, stream, text

RAW, RLE, PACKED, RESERVED = range(4)
PLAIN = text("frame", 5000)
FRAME = compress(PLAIN, 3)


def block(kind: int, size: int, body: bytes, *, last: bool = False) -> bytes:
    return (size << 3 | kind << 1 | last).to_bytes(3, "little") + body


def frame(
    blocks: bytes, *, size: int | None, single: bool = True, window: int = 0, dictionary: bytes = b"", flags: int = 0
) -> bytes:
    """A Zstandard frame written by hand: declared content size in 8 bytes (or none), window descriptor, dictionary id."""
    head = (0 if size is None else 0xC0) | single << 5 | {0: 0, 1: 1, 2: 2, 4: 3}[len(dictionary)] | flags
    declared = b"" if size is None else size.to_bytes(8, "little")
    return b"\x28\xb5\x2f\xfd" + bytes([head]) + (b"" if single else bytes([window])) + dictionary + declared + blocks


FIVE = block(RAW, 5, b"12345", last=True)
ZEROS = b"".join(block(RLE, 128 << 10, b"\0") for _ in range(2047)) + block(RLE, 128 << 10, b"\0", last=True)
SKIPPABLE = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"12345"
GIANT = 256 * MIB
COMPRESSOR = zstandard.ZstdCompressor(write_content_size=False)
DICTIONARY = zstandard.ZstdCompressionDict(PLAIN, dict_type=zstandard.DICT_TYPE_RAWCONTENT)

# name: (frame, plain length that the placement says, error)
HOSTILE = {
    "bomb that declares its size": (frame(ZEROS, size=GIANT), MIB, Corrupt),
    "bomb that declares its size, and so does the placement": (frame(ZEROS, size=GIANT), GIANT, TooLarge),
    "bomb that declares the expected size": (frame(ZEROS, size=MIB), MIB, Corrupt),
    "bomb that declares no size": (frame(ZEROS, size=None, single=False, window=0x38), MIB, Corrupt),
    "bomb made by the library": (zstandard.compress(bytes(GIANT // 4)), MIB, Corrupt),
    "no content size": (COMPRESSOR.compress(PLAIN), len(PLAIN), Corrupt),
    "content size 2^64-1": (frame(FIVE, size=2**64 - 1), 5, Corrupt),
    "content size 2^64-2": (frame(FIVE, size=2**64 - 2), 5, Corrupt),
    "content size one too large": (frame(FIVE, size=6), 6, Corrupt),
    "content size one too small": (frame(FIVE, size=4), 4, Corrupt),
    "another size than the placement's": (FRAME, len(PLAIN) - 1, Corrupt),
    "window of 2 GiB": (frame(FIVE, size=5, single=False, window=21 << 3), 5, Corrupt),
    "window just above 8 MiB": (frame(FIVE, size=5, single=False, window=(13 << 3) | 1), 5, Corrupt),
    "the largest window that can be written": (frame(FIVE, size=5, single=False, window=0xFF), 5, Corrupt),
    "dictionary id": (frame(FIVE, size=5, dictionary=b"\x01"), 5, Corrupt),
    "dictionary id of 4 bytes": (frame(FIVE, size=5, dictionary=b"\0\0\0\x80"), 5, Corrupt),
    "reserved bit": (frame(FIVE, size=5, flags=8), 5, Corrupt),
    "reserved block": (frame(block(RESERVED, 5, b"12345", last=True), size=5), 5, Corrupt),
    "block beyond the frame": (frame(block(RAW, 9, b"12345", last=True), size=9), 9, Corrupt),
    "no last block": (frame(block(RAW, 5, b"12345"), size=5), 5, Corrupt),
    "a skippable frame": (SKIPPABLE, 5, Corrupt),
    "a skippable frame before": (SKIPPABLE + frame(FIVE, size=5), 5, Corrupt),
    "a skippable frame behind": (frame(FIVE, size=5) + SKIPPABLE, 5, Corrupt),
    "two frames": (frame(FIVE, size=5) * 2, 10, Corrupt),
    "two frames, the first as long as expected": (frame(FIVE, size=5) * 2, 5, Corrupt),
    "an empty frame behind": (FRAME + compress(b"", 3), len(PLAIN), Corrupt),
    "an empty frame before": (compress(b"", 3) + FRAME, len(PLAIN), Corrupt),
    "trailing byte": (FRAME + b"\0", len(PLAIN), Corrupt),
    "truncated by a byte": (FRAME[:-1], len(PLAIN), Corrupt),
    "only a header": (FRAME[:6], len(PLAIN), Corrupt),
    "nothing": (b"", 5, Corrupt),
    "nothing that is expected": (b"", 0, Corrupt),
    "a frame of no bytes": (compress(b"", 3), 0, Corrupt),
    "a frame of no bytes and junk": (compress(b"", 3) + b"junk", 0, Corrupt),
    "a skippable frame of no bytes": (b"\x50\x2a\x4d\x18" + bytes(4), 0, Corrupt),
    "an older format of zstd": (b"\x27\xb5\x2f\xfd" + FRAME[4:], len(PLAIN), Corrupt),
    "no magic": (FRAME[4:], len(PLAIN), Corrupt),
    "wrong checksum": (frame(FIVE + b"\0\0\0\0", size=5, flags=4), 5, Corrupt),
    "checksum missing": (frame(FIVE, size=5, flags=4), 5, Corrupt),
    "made with a dictionary that we do not have": (
        zstandard.ZstdCompressor(dict_data=DICTIONARY).compress(PLAIN),
        len(PLAIN),
        Corrupt,
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name):
    data, plain, error = HOSTILE[name]
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(error) as caught:
        decompress(KIND_ZSTD, data, plain, place="hostile")
    assert type(caught.value) is error
    with pytest.raises(reader.Wrong):
        reader.decode_frame(data, KIND_ZSTD, plain)
    assert time.monotonic() - began < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024


@pytest.mark.parametrize("kind", [0, 2, 77, 255])
def test_unknown_kinds(kind):
    with pytest.raises(NewerFormat):
        decompress(kind, FRAME, len(PLAIN), place="x")
    with pytest.raises(reader.Wrong):
        reader.decode_frame(FRAME, kind, len(PLAIN))


GOOD = {
    "with a checksum": (zstandard.ZstdCompressor(write_checksum=True).compress(PLAIN), PLAIN),
    "window of 8 MiB": (frame(FIVE, size=5, single=False, window=13 << 3), b"12345"),
    "dictionary id 0": (frame(FIVE, size=5, dictionary=b"\0"), b"12345"),
    "several blocks": (
        frame(block(RAW, 1, b"1") + block(RLE, 3, b"x") + block(RAW, 1, b"2", last=True), size=5),
        b"1xxx2",
    ),
    "an empty last block": (frame(block(RAW, 5, b"12345") + block(RAW, 0, b"", last=True), size=5), b"12345"),
    "2 MiB": (compress(bytes(2 * MIB), 3), bytes(2 * MIB)),
}


@pytest.mark.parametrize("name", GOOD)
def test_good(name):
    data, plain = GOOD[name]
    assert (
        decompress(KIND_ZSTD, data, len(plain), place="x") == plain == reader.decode_frame(data, KIND_ZSTD, len(plain))
    )


def test_views_are_accepted():
    assert decompress(KIND_ZSTD, memoryview(bytearray(FRAME)), len(PLAIN), place="x") == PLAIN


@pytest.mark.parametrize("level", [1, 3, 19])
@pytest.mark.parametrize("size", [1, 255, 256, 257, 65_791, 65_792, 300_000])
def test_round_trip(level, size):
    for plain in (stream("p", size), text("p", size), bytes(size)):
        data = compress(plain, level)
        assert decompress(KIND_ZSTD, data, size, place="x") == plain
        assert reader.decode_frame(data, KIND_ZSTD, size) == plain


def test_the_most_incompressible_frame_stays_within_the_limit():
    assert len(compress(stream("noise", 2 * MIB), 3)) <= 2 * MIB + 64 * 1024


@settings(BOUNDED, max_examples=500)
@given(st.data())
def test_mutations(data):
    source = data.draw(st.sampled_from([FRAME, *(packed for packed, plain in GOOD.values() if len(plain) < MIB)]))
    at = data.draw(st.one_of(st.integers(0, min(20, len(source) - 1)), st.integers(0, len(source) - 1)))
    how = data.draw(st.sampled_from(("byte", "cut", "insert")))
    piece = data.draw(st.binary(min_size=1, max_size=4))
    mutated = {
        "byte": source[:at] + piece[:1] + source[at + 1 :],
        "cut": source[:at],
        "insert": source[:at] + piece + source[at:],
    }[how]
    expected = data.draw(st.sampled_from((5, len(PLAIN))))
    try:
        ours = decompress(KIND_ZSTD, mutated, expected, place="x")
    except PacballError:
        ours = None
    try:
        theirs = reader.decode_frame(mutated, KIND_ZSTD, expected)
    except reader.Wrong:
        theirs = None
    assert ours == theirs
