from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacstore.assemble import Assembler
from pacstore.backends.memory import MemoryStorage
from pacstore.errors import Corrupt, NotFound, PacballError, Refused, Unavailable
from pacstore.index import ChunkIndex
from pacstore.ingest import ingest
from pacstore.manifest import Manifest
from pacstore.placement import Placement
from pacstore.placing import make_placement
from pacstore.release import Release
from pacstore.storage import ObjectKind
from tests.store.releases import NAME, OPTIONS, Notes, make_tree, originals
from tests.store.samples import BOUNDED


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The contents of a tree, its documents, and its packs."""
    top = tmp_path_factory.mktemp("assemble")
    tree, storage = make_tree(top / "tree"), MemoryStorage()
    with closing(ChunkIndex(top / "index.sqlite")) as index:
        done = ingest(tree, storage, index, options=OPTIONS, progress=Notes())
        places = list(index.frames(np.unique(done.chunk_frames).tolist()))
    manifest = Manifest.parse(b"".join(done.description.manifest()), place="")
    made = make_placement(Release.parse(NAME), 1, manifest, done.chunk_frames, done.chunk_offsets, places)
    return originals(tree), manifest, Placement.parse(made.encode(), manifest, place=""), storage


def read(assembler, path, offset, length):
    return b"".join(assembler.read(assembler.find(path), offset, length))


@BOUNDED
@given(data=st.data())
def test_any_range_of_any_file(world, data):
    contents, manifest, placement, storage = world
    path = data.draw(st.sampled_from(sorted(contents)))
    size = len(contents[path])
    near = st.sampled_from([0, 1, size - 1, size, size + 1, 16_384, 65_536])
    offset = abs(data.draw(st.one_of(near, st.integers(0, size + 10))))
    length = abs(data.draw(st.one_of(near, st.integers(0, 200_000))))
    assembler = Assembler(manifest, placement, storage)
    with closing(assembler.frames):
        assert read(assembler, path, offset, length) == contents[path][offset : offset + length]


def test_whole_files_in_any_order(world):
    contents, manifest, placement, storage = world
    assembler = Assembler(manifest, placement, storage)
    for path in sorted(contents, reverse=True):
        assert read(assembler, path, 0, len(contents[path])) == contents[path]
    assembler.frames.close()
    assembler.frames.close()


def test_what_cannot_be_read(world):
    _, manifest, placement, storage = world
    assembler = Assembler(manifest, placement, storage)
    with pytest.raises(NotFound, match="is not in this release"):
        assembler.find("lib/missing")
    for path in ("lib", "abs"):
        with pytest.raises(Refused, match="is not a file"):
            assembler.find(path)
    with pytest.raises(Refused, match="begins at offset 0"):
        read(assembler, "version", -1, 5)


def read_until_error(assembler, path, length):
    got = b""
    try:
        for piece in assembler.read(assembler.find(path), 0, length):
            got += piece
    except Corrupt as error:
        return got, error
    return got, None


@BOUNDED
@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), which=st.integers(0, 100))
def test_a_damaged_pack_never_gives_wrong_bytes(world, at, bit, which):
    contents, manifest, placement, storage = world
    damaged = MemoryStorage()
    damaged.files |= storage.files
    path = sorted(damaged.files)[which % len(damaged.files)]
    data = bytearray(damaged.files[path])
    data[int(at * len(data))] ^= 1 << bit
    damaged.files[path] = bytes(data)
    assembler = Assembler(manifest, placement, damaged)
    for name in ("lib/shared.so", "lib/changed.so", "lib/text"):
        got, error = read_until_error(assembler, name, len(contents[name]))
        assert contents[name].startswith(got)
        if error is None:
            assert got == contents[name]
        else:
            assert path in error.place
            assert "frame at" in error.place
            assert "store check" in error.hint
    assembler.frames.close()


def test_a_missing_or_short_pack(world):
    contents, manifest, placement, storage = world
    for damage in ("missing", "short"):
        damaged = MemoryStorage()
        if damage == "short":
            damaged.files |= {path: data[:100] for path, data in storage.files.items()}
        with pytest.raises(NotFound if damage == "missing" else Corrupt):
            read(Assembler(manifest, placement, damaged), "lib/shared.so", 0, 10)
    assert contents


class Failing(MemoryStorage):
    """Its files fail when they are read."""

    def open(self, kind, digest):
        return BadDisk()


class BadDisk:
    def seek(self, *_):
        return 0

    def read(self, *_):
        raise OSError(5, "Input/output error")

    def close(self):
        """Nothing is open."""


def test_a_disk_that_fails_is_unavailable_and_names_the_pack(world):
    _, manifest, placement, _ = world
    with pytest.raises(Unavailable, match=r"input/output error.*the disk or file system fails") as caught:
        read(Assembler(manifest, placement, Failing()), "lib/shared.so", 0, 10)
    assert caught.value.place.startswith("packs/")


def test_a_placement_that_names_wrong_places(world):
    contents, manifest, placement, storage = world
    raw = bytearray(placement.encode())
    wrong = 0
    for at in range(len(raw) - 4 * manifest.chunks, len(raw), 40):
        changed = bytearray(raw)
        changed[at] ^= 1
        try:
            parsed = Placement.parse(bytes(changed), manifest, place="")
        except PacballError:
            continue
        assembler = Assembler(manifest, parsed, storage)
        with pytest.raises(Corrupt, match="wrong place for a chunk"):
            assert {path: read(assembler, path, 0, len(content)) for path, content in contents.items()} == contents
        wrong += 1
    assert wrong


def test_frames_that_are_read_again_come_from_memory_and_few_files_stay_open(world):
    contents, manifest, placement, storage = world
    opened = []

    class Counting(MemoryStorage):
        def open(self, kind, digest):
            opened.append(digest)
            return super().open(kind, digest)

    counting = Counting()
    counting.files = storage.files
    assembler = Assembler(manifest, placement, counting)
    for _ in range(3):
        for path in contents:
            read(assembler, path, 0, len(contents[path]))
    assert len(opened) == len(set(opened)) == len(list(storage.digests(ObjectKind.PACK)))
