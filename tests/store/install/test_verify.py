"""Verify finds each kind of damage, and nothing else."""

import os
import shutil

import pytest

from pacstore.errors import Corrupt, NotFound
from pacstore.install.verify import Damage, Fault, verify
from pacstore.release import Release
from tests.store.install.world import NAME, Notes, put

RELEASE = Release.parse(NAME)


@pytest.fixture
def top(entry, source, root):
    return put(entry, source, root).path


def found(root):
    return [(damage.path, str(damage.fault)) for damage in verify(root, RELEASE, Notes())]


def test_a_good_release(top, root):
    assert verify(root, RELEASE, Notes(), workers=1) == []


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
    assert verify(root, RELEASE, Notes()) == [Damage("bin/run", Fault.DAMAGED, "has 0 bytes, not 17")]


def test_what_is_not_installed(top, root, tmp_path):
    with pytest.raises(NotFound):
        verify(root, Release.parse("Sample-9-any"), Notes())
    with pytest.raises(NotFound):
        verify(tmp_path / "nothing", RELEASE, Notes())
    shutil.rmtree(top)
    with pytest.raises(NotFound):
        verify(root, RELEASE, Notes())


def test_a_damaged_record(top, root):
    (root / f".pacball/manifests/{NAME}.manifest").write_bytes(b"PBMANI01")
    with pytest.raises(Corrupt):
        verify(root, RELEASE, Notes())
