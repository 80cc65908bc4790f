"""Ranges are cut when they are asked for, by how long the source would have them; what is not written yet is bounded."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from pacstore.attributes import Attributes
from pacstore.errors import Corrupt, PacballError, Unavailable
from pacstore.install.downloading import _Unwritten
from pacstore.install.options import InstallOptions
from pacstore.install.planning import plan_fetch
from pacstore.install.wanted import Wanted
from pacstore.manifest import Manifest
from pacstore.placement import Placement
from pacstore.storage import ObjectKind, object_path
from tests.store.install.world import FakeSource, Notes, World, look, put


class Paced(FakeSource):
    """A source that wants ranges of a certain length, and remembers what it was asked for."""

    def __init__(self, world, lengths, spoil=None):
        super().__init__(world, spoil)
        self.lengths = lengths
        self.asked = []
        self.blamed = []

    def range_bytes(self):
        return self.lengths[min(len(self.asked), len(self.lengths) - 1)]

    def ranges(self, wanted):
        def noted():
            for one in wanted:
                self.asked.append(one)
                yield one

        return super().ranges(noted())

    def blame(self, given, error):
        self.blamed.append((given, error))
        return f"giver {len(self.blamed)}"


@pytest.fixture
def fetch(world, entry):
    manifest = Manifest.parse(world.public[object_path(ObjectKind.MANIFEST, entry.manifest.digest)], place="")
    attributes = world.public[object_path(ObjectKind.ATTRIBUTES, entry.attributes.digest)]
    placement = Placement.parse(world.public[f"placements/{entry.release}.1"], manifest, place="")
    wanted = Wanted(manifest, Attributes.parse(attributes, manifest.tree, place=""))
    return lambda missing, **options: plan_fetch(wanted, placement, missing(wanted), InstallOptions(**options))


def everything(wanted):
    return wanted.missing()


@pytest.mark.parametrize("size", [1, 200_000, 500_000, 1 << 40])
def test_every_frame_is_cut_once_in_order_and_whole(fetch, size):
    plan = fetch(everything)
    cuts = list(plan.cut(lambda: size))
    assert [cut.first for cut in cuts] == [0, *(cut.last for cut in cuts[:-1])]
    assert cuts[-1].last == len(plan.frames)
    lengths = plan.placement.frame_lengths[plan.frames]
    for cut in cuts:
        assert cut.range.offset == plan.placement.frame_offsets[plan.frames[cut.first]]
        assert cut.range.length <= size or cut.last == cut.first + 1
        assert cut.range.length >= lengths[cut.first : cut.last].sum()
    assert plan.frame_bytes == lengths.sum()


def test_the_size_is_asked_for_again_for_each_range(fetch):
    sizes = iter([1, 600_000, 1, 1 << 30])
    counts = [cut.last - cut.first for cut in fetch(everything).cut(lambda: next(sizes, 1 << 30))]
    assert counts[0] == counts[2] == 1
    assert counts[1] > 1
    assert counts[3] > counts[1]


def test_no_range_is_longer_than_the_options_allow(fetch):
    assert max(cut.range.length for cut in fetch(everything, range_bytes=400_000).cut(lambda: 1 << 40)) <= 400_000


@pytest.mark.parametrize(("gap", "together"), [(0, False), (1 << 30, True)])
def test_gaps_are_bridged_only_if_they_are_narrow(fetch, gap, together):
    def every_other_frame(wanted):
        frames = np.unique(wanted_frames(fetch, wanted))[::2]
        return np.flatnonzero(np.isin(wanted_frames(fetch, wanted), frames)).astype(np.int32)

    plan = fetch(every_other_frame, gap_bytes=gap)
    counts = [cut.last - cut.first for cut in plan.cut(lambda: 1 << 40)]
    assert (max(counts) > 1) is together


def wanted_frames(fetch, wanted):
    placement = fetch(everything).placement
    return placement.chunk_frames[wanted.examples]


def test_the_plan_says_how_many_requests_a_fast_line_takes(fetch):
    plan = fetch(everything, range_bytes=400_000)
    cuts = list(plan.cut(lambda: 1 << 40))
    assert (plan.requests, plan.bytes) == (len(cuts), sum(cut.range.length for cut in cuts))


def test_an_installation_asks_for_what_the_source_would_have(world, tree, entry, root):
    source = Paced(world, [1, 1, 1 << 30])
    assert look(put(entry, source, root).path) == look(tree)
    assert [one.length < 400_000 for one in source.asked[:3]] == [True, True, False]


def test_wrong_bytes_are_blamed_and_only_one_giver_counts(world, tree, entry, root):
    spoil = lambda number, _, data: data[:100] + bytes([data[100] ^ 1]) + data[101:] if number <= 3 else data  # noqa: E731
    source, notes = Paced(world, [1 << 30], spoil), Notes()
    options = InstallOptions(range_bytes=1 << 30, workers=1)
    assert look(put(entry, source, root, notes, options).path) == look(tree)
    assert [given in source.asked for given, _ in source.blamed] == [True] * 3
    assert all(isinstance(error, PacballError) for _, error in source.blamed)
    assert "giver 1: pack" in notes.warnings[0]


def test_a_document_that_is_wrong_is_blamed_too(world, entry, root):
    path = next(path for path in world.public if path.startswith("manifests"))
    world.public[path] = b"wrong"
    source = Paced(world, [1])
    source.blame = lambda given, error: source.blamed.append((given, error)) or f"giver {min(len(source.blamed), 3)}"
    with pytest.raises(Corrupt, match="not what the catalog signs") as caught:
        put(entry, source, root)
    assert [given for given, _ in source.blamed] == [path] * 4
    assert caught.value.place == f"giver 3: {path}"


def test_what_is_not_written_is_bounded():
    unwritten = _Unwritten(100)
    unwritten.enter(500, lambda: None)  # one is always let in
    let_in = threading.Event()

    def enter():
        unwritten.enter(60, lambda: None)
        let_in.set()

    thread = threading.Thread(target=enter)
    thread.start()
    assert not let_in.wait(0.3)
    with unwritten.leaving(500):
        pass
    assert let_in.wait(10)
    thread.join()
    unwritten.enter(40, lambda: None)


def test_nobody_waits_for_writers_that_have_failed():
    unwritten = _Unwritten(100)
    unwritten.enter(100, lambda: None)

    def check():
        raise Unavailable("the disk is full")

    with pytest.raises(Unavailable, match="disk is full"):
        unwritten.enter(100, check)


def test_an_installation_with_little_room_for_what_is_not_written(tree, root):
    world = World(frame_bytes=100_000)
    entry = world.publish(tree)
    options = InstallOptions(range_bytes=150_000, unwritten_bytes=1, workers=3)
    assert look(put(entry, FakeSource(world), root, options=options).path) == look(tree)
