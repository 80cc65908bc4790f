from __future__ import annotations

import dataclasses
from contextlib import closing

import numpy as np
import pytest

from pacstore.backends.memory import MemoryStorage
from pacstore.confirm import confirm
from pacstore.errors import Corrupt, NotFound
from pacstore.index import ChunkIndex
from pacstore.ingest import ingest
from pacstore.manifest import Manifest
from pacstore.placement import Placement
from pacstore.placing import make_placement
from pacstore.release import Release
from tests.store.releases import NAME, OPTIONS, Notes, make_tree, write


def made(directory, path):
    """The manifest and placement of a directory in a storage of its own."""
    storage = MemoryStorage()
    with closing(ChunkIndex(path)) as index:
        done = ingest(directory, storage, index, options=OPTIONS, progress=Notes())
        places = list(index.frames(np.unique(done.chunk_frames).tolist()))
    manifest = Manifest.parse(b"".join(done.description.manifest()), place="")
    return (
        manifest,
        make_placement(Release.parse(NAME), 1, manifest, done.chunk_frames, done.chunk_offsets, places),
        storage,
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    top = tmp_path_factory.mktemp("confirm")
    return made(make_tree(top / "tree"), top / "index.sqlite")


def test_a_true_placement_is_confirmed(world):
    manifest, placement, storage = world
    parsed = Placement.parse(placement.encode(), manifest, place="")
    confirm(parsed, manifest, storage)
    assert parsed.frames > 5
    assert len(parsed.pack_ids) > 1


def test_a_placement_of_nothing_is_confirmed(tmp_path):
    (tmp_path / "tree/dir").mkdir(parents=True)
    manifest, placement, storage = made(tmp_path / "tree", tmp_path / "index.sqlite")
    parsed = Placement.parse(placement.encode(), manifest, place="")
    confirm(parsed, manifest, storage)
    assert (parsed.frames, len(parsed.pack_ids)) == (0, 0)


@pytest.mark.parametrize(
    "column",
    [
        "frame_offsets",
        "frame_lengths",
        "frame_plain_lengths",
        "frame_kinds",
        "frame_digests",
        "chunk_offsets",
        "pack_lengths",
    ],
)
def test_every_number_is_compared(world, column):
    manifest, placement, storage = world
    values = getattr(placement, column)
    for at in range(0, len(values), 5):
        changed = values.copy()
        changed[at] ^= 1
        with pytest.raises(Corrupt, match=r"store reindex|store check"):
            confirm(dataclasses.replace(placement, **{column: changed}), manifest, storage)


def test_chunks_in_other_frames_and_frames_in_other_packs(world):
    manifest, placement, storage = world
    for at in range(manifest.chunks):
        changed = placement.chunk_frames.copy()
        changed[at] = (changed[at] + 1) % placement.frames
        with pytest.raises(Corrupt):
            confirm(dataclasses.replace(placement, chunk_frames=changed), manifest, storage)
    for at in range(placement.frames):
        changed = placement.frame_packs.copy()
        changed[at] = (changed[at] + 1) % len(placement.pack_ids)
        with pytest.raises(Corrupt):
            confirm(dataclasses.replace(placement, frame_packs=changed), manifest, storage)


def test_a_missing_pack_is_named(world):
    manifest, placement, storage = world
    some = MemoryStorage()
    missing, *others = sorted(storage.files)
    some.files = {path: storage.files[path] for path in others}
    with pytest.raises(NotFound) as caught:
        confirm(placement, manifest, some)
    assert caught.value.place == missing


def test_a_pack_under_another_name(world):
    manifest, placement, storage = world
    swapped = MemoryStorage()
    one, two, *_ = paths = sorted(storage.files)
    swapped.files = {path: storage.files[path] for path in paths} | {one: storage.files[two], two: storage.files[one]}
    with pytest.raises(Corrupt, match="is not the pack that the placement names") as caught:
        confirm(placement, manifest, swapped)
    assert caught.value.place in (one, two)


def test_the_same_chunk_in_two_frames_of_a_pack(tmp_path, world):
    """Both places are right; a chunk of another id there is not."""
    write(tmp_path / "tree/a", b"the same")
    write(tmp_path / "tree/b", b"the same")
    manifest, placement, storage = made(tmp_path / "tree", tmp_path / "index.sqlite")
    confirm(placement, manifest, storage)
    other = world[0]
    with pytest.raises(Corrupt):
        confirm(placement, dataclasses.replace(manifest, chunk_ids=other.chunk_ids[: manifest.chunks]), storage)
