"""Which ranges need what is damaged: as reading them says."""

from __future__ import annotations

import random

import pytest

from pacstore.damage import WHOLE, DamagedPart
from pacstore.errors import NotFound
from pacstore.frames import DamagedFrame
from pacstore.pacball.damaged_frames import DamagedFrames
from pacstore.pacball.opened import OpenedRelease
from pacstore.pacball.stub import STUB_BYTES
from pacstore.storage import ObjectKind
from tests.store.releases import Origin, flip, make_tree


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    top = tmp_path_factory.mktemp("damaged")
    tree = make_tree(top / "tree", kib=900)
    (tree / "lib/text-again").unlink()
    made = Origin.make(top)
    made.publish(tree)
    yield made
    made.store.close()


def part_of(opened, frame):
    placement = opened.placement
    pack = placement.pack(int(placement.frame_packs[frame]))
    path = f"packs/{pack.hex[:2]}/{pack.hex}"
    return DamagedPart(path, int(placement.frame_offsets[frame]), "is damaged", int(placement.frame_lengths[frame]))


def is_readable(pieces):
    try:
        return all(len(piece) >= 0 for piece in pieces)
    except (DamagedFrame, NotFound):
        return False


def test_they_are_those_that_cannot_be_read(origin):
    opened = OpenedRelease(origin.entry(), origin.store.storage)
    rng = random.Random(5)
    part = part_of(opened, len(opened.placement.frame_packs) // 3)
    file = origin.store.public / part.path
    flip(file, part.offset + part.length // 2)
    frames = DamagedFrames(opened, [part, DamagedPart("placements/Demo-1.0-x86_64.1", WHOLE, "is damaged")])
    try:
        total = opened.payload.total_bytes + STUB_BYTES
        answers = set()
        edges = [int(at) + STUB_BYTES + more for at in opened.payload.contents for more in (-1, 0, 1)]
        for number in range(160):
            begin = rng.choice([rng.randrange(total), rng.choice(edges)])
            end = min(begin + rng.choice([1, 2, 512, 5_000, 200_000, total]), total)
            assembler = opened.assembler()
            is_damaged = not is_readable(opened.pacball(assembler).read(begin, end))
            assembler.frames.close()
            assert frames.in_pacball(begin, end) is is_damaged, (number, begin, end)
            answers.add(is_damaged)
        assert answers == {True, False}
        for number, size in enumerate(opened.manifest.tree.sizes.tolist()):
            for begin, end in ((0, size), (size // 2, size // 2 + 1), (size - 1, size), (0, 1), (5, 5)):
                assembler = opened.assembler()
                is_damaged = not is_readable(assembler.read(number, max(begin, 0), end - max(begin, 0)))
                assembler.frames.close()
                assert frames.in_file(number, max(begin, 0), end) is is_damaged, (number, begin, end)
    finally:
        flip(file, part.offset + part.length // 2)


def test_what_is_wrong_with_a_pack_is_wrong_with_all_of_it(origin):
    opened = OpenedRelease(origin.entry(), origin.store.storage)
    packs = list(origin.store.storage.digests(ObjectKind.PACK))
    everything = DamagedFrames(opened, [DamagedPart(f"packs/{one.hex[:2]}/{one.hex}", WHOLE, "x") for one in packs])
    assert everything.in_pacball(0, 1 << 40)
    assert not everything.in_pacball(0, STUB_BYTES)
    for number, size in enumerate(opened.manifest.tree.sizes.tolist()):
        assert everything.in_file(number, 0, size) is (size > 0)
    assert not DamagedFrames(opened, []).in_pacball(0, 1 << 40)
