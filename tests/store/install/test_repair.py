"""Repair puts right every kind of damage, and fetches no more than what nothing here has."""

import os
import shutil
import stat

import pytest
from blake3 import blake3

from pacstore.chunker import Chunker
from pacstore.digest import Digest
from pacstore.errors import Corrupt, NotFound, Refused, Unavailable
from pacstore.install.actions.generated import Made
from pacstore.install.options import InstallOptions
from pacstore.install.team import may_fork
from pacstore.install.upkeep.checking import Readers
from pacstore.install.upkeep.repair import repair
from pacstore.install.upkeep.verify import verify
from pacstore.release import Release
from pacstore.storage import ObjectKind, object_path
from pacstore.tree import EntryKind
from tests.store.install.alone import alone
from tests.store.install.test_faults import flip
from tests.store.install.test_verify import record
from tests.store.install.world import NAME, NEXT, FakeSource, Notes, World, look, noise, put

RELEASE = Release.parse(NAME)


class FakeSupply:
    """The catalog and the public files of a world."""

    def __init__(self, world, spoil=None):
        self.world = world
        self.source = FakeSource(world, spoil)
        self.asked = 0

    def entry(self, release):
        self.asked += 1
        if str(release) not in self.world.catalog:
            raise NotFound("is not in the catalog", place=str(release))
        return self.world.catalog[str(release)]

    refresh = entry

    @property
    def bytes_downloaded(self):
        return self.source.traffic.bytes_downloaded


@pytest.fixture
def top(entry, source, root):
    return put(entry, source, root).path


@pytest.fixture
def supply(world):
    return FakeSupply(world)


def mend(root, supply=None, *names, notes=None):
    return repair(
        root,
        [Release.parse(name) for name in names],
        supply=supply,
        progress=notes or Notes(),
        now=lambda: 1_800_000_000.0,
        options=InstallOptions(),
    )


def assert_sound(root, *trees):
    """Everything is as it was published, and nothing is left over."""
    for verified in verify(root, [], Notes()):
        assert verified.findings == ()
    for tree, name in zip(trees, (NAME, NEXT), strict=False):
        assert look(root / "releases" / name) == look(tree)
    assert os.listdir(root / ".pacball/staging") == []


def corrupt(path, at=100, data=b"?!"):
    """Other bytes in a file whose time stays."""
    found = path.stat()
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def test_nothing_to_do(top, tree, root):
    (done,) = mend(root)
    assert (done.changed, done.left, done.verified.findings) == (False, (), ())
    assert_sound(root, tree)


def damage_content(top):
    corrupt(top / "lib/big.so", 2_000_000)


def damage_length(top):
    with (top / "lib/zeros").open("ab") as file:
        file.write(b"?")


def truncate(top):
    os.truncate(top / "lib/copy.so", 1_000_000)


def unlink(top):
    (top / "lib/deep/f17").unlink()
    (top / "lib/none.py").unlink()


def unlink_empty(top):
    (top / "none").unlink()
    (top / "empty").rmdir()


def set_modes(top):
    (top / "bin/run").chmod(0o644)
    (top / "lib/big.so").chmod(0o4777)
    (top / "lib/deep").chmod(0o700)
    top.chmod(0o700)


def lead_elsewhere(top):
    (top / "lib/abs").unlink()
    (top / "lib/abs").symlink_to("/etc/shadow")
    (top / "lib/dangling").unlink()


def change_kinds(top):
    (top / "none").unlink()
    os.mkfifo(top / "none")
    (top / "up").unlink()
    (top / "up").write_text("a file")
    (top / "bin/run").unlink()
    (top / "bin/run").symlink_to("/bin/sh")
    (top / "lib/deep/f03").unlink()
    (top / "lib/deep/f03").mkdir()
    (top / "lib/deep/f03/precious").write_text("kept")
    (top / "empty").rmdir()
    (top / "empty").write_text("a file in place of a directory")


def remove_directories(top):
    shutil.rmtree(top / "lib/deep/er")


def link_a_directory(top):
    (top / "lib/deep/er").rename(top.parent / "elsewhere")
    (top / "lib/deep/er").symlink_to(top.parent / "elsewhere")


def break_links(top):
    data = (top / "lib/deep/same").read_bytes()
    (top / "lib/deep/same").unlink()
    (top / "lib/deep/same").write_bytes(data)


def break_links_and_leader(top):
    (top / "bin/same-too").unlink()
    (top / "bin/same-too").write_bytes(b"other")


def damage_the_linked(top):
    corrupt(top / "lib/deep/same", 5)


def lose_all_linked(top):
    for path in ("bin/same-too", "lib/deep/same", "lib/deep/er/same-again"):
        (top / path).unlink()


ALL = [
    damage_content, damage_length, truncate, unlink, unlink_empty, set_modes, lead_elsewhere, change_kinds, remove_directories,
    link_a_directory, break_links, break_links_and_leader, damage_the_linked, lose_all_linked,
]  # fmt: skip


@pytest.mark.parametrize("harm", ALL)
def test_each_kind_of_damage(top, tree, root, supply, harm):
    harm(top)
    (done,) = mend(root, supply)
    assert done.changed
    assert done.left == ()
    shutil.rmtree(root / "releases/elsewhere", ignore_errors=True)
    assert_sound(root, tree)


def test_all_kinds_together(top, tree, root, supply):
    for harm in (
        damage_content,
        damage_length,
        truncate,
        unlink,
        set_modes,
        lead_elsewhere,
        change_kinds,
        damage_the_linked,
    ):
        harm(top)
    (done,) = mend(root, supply)
    assert (len(done.aside), done.left) == (2, ())
    assert_sound(root, tree)
    aside = sorted((root / ".pacball/aside").iterdir(), key=lambda path: path.is_dir())
    assert [f".pacball/aside/{path.name}" for path in aside] == sorted(done.aside, key=lambda p: (root / p).is_dir())
    assert aside[0].read_text() == "a file in place of a directory"
    assert (aside[1] / "precious").read_text() == "kept"


def test_everything_is_gone(top, tree, root, supply):
    for path in top.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    (done,) = mend(root, supply)
    assert done.left == ()
    assert_sound(root, tree)


def test_extra_files_stay(top, root, supply, tree):
    (top / "lib/__pycache__").mkdir()
    corrupt(top / "lib/big.so")
    (done,) = mend(root, supply)
    assert done.left == ()
    assert (top / "lib/__pycache__").is_dir()
    (top / "lib/__pycache__").rmdir()
    os.utime(top / "lib", (1_500_000_000, 1_500_000_003))
    assert_sound(root, tree)


# -- where the chunks come from


def test_another_file_of_the_release_has_the_chunks(top, tree, root, supply):
    corrupt(top / "lib/big.so", 2_000_000)
    (done,) = mend(root)
    assert (done.files, done.bytes_reused, done.bytes_downloaded, done.left) == (1, 3 << 20, 0, ())
    assert supply.asked == 0
    assert_sound(root, tree)


def test_only_what_is_damaged_is_fetched(world, top, tree, root, supply):
    for name in ("big.so", "copy.so"):
        corrupt(top / "lib" / name, 2_000_000)
    (done,) = mend(root, supply)
    assert done.files == 2
    assert done.bytes_downloaded < 500_000
    assert done.bytes_reused > 5 << 20
    assert supply.source.calls == 1
    assert_sound(root, tree)


@pytest.fixture
def next_tree(tree, tmp_path):
    shutil.copytree(tree, tmp_path / "next", symlinks=True)
    (tmp_path / "next/lib/new").write_bytes(noise("new", 100_000))
    return tmp_path / "next"


def test_another_release_has_the_chunks(world, top, tree, root, source, next_tree):
    put(world.publish(next_tree, NEXT), source, root)
    for name in ("big.so", "copy.so"):
        corrupt(top / "lib" / name, 2_000_000)
    (top / "lib/deep/f17").unlink()
    first, second = mend(root)
    assert (first.files, first.bytes_downloaded, first.left) == (3, 0, ())
    assert not second.changed
    assert_sound(root, tree)


def test_two_releases_mend_each_other(world, top, tree, root, source, next_tree):
    put(world.publish(next_tree, NEXT), source, root)
    for name in ("big.so", "copy.so"):
        corrupt(top / "lib" / name, 2_000_000)
        corrupt(root / "releases" / NEXT / "lib" / name, 100)
    first, second = mend(root)
    assert (first.left, second.left) == ((), ())
    assert_sound(root, tree)


def test_offline_what_can_be_is_repaired(top, tree, root, supply):
    corrupt(top / "lib/big.so", 2_000_000)
    (top / "lib/deep/f17").unlink()
    (top / "bin/same-too").unlink()
    (top / "bin/run").chmod(0o644)
    (done,) = mend(root)
    assert [one.path for one in done.left] == ["lib/deep/f17"]
    assert (done.files, done.entries) == (1, 2)
    (again,) = mend(root, supply)
    assert (again.files, again.left) == (1, ())
    assert_sound(root, tree)


def test_offline_links_to_what_is_missing_are_left(top, root):
    lose_all_linked(top)
    (top / "lib/deep/er/still/text").unlink()
    (done,) = mend(root)
    assert [one.path for one in done.left] == [
        "bin/same-too",
        "lib/deep/er/same-again",
        "lib/deep/er/still/text",
        "lib/deep/same",
    ]
    assert os.listdir(root / ".pacball/staging") == []


def test_a_flipped_bit_in_a_large_file_costs_two_frames_at_most(root, tmp_path):
    world = World()
    (tmp_path / "large").mkdir()
    (tmp_path / "large/file").write_bytes(noise("large", 100 << 20))
    top = put(world.publish(tmp_path / "large"), FakeSource(world), root).path
    at = 77_777_777
    byte = (top / "file").read_bytes()[at : at + 1]
    corrupt(top / "file", at, bytes([byte[0] ^ 1]))
    supply = FakeSupply(world)
    (done,) = mend(root, supply)
    documents = len(world.public[next(path for path in world.public if path.startswith("placements/"))])
    assert done.bytes_downloaded - documents <= 2 * (world.frame_bytes + (256 << 10))
    assert done.bytes_reused >= 99 << 20
    assert_sound(root, tmp_path / "large")


# -- wrong bytes, wrong catalogs


def test_wrong_bytes_from_the_source_are_asked_for_again(world, top, tree, root):
    unlink(top)
    notes = Notes()
    (done,) = mend(root, FakeSupply(world, lambda number, _, data: flip(data) if number == 1 else data), notes=notes)
    assert done.left == ()
    assert any("is asked for again" in warning for warning in notes.warnings)
    assert_sound(root, tree)


def test_bytes_that_stay_wrong_replace_nothing(world, top, tree, root, supply):
    unlink(top)
    corrupt(top / "lib/zeros", 5)
    before = look(top)
    with pytest.raises(Corrupt):
        mend(root, FakeSupply(world, lambda _number, _piece, data: flip(data)))
    assert look(top) == before
    mend(root, supply)
    assert_sound(root, tree)


def test_a_repacked_store(world, top, tree, root, supply):
    unlink(top)
    world.repack(tree)
    mend(root, supply)
    assert_sound(root, tree)


def test_a_catalog_with_another_tree(world, top, root, next_tree):
    unlink(top)
    other = World()
    other.publish(next_tree)
    before = look(top)
    with pytest.raises(Refused, match="installed with another tree"):
        mend(root, FakeSupply(other))
    (root / f".pacball/manifests/{NAME}.manifest").write_bytes(b"?")
    with pytest.raises(Corrupt, match="was installed with another tree"):
        mend(root, FakeSupply(other))
    assert look(top) == before


def test_a_release_that_the_source_does_not_have(top, root):
    unlink(top)
    with pytest.raises(NotFound):
        mend(root, FakeSupply(World()))


# -- records


@pytest.mark.parametrize("suffix", ["manifest", "attributes"])
@pytest.mark.parametrize(
    "spoil", [lambda _: b"", lambda data: data[:100], lambda data: data[:-1] + bytes([data[-1] ^ 1])]
)
def test_a_damaged_record_is_fetched_again(top, tree, root, supply, suffix, spoil):
    path = root / f".pacball/manifests/{NAME}.{suffix}"
    good = path.read_bytes()
    path.write_bytes(spoil(good))
    corrupt(top / "lib/zeros", 5)
    (offline,) = mend(root)
    assert f".pacball/manifests/{NAME}.{suffix}" in [one.path for one in offline.left]
    assert path.read_bytes() != good
    (done,) = mend(root, supply)
    assert (done.records, done.files, done.left) == (1, 1, ())
    assert path.read_bytes() == good
    assert_sound(root, tree)


def test_attributes_that_are_gone(top, tree, root, supply):
    (root / f".pacball/manifests/{NAME}.attributes").unlink()
    assert mend(root, supply)[0].records == 1
    assert_sound(root, tree)


def test_wrong_chunks_in_a_manifest_of_before_there_were_digests(world, top, tree, root, supply, entry):
    (root / ".pacball/history.jsonl").unlink()
    path = root / f".pacball/manifests/{NAME}.manifest"
    good = path.read_bytes()
    assert good == world.public[object_path(ObjectKind.MANIFEST, entry.manifest.digest)]
    data = bytearray(good)
    big = data.index(_first_chunk())
    data[big] ^= 1
    path.write_bytes(data)
    for name in ("big.so", "copy.so"):
        corrupt(top / "lib" / name, 10)
    (done,) = mend(root, supply)
    assert (done.records, done.left) == (1, ())
    assert path.read_bytes() == good
    assert_sound(root, tree)


def _first_chunk():
    """The id of the first chunk of a file of several."""
    data = noise("big", 3 << 20)
    return blake3(data[: Chunker().cut(memoryview(data), last=True)[0]]).digest()


# -- hard links between releases


@pytest.fixture
def sharing(site):
    """Two releases that share the file `same`, and its damage."""
    names = ("App-1-any", "App-2-any")
    for name in names:
        site.install(name)
    one, two = (site.root / "releases" / name / "same" for name in names)
    two.unlink()
    os.link(one, two)
    return site, one, two


def test_the_new_file_is_shared_again(sharing):
    site, one, two = sharing
    corrupt(one)
    damaged = one.stat().st_ino
    first, second = mend(site.root, FakeSupply(site.world))
    assert (first.files, second.files, first.left, second.left) == (1, 1, (), ())
    assert second.bytes_downloaded == 0
    assert one.stat().st_ino == two.stat().st_ino != damaged
    assert one.read_bytes() == noise("", 5000)
    assert_sound(site.root)


@pytest.mark.parametrize(("name", "shared"), [("data", True), ("code.py", False)])
def test_what_releases_share_with_another_time_is_shared_again_unless_it_matters(site, name, shared):
    for number in (1, 2):
        site.publish(f"App-{number}-any", {name: noise("", 5000)})
        os.utime(site.trees / f"App-{number}-any" / name, (1_600_000_000 + number,) * 2)
        site.world.publish(site.trees / f"App-{number}-any", f"App-{number}-any")
        site.install(f"App-{number}-any")
    one, two = (site.root / f"releases/App-{number}-any" / name for number in (1, 2))
    two.unlink()
    os.link(one, two)
    corrupt(one)
    mend(site.root, FakeSupply(site.world))
    assert (one.stat().st_ino == two.stat().st_ino) == shared
    assert_sound(site.root)
    assert shared or int(two.stat().st_mtime) == 1_600_000_002


def test_the_other_release_keeps_its_bytes_until_it_is_repaired_itself(sharing):
    site, one, two = sharing
    corrupt(one)
    with two.open("rb") as reader:
        (done,) = mend(site.root, FakeSupply(site.world), "App-1-any")
        assert done.files == 1
        assert one.stat().st_ino != two.stat().st_ino
        assert two.read_bytes() == reader.read() != one.read_bytes()
    mend(site.root, FakeSupply(site.world))
    assert_sound(site.root)


def test_a_mode_is_not_written_through_either(sharing, tmp_path):
    site, one, two = sharing
    stranger = tmp_path / "stranger"
    os.link(one, stranger)
    one.chmod(0o600)
    first, second = mend(site.root)
    assert (first.files, second.files, first.left, second.left) == (1, 1, (), ())
    assert stat.S_IMODE(stranger.stat().st_mode) == 0o600
    assert one.stat().st_ino == two.stat().st_ino != stranger.stat().st_ino
    assert_sound(site.root)


# -- disks and links


def test_a_reader_keeps_what_it_reads(top, tree, root, supply):
    unlink(top)
    corrupt(top / "lib/zeros")
    with (top / "lib/zeros").open("rb") as file:
        mend(root, supply)
        assert file.read(102)[100:] == b"?!"
    assert_sound(root, tree)


def test_no_room(top, root, supply, monkeypatch):
    unlink(top)
    before = look(top)
    (root / ".pacball/staging").rmdir()
    (root / ".pacball/staging").write_text("no directory")
    with pytest.raises(Unavailable):
        mend(root, supply)
    assert look(top) == before


def test_a_link_in_the_place_of_the_release(top, root, supply, tmp_path):
    top.rename(tmp_path / "tree")
    top.symlink_to(tmp_path / "tree")
    (tmp_path / "tree/none").unlink()
    with pytest.raises(Unavailable):
        mend(root, supply)
    assert not (tmp_path / "tree/none").exists()


def test_what_commands_made_is_left(top, root, supply):
    record(root, {"bin/run": Made(EntryKind.EXECUTABLE, 9, Digest.of(b"relocated"))})
    before = (top / "bin/run").read_bytes()
    (top / "none").write_text("?")
    (done,) = mend(root, supply)
    assert [(one.path, one.generated) for one in done.left] == [("bin/run", True)]
    assert (top / "bin/run").read_bytes() == before
    assert (top / "none").read_bytes() == b""


def test_what_another_repair_brought_meanwhile_stays(top, tree, root, supply):
    shutil.rmtree(top / "lib")

    class Slow(Notes):
        """The other repair does all its work after this one has seen that everything is gone."""

        def begin(self, phase, total_bytes):
            if phase == "syncing":
                mend(root, supply)

    (done,) = mend(root, notes=Slow())
    assert done.aside == ()
    assert_sound(root, tree)


# -- processes read what is installed


def repaired_by_processes(root, world):
    """A directory that nobody may read is put right first, and the tree read again by the same processes."""
    assert may_fork()
    (done,) = repair(
        root,
        [],
        supply=FakeSupply(world),
        progress=Notes(),
        now=lambda: 1_800_000_000.0,
        options=InstallOptions(),
        readers=Readers(1, 2, 0),
    )
    return done


def test_what_processes_find_is_repaired(top, root, tree, world):
    corrupt(top / "lib/big.so")
    (top / "none").unlink()
    shutil.rmtree(top / "lib/deep/er")
    (top / "lib/deep").chmod(0)
    done = alone(repaired_by_processes, root, world)
    assert done.left == ()
    assert {one.path for one in done.verified.findings} >= {"lib/big.so", "none", "lib/deep/er/still/text"}
    assert_sound(root, tree)
