"""What stores do with releases is done with their originals, too: repacking, collecting, repairing, comparing."""

from __future__ import annotations

import numpy as np
import pytest

from pacstore.check import check
from pacstore.difference import compare
from pacstore.directory_source import DirectorySource
from pacstore.documents import read_manifest, read_placement
from pacstore.install.documents import fetch_all
from pacstore.install.seeds.seeking import common_chunks
from pacstore.install.wanted import Wanted
from pacstore.progress import Silent
from pacstore.repair.trees import _places_in
from tests.store.archive.making import give_back, tar_of_directory
from tests.store.releases import NAME, NEXT, NOW, write
from tests.store.repacks import FIRST, SECOND, do_repack, make_parts
from tests.store.sweeping import DAY, drop, gc, withdraw


@pytest.fixture
def both(origin, trees, tmp_path):
    """An origin with a tree, and a tar of it under another name."""
    origin.publish(trees[0])
    origin.publish(write(tmp_path / "a.tar", tar_of_directory(trees[0])), NEXT)
    return origin


@pytest.mark.slow
def test_an_original_outlives_repacking_and_collecting(tmp_path):
    made = make_parts(tmp_path / "made")
    path = write(tmp_path / "a.tar", tar_of_directory(made.trees[SECOND]))
    made.publish(FIRST)
    made.origin.publish(path, SECOND)
    withdraw(made.origin, FIRST)
    drop(made.origin, now=NOW + DAY)
    gc(made.store, now=NOW + DAY)
    before = made.origin.again().entry(SECOND)
    do_repack(made)
    gc(made.store, now=NOW + 30 * DAY)
    gc(made.store, now=NOW + 60 * DAY)
    again = made.origin.again()
    assert again.entry(SECOND).placement_number > before.placement_number
    assert check(again.store, [again.entry(SECOND)], progress=Silent()).damage == []
    give_back(again, tmp_path / "back", SECOND)
    assert (tmp_path / "back").read_bytes() == path.read_bytes()


def test_a_difference_counts_only_files(both):
    source = DirectorySource(both.store.path)
    (old, _, _), (new, placement, _) = (fetch_all(source, both.entry(name), None) for name in (NAME, NEXT))
    found = compare(old, new, placement)
    assert (found.chunks_new, found.bytes_new, found.changed) == (0, 0, [])
    assert found.chunks_shared == len(np.unique(old.manifest.chunk_ids, axis=0))


def test_a_residue_is_no_seed_and_no_place_of_a_file(both):
    """A release whose files have a chunk that is the residue of another finds it in no file of that."""
    source = DirectorySource(both.store.path)
    documents, _, _ = fetch_all(source, both.entry(NEXT), None)
    manifest = documents.manifest
    wanted = Wanted(manifest, documents.attributes)
    assert not np.isin(wanted.examples, np.arange(manifest.tree_chunks, manifest.chunks)).any()
    residue = [row.tobytes() for row in manifest.chunk_ids[manifest.tree_chunks :]]
    assert residue
    assert list(_places_in(manifest, residue)) == []
    _, chunks = common_chunks(manifest, wanted)
    assert chunks.max() < manifest.tree_chunks


def test_residues_lie_in_frames_of_their_own(both):
    manifest = read_manifest(both.store.storage, both.entry(NEXT))
    frames = read_placement(both.store.storage, both.entry(NEXT), manifest).chunk_frames
    assert not set(frames[: manifest.tree_chunks]) & set(frames[manifest.tree_chunks :])
