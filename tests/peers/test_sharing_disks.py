"""Releases that share blocks or files, on real file systems that can and that cannot."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.e2e import trees
from tests.peers.volumes import volume

pytestmark = pytest.mark.root

FIRST, SECOND, THIRD = "Shared-1.0-any", "Shared-1.1-any", "Shared-1.2-any"
MIB = trees.MIB


@pytest.fixture(scope="module")
def versions(tmp_path_factory, origin):
    """A store with three versions, each with one of ten files changed, and their trees."""
    home = tmp_path_factory.mktemp("versions")
    made = [trees.fill(home / "1", seed=3, files=100, file_bytes=300 * trees.KIB)]
    (made[0] / "large").write_bytes(trees.content(9, 24 * MIB, bits=8))
    for number in (2, 3):
        made.append(trees.copy(made[-1], home / str(number)))
        trees.change(made[-1], seed=number, share=0.1)
        with (made[-1] / "large").open("r+b") as file:
            file.seek(number * 5 * MIB)
            file.write(b"changed")
    for tree, name in zip(made, (FIRST, SECOND, THIRD), strict=True):
        origin.site.publish(tree, name, home / "store")
    return home / "store", made


def used(path):
    os.sync()
    found = os.statvfs(path)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def shared_extents(path):
    """Whether the kernel says that blocks of the file belong to others too."""
    done = subprocess.run(["filefrag", "-v", path], check=True, capture_output=True, text=True)
    return "shared" in done.stdout


def installed(site, store, root, name, *words):
    before = used(root.parent)
    done = site.ok("install", name, "--from", store, "--root", root, *words)
    return done, used(root.parent) - before


@pytest.mark.parametrize("kind", ["btrfs", "xfs"])
def test_blocks_are_shared_where_they_can_be(tmp_path, site, versions, kind):
    store, made = versions
    with volume(kind, tmp_path, mib=600) as disk:
        root = disk.path / "root"
        installed(site, store, root, FIRST)
        planned = site.ok("install", SECOND, "--from", store, "--root", root, "--plan")
        done, added = installed(site, store, root, SECOND)
        assert added < 40 * MIB < 50 * MIB < done["bytes_total"]
        assert planned["disk_bytes_shared"] > 20 * MIB
        assert planned["disk_bytes"] < 35 * MIB
        one, other = (root / "releases" / name / "d004/f00099.bin" for name in (FIRST, SECOND))
        assert one.stat().st_ino != other.stat().st_ino
        assert shared_extents(other)
        trees.assert_same(root / "releases" / SECOND, made[1])
        # Who writes into one of two does not change the other.
        with one.open("r+b") as file:
            file.write(b"written")
        (found,) = site.run("verify", FIRST, "--root", root).json["releases"]
        assert [one["path"] for one in found["damage"]] == ["d004/f00099.bin"]
        assert site.ok("verify", SECOND, "--root", root)["intact"] is True
        # A seed that was damaged gives nothing damaged.
        done, _ = installed(site, store, root, THIRD)
        trees.assert_same(root / "releases" / THIRD, made[2])


@pytest.mark.parametrize("kind", ["btrfs", "xfs"])
def test_a_foreign_directory_shares_too(tmp_path, site, versions, kind):
    store, made = versions
    with volume(kind, tmp_path, mib=600) as disk:
        foreign = trees.copy(made[0], disk.path / "unpacked")
        done, added = installed(site, store, disk.path / "root", SECOND, "--seed", foreign)
        assert added < 40 * MIB
        assert done["bytes_downloaded"] < 10 * MIB
        trees.assert_same(disk.path / "root/releases" / SECOND, made[1])
        trees.assert_same(foreign, made[0])


def test_what_is_damaged_in_a_seed_is_not_cloned(tmp_path, site, versions):
    store, made = versions
    with volume("xfs", tmp_path, mib=600) as disk:
        root = disk.path / "root"
        installed(site, store, root, FIRST)
        with (root / "releases" / FIRST / "d004/f00099.bin").open("r+b") as file:
            file.write(b"damaged")
        done = site.run("install", SECOND, "--from", store, "--root", root)
        assert done.code == 0
        assert f"{FIRST} is not what it was when it was installed" in done.err
        trees.assert_same(root / "releases" / SECOND, made[1])


@pytest.mark.parametrize(("kind", "words"), [("ext4", ()), ("xfs", ("--share", "none")), ("btrfs", ("--share=none",))])
def test_everything_is_copied_where_it_must_be(tmp_path, site, versions, kind, words):
    store, made = versions
    with volume(kind, tmp_path, mib=600) as disk:
        root = disk.path / "root"
        installed(site, store, root, FIRST)
        done, added = installed(site, store, root, SECOND, *words)
        assert added > 45 * MIB
        assert done["bytes_reused"] > 45 * MIB
        trees.assert_same(root / "releases" / SECOND, made[1])
        assert not shared_extents(root / "releases" / SECOND / "d004/f00099.bin")


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_files_are_shared_if_asked(tmp_path, site, versions, kind):
    store, made = versions
    with volume(kind, tmp_path, mib=600) as disk:
        root = disk.path / "root"
        installed(site, store, root, FIRST)
        inodes = os.statvfs(disk.path).f_ffree
        _, added = installed(site, store, root, SECOND, "--share", "hardlink")
        assert added < 40 * MIB
        assert kind == "btrfs" or inodes - os.statvfs(disk.path).f_ffree < 30
        one, other = (root / "releases" / name / "d004/f00099.bin" for name in (FIRST, SECOND))
        assert one.stat().st_ino == other.stat().st_ino
        trees.assert_same(root / "releases" / SECOND, made[1])
        trees.assert_same(root / "releases" / FIRST, made[0])


def link_often(one, names):
    for number in range(70_000):
        os.link(one, names / str(number))


def test_a_file_with_as_many_names_as_there_can_be_is_copied(tmp_path, site, versions):
    """65,000 on ext4."""
    store, made = versions
    with volume("ext4", tmp_path, mib=600) as disk:
        root = disk.path / "root"
        installed(site, store, root, FIRST)
        one = root / "releases" / FIRST / "d004/f00099.bin"
        names = disk.path / "names"
        names.mkdir()
        with pytest.raises(OSError, match="Too many links"):
            link_often(one, names)
        installed(site, store, root, SECOND, "--share", "hardlink")
        other = root / "releases" / SECOND / "d004/f00099.bin"
        assert one.stat().st_ino != other.stat().st_ino
        assert other.stat().st_nlink == 1
        trees.assert_same(root / "releases" / SECOND, made[1])


def test_files_of_another_owner_are_not_linked(tmp_path, site, versions):
    store, made = versions
    with volume("ext4", tmp_path, mib=600) as disk:
        root = disk.path / "root"
        installed(site, store, root, FIRST)
        installed(site, store, root, SECOND, "--share", "hardlink", "--owner", "nobody")
        owners = {path.lstat().st_uid for path in (root / "releases" / FIRST).rglob("*")}
        assert owners == {0}
        assert {path.lstat().st_uid for path in (root / "releases" / SECOND).rglob("*")} != {0}
        assert {path.stat().st_nlink for path in (root / "releases" / SECOND).rglob("*.bin")} == {1}
        trees.assert_same(root / "releases" / SECOND, made[1])
