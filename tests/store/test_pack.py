"""Packs and their tables: a table that lies about anything is refused, and so is a file that is not what it implies."""

import io

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from pacstore.codec import compress, decompress
from pacstore.errors import Corrupt, NewerFormat, PacballError, TooLarge
from pacstore.pack import HEADER, Table, TableBuilder, ending, read_frame, read_table
from tests import independent_reader as reader
from tests.memory import taking_at_most
from tests.store.samples import BOUNDED, column, edit, mutations, ordinary, put, reencode_table, take

SAMPLE = ordinary()
GOOD, PACK = SAMPLE.table, SAMPLE.packs[0]
BODY = PACK[8 : -16 - len(GOOD)]
TYPES = {"lengths": "<u4", "chunk_counts": "<u4", "chunk_lengths": "<u4"}
FRAMES = take(GOOD)[1]["frames"]
CHUNKS = take(GOOD)[1]["chunks"]
assert FRAMES > 1


def at(name: str, number: int, value: int) -> bytes:
    """The table with one element changed."""
    new = column(GOOD, name, TYPES[name])
    new[number] = value
    return edit(GOOD, **{name: new.tobytes()})


def one_frame(chunks: int, length: int, *, compressed: int = 100) -> bytes:
    """The table of a pack with one frame of so many chunks of this length."""
    builder = TableBuilder()
    builder.add(1, b"x" * compressed, bytes(32) * chunks, [length] * chunks)
    return builder.encode()


COUNTS = column(GOOD, "chunk_counts", "<u4")
HOSTILE = {
    "a frame without chunks": (at("chunk_counts", 0, 0), Corrupt),
    "4,097 chunks in a frame": (one_frame(4097, 1), TooLarge),
    "counts that do not add up": (at("chunk_counts", 0, int(COUNTS[0]) + 1), Corrupt),
    "a count of 2^32-1": (at("chunk_counts", 0, 2**32 - 1), Corrupt),
    "a frame of 0 bytes": (at("lengths", 0, 0), Corrupt),
    "a frame longer than a frame may be": (at("lengths", 0, (2 << 20) + (64 << 10) + 1), Corrupt),
    "a frame of 2^32-1 bytes": (at("lengths", 0, 2**32 - 1), Corrupt),
    "a chunk of 0 bytes": (at("chunk_lengths", 0, 0), Corrupt),
    "a chunk of 2^32-1 bytes": (at("chunk_lengths", 0, 2**32 - 1), Corrupt),
    "a chunk longer than a frame": (one_frame(1, (2 << 20) + 1), Corrupt),
    "a plain frame too long": (one_frame(9, 262_144), Corrupt),
    "chunk lengths whose 32-bit sum is small": (one_frame(4096, 2**20 + 1), Corrupt),
    "frames: 65,537": (edit(GOOD, header={"frames": 65_537}), TooLarge),
    "frames: 65,536": (edit(GOOD, header={"frames": 65_536}), Corrupt),
    "frames: 2^64-1": (edit(GOOD, header={"frames": 2**64 - 1}), TooLarge),
    "frames: 0": (edit(GOOD, header={"frames": 0}), TooLarge),
    "chunks: one more": (edit(GOOD, header={"chunks": CHUNKS + 1}), Corrupt),
    "chunks: 2^63": (edit(GOOD, header={"chunks": 2**63}), TooLarge),
    "no kinds": (edit(GOOD, kinds=b""), Corrupt),
    "ids of another length": (edit(GOOD, chunk_ids=bytes(31)), Corrupt),
    "newer version": (b"PBTABL02" + GOOD[8:], NewerFormat),
    "truncated": (GOOD[:-1], Corrupt),
}
LENGTH = len(GOOD).to_bytes(8, "little")
FILES = {
    "empty": (b"", Corrupt),
    "23 bytes": (PACK[:23], Corrupt),
    "only ends": (HEADER + bytes(8) + b"PBPEND01", Corrupt),
    "truncated": (PACK[:-1], Corrupt),
    "truncated at the front": (PACK[1:], Corrupt),
    "one byte behind it": (PACK + b"\0", Corrupt),
    "a byte between frames and table": (PACK[: -16 - len(GOOD)] + b"\0" + PACK[-16 - len(GOOD) :], Corrupt),
    "a frame cut short": (HEADER + BODY[:-1] + ending(GOOD), Corrupt),
    "without frames": (HEADER + ending(GOOD), Corrupt),
    "no pack": (b"PBPACKXX" + PACK[8:], Corrupt),
    "a newer pack": (b"PBPACK02" + PACK[8:], NewerFormat),
    "a footer of another version": (PACK[:-8] + b"PBPEND02", (Corrupt, NewerFormat)),
    "no footer": (PACK[:-8] + bytes(8), Corrupt),
    "a table longer than the file": (PACK[:-16] + (len(PACK)).to_bytes(8, "little") + PACK[-8:], Corrupt),
    "a table that overlaps the header": (PACK[:-16] + (len(PACK) - 23).to_bytes(8, "little") + PACK[-8:], Corrupt),
    "a table of 2^64-1 bytes": (PACK[:-16] + b"\xff" * 8 + PACK[-8:], Corrupt),
    "a table of 2^63 bytes": (PACK[:-16] + bytes(7) + b"\x80" + PACK[-8:], Corrupt),
    "a table of 0 bytes": (PACK[:-16] + bytes(8) + PACK[-8:], Corrupt),
    "a table one byte shorter": (PACK[:-16] + (len(GOOD) - 1).to_bytes(8, "little") + PACK[-8:], Corrupt),
    "a newer table": (PACK[: -16 - len(GOOD)] + b"PBTABL02" + PACK[-8 - len(GOOD) :], NewerFormat),
    **{f"table: {name}": (HEADER + BODY + ending(data), error) for name, (data, error) in HOSTILE.items()},
}


def check_whole(data: bytes) -> bytes:
    """The id of the pack in `data`, every frame and chunk of which was checked."""
    file = io.BytesIO(data)
    table = read_table(file, place="pack")
    for frame in table.frames():
        packed = read_frame(file, frame.offset, frame.length, frame.digest, place="pack")
        plain, at = decompress(frame.kind, packed, frame.plain_length, place="pack"), 0
        for chunk in range(*(int(n) for n in table.first_chunks[frame.number : frame.number + 2])):
            end = at + int(table.chunk_lengths[chunk])
            if blake3(plain[at:end]).digest() != table.chunk_ids[chunk].tobytes():
                raise Corrupt("a chunk is another")
            at = end
    return table.id.raw


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_tables(name):
    data, error = HOSTILE[name]
    with pytest.raises(error) as caught:
        Table.parse(data, place="hostile")
    assert type(caught.value) is error
    with pytest.raises(reader.Wrong):
        reader.parse_table(data)


@pytest.mark.parametrize("name", FILES)
def test_hostile_packs(name, tmp_path):
    data, error = FILES[name]
    with taking_at_most(4 << 20), pytest.raises(error):
        read_table(io.BytesIO(data), place="hostile")
    (tmp_path / "pack").write_bytes(data)
    with pytest.raises(reader.Wrong):
        reader.check_pack(tmp_path / "pack")


def test_a_sparse_file_that_claims_a_large_table_or_is_too_large(tmp_path):
    path = tmp_path / "pack"
    for size, error in ((1 << 30, TooLarge), ((4 << 30) + 1, TooLarge)):
        with path.open("wb") as file:
            file.write(HEADER)
            file.seek(size - 16)
            file.write(((256 << 20) + 1).to_bytes(8, "little") + b"PBPEND01")
        with path.open("rb") as file, pytest.raises(error):
            read_table(file, place="sparse")
        with pytest.raises(reader.Wrong):
            reader.check_pack(path)


def test_good(tmp_path):
    for table, pack in zip(SAMPLE.tables, SAMPLE.packs, strict=True):
        (tmp_path / "pack").write_bytes(pack)
        assert check_whole(pack) == blake3(table).digest() == reader.check_pack(tmp_path / "pack")
        parsed = Table.parse(table, place="x")
        assert parsed.pack_length == len(pack)
        assert reencode_table(parsed) == table
        rows, body = reader.parse_table(table)
        assert [row[0] for row in rows] == parsed.offsets[:-1].tolist()
        assert body == len(pack) - len(table) - 24


def test_a_frame_that_lies_is_found_when_it_is_read(tmp_path):
    plain = b"not what the table says"
    packed = compress(plain, 3)
    for ids, lengths in (
        (blake3(b"other").digest(), [len(plain)]),
        (blake3(plain).digest(), [len(plain) + 1]),
        (blake3(plain).digest() * 2, [len(plain), len(plain)]),
    ):
        builder = TableBuilder()
        builder.add(1, packed, ids, lengths)
        pack = HEADER + packed + ending(builder.encode())
        (tmp_path / "pack").write_bytes(pack)
        with pytest.raises(Corrupt):
            check_whole(pack)
        with pytest.raises(reader.Wrong):
            reader.check_pack(tmp_path / "pack")


def test_frames_of_unknown_kinds_can_be_copied_but_not_decoded():
    builder = TableBuilder()
    builder.add(77, b"later", blake3(b"x").digest(), [1])
    pack = io.BytesIO(HEADER + b"later" + ending(builder.encode()))
    frame = next(read_table(pack, place="x").frames())
    assert read_frame(pack, frame.offset, frame.length, frame.digest, place="x") == b"later"
    with pytest.raises(NewerFormat):
        decompress(frame.kind, b"later", frame.plain_length, place="x")
    with pytest.raises(Corrupt):
        read_frame(pack, frame.offset - 1, frame.length, frame.digest, place="x")
    with pytest.raises(Corrupt):
        read_frame(pack, frame.offset, 1 << 20, frame.digest, place="x")


def test_what_a_later_writer_may_add_is_ignored():
    magic, header, sections = take(GOOD)
    data = put(magic, {**header, "later": 1}, [*sections, ("references", b"12345")])
    table = Table.parse(data, place="x")
    assert reencode_table(table) == GOOD
    assert table.id.raw == blake3(data).digest()
    reader.parse_table(data)


@settings(BOUNDED, max_examples=400)
@given(st.data())
def test_mutated_tables(verdicts, data):
    mutated = data.draw(mutations(GOOD))
    assert (verdicts.pacstore("table", mutated) is None) == (verdicts.independent("table", mutated) is None)


@settings(BOUNDED, max_examples=150)
@given(data=st.data())
def test_mutated_packs(tmp_path_factory, data):
    where = data.draw(
        st.one_of(st.integers(0, 10), st.integers(len(BODY), len(PACK) - 1), st.integers(0, len(PACK) - 1))
    )
    how = data.draw(st.sampled_from(("flip", "cut", "insert")))
    pack = {
        "flip": PACK[:where] + bytes([PACK[where] ^ (1 << data.draw(st.integers(0, 7)))]) + PACK[where + 1 :],
        "cut": PACK[:where],
        "insert": PACK[:where] + data.draw(st.binary(min_size=1, max_size=9)) + PACK[where:],
    }[how]
    path = tmp_path_factory.getbasetemp() / "mutated"
    path.write_bytes(pack)
    try:
        ours = check_whole(pack)
    except PacballError:
        ours = None
    try:
        theirs = reader.check_pack(path)
    except reader.Wrong:
        theirs = None
    assert ours == theirs
    assert ours != blake3(GOOD).digest()
