"""The chunker: boundaries are those of the published algorithm, and do not depend on how the data arrive."""

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyfastcdc.py.constants import GEAR, MASKS

from pacstore.chunker import CHUNKER, Chunker, ChunkerParameters
from tests.store.samples import BOUNDED, GENERATORS, MIB, stream, text

MIN, AVG, MAX = CHUNKER.min_bytes, CHUNKER.avg_bytes, CHUNKER.max_bytes


def whole(data: bytes) -> list[int]:
    return Chunker().cut(memoryview(data), last=True)


def in_pieces(data: bytes, sizes: list[int], chunker: Chunker | None = None) -> list[int]:
    """The chunk lengths when the data arrive in pieces of these sizes, again and again."""
    chunker, lengths, kept, at, n = chunker or Chunker(), [], b"", 0, 0
    while True:
        piece = data[at : at + sizes[n % len(sizes)]]
        at, n = at + len(piece), n + 1
        kept += piece
        found = chunker.cut(memoryview(kept), last=at == len(data))
        lengths += found
        kept = kept[sum(found) :]
        if at == len(data):
            assert not kept
            return lengths


def published(data: bytes) -> list[int]:
    """The chunk lengths by section 6 of FORMAT.md, one byte a step."""
    strict, loose = MASKS[16 + CHUNKER.normalization], MASKS[16 - CHUNKER.normalization]
    lengths, start = [], 0
    while start < len(data):
        end, found = min(len(data) - start, MAX), 0
        value = 0
        for at in range(MIN, end // 2 * 2):
            value = ((value << 1) + GEAR[data[start + at]]) % 2**64
            if not value & (strict if at < AVG else loose):
                found = at
                break
        lengths.append(found or end)
        start += lengths[-1]
    return lengths


@pytest.mark.parametrize("generator", GENERATORS)
def test_boundaries_are_those_of_the_published_algorithm(generator):
    data = GENERATORS[generator]("published", 400_001)
    assert whole(data) == published(data)


@cache
def material(name: str) -> bytes:
    data = {"stream": stream("pieces", MIB), "text": text("pieces", MIB), "zero": bytes(MIB)}
    return data[name]


@settings(BOUNDED, max_examples=60)
@given(
    st.sampled_from(("stream", "text", "zero")),
    st.one_of(st.integers(1, MIB), st.sampled_from((1, MIN, MIN + 1, AVG, MAX - 1, MAX, MAX + 1, MAX + MIN, 2 * MAX))),
    st.lists(st.one_of(st.integers(30_000, 700_000), st.sampled_from((MAX - 1, MAX, MAX + 1))), min_size=1, max_size=4),
)
def test_boundaries_do_not_depend_on_the_pieces(name, size, pieces):
    data = material(name)[:size]
    lengths = whole(data)
    assert in_pieces(data, pieces) == lengths
    assert sum(lengths) == size
    assert all(MIN <= length <= MAX for length in lengths[:-1])
    assert 1 <= lengths[-1] <= MAX


@pytest.mark.parametrize("size", [0, 1, 2, MIN - 1, MIN, MIN + 1, AVG, MAX, MAX + 1, MAX + 2, 2 * MAX, 2 * MAX + 1])
def test_tails(size):
    for generator in GENERATORS.values():
        data = generator("tails", size)
        lengths = whole(data)
        assert sum(lengths) == size
        assert (len(lengths) == 1) if 0 < size <= MIN else True
        assert all(MIN <= length <= MAX for length in lengths[:-1])
        assert in_pieces(data, [100_000]) == lengths if size else lengths == []


def test_the_odd_last_byte_of_a_file_never_cuts():
    """The published algorithm takes two bytes a step; a last single byte is not looked at."""
    for seed in ("0", "1", "2", "3", "4", "5", "6", "7"):
        data = stream(seed, MAX)
        first = whole(data)[0]
        tail = data[: first + 1]
        assert whole(tail) == ([first + 1] if first % 2 == 0 else [first, 1]) == published(tail)


def test_what_is_zero_is_cut_at_the_maximum():
    assert whole(bytes(3 * MAX + 5)) == [MAX, MAX, MAX, 5]


def test_nothing_is_cut_that_is_not_certain():
    data = material("stream")
    for size in (0, 1, MIN, MAX - 1):
        assert Chunker().cut(memoryview(data[:size]), last=False) == []
    found = Chunker().cut(memoryview(data[: 3 * MAX]), last=False)
    assert whole(data)[: len(found)] == found
    assert 3 * MAX - sum(found) < MAX


def test_a_chunker_is_reusable_and_keeps_nothing():
    chunker = Chunker()
    for data in (material("text"), material("stream")[:100_000], b"", material("text")):
        assert chunker.cut(memoryview(data), last=True) == whole(data)


def test_what_changes_at_the_front_does_not_change_the_rest():
    data = material("stream")
    before, after = whole(data), whole(b"inserted" + data)
    assert before[-5:] == after[-5:]


def test_parameters_of_a_header():
    assert ChunkerParameters.from_header(CHUNKER.header()) == CHUNKER
    for value in (None, [], {}, {**CHUNKER.header(), "min": True}, {**CHUNKER.header(), "name": b"x"}):
        assert ChunkerParameters.from_header(value) is None
