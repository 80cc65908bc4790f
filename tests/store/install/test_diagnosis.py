"""What is said of an install root: real directories, and mounts of all kinds as the kernel would list them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pacstore.finding import Finding, Level
from pacstore.install.root.diagnosis import examine_root
from pacstore.mounts import find_mount

PROBES = ["writable", "case", "symbolic links", "hard links", "modes", "reflink", "openat2"]


def examine(root, mounts: str | None = None, uid: int | None = None) -> dict[str, Finding]:
    options = {} if mounts is None else {"mounted": lambda: mounts}
    found = list(examine_root(root, uid=os.geteuid() if uid is None else uid, **options))
    assert len({finding.step for finding in found}) == len(found)
    return {finding.step: finding for finding in found}


def test_a_directory_that_is_ready_and_left_as_it_was(tmp_path):
    root = tmp_path / "root"
    root.mkdir(mode=0o755)
    before = os.stat(root).st_mode
    found = examine(root)
    assert [step for step in found if step in PROBES] == PROBES
    assert {found[step].level for step in PROBES} == {Level.OK}
    assert found["exists"].values == {"installed": False}
    assert found["space"].values["bytes"] > 0
    assert (os.listdir(root), os.stat(root).st_mode) == ([], before)


def test_a_root_that_is_yet_to_be_made_is_examined_where_it_would_be(tmp_path):
    found = examine(tmp_path / "root")
    assert "will be made" in found["exists"].message
    assert found["writable"].level is Level.OK
    assert os.listdir(tmp_path) == []


def test_a_root_that_is_in_use(tmp_path):
    (tmp_path / ".pacball/manifests").mkdir(parents=True)
    assert examine(tmp_path)["exists"].values == {"installed": True}


@pytest.mark.parametrize("name", ["no/such", "file", "file/below"])
def test_what_is_no_directory(tmp_path, name):
    (tmp_path / "file").touch()
    found = examine(tmp_path / name)
    assert list(found) == ["exists"]
    assert found["exists"].level is Level.FAIL
    assert "cannot be used" in found["exists"].message


def test_links_in_the_place_of_directories(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "releases").symlink_to("elsewhere")
    found = examine(tmp_path)["one file system"]
    assert (found.level, "symbolic link" in found.message) == (Level.FAIL, True)


def test_a_root_that_everybody_may_write_to(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    root.chmod(0o777)
    found = examine(root)["owner"]
    assert (found.level, found.hint) == (Level.WARN, f"chmod o-w {root}")


def test_a_root_of_somebody_else(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    if os.geteuid() == 0:
        os.chown(root, 65534, 65534)
    found = examine(root, uid=os.geteuid() if os.geteuid() == 0 else 12345)["owner"]
    assert (found.level, "belongs to the user" in found.message) == (Level.WARN, True)


def test_a_root_in_which_nobody_can_write():
    found = examine(Path("/proc/sys"))["writable"]
    assert (found.level, "cannot be written to" in found.message) == (Level.FAIL, True)


@pytest.mark.parametrize(
    ("kind", "options", "level", "words"),
    [
        ("ext4", "rw,relatime", Level.OK, "ext4"),
        ("nfs4", "rw", Level.WARN, "network file system (nfs4)"),
        ("lustre", "rw", Level.WARN, "network file system (lustre)"),
        ("xfs", "rw,noexec", Level.WARN, "noexec"),
        ("xfs", "ro", Level.FAIL, "read-only"),
    ],
)
def test_mounts(tmp_path, kind, options, level, words):
    place = str(tmp_path).replace(" ", "\\040")
    found = examine(tmp_path, f"/dev/x / ext4 rw 0 0\nserver:/x {place} {kind} {options} 0 0\n")["file system"]
    assert (found.level, words in found.message) == (level, True)
    assert found.values["kind"] == kind


def test_mounts_that_are_not_told(tmp_path):
    assert examine(tmp_path, "")["file system"].level is Level.SKIP


def test_the_last_of_several_mounts_and_names_with_spaces(tmp_path):
    (tmp_path / "a b/c").mkdir(parents=True)
    place = f"{tmp_path}/a\\040b"
    text = (
        f"x / ext4 rw 0 0\nx {place} xfs rw 0 0\nx {place} btrfs rw,noexec 0 0\nx {tmp_path}/a tmpfs rw 0 0\nbroken\n"
    )
    mount = find_mount(tmp_path / "a b/c", text)
    assert (mount.kind, mount.point, "noexec" in mount.options) == ("btrfs", f"{tmp_path}/a b", True)
