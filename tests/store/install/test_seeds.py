"""What is on the disk already is used, but never believed."""

import os
import shutil

import pytest

from pacstore.errors import Unavailable
from pacstore.install.installation import plan
from pacstore.install.options import InstallOptions
from tests.store.install.world import NAME, NEXT, FakeSource, Notes, look, noise, put

BIG = "releases/Sample-1.0-any/lib/big.so"


@pytest.fixture
def next_tree(tree, tmp_path):
    top = tmp_path / "next"
    shutil.copytree(tree, top, symlinks=True)
    (top / "lib/new").write_bytes(noise("new", 200_000))
    data = bytearray((top / "lib/big.so").read_bytes())
    data[1_000_000:1_000_100] = bytes(100)
    (top / "lib/big.so").write_bytes(data)
    return top


def test_an_update_moves_little(world, entry, source, root, next_tree):
    put(entry, source, root)
    newer = world.publish(next_tree, NEXT)
    planned = plan(newer, source=source, root=root, progress=Notes())
    assert [seed.name for seed in planned.reuse] == [NAME]
    notes = Notes()
    done = put(newer, source, root, notes)
    assert look(done.path) == look(next_tree)
    assert done.bytes_reused == planned.bytes_reused > 0.9 * done.bytes_total
    assert done.bytes_downloaded < 1_000_000
    assert notes.warnings == []
    assert "copying" in notes.phases


def test_a_damaged_seed_costs_a_download_and_one_warning(world, entry, source, root, next_tree):
    put(entry, source, root)
    with (root / BIG).open("r+b") as file:
        for offset in (10, 2_000_000):
            file.seek(offset)
            file.write(b"damaged")
    (root / f"releases/{NAME}/lib/deep/f20").unlink()
    shutil.rmtree(root / f"releases/{NAME}/bin")
    notes = Notes()
    done = put(world.publish(next_tree, NEXT), source, root, notes)
    assert look(done.path) == look(next_tree)
    assert len(notes.warnings) == 1
    assert "is not what it was" in notes.warnings[0]


def test_a_seed_is_never_read_through_a_link(world, entry, source, root, next_tree, tmp_path):
    put(entry, source, root)
    lib = root / f"releases/{NAME}/lib"
    lib.rename(tmp_path / "elsewhere")
    lib.symlink_to(tmp_path / "elsewhere")
    notes = Notes()
    done = put(world.publish(next_tree, NEXT), source, root, notes)
    assert look(done.path) == look(next_tree)
    assert done.bytes_reused < 100_000


@pytest.mark.parametrize("damage", [b"", b"PBMANI01", b"x" * 5000])
def test_a_damaged_record_is_passed_over(world, entry, source, root, next_tree, damage):
    put(entry, source, root)
    (root / f".pacball/manifests/{NAME}.manifest").write_bytes(damage)
    notes = Notes()
    done = put(world.publish(next_tree, NEXT), source, root, notes)
    assert look(done.path) == look(next_tree)
    assert done.bytes_reused == 0
    assert len(notes.warnings) == 1


def broken_after(ranges):
    def spoil(number, _piece, data):
        if number > ranges:
            raise Unavailable("is gone", place="fake")
        return data

    return spoil


SMALL = InstallOptions(range_bytes=300_000)


def test_an_interrupted_attempt_is_taken_over(world, tree, entry, root):
    with pytest.raises(Unavailable):
        put(entry, FakeSource(world, broken_after(6)), root, options=SMALL)
    assert len(os.listdir(root / ".pacball/staging")) == 1
    assert not (root / "releases" / NAME).exists()
    source = FakeSource(world)
    planned = plan(entry, source=source, root=root, progress=Notes(), options=SMALL)
    assert planned.reuse[0].name == "an interrupted attempt"
    assert planned.disk_bytes < plan(entry, source=source, root=root / "x", progress=Notes()).disk_bytes
    done = put(entry, FakeSource(world), root, options=SMALL)
    assert look(done.path) == look(tree)
    assert done.bytes_reused > 1_000_000
    assert os.listdir(root / ".pacball/staging") == []


def test_damage_in_an_interrupted_attempt_is_found(world, tree, entry, root):
    with pytest.raises(Unavailable):
        put(entry, FakeSource(world, broken_after(10)), root, options=SMALL)
    (attempt,) = (root / ".pacball/staging").iterdir()
    for path in (attempt / "tree").rglob("*"):
        if path.is_file() and path.stat().st_size > 10_000:
            with path.open("r+b") as file:
                file.seek(5000)
                file.write(b"damaged")
    done = put(entry, FakeSource(world), root, options=SMALL)
    assert look(done.path) == look(tree)
    assert os.listdir(root / ".pacball/staging") == []


@pytest.mark.parametrize("owner", ["", "{}", "[]", '{"pid": "x"}'])
def test_an_attempt_without_a_readable_owner_is_passed_over(tree, entry, source, root, owner):
    (root / ".pacball/staging/abc").mkdir(parents=True)
    (root / ".pacball/staging/abc/owner.json").write_text(owner)
    (root / ".pacball/staging/file").write_text("")
    assert look(put(entry, source, root).path) == look(tree)


def test_an_attempt_that_never_began_is_swept(entry, source, root):
    (root / ".pacball/staging/abc").mkdir(parents=True)
    (root / ".pacball/staging/abc/.rest.tmp").write_text("")
    put(entry, source, root)
    assert os.listdir(root / ".pacball/staging") == []
