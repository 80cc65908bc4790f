"""Directories that pacball never made serve as seeds, whatever is in them."""

import os
import shutil

import pytest

from pacstore.install.installation import plan
from pacstore.install.options import InstallOptions
from pacstore.install.seeds.listing import Skipped, list_files
from tests.store.install.world import NEXT, FakeSource, Notes, look, noise, put

LINKED = 2 * 1300
"""Bytes of hard links, which need no content of their own."""


def options(*directories, **more):
    return InstallOptions(range_bytes=1 << 20, seed_directories=tuple(directories), **more)


@pytest.fixture
def other(tree, tmp_path):
    """The same files, under other names and in another place, with odd things between."""
    top = tmp_path / "other"
    (top / "unpacked").mkdir(parents=True)
    shutil.copytree(tree / "lib", top / "unpacked/version-0/lib", symlinks=True)
    (top / "unpacked/big").write_bytes(noise("else", 3 << 20))
    (top / "loop").symlink_to(top)
    (top / "away").symlink_to(tree)
    (top / "nowhere").symlink_to("missing")
    os.mkfifo(top / "fifo")
    (top / "empty").touch()
    return top


def test_a_foreign_directory_gives_all_it_has(world, tree, entry, root, other):
    source = FakeSource(world)
    planned = plan(entry, source=source, root=root, progress=Notes(), options=options(other))
    assert [seed.name for seed in planned.reuse] == [str(other)]
    assert planned.bytes_to_download < 300_000
    notes = Notes()
    done = put(entry, source, root, notes, options(other))
    assert look(done.path) == look(tree)
    assert done.bytes_reused == planned.bytes_reused > 0.99 * done.bytes_total
    assert notes.phases[:4] == ["preparing", "listing seed", "reading seed", "copying"]
    assert notes.warnings == []


def test_nothing_is_read_where_nothing_is_missing(world, tree, entry, source, root, other):
    put(entry, source, root)
    notes = Notes()
    done = put(world.publish(tree, NEXT), source, root, notes, options(other))
    assert done.bytes_reused == done.bytes_total - LINKED
    assert not {"listing seed", "reading seed"} & set(notes.phases)


def test_no_more_is_read_than_helps(world, tree, entry, source, root, tmp_path):
    """What has the name and size of what is wanted comes first; then the rest need not be read."""
    top = tmp_path / "many"
    for number in range(30):
        (top / f"a{number:02}").mkdir(parents=True)
        (top / f"a{number:02}/noise").write_bytes(noise(f"n{number}", 2 << 20))
    shutil.copytree(tree, top / "z", symlinks=True)

    class Counting(Notes):
        read = 0

        def begin(self, phase, total_bytes):
            super().begin(phase, total_bytes)
            self.total = total_bytes

        def advance(self, count_bytes):
            if self.phases[-1] == "reading seed":
                self.read += count_bytes

    notes = Counting()
    done = put(entry, source, root, notes, options(top, workers=1))
    assert done.bytes_reused == done.bytes_total - LINKED
    assert 0 < notes.read < 30 << 20


def test_part_of_a_large_file_is_found(world, entry, source, root, tmp_path, tree):
    """An archive of the release, not unpacked: its files are in one file, at any offset."""
    top = tmp_path / "archives"
    top.mkdir()
    members = [path.read_bytes() for path in sorted(tree.rglob("*")) if path.is_file()]
    (top / "all").write_bytes(b"x" * 5_000_001 + b"x".join(members))
    done = put(entry, source, root, None, options(top))
    assert look(done.path) == look(tree)
    assert done.bytes_reused > 0.8 * done.bytes_total


def test_a_file_that_changes_between_is_downloaded(world, tree, entry, source, root, other):
    def spoil(_plan):
        with (other / "unpacked/version-0/lib/big.so").open("r+b") as file:
            file.seek(1_000_000)
            file.write(b"changed")
        (other / "unpacked/version-0/lib/deep/f20").unlink()

    notes = Notes()
    done = put(entry, source, root, notes, options(other), planned=spoil)
    assert look(done.path) == look(tree)
    assert len(notes.warnings) == 1
    assert "is not what it was when it was read" in notes.warnings[0]
    assert done.bytes_reused > 0.9 * done.bytes_total


def test_what_is_swapped_for_a_link_between_is_not_followed(world, tree, entry, source, root, other, tmp_path):
    def swap(_plan):
        (other / "unpacked/version-0/lib").rename(tmp_path / "lib")
        (other / "unpacked/version-0/lib").symlink_to(tmp_path / "lib")

    done = put(entry, source, root, None, options(other), planned=swap)
    assert look(done.path) == look(tree)
    assert done.bytes_reused < 1_000


def test_several_directories_and_one_that_is_not_there(world, tree, entry, source, root, tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    shutil.copy(tree / "lib/big.so", tmp_path / "one/other name")
    shutil.copy(tree / "lib/zeros", tmp_path / "two")
    notes = Notes()
    directories = (tmp_path / "gone", tmp_path / "one", tmp_path / "two")
    done = put(entry, source, root, notes, options(*directories))
    assert look(done.path) == look(tree)
    assert done.bytes_reused == (3 + 3 + 2) << 20
    assert notes.warnings == [f"nothing is taken from {tmp_path / 'gone'}: No such file or directory"]


def test_files_that_cannot_be_read_give_one_warning(tmp_path):
    """Names that no release may have, and a directory that went away."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a/line\nbreak").write_bytes(b"x")
    (tmp_path / os.fsdecode(b"not \xff UTF-8")).write_bytes(b"yy")
    deep = os.open(tmp_path, os.O_RDONLY)
    first = deep
    for _ in range(30):
        os.mkdir("d" * 200, dir_fd=deep)
        deep, last = os.open("d" * 200, os.O_RDONLY, dir_fd=deep), deep
        if last != first:
            os.close(last)
    os.close(deep)
    skipped = Skipped()
    listing = list_files(first, skipped)
    assert sorted(listing.sizes.tolist()) == [1, 2]
    assert {listing.path(entry) for entry in listing.file_entries.tolist()} == {b"a/line\nbreak", b"not \xff UTF-8"}
    assert skipped.count == 1
    assert skipped.first.endswith("its path is too long")
    os.close(first)


def test_every_file_is_found_where_it_is(tmp_path):
    for number in range(50):
        path = tmp_path / f"d{number % 7}" / f"e{number % 3}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(number))
    top = os.open(tmp_path, os.O_RDONLY)
    listing = list_files(top, Skipped())
    os.close(top)
    chosen = [file for file, size in enumerate(listing.sizes.tolist()) if size % 3 == 0]
    few = listing.only(chosen)
    found = {few.path(e).decode(): s for e, s in zip(few.file_entries.tolist(), few.sizes.tolist(), strict=True)}
    assert found == {f"d{n % 7}/e{n % 3}/f{n}": n for n in range(3, 50, 3)}
    assert few.entries < listing.entries


@pytest.mark.parametrize(("entries", "name_bytes"), [(10, 1 << 20), (1_000, 50)])
def test_one_directory_of_very_many_files_takes_bounded_memory(tmp_path, monkeypatch, entries, name_bytes):
    for number in range(100):
        (tmp_path / f"{number:05}").write_bytes(b"x")
    monkeypatch.setattr("pacstore.install.seeds.listing.MOST_ENTRIES", entries)
    monkeypatch.setattr("pacstore.install.seeds.listing.NAME_BYTES", name_bytes)
    top, skipped = os.open(tmp_path, os.O_RDONLY), Skipped()
    try:
        assert list_files(top, skipped).entries == 10
    finally:
        os.close(top)
    assert skipped.count == 1
    assert "MiB of names" in skipped.first
