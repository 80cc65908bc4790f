"""Digests of whole pacballs, taken from packs, kept in the ledger, and what is read on the strength of them."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import replace

import pytest

from pacstore.errors import Corrupt, NotFound
from pacstore.frames import DamagedFrame
from pacstore.ledger import pacballs
from pacstore.limits import MIB
from pacstore.pacball.assembling import batches
from pacstore.pacball.building import build
from pacstore.pacball.digests import PacballKey, _Pieces, piece_bytes_of
from pacstore.pacball.opened import OpenedRelease
from pacstore.pacball.recording import record_digests
from pacstore.pacball.stub import STUB_BYTES
from pacstore.progress import Silent
from pacstore.release import Release
from tests.store.releases import NAME, NEXT, Notes, Origin, flip, make_tree, noise


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    top = tmp_path_factory.mktemp("digests")
    made = Origin.make(top)
    made.publish(make_tree(top / "tree", kib=300))
    yield made
    made.store.close()


@pytest.fixture(scope="module")
def data(origin):
    built = build(origin.top / "tree", Release.parse(NAME), origin.top / "built.sh", progress=Silent())
    return built.path.read_bytes()


def test_they_are_those_of_the_file_and_are_taken_once(origin, data):
    notes = Notes()
    taken = record_digests(origin.store, origin.entry(), notes)
    assert taken.total_bytes == len(data)
    assert notes.bytes == 2 * (len(data) - STUB_BYTES)
    assert taken.payload_sha256 == hashlib.sha256(data[STUB_BYTES:]).digest()
    assert (taken.sha256, taken.md5) == (hashlib.sha256(data).digest(), hashlib.md5(data).digest())
    assert taken.adler32 == zlib.adler32(data)
    again = Notes()
    assert record_digests(origin.store, origin.entry(), again) == taken
    assert again.bytes == 0


def test_the_ledger_keeps_them_by_what_decides_about_the_bytes(origin, data):
    taken = record_digests(origin.store, origin.entry(), Silent())
    key, ledger = PacballKey.of(origin.entry()), origin.store.ledger
    other = replace(key, stub_version=2)
    assert len({key.etag_id, other.etag_id, replace(key, release=Release.parse(NEXT)).etag_id}) == 3
    with ledger.writing() as connection:
        pacballs.save(connection, other, replace(taken, adler32=5))
        pacballs.save(connection, other, replace(taken, adler32=6))
    with ledger.reading() as connection:
        assert pacballs.known(connection) == {key, other}
        assert pacballs.find(connection, other).adler32 == 6
        assert pacballs.find(connection, key) == taken
    with ledger.writing() as connection:
        pacballs.forget(connection, [other])
        assert pacballs.find(connection, other) is None


def test_two_releases_of_one_tree_have_pacballs_of_their_own(tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/text").write_bytes(b"the same")
    origin = Origin.make(tmp_path)
    for name in (NAME, NEXT):
        origin.publish(tmp_path / "tree", name)
    assert origin.entry().manifest == origin.entry(NEXT).manifest
    for name in (NAME, NEXT):
        taken = record_digests(origin.store, origin.entry(name), Silent())
        build(tmp_path / "tree", Release.parse(name), tmp_path / name, progress=Silent())
        assert taken.sha256 == hashlib.sha256((tmp_path / name).read_bytes()).digest()
    assert PacballKey.of(origin.entry()).etag_id != PacballKey.of(origin.entry(NEXT)).etag_id
    origin.store.close()


@pytest.mark.parametrize("length", [0, 1, 40_000 - STUB_BYTES, 40_000, 123_456, 120_000 - STUB_BYTES])
@pytest.mark.parametrize("step", [1_000, 33_333, 1 << 20])
def test_pieces_whose_beginning_comes_last(length, step):
    beginning, payload = noise("stub", STUB_BYTES), noise("payload", length)
    pieces = _Pieces(40_000)
    for at in range(0, length, step):
        pieces.update(payload[at : at + step])
    whole = beginning + payload
    expected = [hashlib.sha256(whole[at : at + 40_000]).digest() for at in range(0, len(whole), 40_000)]
    assert pieces.finish(beginning) == b"".join(expected)


def test_pieces_are_not_too_many():
    assert piece_bytes_of(1) == 4 * MIB
    for total in (8 << 30, (8 << 30) + 1, 50 << 30, 1 << 50):
        assert -(-total // piece_bytes_of(total)) <= 8_192
    assert piece_bytes_of(64 << 30) == 8 * MIB


def test_what_is_proven_is_still_compared_frame_by_frame(origin, tmp_path):
    opened = OpenedRelease(origin.entry(), origin.store.storage)
    taken = opened.take_digests(Silent())
    assert opened.assembler(taken)._is_proven
    assert not opened.assembler()._is_proven
    assert not opened.assembler(replace(taken, placement=taken.placement.of(b"another")))._is_proven
    pack = max(origin.store.public.glob("packs/*/*"), key=lambda path: path.stat().st_size)
    flip(pack, pack.stat().st_size // 3)
    try:
        assembler = opened.assembler(taken)
        with pytest.raises(DamagedFrame) as found:
            list(opened.pacball(assembler, taken).read(0, 1 << 40))
        assembler.frames.close()
        part = found.value.part
        assert part.path == f"packs/{pack.name[:2]}/{pack.name}"
        assert part.offset <= pack.stat().st_size // 3 < part.offset + part.length
        with pytest.raises(Corrupt):
            opened.take_digests(Silent())
    finally:
        flip(pack, pack.stat().st_size // 3)


def test_paths(origin):
    opened = OpenedRelease(origin.entry(), origin.store.storage)

    def find(path):
        return opened.find(path.encode().split(b"/"))

    assert find("lib/link").path == b"bin/run"
    assert find("").entry == -1
    assert find("lib/./python/../text").path == b"lib/text"
    assert opened.mtime(find("")) == origin.entry().published
    places, left_out = opened.listing(find("lib").entry, 100)
    listed = [place.path.decode() for place in places]
    assert (opened.listing(find("lib").entry, 2), left_out) == ((places[:2], len(places) - 2), 0)
    assert listed == [
        f"lib/{name}" for name in sorted((p.name for p in (origin.top / "tree/lib").iterdir()), key=str.encode)
    ]
    for wrong, why in (
        ("abs", "/etc/passwd"),
        ("nothing", "is not in the release"),
        ("lib/x", "is not in lib"),
        ("..", "leads"),
    ):
        with pytest.raises(NotFound, match=why):
            find(wrong)


def test_batches_have_a_bound():
    pieces = [b"", b"12345", b"1", b"", b"1", b"1", b"12345678", b"1"]
    assert list(batches(pieces, most_bytes=6, most_pieces=3)) == [[b"12345", b"1"], [b"1", b"1", b"12345678"], [b"1"]]
    assert list(batches([b"", b""], most_bytes=6, most_pieces=3)) == []
