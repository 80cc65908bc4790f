from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from pacstore.attributes import Attributes
from pacstore.backends.memory import MemoryStorage
from pacstore.description import describe
from pacstore.digest import Digest
from pacstore.errors import Corrupt, Refused
from pacstore.frames import FrameReader
from pacstore.index import ChunkIndex
from pacstore.ingest import ingest
from pacstore.limits import KIB, PackSizes
from pacstore.manifest import Manifest
from pacstore.packing import PackingOptions
from pacstore.storage import ObjectKind, object_path
from tests.store.releases import OPTIONS, SMALL, Notes, make_tree, noise, originals, write


class World:
    """A storage and its index."""

    def __init__(self, path: Path) -> None:
        self.storage = MemoryStorage()
        self.index = ChunkIndex(path)

    def ingest(self, directory, options=OPTIONS):
        return ingest(directory, self.storage, self.index, options=options, progress=Notes())

    def contents(self, done):
        """The content of every file, from the places that an ingest returned."""
        manifest = Manifest.parse(documents(done.description).manifest, place="")
        places = {place.number: place for place in self.index.frames(np.unique(done.chunk_frames).tolist())}
        found = {}
        with closing(FrameReader(self.storage)) as reader:
            for entry in manifest.tree.walk():
                if not entry.kind.is_file:
                    continue
                data = b""
                for n in range(*(int(b) for b in manifest.first_chunks[entry.file_number : entry.file_number + 2])):
                    place = places[int(done.chunk_frames[n])]
                    at = int(done.chunk_offsets[n])
                    data += reader.plain(place.pack, place.frame)[at : at + int(manifest.chunk_lengths[n])]
                found[entry.path] = data
        return found


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path / "index.sqlite")
    yield world
    world.index.close()


class Documents(NamedTuple):
    tree_digest: Digest
    manifest: bytes
    attributes: bytes


def documents(description):
    return Documents(description.tree_digest(), b"".join(description.manifest()), description.attributes())


def test_everything_comes_back(world, trees):
    done = world.ingest(trees[0])
    assert world.contents(done) == originals(trees[0])
    assert done.description.files == len(originals(trees[0]))
    assert done.description.total_bytes == sum(map(len, originals(trees[0]).values()))
    assert done.rewritten_bytes == 0
    assert done.stored_bytes == sum(map(len, world.storage.files.values()))
    distinct = {i.tobytes(): int(n) for i, n in zip(*columns(done), strict=True)}
    assert done.new_bytes == sum(distinct.values())


def columns(done):
    manifest = Manifest.parse(documents(done.description).manifest, place="")
    return manifest.chunk_ids, manifest.chunk_lengths


def test_the_same_again_stores_nothing(world, trees):
    first = world.ingest(trees[0])
    before = dict(world.storage.files)
    again = world.ingest(trees[0])
    assert (again.new_bytes, again.rewritten_bytes, again.stored_bytes) == (0, 0, 0)
    assert documents(again.description) == documents(first.description)
    assert world.storage.files == before


def test_documents_do_not_depend_on_what_the_store_held_or_how_it_packs(tmp_path, trees):
    expected = documents(describe(trees[2], progress=Notes()))
    variants = [
        ([], OPTIONS),
        ([0, 1], OPTIONS),
        ([0, 1, 2], OPTIONS),
        ([0], PackingOptions(level=7, threads=4, sizes=SMALL)),
        ([1], PackingOptions(level=1, threads=1, sizes=PackSizes(10_000, 10_000, rewrite_share=1.0))),
        ([0, 1], PackingOptions(level=1, sizes=PackSizes(rewrite_share=0.0))),
    ]
    for number, (before, options) in enumerate(variants):
        world = World(tmp_path / f"{number}.sqlite")
        with closing(world.index):
            for version in before:
                world.ingest(trees[version], options)
            done = world.ingest(trees[2], options)
            assert documents(done.description) == expected
            assert world.contents(done) == originals(trees[2])


DESCRIBE = """
import os, sys
os.umask(int(sys.argv[2], 8))
from pathlib import Path
from pacstore.digest import Digest
from pacstore.description import describe
from pacstore.progress import Silent
found = describe(Path(os.fsdecode(sys.argv[1])), progress=Silent())
print(found.tree_digest(), Digest.of_all(found.manifest()), Digest.of(found.attributes()))
"""


def test_documents_do_not_depend_on_the_environment(trees):
    answers = []
    for mask, settings in (("0", {"LC_ALL": "C.UTF-8"}), ("77", {"LC_ALL": "C", "TZ": "Pacific/Auckland"}),
                           ("22", {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})):  # fmt: skip
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), **settings}
        command = [sys.executable, "-c", DESCRIBE, os.fspath(trees[0]), mask]
        answers.append(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    assert len(answers[0].split()) == 3
    assert set(answers) == {answers[0]}


def copied(top, copy, seed):
    """The same tree, made in another order, with other permissions that do not count."""
    paths = sorted(top.rglob("*"))
    random.Random(seed).shuffle(paths)
    first = {}
    copy.mkdir()
    for path in paths:
        target = copy / path.relative_to(top)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            target.symlink_to(os.readlink(path))
        elif path.is_dir():
            target.mkdir(exist_ok=True)
        elif path.stat().st_ino in first:
            os.link(first[path.stat().st_ino], target)
        else:
            first[path.stat().st_ino] = shutil.copy2(path, target)
            target.chmod(0o700 if path.stat().st_mode & 0o100 else 0o604)
    for path in paths:
        status = path.lstat()
        os.utime(copy / path.relative_to(top), ns=(0, status.st_mtime_ns), follow_symlinks=False)
    return copy


def test_documents_do_not_depend_on_order_owner_or_modes(tmp_path, trees):
    expected = documents(describe(trees[0], progress=Notes()))
    for seed in range(2):
        assert documents(describe(copied(trees[0], tmp_path / f"{seed}", seed), progress=Notes())) == expected


def test_times_are_in_the_attributes_only(tmp_path, trees):
    expected = documents(describe(trees[0], progress=Notes()))
    copy = copied(trees[0], tmp_path / "copy", 1)
    times = {"none": -1, "version": -1_500_000_000, "abs": 0}
    for name, seconds in times.items():
        os.utime(copy / name, ns=(0, seconds), follow_symlinks=False)
    found = documents(describe(copy, progress=Notes()))
    assert (found.tree_digest, found.manifest) == (expected.tree_digest, expected.manifest)
    tree = Manifest.parse(found.manifest, place="").tree
    mtimes = Attributes.parse(found.attributes, tree, place="").mtimes
    seconds = {entry.path: int(mtimes[entry.number]) for entry in tree.walk()}
    assert {name: seconds[name] for name in times} == {"none": -1, "version": -2, "abs": 0}


def test_hard_links_are_in_the_attributes_only(tmp_path, trees):
    copy = copied(trees[0], tmp_path / "copy", 1)
    expected = documents(describe(copy, progress=Notes()))
    status = (copy / "lib/text").stat()
    data = (copy / "lib/text-again").read_bytes()
    (copy / "lib/text-again").unlink()
    write(copy / "lib/text-again", data).chmod(0o644)
    for path in (copy / "lib/text-again", copy / "lib"):
        os.utime(path, ns=(0, (trees[0] / path.relative_to(copy)).stat().st_mtime_ns))
    assert (copy / "lib/text-again").stat().st_ino != status.st_ino
    found = documents(describe(copy, progress=Notes()))
    assert (found.tree_digest, found.manifest) == (expected.tree_digest, expected.manifest)
    assert found.attributes != expected.attributes
    tree = Manifest.parse(found.manifest, place="").tree
    assert Attributes.parse(found.attributes, tree, place="").groups() == []
    assert len(Attributes.parse(expected.attributes, tree, place="").groups()) == 1


def test_hard_links_over_many_batches(tmp_path, world):
    top = tmp_path / "top"
    for number in range(700):
        write(top / f"d{number % 7}/f{number:03}", b"%d" % number)
        os.link(top / f"d{number % 7}/f{number:03}", top / f"d{number % 7}/z{number:03}")
    write(top / "big", noise("big", 9_000_000))
    os.link(top / "big", top / "zbig")
    os.link(top / "d0/f000", top / "last")
    done = world.ingest(top)
    assert world.contents(done) == originals(top)
    tree = Manifest.parse(documents(done.description).manifest, place="").tree
    groups = Attributes.parse(documents(done.description).attributes, tree, place="").groups()
    paths = [entry.path for entry in tree.walk()]
    linked = {}
    for path in top.rglob("f*"):
        linked[path] = {path, path.with_name(f"z{path.name[1:]}")}
    linked[top / "d0/f000"].add(top / "last")
    linked[top / "big"] = {top / "big", top / "zbig"}
    expected = {frozenset(str(path.relative_to(top)) for path in group) for group in linked.values()}
    assert {frozenset(paths[n] for n in group) for group in groups} == expected


@pytest.mark.parametrize("fill", ["nothing", "directories", "empty files", "links"])
def test_releases_without_a_byte(tmp_path, world, fill):
    top = tmp_path / "top"
    (top / "dir/inner").mkdir(parents=True)
    if fill == "empty files":
        write(top / "dir/empty", b"")
        os.link(top / "dir/empty", top / "again")
    if fill == "links":
        (top / "dir/link").symlink_to("nowhere")
    done = world.ingest(top)
    assert (done.new_bytes, done.stored_bytes, world.storage.files) == (0, 0, {})
    assert world.contents(done) == originals(top)


def used_share(world, done):
    """Of each frame that is used, the share of its plain bytes that is."""
    manifest = Manifest.parse(documents(done.description).manifest, place="")
    used = {}
    for n in range(manifest.chunks):
        frame = used.setdefault(int(done.chunk_frames[n]), {})
        frame[int(done.chunk_offsets[n])] = int(manifest.chunk_lengths[n])
    frames = {place.number: place.frame.plain_length for place in world.index.frames(used)}
    return {number: sum(lengths.values()) / frames[number] for number, lengths in used.items()}


def successive(top, versions, files=60, size=30_000):
    """Directories of which each has a few files of every one before it."""
    made = []
    for version in range(versions):
        for number in range(files):
            write(top / f"{version}/f{number:03}", noise(f"{number} {version - (number * 7 + version) % 4}", size))
        made.append(top / f"{version}")
    return made


def test_frames_that_would_hardly_be_used_are_written_again(tmp_path, world):
    rewritten = 0
    for directory in successive(tmp_path, 6):
        done = world.ingest(directory)
        rewritten += done.rewritten_bytes
        assert world.contents(done) == originals(directory)
        shares = used_share(world, done)
        assert min(shares.values()) >= 0.5
    assert rewritten > 0
    again = world.ingest(tmp_path / "5")
    assert (again.new_bytes, again.stored_bytes, again.rewritten_bytes) == (0, 0, 0)


def test_rewriting_that_fills_many_packs(tmp_path, world):
    """More than the packer keeps waiting: packs are finished while chunks are still written again."""
    options = PackingOptions(level=1, sizes=PackSizes(64 * KIB, 128 * KIB, rewrite_share=0.9))
    for number in range(120):
        write(tmp_path / f"old/f{number:03}", noise(f"{number}", 30_000))
        if number % 2:
            write(tmp_path / f"new/f{number:03}", noise(f"{number}", 30_000))
        write(tmp_path / f"new/g{number:03}", noise(f"new {number}", 30_000))
    world.ingest(tmp_path / "old", options)
    done = world.ingest(tmp_path / "new", options)
    assert done.rewritten_bytes == 60 * 30_000
    assert world.contents(done) == originals(tmp_path / "new")


def test_nothing_is_written_again_with_a_share_of_zero(tmp_path, world):
    options = PackingOptions(level=1, sizes=PackSizes(128 * KIB, 512 * KIB, rewrite_share=0.0))
    for directory in successive(tmp_path, 4):
        assert world.ingest(directory, options).rewritten_bytes == 0


def half(tmp_path, world):
    """A new release that wants every fourth chunk of an old one, whose frames would be written again."""
    for number in range(40):
        write(tmp_path / f"old/f{number:03}", noise(f"{number}", 30_000))
        if number % 4 == 0:
            write(tmp_path / f"new/f{number:03}", noise(f"{number}", 30_000))
    world.ingest(tmp_path / "old")
    return tmp_path / "new"


def test_a_damaged_old_frame_is_never_written_again(tmp_path, world):
    new = half(tmp_path, world)
    for path, data in world.storage.files.items():
        changed = bytearray(data)
        changed[len(changed) // 4] ^= 1
        world.storage.files[path] = bytes(changed)
    before = dict(world.storage.files)
    with pytest.raises(Corrupt, match=r"an old frame is needed.*store reindex"):
        world.ingest(new)
    assert world.storage.files == before


def test_a_missing_old_pack_is_named(tmp_path, world):
    new = half(tmp_path, world)
    pack = next(world.storage.digests(ObjectKind.PACK))
    del world.storage.files[object_path(ObjectKind.PACK, pack)]
    with pytest.raises(Corrupt, match=f"{pack}: an old frame is needed.*store reindex"):
        world.ingest(new)


def test_an_index_that_names_a_wrong_place_is_noticed_when_chunks_are_written_again(tmp_path, world):
    new = half(tmp_path, world)
    with world.index._database.writing() as connection:
        connection.exec_driver_sql("UPDATE chunks SET offset = offset + 1")
    with pytest.raises(Corrupt, match=r"wrong place for a chunk.*store reindex"):
        world.ingest(new)


def test_an_index_rebuilt_meanwhile_ends_the_ingest(tmp_path, world):
    new = half(tmp_path, world)
    for number in range(300):
        write(new / f"g{number:03}", noise(f"new {number}", 30_000))
    notes = Notes(lambda step: world.index.clear() if step == 2 else None)
    with pytest.raises(Corrupt, match=r"lacks frames.*run the same command again"):
        ingest(new, world.storage, world.index, options=OPTIONS, progress=notes)
    assert world.contents(world.ingest(new)) == originals(new)


def test_a_chunk_known_from_an_old_frame_and_seen_in_new_files(tmp_path, world):
    """Its old frame is doomed: all of its places move together."""
    new = half(tmp_path, world)
    for name in ("e", "f000-again", "z"):
        write(new / name, noise("0", 30_000) if name != "e" else noise("own", 200_000))
    done = world.ingest(new)
    assert done.rewritten_bytes == 10 * 30_000
    assert world.contents(done) == originals(new)
    assert min(used_share(world, done).values()) >= 0.5


def test_a_file_that_changes_leaves_finished_packs_for_the_next_attempt(tmp_path, world):
    top = make_tree(tmp_path / "top", kib=12_000)

    def act(_step):
        with open(top / "lib/shared.so", "ab") as file:
            file.write(b"more")

    with pytest.raises(Refused, match=r"shared.so: changed while it was read"):
        ingest(top, world.storage, world.index, options=OPTIONS, progress=Notes(act))
    kept = set(world.storage.files)
    assert len(kept) > 1
    assert {digest for digest, _ in world.index.packs()} == set(world.storage.digests(ObjectKind.PACK))
    done = world.ingest(top)
    assert kept < set(world.storage.files)
    assert world.contents(done) == originals(top)
    assert done.new_bytes < sum(int(n) for n in columns(done)[1])
