"""Who pins a later root keeps what was learnt with an earlier one."""

import shutil

import pytest

from pacstore.errors import Corrupt, Untrusted
from pacstore.release import Release
from pacstore.trust.pins import fingerprint
from tests.store.trust_signing import renew
from tests.store.trust_world import DAY, NOW, RELEASE, MemorySource, World, entry

LATE = NOW + 31 * DAY


@pytest.fixture
def world(tmp_path):
    """A catalog whose root has changed twice, of which a client has seen what was published last."""
    world = World(tmp_path)
    for _ in range(2):
        renew(world, "root", now=NOW)
    return world


def root(world, version: int) -> bytes:
    return world.storage.files[f"catalog/{version}.root.json"]


def test_a_later_root_keeps_floor_clock_and_what_was_seen(world):
    old = world.copy()
    world.publish("Zebra-1-any")
    world.open(now=NOW + DAY).releases()
    for version in (2, 3):
        with pytest.raises(Untrusted, match=r"rolled back: timestamp is version \d, and version \d was seen"):
            world.open(root=root(world, version), source=MemorySource(old))
        assert world.open(root=root(world, version), now=LATE).release(Release.parse(RELEASE)) == entry()
        shutil.rmtree(world.state / fingerprint(root(world, 1))[:32], ignore_errors=True)


def test_the_root_of_another_catalog_begins_anew(world, tmp_path):
    world.open().releases()
    other = World(tmp_path / "other")
    other.state = world.state
    other.open(now=LATE)
    assert len(list(world.state.iterdir())) == 2
    with pytest.raises(Untrusted):
        other.open(now=LATE).release(Release.parse(RELEASE))


def test_nothing_is_inherited_twice(world):
    world.open().releases()
    world.open(root=root(world, 3)).releases()
    (first,) = (world.state / fingerprint(root(world, 1))[:32]).glob("floor/*")
    first.write_bytes(b"damaged since then")
    world.open(root=root(world, 3))
    with pytest.raises(Corrupt):
        world.open()


def test_a_damaged_record_is_not_inherited_in_silence(world):
    world.open().releases()
    (first,) = (world.state / fingerprint(root(world, 1))[:32]).glob("floor/*")
    first.write_bytes(b"damaged")
    with pytest.raises(Corrupt) as caught:
        world.open(root=root(world, 3))
    assert caught.value.place == str(first)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"roots":7}', b"\xff"])
def test_a_damaged_lineage_stops_nobody_and_is_made_anew(world, content):
    world.open().releases()
    (lineage,) = world.state.glob("*/lineage.json")
    before = lineage.read_bytes()
    lineage.write_bytes(content)
    assert world.open().releases() == [entry()]
    assert lineage.read_bytes() == before
    lineage.write_bytes(content)
    assert world.open(root=root(world, 2)).releases() == [entry()]
