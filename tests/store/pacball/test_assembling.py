"""Any range of a pacball, put together from the packs, is what the whole file has there."""

from __future__ import annotations

import io

import numpy as np
import pytest

from pacstore.assemble import Assembler
from pacstore.attributes import Attributes
from pacstore.errors import Corrupt, NotFound
from pacstore.manifest import Manifest
from pacstore.pacball.assembling import AssembledPacball
from pacstore.pacball.building import build
from pacstore.pacball.payload import Payload
from pacstore.pacball.stub import STUB_BYTES
from pacstore.placement import Placement
from pacstore.progress import Silent
from pacstore.release import Release
from pacstore.storage import object_path
from tests.seeds import seeded
from tests.store.install.world import NAME, World, make_tree


class Packs:
    """The packs of a world as a storage."""

    def __init__(self, public):
        self.public = public

    def open(self, kind, digest):
        try:
            return io.BytesIO(self.public[object_path(kind, digest)])
        except KeyError:
            raise NotFound("is not here", place=str(digest)) from None


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    tree = make_tree(tmp_path_factory.mktemp("assembled") / "tree")
    deep = tree / ("p" * 120) / ("q" * 120)
    deep.mkdir(parents=True)
    (deep / "zz").symlink_to("t" * 300)
    for number in range(30):
        (deep / f"f{number:02}").write_bytes(b"%d" % number * (number % 7) * 100)
    return tree


@pytest.fixture(scope="module")
def world(tree):
    world = World(frame_bytes=200_000)
    world.publish(tree)
    return world


@pytest.fixture(scope="module")
def whole(tree):
    (tree.parent / "made").mkdir()
    return build(tree, Release.parse(NAME), tree.parent / "made", progress=Silent())


def assembled(world, stub, *, public=None):
    entry = world.catalog[NAME]
    by_digest = {path.rpartition("/")[2]: data for path, data in world.public.items()}
    manifest = Manifest.parse(by_digest[str(entry.manifest.digest)], place="m")
    attributes = Attributes.parse(by_digest[str(entry.attributes.digest)], manifest.tree, place="a")
    placement = Placement.parse(world.public[f"placements/{NAME}.1"], manifest, place="p")
    assembler = Assembler(manifest, placement, Packs(world.public if public is None else public))
    return AssembledPacball(stub, Payload(manifest.tree, attributes), manifest.tree, assembler)


def test_the_whole_of_it(world, whole):
    made = assembled(world, whole.stub)
    assert made.total_bytes == whole.total_bytes
    assert b"".join(made.read(0, made.total_bytes)) == whole.path.read_bytes()


def test_any_range_of_it(world, whole):
    data, made, random = whole.path.read_bytes(), assembled(world, whole.stub), seeded("ranges of a pacball")
    edges = [
        0,
        1,
        STUB_BYTES - 1,
        STUB_BYTES,
        STUB_BYTES + 1,
        STUB_BYTES + 512,
        len(data) - 1025,
        len(data) - 1,
        len(data),
    ]
    ranges = [(a, b) for a in edges for b in edges if a < b and b - a < 100_000]
    for _ in range(600):
        begin = random.randrange(len(data))
        ranges.append((begin, min(begin + random.choice([1, 511, 512, 513, 3000, 300_000]), len(data))))
    for begin, end in ranges:
        assert b"".join(made.read(begin, end)) == data[begin:end], (begin, end)


def test_every_boundary_of_a_member(world, whole):
    """From just before to just behind where each member, and each content, begins."""
    data, made = whole.path.read_bytes(), assembled(world, whole.stub)
    payload = made._payload
    for place in sorted({*payload.begins.tolist(), *payload.contents.tolist()}):
        for begin in (place - 1, place, place + 1):
            for length in (1, 2, 600):
                at = STUB_BYTES + begin
                assert b"".join(made.read(at, at + length)) == data[at : at + length], (begin, length)


def test_damage_ends_it_before_a_wrong_byte(world, whole):
    public = dict(world.public)
    for path in [path for path in public if path.startswith("packs/")]:
        public[path] = public[path][:5000] + bytes([public[path][5000] ^ 1]) + public[path][5001:]
    got = []
    with pytest.raises(Corrupt):
        got.extend(assembled(world, whole.stub, public=public).read(0, 1 << 60))
    assert len(b"".join(got)) >= STUB_BYTES
    assert whole.path.read_bytes().startswith(b"".join(got))
    with pytest.raises(NotFound):
        list(assembled(world, whole.stub, public={}).read(0, 1 << 60))


def test_members_from_any_entry(world, whole):
    payload = assembled(world, whole.stub)._payload
    every = list(payload.members())
    for first in range(0, len(every), 7):
        assert list(payload.members(first)) == every[first:]
    lengths = [len(member.header()) + member.size + -member.size % 512 for member in every]
    assert np.cumsum([0, *lengths]).tolist() == payload.begins.tolist()
