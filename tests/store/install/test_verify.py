"""Verify finds each kind of damage, and nothing else."""

import json
import os
import shutil

import pytest
from blake3 import blake3

from pacstore.digest import Digest
from pacstore.errors import NotFound
from pacstore.globs import Patterns
from pacstore.install.actions.generated import Generated, Made
from pacstore.install.tree.hashing import Known, digest_of
from pacstore.install.upkeep.findings import Fault, Finding
from pacstore.install.upkeep.verify import shared_with, verify
from pacstore.release import Release
from pacstore.tree import EntryKind
from tests.store.install.world import NAME, Notes, put

RELEASE = Release.parse(NAME)


@pytest.fixture
def top(entry, source, root):
    return put(entry, source, root).path


def found(root):
    return [(one.path, str(one.fault)) for one in findings(root)]


def findings(root):
    (found,) = verify(root, [RELEASE], Notes())
    return list(found.findings)


def test_a_good_release(top, root):
    (found,) = verify(root, [], Notes(), workers=1)
    assert (found.release, found.findings, found.is_intact(strict=True)) == (RELEASE, (), True)


def test_each_kind_of_damage(top, root):
    with (top / "lib/big.so").open("r+b") as file:
        file.seek(2_500_000)
        file.write(b"?")
    with (top / "lib/copy.so").open("ab") as file:
        file.write(b"?")
    (top / "lib/none.py").unlink()
    (top / "extra\n").write_text("")
    (top / "bin/more").mkdir()
    (top / "bin/run").chmod(0o4755)
    (top / "lib/deep").chmod(0o700)
    (top / "lib/abs").unlink()
    (top / "lib/abs").symlink_to("/etc/shadow")
    (top / "up").unlink()
    (top / "up").mkdir()
    (top / "none").unlink()
    os.mkfifo(top / "none")
    assert found(root) == [
        ("bin/more", "extra"),
        ("bin/run", "mode"),
        ("extra\\n", "extra"),
        ("lib/abs", "target"),
        ("lib/big.so", "damaged"),
        ("lib/copy.so", "damaged"),
        ("lib/deep", "mode"),
        ("lib/none.py", "missing"),
        ("none", "kind"),
        ("up", "kind"),
    ]


def test_a_missing_directory_and_all_in_it(top, root):
    shutil.rmtree(top / "lib/deep/er")
    assert found(root) == [
        ("lib/deep/er", "missing"),
        ("lib/deep/er/same-again", "missing"),
        ("lib/deep/er/still", "missing"),
        ("lib/deep/er/still/text", "missing"),
    ]


def test_a_directory_that_became_a_link_is_not_followed(top, root, tmp_path):
    (top / "lib/deep/er").rename(tmp_path / "er")
    (top / "lib/deep/er").symlink_to(tmp_path / "er")
    assert ("lib/deep/er", "kind") in found(root)
    assert ("lib/deep/er/still/text", "missing") in found(root)


def test_details_for_people(top, root):
    (top / "bin/run").write_bytes(b"")
    assert findings(root) == [Finding("bin/run", Fault.DAMAGED, "has 0 bytes, not 17")]


def test_what_is_not_installed(top, root, tmp_path):
    with pytest.raises(NotFound):
        verify(root, [Release.parse("Sample-9-any")], Notes())
    with pytest.raises(NotFound):
        verify(tmp_path / "nothing", [RELEASE], Notes())
    shutil.rmtree(top)
    with pytest.raises(NotFound):
        verify(root, [RELEASE], Notes())


def test_a_damaged_record(top, root):
    (root / f".pacball/manifests/{NAME}.manifest").write_bytes(b"PBMANI01")
    assert found(root) == [(f".pacball/manifests/{NAME}.manifest", "record")]


# -- the record


def test_a_record_that_is_not_the_one_that_was_kept(top, root):
    manifests = root / ".pacball/manifests"
    for suffix, at in (("manifest", -3), ("attributes", -200)):
        path = manifests / f"{NAME}.{suffix}"
        good = path.read_bytes()
        # An id of a chunk, a time: nothing that any check of the format notices.
        data = bytearray(good)
        data[at] ^= 1
        path.write_bytes(data)
        assert findings(root) == [
            Finding(
                f".pacball/manifests/{NAME}.{suffix}", Fault.RECORD, "is not what it was when the release was installed"
            )
        ]
        path.write_bytes(good)
    assert found(root) == []


@pytest.mark.parametrize("data", [None, b"", b"x"])
def test_attributes_that_are_gone_or_damaged(top, root, data):
    path = root / f".pacball/manifests/{NAME}.attributes"
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    (top / "none").write_bytes(b"?")
    assert found(root) == [(f".pacball/manifests/{NAME}.attributes", "record"), ("none", "damaged")]


# -- what commands made


def record(root, paths):
    made = Generated(RELEASE, Digest.of(b""), Patterns(["lib/**"], place=""), paths)
    (root / f".pacball/manifests/{NAME}.generated").write_bytes(made.encode())


def test_what_commands_made_is_compared_with_their_record(top, root):
    (top / "lib/cache/deep").mkdir(parents=True)
    (top / "lib/cache/deep/a").write_bytes(b"made")
    (top / "lib/cache/link").symlink_to("deep/a")
    (top / "bin/run").write_bytes(b"relocated")
    (top / "new").write_bytes(b"x")
    (top / "new").chmod(0o755)
    paths = {
        "bin/run": Made(EntryKind.EXECUTABLE, 9, Digest.of(b"relocated")),
        "lib/cache": Made(EntryKind.DIRECTORY),
        "lib/cache/deep": Made(EntryKind.DIRECTORY),
        "lib/cache/deep/a": Made(EntryKind.FILE, 4, Digest.of(b"made")),
        "lib/cache/link": Made(EntryKind.SYMLINK, target="deep/a"),
        "new": Made(EntryKind.EXECUTABLE, 1, Digest.of(b"x")),
    }
    record(root, paths)
    assert found(root) == []
    (top / "bin/run").write_bytes(b"other....")
    (top / "lib/cache/deep/a").write_bytes(b"made more")
    (top / "lib/cache/deep/later").write_bytes(b"")
    (top / "lib/cache/link").unlink()
    (top / "lib/cache/link").symlink_to("/etc/passwd")
    (top / "new").chmod(0o644)
    assert found(root) == [
        ("bin/run", "damaged"),
        ("lib/cache/deep/a", "damaged"),
        ("lib/cache/deep/later", "extra"),
        ("lib/cache/link", "target"),
        ("new", "mode"),
    ]
    assert all(one.generated == (one.fault is not Fault.EXTRA) for one in findings(root))
    shutil.rmtree(top / "lib/cache")
    (top / "lib/cache").symlink_to("/etc")
    assert ("lib/cache", "kind") in found(root)
    assert ("lib/cache/deep/a", "missing") in found(root)


def test_a_damaged_record_of_what_commands_made(top, root):
    (root / f".pacball/manifests/{NAME}.generated").write_bytes(b"{")
    assert found(root) == [(f".pacball/manifests/{NAME}.generated", "record")]


# -- owners and links


def test_another_owner_than_at_the_installation(top, root):
    path = root / ".pacball/history.jsonl"
    me = [os.geteuid(), os.getegid()]
    for owner, wrong in ((me, False), ([me[0], None], False), ([me[0] + 1, None], True), ([me[0], me[1] + 1], True)):
        line = {"event": "install", "time": 1.8e9, "release": NAME, "owner": owner}
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        faults = findings(root)
        assert [one.fault for one in faults] == ([Fault.OWNER] * len(faults) if wrong else [])
        assert bool(faults) == wrong
    assert faults[0].path == "."
    detail = f"belongs to user {me[0]} and group {me[1]}, not to user {me[0]} and group {me[1] + 1}"
    assert faults[0].detail == detail


def test_hard_links_that_are_none_any_more_are_a_warning(top, root):
    data = (top / "lib/deep/same").read_bytes()
    (top / "lib/deep/same").unlink()
    (top / "lib/deep/same").write_bytes(data)
    (verified,) = verify(root, [], Notes())
    assert verified.findings == (Finding("lib/deep/same", Fault.LINK, "is no longer the same file as bin/same-too"),)
    assert verified.is_intact()
    assert not verified.is_intact(strict=True)


def test_the_top_itself(top, root):
    top.chmod(0o700)
    assert found(root) == [(".", "mode")]


def test_extra_files_are_a_warning(top, root):
    (top / "lib/__pycache__").mkdir()
    (verified,) = verify(root, [], Notes())
    assert [(one.path, one.fault) for one in verified.findings] == [("lib/__pycache__", Fault.EXTRA)]
    assert verified.is_intact()
    assert not verified.is_intact(strict=True)


class Reading(Notes):
    """Counts what is read."""

    total = done = 0

    def begin(self, phase, total_bytes):
        super().begin(phase, total_bytes)
        self.total = total_bytes

    def advance(self, count_bytes):
        self.done += count_bytes


def test_a_file_that_releases_share_is_named_once(site):
    for name in ("App-1-any", "App-2-any", "App-3-any"):
        site.install(name)
    tops = [site.root / "releases" / f"App-{n}-any" for n in (1, 2, 3)]
    for top in tops[1:2]:
        (top / "same").unlink()
        os.link(tops[0] / "same", top / "same")
    (tops[0] / "same").write_bytes(b"x" * 5000)
    progress = Reading()
    all_of_them = verify(site.root, [], progress)
    assert (progress.done, progress.total, progress.phases) == (30_000, 30_000, ["verifying"])
    assert [[one.path for one in verified.findings] for verified in all_of_them] == [["same"], ["same"], []]
    (releases,) = shared_with(all_of_them).values()
    assert [str(release) for release in releases] == ["App-1-any", "App-2-any"]
    assert shared_with(all_of_them[1:]) == {}


def test_shared_files_are_read_once_unless_they_change(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"1")
    os.link(path, tmp_path / "other")
    known = Known()
    assert known.find(path.stat()) is None
    known.keep(path.stat(), b"digest")
    assert known.find((tmp_path / "other").stat()) == b"digest"
    path.write_bytes(b"2")
    assert known.find(path.stat()) is None
    alone = tmp_path / "alone"
    alone.write_bytes(b"")
    known.keep(alone.stat(), b"digest")
    assert known.find(alone.stat()) is None


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (64 << 20) - 1, 64 << 20, (65 << 20) + 7])
def test_files_of_all_sizes_are_hashed(tmp_path, size):
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.write(b"begin")
        file.truncate(size)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        found = digest_of(descriptor, size, memoryview(bytearray(1 << 18)))
    finally:
        os.close(descriptor)
    assert found == blake3(path.read_bytes()).digest()


def test_a_large_file_that_cannot_be_read(tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(IsADirectoryError):
            digest_of(descriptor, 1 << 30, memoryview(bytearray(10)))
    finally:
        os.close(descriptor)


def test_of_what_pacball_did_not_install(root, top):
    (root / "releases/Other-1-any").mkdir()
    with pytest.raises(NotFound, match="was not installed by pacball"):
        verify(root, [Release.parse("Other-1-any")], Notes())
