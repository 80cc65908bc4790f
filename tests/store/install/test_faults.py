"""Wrong bytes and failing disks cost time, never correctness."""

import errno
import json
import os
import threading

import pytest

from pacstore.errors import Corrupt, NotFound, Refused, TooLarge, Unavailable
from pacstore.install.crew import Crew
from pacstore.install.installation import plan
from pacstore.install.options import InstallOptions
from pacstore.install.tree.disk import Free
from pacstore.install.upkeep.verify import verify
from pacstore.install.writeback import writing_back
from pacstore.storage import ObjectKind, object_path
from tests.store.install.world import NAME, FakeSource, Notes, World, look, make_tree, noise, put


def flip(data):
    return data[:100] + bytes([data[100] ^ 1]) + data[101:]


def test_a_wrong_frame_is_asked_for_again(world, tree, entry, root):
    notes = Notes()
    source = FakeSource(world, lambda number, _, data: flip(data) if number == 2 else data)
    done = put(entry, source, root, notes)
    assert look(done.path) == look(tree)
    assert "is asked for again" in notes.warnings[0]
    assert len(notes.warnings) == 1


def test_a_frame_that_stays_wrong_is_named(world, entry, root):
    bad = []

    def spoil(number, piece, data):
        bad.append(piece) if number == 1 else None
        return flip(data) if piece.pack == bad[0].pack and piece.offset <= bad[0].offset else data

    with pytest.raises(Corrupt, match="2 times") as caught:
        put(entry, FakeSource(world, spoil), root)
    assert f"fake: pack {bad[0].pack}, frame at {bad[0].offset}" in caught.value.place
    assert not (root / "current/Sample").exists()


@pytest.mark.parametrize("cut", [0, 1, 1000])
def test_truncated_ranges_are_noticed(world, tree, entry, root, cut):
    source = FakeSource(world, lambda number, _, data: data[:cut] if number == 1 else data)
    assert look(put(entry, source, root).path) == look(tree)


def test_ranges_that_never_come(world, entry, root):
    class Short(FakeSource):
        def ranges(self, wanted):
            yield from list(super().ranges(wanted))[:-1]

    with pytest.raises(Unavailable, match="1 ranges too few"):
        put(entry, Short(world), root)


def test_a_range_that_nobody_asked_for(world, entry, root):
    class Pushy(FakeSource):
        def ranges(self, wanted):
            for piece, data in super().ranges(wanted):
                yield piece, data
                yield piece, data

    with pytest.raises(Corrupt, match="not asked for"):
        put(entry, Pushy(world), root)


def test_a_repacked_store(world, tree, entry, source, root):
    newer = world.repack(tree)
    assert look(put(entry, source, root, refresh=lambda: newer).path) == look(tree)


def test_a_store_that_is_repacked_meanwhile(world, tree, entry, root):
    def spoil(number, _piece, data):
        if number == 3:
            world.repack(tree)
            raise NotFound("is gone", place="pack")
        return data

    done = put(entry, FakeSource(world, spoil), root, refresh=lambda: world.catalog["Sample-1.0-any"])
    assert look(done.path) == look(tree)


@pytest.mark.parametrize("refresh", [None, "same"])
def test_a_pack_that_is_gone_for_good(world, entry, source, root, refresh):
    del world.public[next(path for path in world.public if path.startswith("packs/"))]
    with pytest.raises(NotFound):
        put(entry, source, root, refresh=(lambda: entry) if refresh else None)


def test_a_refresh_that_changes_the_release(world, tree, entry, source, root, tmp_path):
    (tmp_path / "other").mkdir()
    other = World().publish(tmp_path / "other")
    world.public = {path: data for path, data in world.public.items() if not path.startswith("packs/")}
    with pytest.raises(Refused, match="changed in the catalog"):
        put(entry, source, root, refresh=lambda: other)


@pytest.mark.parametrize("kind", ["manifests", "attributes", "placements"])
@pytest.mark.parametrize("spoil", [flip, lambda data: data[:-1], lambda _: b""])
def test_a_document_that_is_not_the_signed_one(world, entry, source, root, kind, spoil):
    path = next(path for path in world.public if path.startswith(kind))
    world.public[path] = spoil(world.public[path])
    with pytest.raises(Corrupt, match="not what the catalog signs"):
        put(entry, source, root)
    assert os.listdir(root / ".pacball/staging") == []


def test_a_manifest_that_lies(tree, root):
    world = World()
    with pytest.raises(Corrupt, match="the manifest contradicts itself") as caught:
        put(world.publish(tree, lie=True), FakeSource(world), root)
    assert caught.value.place == "lib/big.so"
    assert not list((root / "releases").iterdir())


def test_a_placement_that_lies(world, tmp_path, source, root):
    for number in range(3):
        (tmp_path / f"tree/{number}").mkdir(parents=True)
        (tmp_path / f"tree/{number}/file").write_bytes(noise(str(number), 1000))
    good = world.publish(tmp_path / "tree")
    pack, table, frame, _ = next(iter(world.places.values()))
    world.places = dict.fromkeys(world.places, (pack, table, frame, 0))
    world.public.pop(object_path(ObjectKind.MANIFEST, good.manifest.digest))
    with pytest.raises(Corrupt, match="does not hold the chunk"):
        put(world.publish(tmp_path / "tree"), source, root)


@pytest.mark.parametrize(("free", "what"), [(Free(1000, None, 4096), "bytes"), (Free(1 << 40, 10, 4096), "inodes")])
def test_no_room(entry, source, root, free, what):
    with pytest.raises(Unavailable, match=f"{what} free") as caught:
        put(entry, source, root, options=InstallOptions(free_space=lambda _: free))
    assert "nothing was begun" in caught.value.hint
    assert os.listdir(root / ".pacball/staging") == []
    assert source.calls == 0


def test_a_file_system_that_folds_case(world, source, root, tmp_path):
    (tmp_path / "tree/a").mkdir(parents=True)
    (tmp_path / "tree/a/xt_MARK.h").write_text("1")
    (tmp_path / "tree/a/xt_mark.h").write_text("2")
    entry = world.publish(tmp_path / "tree")
    with pytest.raises(Refused, match=r"a/xt_MARK\.h and a/xt_mark\.h"):
        put(entry, source, root, options=InstallOptions(folds_case=lambda _: True))
    assert look(put(entry, source, root).path) == look(tmp_path / "tree")


def test_a_folding_file_system_takes_other_trees(tree, entry, source, root):
    done = put(entry, source, root, options=InstallOptions(folds_case=lambda _: True))
    assert look(done.path) == look(tree)


def test_times_at_the_ends_of_time(world, source, root, tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/old").write_text("old")
    os.utime(tmp_path / "tree/old", (-5, -5))
    done = put(world.publish(tmp_path / "tree"), source, root)
    assert (done.path / "old").stat().st_mtime == -5


def test_too_large_a_document_is_not_swallowed(world, entry, root):
    class Endless(FakeSource):
        def read(self, path, *, limit):
            raise TooLarge("is longer than announced", place=path)

    with pytest.raises(TooLarge):
        put(entry, Endless(world), root)


def test_a_sync_that_failed_once_is_not_forgotten():
    """The kernel tells of what it could not write only once."""
    written = 0
    failed = threading.Event()

    def sync():
        failed.set()
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def work():
        nonlocal written
        written = 1 << 30
        assert failed.wait(60)

    with pytest.raises(OSError, match="Input/output error"), writing_back(sync, lambda: written):
        work()


def test_threads_that_cannot_begin_end_the_work():
    def make_tools():
        raise MemoryError

    def work():
        with Crew(2, make_tools) as crew:
            for _ in range(100):
                crew.give(lambda _tools: None)
            crew.finish()

    with pytest.raises(MemoryError):
        work()


def test_the_record_of_another_tree_that_came_meanwhile_stays(world, tree, entry, root, tmp_path):
    other = World()
    another = other.publish(make_tree(tmp_path / "other" / "deep"), NAME)
    (tmp_path / "other/deep/none").write_bytes(b"not the same")
    another = other.publish(tmp_path / "other/deep", NAME)

    def spoil(number, _piece, data):
        if number == 1:
            put(another, FakeSource(other), root)
        return data

    with pytest.raises(Refused, match="another tree"):
        put(entry, FakeSource(world, spoil), root)
    (verified,) = verify(root, [], Notes())
    assert verified.findings == ()
    assert look(root / "releases" / NAME) == look(tmp_path / "other/deep")


def test_who_was_killed_before_the_history_had_its_line_writes_it_next_time(world, entry, root):
    put(entry, FakeSource(world), root)
    history = root / ".pacball/history.jsonl"
    lines = history.read_text()
    history.unlink()
    assert put(entry, FakeSource(world), root).already_installed
    assert json.loads(history.read_text()) == json.loads(lines.splitlines()[0])
    put(entry, FakeSource(world), root)
    assert len(history.read_text().splitlines()) == 1


def test_a_root_that_cannot_be_looked_at_says_so_when_only_planning(entry, source, tmp_path):
    with pytest.raises(Unavailable, match="File name too long"):
        plan(entry, source=source, root=tmp_path / ("long" * 100), progress=Notes())
