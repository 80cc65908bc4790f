"""Releases that travel where no network leads: what arrives is what a mirror would have, or nothing."""

from __future__ import annotations

import itertools
import json
import os
import resource
import subprocess
import tarfile
from contextlib import closing, contextmanager

import pytest
from blake3 import blake3

from pacstore.check import check
from pacstore.digest import Digest
from pacstore.errors import Corrupt, NotFound, Refused, Unavailable, Untrusted
from pacstore.holding import is_held
from pacstore.ledger.completion import spoil
from pacstore.progress import Silent
from pacstore.release import Release
from pacstore.store import Store
from pacstore.trust.chain import load_head
from pacstore.volumes.volume import Volume
from tests.store.carried import (
    NAMES,
    SPLIT,
    carry_in,
    carry_out,
    complete_in,
    held_in,
    members_of,
    root_of,
    state_of,
)
from tests.store.releases import NOW, Notes, Origin, contents, flip, originals
from tests.store.repacks import SECOND, THIRD, do_repack, make_worn
from tests.store.sweeping import withdraw

FIRST, SECOND_NAME, THIRD_NAME = NAMES


@pytest.fixture(scope="module")
def made(tmp_path_factory, trees):
    """An origin with three releases; no test changes it."""
    origin = Origin.make(tmp_path_factory.mktemp("made"))
    for tree, name in zip(trees, NAMES, strict=True):
        origin.publish(tree, name)
    yield origin
    origin.store.close()


@pytest.fixture(scope="module")
def exported(made, tmp_path_factory):
    """The first release in one file, and the second, since the first, in volumes."""
    top = tmp_path_factory.mktemp("exported")
    carry_out(made.store.path, top / "first.tar", [FIRST])
    carry_out(made.store.path, top / "next.tar", [SECOND_NAME], since=[FIRST], split=SPLIT)
    return top


@pytest.fixture(scope="module")
def one_after_another(tmp_path_factory, trees):
    """The first release, and then the second since the first, each with the catalog of its time; and their root."""
    top = tmp_path_factory.mktemp("one_after_another")
    origin = Origin.make(top / "origin")
    origin.publish(trees[0], FIRST)
    carry_out(origin.store.path, top / "first.tar", [FIRST])
    origin.publish(trees[1], SECOND_NAME)
    carry_out(origin.store.path, top / "next.tar", [SECOND_NAME], since=[FIRST])
    origin.store.close()
    return top / "first.tar", top / "next.tar", root_of(origin.store.path)


@pytest.fixture
def root(made):
    return root_of(made.store.path)


def whole(store, name, tree):
    """Whether a store holds a release whole, says so everywhere, and has the very files."""
    with Store.open(store, writable=False) as opened:
        entry = load_head(opened.storage).release(Release.parse(name))
        assert is_held(opened.storage, entry)
        assert not check(opened, [entry], progress=Silent()).damage
        assert contents(opened, entry) == originals(tree)
    return name in complete_in(store)


def test_three_releases_cross_one_after_another_and_the_other_side_is_a_mirror(made, root, trees, tmp_path):
    store, to, sizes = made.store.path, tmp_path / "mirror", []
    for name, before in zip(NAMES, ([], [FIRST], [FIRST, SECOND_NAME]), strict=True):
        done = carry_out(store, tmp_path / name, [name], since=before)
        sizes.append(done.bytes_packs)
        assert carry_in([tmp_path / name], to, root=root).is_complete
    assert max(sizes[1:]) < sizes[0] / 2
    assert all(whole(to, name, tree) for name, tree in zip(NAMES, trees, strict=True))
    here, there = state_of(to), state_of(store)
    assert {path for path in there if "/catalog/" not in path} == {path for path in here if "/catalog/" not in path}
    assert all(there[path] == data for path, data in here.items())
    with Store.open(to, writable=False) as mirror:
        assert mirror.is_mirror
    # Once more is no change.
    again = carry_in([tmp_path / THIRD_NAME], to)
    assert (again.is_complete, again.packs_copied, again.bytes_copied) == (True, 0, 0)
    assert state_of(to) == here


def test_what_others_must_hold_is_asked_for_before_anything_changes(exported, root, tmp_path):
    volumes = sorted(exported.glob("next.tar.*"))
    with pytest.raises(Refused, match=rf"holds {FIRST}, and .* lacks [0-9]+ packs of") as caught:
        carry_in(volumes, tmp_path / "mirror", root=root)
    assert "without --since" in caught.value.hint
    assert not (tmp_path / "mirror").exists()


def test_volumes_come_in_any_order_and_nothing_is_seen_before_the_last(made, exported, root, tmp_path):
    done = carry_out(made.store.path, tmp_path / "x.tar", NAMES, split=SPLIT)
    assert len(done.volumes) >= 3
    assert all(path.stat().st_size <= SPLIT for path in done.volumes)
    for number, order in enumerate(itertools.islice(itertools.permutations(done.volumes), 1, None, 9)):
        to, left = tmp_path / f"mirror{number}", set(range(1, len(done.volumes) + 1))
        for path in order:
            assert not to.exists() or not list((to / "public/catalog").iterdir())
            left.discard(done.volumes.index(path) + 1)
            imported = carry_in([path], to, root=root)
            assert (imported.volumes_missing, imported.is_complete) == (tuple(sorted(left)), not left)
        assert held_in(to) == complete_in(to) == set(NAMES)


def test_the_same_state_gives_the_same_bytes_and_any_tar_reads_them(made, exported, trees, tmp_path):
    carry_out(made.store.path, tmp_path / "again.tar", [FIRST, FIRST])
    assert (tmp_path / "again.tar").read_bytes() == (exported / "first.tar").read_bytes()
    with tarfile.open(tmp_path / "again.tar") as tar:
        names = tar.getnames()
        assert all(member.isreg() and member.mtime == 0 for member in tar)
    listed = subprocess.run(["tar", "tf", tmp_path / "again.tar"], capture_output=True, text=True, check=True)
    assert listed.stdout.splitlines() == names
    assert names[0] == "pacball-export.json"
    with tarfile.open(tmp_path / "again.tar") as tar:
        said = json.loads(tar.extractfile("pacball-export.json").read())
    body = {key: value for key, value in said.items() if key not in ("id", "volume")}
    written = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
    assert said["id"] == blake3(written.encode()).hexdigest()
    assert [path for path, _ in (*said["shared"], *said["volumes"][0])] == names[1:]
    # Unpacked, it is a docroot.
    (tmp_path / "docroot").mkdir()
    subprocess.run(["tar", "xf", tmp_path / "again.tar", "-C", tmp_path / "docroot"], check=True)
    assert all(
        (made.store.public / name).read_bytes() == (tmp_path / "docroot" / name).read_bytes() for name in names[1:]
    )


def test_the_catalog_alone_travels_too_and_never_backward(made, exported, root, trees, tmp_path):
    origin, to = Origin.make(tmp_path / "origin"), tmp_path / "mirror"
    carry_out(made.store.path, tmp_path / "other.tar", [])
    for version, tree in enumerate(trees[:2]):
        origin.publish(tree, NAMES[version])
        carry_out(origin.store.path, tmp_path / f"{version}.tar", [FIRST] if not version else [])
    pinned = root_of(origin.store.path)
    carry_in([tmp_path / "0.tar"], to, root=pinned)
    assert carry_in([tmp_path / "1.tar"], to).releases == ()
    before = state_of(to)
    with pytest.raises(Untrusted, match="the catalog went backward"):
        carry_in([tmp_path / "0.tar"], to)
    with pytest.raises(Untrusted, match="is of another catalog than"):
        carry_in([tmp_path / "other.tar"], to)
    with pytest.raises(Untrusted):
        carry_in([tmp_path / "other.tar"], tmp_path / "new", root=pinned)
    with pytest.raises(Refused, match="of another export than"):
        carry_in([tmp_path / "0.tar", tmp_path / "1.tar"], tmp_path / "new", root=pinned)
    with pytest.raises(Refused, match="is no mirror"):
        carry_in([tmp_path / "1.tar"], origin.store.path)
    assert state_of(to) == before
    assert not (tmp_path / "new").exists()
    origin.store.close()


@pytest.mark.parametrize("harm", ["damaged", pytest.param("gone", marks=pytest.mark.slow)])
def test_a_damaged_catalog_makes_no_way_backward(one_after_another, trees, tmp_path, harm):
    (first, following, root), to = one_after_another, tmp_path / "mirror"
    for path in (first, following):
        carry_in([path], to, root=root)
    timestamp = to / "public/catalog/timestamp.json"
    timestamp.unlink() if harm == "gone" else flip(timestamp, 30)
    before = state_of(to)
    with pytest.raises(Untrusted, match="is damaged or gone, has"):
        carry_in([first], to)
    assert state_of(to) == before
    assert carry_in([following], to).is_complete
    assert whole(to, SECOND_NAME, trees[1])


def test_what_was_withdrawn_does_not_travel(trees, tmp_path):
    origin = Origin.make(tmp_path / "origin")
    origin.publish(trees[0], FIRST)
    withdraw(origin, FIRST)
    with pytest.raises(Refused, match="was withdrawn"):
        carry_out(origin.store.path, tmp_path / "x.tar", [FIRST])
    with pytest.raises(NotFound):
        carry_out(origin.store.path, tmp_path / "x.tar", [SECOND_NAME])
    assert not (tmp_path / "x.tar").exists()
    origin.store.close()


@pytest.mark.slow
def test_releases_whose_packs_were_replaced_meanwhile_are_named(tmp_path):
    made, to = make_worn(tmp_path), tmp_path / "mirror"
    root = root_of(made.store.path)
    carry_out(made.store.path, tmp_path / "a.tar", [SECOND, THIRD])
    carry_in([tmp_path / "a.tar"], to, root=root)
    do_repack(made)
    carry_out(made.store.path, tmp_path / "since.tar", [SECOND], since=[THIRD])
    with pytest.raises(Refused, match=r"lacks [0-9]+ packs"):
        carry_in([tmp_path / "since.tar"], to)
    carry_out(made.store.path, tmp_path / "b.tar", [SECOND])
    assert list(map(str, carry_in([tmp_path / "b.tar"], to).outdated)) == [THIRD]
    carry_out(made.store.path, tmp_path / "c.tar", [THIRD], since=[SECOND])
    assert carry_in([tmp_path / "c.tar"], to).outdated == ()
    made.store.close()


def test_an_export_that_fails_anywhere_leaves_no_half_file_and_goes_on(made, exported, tmp_path):
    wanted = {path.name: path.read_bytes() for path in exported.glob("next.tar.*")}
    steps = Notes()
    carry_out(made.store.path, tmp_path / "next.tar", [SECOND_NAME], since=[FIRST], split=SPLIT, progress=steps)
    resumed = 0
    for step in range(2, steps.steps + 1, 7):
        top = tmp_path / str(step)
        top.mkdir()
        words = {"since": [FIRST], "split": SPLIT}
        with pytest.raises(KeyboardInterrupt):
            carry_out(made.store.path, top / "next.tar", [SECOND_NAME], progress=_stopping(step), **words)
        left = {path.name: path.read_bytes() for path in top.iterdir()}
        assert all(name.endswith(".partial") or wanted[name] == data for name, data in left.items())
        done = carry_out(made.store.path, top / "next.tar", [SECOND_NAME], **words)
        resumed += done.bytes_kept
        assert {path.name: path.read_bytes() for path in top.iterdir()} == wanted
    assert resumed > 0


def test_an_import_that_fails_anywhere_goes_on(exported, root, trees, tmp_path):
    steps = Notes()
    carry_in([exported / "first.tar"], tmp_path / "mirror", root=root, progress=steps)
    wanted = state_of(tmp_path / "mirror")
    for step in range(2, steps.steps + 1, 17):
        to = tmp_path / str(step)
        with pytest.raises(KeyboardInterrupt):
            carry_in([exported / "first.tar"], to, root=root, progress=_stopping(step))
        assert not to.exists() or not held_in(to)
        carry_in([exported / "first.tar"], to, root=root)
        assert state_of(to) == wanted
        assert whole(to, FIRST, trees[0])


def test_what_is_lost_or_damaged_comes_again(exported, root, trees, tmp_path):
    to = tmp_path / "mirror"
    carry_in([exported / "first.tar"], to, root=root)
    good = state_of(to)
    lost, *_ = (path for path in (to / "public/packs").rglob("*") if path.is_file())
    lost.unlink()
    (damaged,) = (path for path in (to / "public/manifests").rglob("*") if path.is_file())
    flip(damaged, 1000)
    assert carry_in([exported / "first.tar"], to).packs_copied == 1
    assert state_of(to) == good
    assert whole(to, FIRST, trees[0])


def test_a_pack_that_is_known_to_be_damaged_comes_again(exported, root, trees, tmp_path):
    to = tmp_path / "mirror"
    carry_in([exported / "first.tar"], to, root=root)
    good = state_of(to)
    damaged, *_ = (path for path in (to / "public/packs").rglob("*") if path.is_file())
    flip(damaged, 1000)
    with Store.open(to, writable=True) as store:
        spoil(store.ledger, store.storage, Digest.parse(damaged.name), now=NOW)
    assert not held_in(to)
    assert carry_in([exported / "first.tar"], to).packs_copied == 1
    assert state_of(to) == good
    assert whole(to, FIRST, trees[0])


def test_damage_to_what_is_shared_is_told_before_the_catalog_changes(one_after_another, trees, tmp_path):
    (first, following, root), to = one_after_another, tmp_path / "mirror"
    carry_in([first], to, root=root)
    with closing(Volume.open(following)) as volume:
        shared = packs_in(to) - volume.contents.packs().keys()
    assert shared
    with Store.open(to, writable=True) as store:
        for pack in shared:
            spoil(store.ledger, store.storage, pack, now=NOW)
    before = catalog_of(to)
    with pytest.raises(Corrupt, match="is known to be damaged"):
        carry_in([following], to)
    assert catalog_of(to) == before
    assert not held_in(to)
    carry_in([first], to)
    carry_in([following], to)
    assert whole(to, SECOND_NAME, trees[1])


@pytest.mark.parametrize("kind", ["packs", "manifests"])
def test_what_is_collected_before_the_end_comes_again_and_no_catalog_is_shown(one_after_another, trees, tmp_path, kind):
    (first, following, root), to = one_after_another, tmp_path / "mirror"
    carry_in([first], to, root=root)
    before, there = catalog_of(to), set((to / "public" / kind).rglob("*"))
    with pytest.raises(NotFound, match="was taken away meanwhile") as caught:
        carry_in([following], to, progress=Taking(lambda: first_new(to, kind, there).unlink()))
    assert "same command again" in caught.value.hint
    assert catalog_of(to) == before
    assert held_in(to) == complete_in(to) == {FIRST}
    carry_in([following], to)
    assert catalog_of(to) != before
    assert whole(to, SECOND_NAME, trees[1])


def test_what_killed_imports_left_is_removed_after_a_day(exported, root, tmp_path):
    to = tmp_path / "mirror"
    carry_in([exported / "first.tar"], to, root=root)
    old, young = (to / "private/staging" / name for name in ("old.tmp", "young.tmp"))
    for path, age in ((old, 25 * 3600), (young, 3600)):
        path.write_bytes(b"x")
        os.utime(path, (NOW - age, NOW - age))
    carry_in([exported / "first.tar"], to)
    assert [path.name for path in (to / "private/staging").iterdir()] == ["young.tmp"]


def test_files_of_others_are_not_written_over(made, exported, tmp_path):
    (tmp_path / "x.tar").write_text("precious")
    (tmp_path / "y.tar.partial").write_text("precious")
    for name, message in (("x.tar", "is there already"), ("y.tar", "is none of an export")):
        with pytest.raises(Refused, match=message):
            carry_out(made.store.path, tmp_path / name, [FIRST])
    os.link(exported / "first.tar", tmp_path / "z.tar")
    with pytest.raises(Refused, match="of another export"):
        carry_out(made.store.path, tmp_path / "z.tar", [SECOND_NAME])
    with pytest.raises(Refused, match="is a directory"):
        carry_out(made.store.path, tmp_path, [FIRST])
    with pytest.raises(Refused, match=r"give at least [0-9]+M"):
        carry_out(made.store.path, tmp_path / "a.tar", [FIRST], split=10_000)
    assert (tmp_path / "x.tar").read_text() == (tmp_path / "y.tar.partial").read_text() == "precious"
    assert sorted(os.listdir(tmp_path)) == ["x.tar", "y.tar.partial", "z.tar"]


def test_a_volume_that_was_altered_since_is_no_longer_taken_for_done(made, exported, tmp_path):
    path = tmp_path / "x.tar"
    path.write_bytes((exported / "first.tar").read_bytes())
    assert carry_out(made.store.path, path, [FIRST]).bytes_kept == path.stat().st_size
    flip(path, path.stat().st_size // 2)
    with pytest.raises(Refused, match="is not this volume"):
        carry_out(made.store.path, path, [FIRST])
    # As what an interrupted export left, it is put right.
    path.rename(tmp_path / "x.tar.partial")
    assert carry_out(made.store.path, path, [FIRST]).bytes_kept > 0
    assert path.read_bytes() == (exported / "first.tar").read_bytes()


def _altered_somewhere(path, root, to, offsets):
    good = path.read_bytes()
    for offset in offsets:
        flip(path, offset, offset % 8)
        with pytest.raises((Corrupt, Untrusted, Refused)):
            carry_in([path], to, root=root)
        assert not to.exists(), offset
        path.write_bytes(good)


def test_a_flipped_bit_is_found_wherever_it_is(exported, root, tmp_path):
    path = tmp_path / "x.tar"
    path.write_bytes((exported / "first.tar").read_bytes())
    size = path.stat().st_size
    _altered_somewhere(path, root, tmp_path / "mirror", [*range(7, size, size // 12), size - 1, 100, 130, 520, 900])


@pytest.mark.slow
def test_a_flipped_bit_is_found_in_every_block(exported, root, tmp_path):
    first = tmp_path / "x.tar"
    first.write_bytes((exported / "first.tar").read_bytes())
    small = members_of(first)
    beginning = sum(len(data) + 1024 for path, data in small.items() if not path.startswith("packs/"))
    blocks = [block + block // 512 * 37 % 512 for block in range(0, beginning, 512)]
    _altered_somewhere(first, root, tmp_path / "mirror", blocks)


def test_every_truncation_is_found(exported, root, tmp_path):
    data, path = (exported / "first.tar").read_bytes(), tmp_path / "x.tar"
    for length in (0, 1, 99, 511, 512, 600, 1024, len(data) // 2, len(data) - 1024, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises((Corrupt, Refused), match=r"truncated|empty|not a volume|altered"):
            carry_in([path], tmp_path / "mirror", root=root)
    path.write_bytes(data + b"x")
    with pytest.raises(Corrupt, match="does not end where it must"):
        carry_in([path], tmp_path / "mirror", root=root)
    assert not (tmp_path / "mirror").exists()


def test_file_systems_with_short_files_are_told_of_and_it_goes_on(made, exported, tmp_path):
    with files_up_to(1 << 20), pytest.raises(Unavailable, match="too large a file") as caught:
        carry_out(made.store.path, tmp_path / "x.tar", [FIRST])
    assert "--split" in caught.value.hint
    assert os.listdir(tmp_path) == ["x.tar.partial"]
    assert carry_out(made.store.path, tmp_path / "x.tar", [FIRST]).bytes_kept > 0
    assert (tmp_path / "x.tar").read_bytes() == (exported / "first.tar").read_bytes()


def test_a_full_disk_is_told_before_anything_is_written(made, exported, root, tmp_path, monkeypatch):
    class Full:
        f_bavail, f_frsize = 10, 512

    monkeypatch.setattr(os, "statvfs", lambda _: Full)
    with pytest.raises(Unavailable, match="has 5,120 bytes free"):
        carry_out(made.store.path, tmp_path / "x.tar", [FIRST])
    with pytest.raises(Unavailable, match="has 5,120 bytes free"):
        carry_in([exported / "first.tar"], tmp_path / "mirror", root=root)
    assert os.listdir(tmp_path) == []


def catalog_of(store):
    return {path: data for path, data in state_of(store).items() if path.startswith("public/catalog/")}


def packs_in(store):
    return {Digest.parse(path.name) for path in (store / "public/packs").rglob("*") if path.is_file()}


def first_new(store, kind, before):
    return min(path for path in (store / "public" / kind).rglob("*") if path.is_file() and path not in before)


class Taking(Notes):
    """Does something when all has been copied, and nothing was shown yet."""

    def __init__(self, take):
        super().__init__()
        self._take = take

    def begin(self, phase, total_bytes):
        if phase == "completing":
            self._take()


@contextmanager
def files_up_to(size):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _stopping(step):
    def act(number):
        if number == step:
            raise KeyboardInterrupt

    return Notes(act)
