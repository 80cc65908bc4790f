"""Pacballs from directories and from sources: the same bytes, and what becomes of interrupted, damaged and hostile ones."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile

import pytest

from pacstore.errors import Corrupt, NotFound, PacballError, Refused, Unavailable
from pacstore.install.options import InstallOptions
from pacstore.pacball import filling
from pacstore.pacball.building import build
from pacstore.pacball.fetching import fetch
from pacstore.pacball.stub import STUB_BYTES
from pacstore.progress import Silent
from pacstore.release import Release
from tests.store.install.world import NAME, NEXT, FakeSource, Notes, World, make_tree, noise

RELEASE = Release.parse(NAME)


@pytest.fixture
def tree(tmp_path):
    return make_tree(tmp_path / "tree")


def built(tree, where, name=NAME):
    where.mkdir(exist_ok=True)
    return build(tree, Release.parse(name), where, progress=Silent())


def fetched(world, where, *, source=None, notes=None, **options):
    where.mkdir(exist_ok=True)
    options.setdefault("options", InstallOptions(range_bytes=1 << 20))
    return fetch(
        world.catalog[NAME], source=source or FakeSource(world), output=where, progress=notes or Notes(), **options
    )


@pytest.fixture
def world(tree):
    world = World()
    world.publish(tree)
    return world


def test_a_directory_and_a_release_of_it_give_the_same_bytes(tree, world, tmp_path):
    one = built(tree, tmp_path / "one")
    other = fetched(world, tmp_path / "other")
    assert one.path.name == other.path.name == f"{NAME}.b3-{world.catalog[NAME].tree_digest}.sh"
    assert one.path.read_bytes() == other.path.read_bytes()
    assert one.stub == other.stub
    assert one.path.stat().st_mode & 0o777 == other.path.stat().st_mode & 0o777 == 0o755
    assert one.path.stat().st_size == one.total_bytes == other.total_bytes
    assert [path.name for path in other.path.parent.iterdir()] == [other.path.name]


def test_the_payload_is_the_tree(tree, tmp_path):
    one = built(tree, tmp_path / "one")
    data = one.path.read_bytes()
    payload = data[STUB_BYTES:]
    assert one.stub.payload_sha256 == hashlib.sha256(payload).hexdigest()
    assert one.stub.payload_bytes == len(payload)
    target = tmp_path / "out"
    with tarfile.open(fileobj=io.BytesIO(payload)) as tar:
        tar.extractall(target, filter="fully_trusted")
    compare(tree, target)
    assert (target / "lib/deep/same").stat().st_ino == (target / "bin/same-too").stat().st_ino


def compare(expected, found):
    names = sorted(path.relative_to(expected) for path in expected.rglob("*"))
    assert sorted(path.relative_to(found) for path in found.rglob("*")) == names
    for name in names:
        one, other = (expected / name).lstat(), (found / name).lstat()
        assert one.st_mode == other.st_mode, name
        # Python's tarfile gives links no times.
        assert (expected / name).is_symlink() or int(one.st_mtime) == int(other.st_mtime), name
        if (expected / name).is_symlink():
            assert os.readlink(expected / name) == os.readlink(found / name)
        elif (expected / name).is_file():
            assert (expected / name).read_bytes() == (found / name).read_bytes(), name


def test_who_builds_where_makes_no_difference(tree, tmp_path):
    copy = tmp_path / "elsewhere/copy"
    shutil.copytree(tree, copy, symlinks=True)
    for first, *others in (("lib/deep/same", "lib/deep/er/same-again", "bin/same-too"),):
        for other in others:
            time = (copy / other).parent.stat()
            (copy / other).unlink()
            os.link(copy / first, copy / other)
            os.utime((copy / other).parent, ns=(time.st_atime_ns, time.st_mtime_ns))
    (copy / "bin/run").chmod(0o700)
    (copy / "empty").chmod(0o711)
    one, other = built(tree, tmp_path / "one"), built(copy, tmp_path / "other")
    assert one.path.read_bytes() == other.path.read_bytes()


def test_another_time_or_bit_is_another_file(tree, tmp_path):
    first = built(tree, tmp_path / "one")
    os.utime(tree / "none", (5, 5))
    second = built(tree, tmp_path / "two")
    assert first.path.name == second.path.name
    assert first.stub.payload_sha256 != second.stub.payload_sha256
    (tree / "none").chmod(0o755)
    assert built(tree, tmp_path / "three").path.name != first.path.name


def test_a_file_that_is_named(tree, tmp_path):
    done = build(tree, RELEASE, tmp_path / "mine.sh", progress=Silent())
    assert done.path == tmp_path / "mine.sh"
    assert done.path.read_bytes() == built(tree, tmp_path / "one").path.read_bytes()


def test_only_a_pacball_of_the_release_is_replaced(tree, tmp_path):
    path = build(tree, RELEASE, tmp_path / "mine.sh", progress=Silent()).path
    (tree / "none").write_bytes(b"something")
    again = build(tree, RELEASE, path, progress=Silent())
    assert again.path.read_bytes() == built(tree, tmp_path / "one").path.read_bytes()
    before = path.read_bytes()
    (tmp_path / "other").write_text("precious")
    (tmp_path / "link").symlink_to("mine.sh")
    for name, release in (("other", NAME), ("link", NAME), ("mine.sh", NEXT)):
        with pytest.raises(Refused, match="is no pacball of this release"):
            build(tree, Release.parse(release), tmp_path / name, progress=Silent())
    assert (path.read_bytes(), (tmp_path / "other").read_text()) == (before, "precious")


@pytest.mark.parametrize("where", ["tree", "tree/lib", "nowhere/x.sh"])
def test_places_that_cannot_be(tree, tmp_path, where):
    before = sorted(tree.rglob("*"))
    with pytest.raises(Refused, match=r"not a directory|lies inside"):
        build(tree, RELEASE, tmp_path / where, progress=Silent())
    assert sorted(tree.rglob("*")) == before


def test_an_empty_directory_is_no_release(tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(Refused, match="is empty"):
        build(tmp_path / "none", RELEASE, tmp_path, progress=Silent())


def test_what_may_not_be_part_of_a_release_leaves_nothing(tree, tmp_path):
    os.mkfifo(tree / "lib/zz-pipe")
    (tmp_path / "out").mkdir()
    with pytest.raises(Refused, match="FIFO"):
        build(tree, RELEASE, tmp_path / "out", progress=Silent())
    assert list((tmp_path / "out").iterdir()) == []


class Stops(Exception):
    pass


def test_an_interrupted_fetch_goes_on(tree, world, tmp_path):
    def stop(number, _, data):
        if number > 3:
            raise Stops
        return data

    with pytest.raises(Stops):
        fetched(world, tmp_path / "out", source=FakeSource(world, stop))
    (partial,) = (tmp_path / "out").iterdir()
    assert partial.name.endswith(".sh.partial")
    source = FakeSource(world)
    done = fetched(world, tmp_path / "out", source=source)
    assert done.path.read_bytes() == built(tree, tmp_path / "one").path.read_bytes()
    assert done.bytes_resumed > 1 << 20
    packs = sum(len(data) for path, data in world.public.items() if path.startswith("packs/"))
    assert done.bytes_downloaded < packs - (1 << 20)
    assert not partial.exists()


def test_what_is_wrong_in_a_partial_file_is_fetched_again(tree, world, tmp_path):
    whole = fetched(world, tmp_path / "out")
    right = whole.path.read_bytes()
    for spoiled in (right[:-700], right + b"more", bytes(len(right)), noise("junk", len(right)), b"", right):
        whole.path.with_name(whole.path.name + ".partial").write_bytes(spoiled)
        whole.path.unlink()
        assert fetched(world, tmp_path / "out").path.read_bytes() == right


def test_what_is_whole_is_left_alone(world, tmp_path):
    first = fetched(world, tmp_path / "out")
    before = first.path.stat()
    again = fetched(world, tmp_path / "out")
    assert again.existed
    assert not first.existed
    after = first.path.stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_ctime_ns) == (
        before.st_ino,
        before.st_mtime_ns,
        before.st_ctime_ns,
    )


@pytest.mark.parametrize("at", [3, 700, STUB_BYTES - 5, STUB_BYTES + 1, STUB_BYTES + 600, 5_000_000, -600, -1])
def test_a_damaged_pacball_is_put_right(world, tmp_path, at):
    path = fetched(world, tmp_path / "out").path
    right = path.read_bytes()
    data = bytearray(right)
    data[at] ^= 4
    path.write_bytes(data)
    notes = Notes()
    done = fetched(world, tmp_path / "out", notes=notes)
    assert not done.existed
    assert done.path.read_bytes() == right
    assert done.bytes_downloaded < 3 << 20


def test_two_fetches_into_one_place_at_once(tree, world, tmp_path):
    """The one that was overtaken in the middle goes on writing the same bytes to the same file, and is content."""
    done = []

    def overtaken(number, _, data):
        if number == 3:
            done.append(fetched(world, tmp_path / "out"))
        return data

    second = fetched(world, tmp_path / "out", source=FakeSource(world, overtaken))
    assert [one.path for one in done] == [second.path]
    assert second.path.read_bytes() == built(tree, tmp_path / "one").path.read_bytes()
    assert [path.name for path in second.path.parent.iterdir()] == [second.path.name]


def test_something_else_of_that_name_is_not_overwritten(world, tmp_path):
    (tmp_path / "mine").write_text("precious")
    for path in (tmp_path / "mine", tmp_path / "link"):
        if path.name == "link":
            path.symlink_to("mine")
        with pytest.raises(Refused, match="is not this pacball"):
            fetch(world.catalog[NAME], source=FakeSource(world), output=path, progress=Silent())
    assert (tmp_path / "mine").read_text() == "precious"
    os.mkfifo(tmp_path / "new.sh.partial")
    with pytest.raises(PacballError):
        fetch(world.catalog[NAME], source=FakeSource(world), output=tmp_path / "new.sh", progress=Silent())


def test_a_partial_that_is_a_link_is_not_followed(world, tmp_path):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "new.sh.partial").symlink_to("victim")
    with pytest.raises(Unavailable):
        fetch(world.catalog[NAME], source=FakeSource(world), output=tmp_path / "new.sh", progress=Silent())
    assert (tmp_path / "victim").read_text() == "precious"


def test_wrong_bytes_are_asked_for_again_and_never_kept(tree, world, tmp_path):
    def spoil(number, _, data):
        return data[:-1] + bytes([data[-1] ^ 1]) if number == 2 else data

    done = fetched(world, tmp_path / "out", source=FakeSource(world, spoil))
    assert done.path.read_bytes() == built(tree, tmp_path / "one").path.read_bytes()
    with pytest.raises(Corrupt):
        fetched(world, tmp_path / "bad", source=FakeSource(world, lambda _n, _r, data: bytes(len(data))))
    assert all(path.name.endswith(".partial") for path in (tmp_path / "bad").iterdir())


def test_an_older_pacball_is_a_seed(tree, world, tmp_path):
    older = built(tree, tmp_path / "older")
    (tree / "lib/big.so").write_bytes(noise("big", 3 << 20) + b"more")
    (tree / "lib/new").write_bytes(noise("new", 100_000))
    world.publish(tree, NEXT)
    source = FakeSource(world)
    done = fetch(world.catalog[NEXT], source=source, output=tmp_path, progress=Silent(), seeds=(older.path,))
    assert done.path.read_bytes() == built(tree, tmp_path / "new", NEXT).path.read_bytes()
    assert done.bytes_seeded > 7 << 20
    plain = fetch(world.catalog[NEXT], source=FakeSource(world), output=tmp_path / "x.sh", progress=Silent())
    assert done.bytes_downloaded < plain.bytes_downloaded / 2


@pytest.mark.parametrize("kind", ["directory", "tar", "tar.gz", "cut", "junk", "empty"])
def test_other_seeds(tree, world, tmp_path, kind):
    seed = tmp_path / "seed"
    if kind == "directory":
        shutil.copytree(tree, seed, symlinks=True)
    elif kind in ("junk", "empty"):
        seed.write_bytes(noise("junk", 5000 if kind == "junk" else 0))
    else:
        with tarfile.open(seed, "w:gz" if kind == "tar.gz" else "w") as tar:
            tar.add(tree, "some/where/else")
        if kind == "cut":
            os.truncate(seed, 3_000_000)
    notes = Notes()
    done = fetched(world, tmp_path / "out", notes=notes, seeds=(seed,))
    assert done.path.read_bytes() == built(tree, tmp_path / "one").path.read_bytes()
    if kind in ("directory", "tar", "tar.gz"):
        assert done.bytes_seeded >= 3 << 20
        assert notes.warnings == []
    else:
        assert any("as far as it could be read" in warning for warning in notes.warnings), notes.warnings


def test_a_seed_that_is_not_there(world, tmp_path):
    with pytest.raises(NotFound, match="--seed"):
        fetched(world, tmp_path / "out", seeds=(tmp_path / "no",))


def test_a_release_that_is_repacked_meanwhile(tree, world, tmp_path):
    entry = world.catalog[NAME]
    newer = []

    def refresh():
        newer.append(world.repack(tree))
        return newer[-1]

    placement = {path: data for path, data in world.public.items() if path.startswith("placements/")}
    for path in [path for path in world.public if path.startswith("packs/")]:
        del world.public[path]
    world.public.update(placement)
    done = fetch(entry, source=FakeSource(world), output=tmp_path, progress=Silent(), refresh=refresh)
    assert len(newer) == 1
    assert done.path.read_bytes() == built(tree, tmp_path / "one").path.read_bytes()


def test_a_full_disk_is_said_before_anything_is_fetched(world, tmp_path, monkeypatch):
    class Full:
        f_bavail, f_frsize = 10, 4096

    monkeypatch.setattr(filling.os, "statvfs", lambda _: Full)
    source = FakeSource(world)
    with pytest.raises(Unavailable, match=r"40,960 bytes free"):
        fetched(world, tmp_path / "out", source=source)
    assert source.calls == 0


def test_a_tree_of_nothing_but_links_and_directories(tmp_path):
    tree = tmp_path / "tree"
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/l").symlink_to("nowhere")
    (tree / "e").write_bytes(b"")
    world = World()
    world.publish(tree)
    assert fetched(world, tmp_path / "o").path.read_bytes() == built(tree, tmp_path / "one").path.read_bytes()


def test_many_entries_between_contents(tmp_path):
    tree = tmp_path / "tree"
    for number in range(400):
        (tree / f"d{number:03}").mkdir(parents=True)
        (tree / f"d{number:03}/empty").write_bytes(b"")
    (tree / "z").write_bytes(b"content")
    (tree / ("p" * 200) / ("q" * 200) / ("r" * 200)).mkdir(parents=True)
    (tree / ("p" * 200) / ("q" * 200) / ("r" * 200) / "deep").write_bytes(noise("deep", 700_000))
    world = World()
    world.publish(tree)
    assert fetched(world, tmp_path / "o").path.read_bytes() == built(tree, tmp_path / "one").path.read_bytes()
