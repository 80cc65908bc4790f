"""With --share=hardlink equal files of releases are one file, and nothing is ever changed or believed for that."""

import os
import shutil
import stat
import threading

import pytest

from pacstore.errors import Unavailable
from pacstore.install.installation import plan
from pacstore.install.options import InstallOptions, Share
from tests.store.install.test_takeover import broken_after
from tests.store.install.world import NAME, NEXT, FakeSource, Notes, look, make_tree, noise, put

LINKING = InstallOptions(range_bytes=300_000, share=Share.HARDLINK)


@pytest.fixture(scope="module")
def old_tree(tmp_path_factory):
    top = make_tree(tmp_path_factory.mktemp("old") / "tree")
    (top / "lib/module.py").write_bytes(b"print(1)\n" * 500)
    (top / "lib/fresh.py").write_bytes(b"print(2)\n" * 500)
    (top / "lib/turns").write_bytes(noise("turns", 50_000))
    return top


@pytest.fixture(scope="module")
def new_tree(old_tree, tmp_path_factory):
    """Some other content, other times, and another executable bit."""
    top = tmp_path_factory.mktemp("new") / "tree"
    shutil.copytree(old_tree, top, symlinks=True)
    (top / "lib/new").write_bytes(noise("new", 200_000))
    os.utime(top / "lib/fresh.py", (1_650_000_000, 1_650_000_000))
    os.utime(top / "lib/zeros", (1_650_000_000, 1_650_000_000))
    (top / "lib/turns").chmod(0o755)
    data = bytearray((top / "lib/big.so").read_bytes())
    data[1_000_000:1_000_100] = bytes(100)
    (top / "lib/big.so").write_bytes(data)
    return top


@pytest.fixture
def newer(world, old_tree, new_tree, root):
    """The catalog's entry of the newer release; the older one is installed."""
    put(world.publish(old_tree), FakeSource(world), root)
    return world.publish(new_tree, NEXT)


def status(top):
    """All that an installation must not change of another release's files."""
    found = {}
    for path in top.rglob("*"):
        seen = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(seen.st_mode) else b""
        found[str(path)] = (seen.st_ino, seen.st_mode, seen.st_uid, seen.st_gid, seen.st_mtime_ns, content)
    return found


def assert_like(installed, tree, *, times_of=()):
    """Equal but for the times of what may have another's, and for links between releases."""
    seen, expected = look(installed), look(tree)
    for name in times_of:
        seen[name] = expected[name] = None
    assert seen == expected


def shared(one, other, path):
    return os.path.samefile(one / path, other / path)


def test_equal_files_are_linked(world, newer, root, new_tree):
    old = root / "releases" / NAME
    before = status(old)
    planned = plan(newer, source=FakeSource(world), root=root, progress=Notes(), options=LINKING)
    plain = plan(newer, source=FakeSource(world), root=root, progress=Notes())
    notes = Notes()
    done = put(newer, FakeSource(world), root, notes, LINKING)
    assert_like(done.path, new_tree, times_of=["lib/zeros"])
    assert status(old) == before
    for path in ("lib/copy.so", "lib/zeros", "lib/module.py", "bin/run", "lib/deep/f05"):
        assert shared(old, done.path, path), path
    for path in ("lib/fresh.py", "lib/big.so", "lib/turns"):  # other time of a source, other content, other mode
        assert not shared(old, done.path, path), path
    assert (done.path / "lib/zeros").stat().st_mtime == (old / "lib/zeros").stat().st_mtime
    assert (done.path / "lib/fresh.py").stat().st_mtime == 1_650_000_000
    assert notes.warnings == []
    assert "sharing" in notes.phases
    links = sum(path.stat().st_nlink > 1 for path in done.path.rglob("f??"))
    assert planned.inodes < plain.inodes - links + 1
    assert planned.disk_bytes == planned.disk_bytes_after == plain.disk_bytes - planned.disk_bytes_shared
    assert planned.disk_bytes_shared > 5 << 20


def test_equal_files_of_one_release_stay_apart(world, newer, root, new_tree):
    """Only what was published as hard links is linked within a release."""
    done = put(newer, FakeSource(world), root, None, LINKING)
    assert look(done.path)["linked"] == look(new_tree)["linked"] == []
    names = ("bin/same-too", "lib/deep/same", "lib/deep/er/same-again")
    assert sum(shared(root / "releases" / NAME, done.path, name) for name in names) == 1


def test_hard_links_of_a_release_are_kept(world, newer, root, old_tree):
    """All names of one file are names of one file, and of the other release's."""
    again = world.publish(old_tree, "Sample-1.2-any")
    done = put(again, FakeSource(world), root, None, LINKING)
    assert look(done.path) == look(old_tree)
    assert (done.path / "lib/deep/same").stat().st_nlink == 6
    files = [path for path in done.path.rglob("*") if path.is_file() and not path.is_symlink() and path.stat().st_size]
    assert [path for path in files if path.stat().st_nlink == 1] == []


def test_nothing_is_linked_unless_asked(world, newer, root):
    done = put(newer, FakeSource(world), root)
    assert not shared(root / "releases" / NAME, done.path, "lib/copy.so")


def test_damage_does_not_spread(world, newer, root, new_tree):
    """The content is verified before it is linked; what is damaged is fetched, and stays as it is in the other release."""
    old = root / "releases" / NAME
    for path in ("lib/copy.so", "lib/deep/f20"):
        with (old / path).open("r+b") as file:
            file.seek(10_000)
            file.write(b"damaged")
    done = put(newer, FakeSource(world), root, None, LINKING)
    assert_like(done.path, new_tree, times_of=["lib/zeros"])
    assert not shared(old, done.path, "lib/copy.so")
    assert not shared(old, done.path, "lib/deep/f20")
    assert b"damaged" in (old / "lib/copy.so").read_bytes()


@pytest.mark.parametrize("spoil", ["mode", "time", "link", "gone", "directory"])
def test_what_is_not_as_it_was_is_not_linked(world, newer, root, new_tree, tmp_path, spoil):
    """Also where it changes after the plan was made."""
    old = root / "releases" / NAME
    path = old / "lib/module.py"

    def change(_plan):
        if spoil == "mode":
            path.chmod(0o600)
        elif spoil == "time":
            os.utime(path, (1, 1))
        elif spoil == "link":
            path.rename(tmp_path / "away")
            path.symlink_to(tmp_path / "away")
        elif spoil == "gone":
            path.unlink()
        else:
            (old / "lib").rename(tmp_path / "lib")
            (old / "lib").symlink_to(tmp_path / "lib")

    done = put(newer, FakeSource(world), root, None, LINKING, planned=change)
    assert_like(done.path, new_tree, times_of=["lib/zeros"])
    for where in (path, tmp_path / "away", tmp_path / "lib/module.py"):
        if where.exists():
            assert not os.path.samefile(where, done.path / "lib/module.py")


def test_an_interrupted_installation_with_links_continues(world, newer, root, new_tree):
    old = root / "releases" / NAME
    before = status(old)
    with pytest.raises(Unavailable):
        put(newer, FakeSource(world, broken_after(0)), root, options=LINKING)
    (attempt,) = (root / ".pacball/staging").iterdir()
    assert shared(old, attempt / "tree", "lib/copy.so")
    done = put(newer, FakeSource(world), root, None, LINKING)
    assert_like(done.path, new_tree, times_of=["lib/zeros"])
    assert status(old) == before
    assert shared(old, done.path, "lib/copy.so")
    assert os.listdir(root / ".pacball/staging") == []


@pytest.mark.parametrize("share", [Share.NONE, Share.REFLINK])
def test_an_interrupted_installation_with_links_continues_without(world, newer, root, new_tree, share):
    """The other release's files keep their times, though the new ones need others."""
    old = root / "releases" / NAME
    before = status(old)
    with pytest.raises(Unavailable):
        put(newer, FakeSource(world, broken_after(0)), root, options=LINKING)
    done = put(newer, FakeSource(world), root, None, InstallOptions(range_bytes=300_000, share=share))
    assert look(done.path) == look(new_tree)
    assert status(old) == before
    assert not {path.stat().st_ino for path in done.path.rglob("f??")} & {
        path.stat().st_ino for path in old.rglob("f??")
    }
    assert not shared(old, done.path, "lib/copy.so")


def test_many_installations_that_link_at_once(world, newer, root, new_tree):
    old = root / "releases" / NAME
    before = status(old)
    threads = [threading.Thread(target=put, args=(newer, FakeSource(world), root, None, LINKING)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_like(root / "releases" / NEXT, new_tree, times_of=["lib/zeros"])
    assert status(old) == before
    assert os.listdir(root / ".pacball/staging") == []
