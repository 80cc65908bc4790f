from __future__ import annotations

import os
import random

import pytest

from pacstore import codec
from pacstore.backends.memory import MemoryStorage
from pacstore.digest import Digest
from pacstore.errors import Corrupt, NotFound, PacballError, TooLarge, Unavailable
from pacstore.limits import LIMITS, MIB
from pacstore.pack import HEADER, TableBuilder, ending
from pacstore.source import Traffic
from pacstore.storage import ObjectKind, object_path
from pacstore.transfer import Fault, check_object, copy_object, fetch_object, fetch_pack, read_public
from tests.contract.faulty import FaultyStorage, disk_full
from tests.store.releases import Notes, noise

DOCUMENTS = [kind for kind in ObjectKind if kind is not ObjectKind.PACK]


def make_pack(frames=3, frame_bytes=1000, chunks=2):
    """The id and the bytes of a pack; what is in its frames nobody decodes here."""
    builder = TableBuilder()
    body = b""
    for number in range(frames):
        data = noise(f"frame {number}", frame_bytes)
        builder.add(codec.KIND_ZSTD, data, os.urandom(32 * chunks), [1] * chunks)
        body += data
    table = builder.encode()
    return Digest.of(table), HEADER + body + ending(table)


class Shuffled:
    """A source of packs in memory, whose ranges come in any order; `spoil` changes what it gives."""

    def __init__(self, files, spoil=lambda _, data: data):
        self.name = "memory"
        self.traffic = Traffic()
        self.ranges_asked = 0
        self.most_at_once = 0
        self._files = files
        self._spoil = spoil

    def read(self, path, *, limit):
        data = self._spoil(path, self._files[path]) if path in self._files else None
        if data is None:
            raise NotFound("is not here", place=path)
        if len(data) > limit:
            raise TooLarge("is too long", place=path)
        return data

    def ranges(self, wanted):
        self.ranges_asked += len(wanted)
        self.most_at_once = max(self.most_at_once, sum(piece.length for piece in wanted))
        for piece in random.Random(1).sample(list(wanted), len(wanted)):
            pack = self._files[object_path(ObjectKind.PACK, piece.pack)]
            yield piece, bytearray(self._spoil(piece, pack[piece.offset : piece.offset + piece.length]))

    def close(self):
        pass


def stored(kind, digest, data):
    storage = MemoryStorage()
    storage.files[object_path(kind, digest)] = data
    return storage


@pytest.mark.parametrize("kind", DOCUMENTS)
@pytest.mark.parametrize("size", [0, 1, MIB, 3 * MIB + 5])
def test_objects_are_copied(kind, size):
    data = noise("document", size)
    digest = Digest.of(data)
    source, target, notes = stored(kind, digest, data), MemoryStorage(), Notes()
    assert copy_object(source, target, kind, digest, progress=notes) == size
    assert target.files == source.files
    assert notes.bytes == size
    check_object(target, kind, digest, progress=notes)


@pytest.mark.parametrize("frames", [0, 1, 3, 40])
def test_packs_are_copied(frames):
    pack, data = make_pack(frames)
    source, target = stored(ObjectKind.PACK, pack, data), MemoryStorage()
    assert copy_object(source, target, ObjectKind.PACK, pack, progress=Notes()) == len(data)
    assert target.files == source.files


def test_nothing_that_is_not_the_object_is_ever_kept():
    document = noise("document", 2000)
    pack, data = make_pack()
    for kind, digest, good in ((ObjectKind.MANIFEST, Digest.of(document), document), (ObjectKind.PACK, pack, data)):
        rng = random.Random(3)
        for bad in (b"", good[:-1], good + b"x", *(flipped(good, rng.randrange(len(good))) for _ in range(100))):
            target = MemoryStorage()
            source = stored(kind, digest, bad)
            with pytest.raises(Fault) as caught:
                copy_object(source, target, kind, digest, progress=Notes())
            assert isinstance(caught.value.error, PacballError)
            assert object_path(kind, digest) in caught.value.error.place
            assert target.files == {}
            with pytest.raises(Fault):
                check_object(source, kind, digest, progress=Notes())
        with pytest.raises(Fault) as caught:
            copy_object(MemoryStorage(), MemoryStorage(), kind, digest, progress=Notes())
        assert isinstance(caught.value.error, NotFound)


def flipped(data, at):
    changed = bytearray(data)
    changed[at] ^= 1 << (at % 8)
    return bytes(changed)


@pytest.mark.parametrize("call", ["stage", "write", "publish"])
def test_what_goes_wrong_where_it_is_written_is_no_fault_of_what_is_read(call):
    pack, data = make_pack()
    target = FaultyStorage(MemoryStorage(), at=1, fail=disk_full, only=(call,))
    with pytest.raises(Unavailable, match="no space"):
        copy_object(stored(ObjectKind.PACK, pack, data), target, ObjectKind.PACK, pack, progress=Notes())


@pytest.mark.parametrize(
    ("frames", "frame_bytes", "chunks"),
    [(0, 0, 0), (1, 1, 1), (3, 1000, 2), (40, MIB, 1), (6, 1000, 4000), (1, 2 * MIB, 1), (200, 100_000, 3)],
)
def test_packs_are_fetched_by_ranges(frames, frame_bytes, chunks):
    """Also those whose table is longer than what is asked for first, and those of more ranges than are held at once."""
    pack, data = make_pack(frames, frame_bytes, chunks)
    source, target, notes = Shuffled({object_path(ObjectKind.PACK, pack): data}), MemoryStorage(), Notes()
    assert fetch_pack(source, target, pack, len(data), progress=notes) == len(data)
    assert target.files == {object_path(ObjectKind.PACK, pack): data}
    assert notes.bytes == len(data)
    assert source.most_at_once <= 32 * MIB
    assert source.ranges_asked <= 3 + len(data) // (3 * MIB)


def test_no_wrong_byte_of_a_source_is_kept():
    pack, data = make_pack(20, 5000, 300)
    path = object_path(ObjectKind.PACK, pack)
    rng = random.Random(2)
    for _ in range(150):
        bad = flipped(data, rng.randrange(8, len(data)))
        target = MemoryStorage()
        with pytest.raises(Fault) as caught:
            fetch_pack(Shuffled({path: bad}), target, pack, len(data), progress=Notes())
        assert isinstance(caught.value.error, Corrupt)
        assert f"memory/{path}" in caught.value.error.place
        assert target.files == {}


@pytest.mark.parametrize("length", [0, 23, 24, 100, LIMITS.pack_bytes + 1])
def test_a_length_that_is_not_the_packs(length):
    pack, data = make_pack()
    padded = data[:length] if length < len(data) else data
    target = MemoryStorage()
    with pytest.raises(Fault) as caught:
        fetch_pack(Shuffled({object_path(ObjectKind.PACK, pack): padded}), target, pack, length, progress=Notes())
    assert isinstance(caught.value.error, Corrupt | TooLarge)
    assert target.files == {}


def test_a_table_that_claims_to_be_longer_than_its_pack():
    pack, data = make_pack()
    lying = data[:-16] + (1 << 40).to_bytes(8, "little") + data[-8:]
    with pytest.raises(Fault, match="not a whole pack"):
        fetch_pack(
            Shuffled({object_path(ObjectKind.PACK, pack): lying}), MemoryStorage(), pack, len(data), progress=Notes()
        )


def test_documents_are_fetched_and_compared():
    data = noise("document", 5000)
    digest = Digest.of(data)
    path = object_path(ObjectKind.MANIFEST, digest)
    target = MemoryStorage()
    assert (
        fetch_object(Shuffled({path: data}), target, ObjectKind.MANIFEST, digest, limit=5000, progress=Notes()) == 5000
    )
    assert target.files == {path: data}
    for files, limit, kind in (
        ({path: flipped(data, 9)}, 5000, Corrupt),
        ({path: data}, 4999, TooLarge),
        ({}, 5000, NotFound),
    ):
        with pytest.raises(Fault) as caught:
            read_public(Shuffled(files), path, digest, limit=limit)
        assert isinstance(caught.value.error, kind)
