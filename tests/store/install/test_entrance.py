"""The path of an install root: root follows its own links alone, everybody else follows any."""

import os
import time
from pathlib import Path

import pytest

from pacstore.errors import Refused
from pacstore.install.root.entrance import make_entrance, open_entrance

ROOT, USER = 0, 1000
STRANGER = 65534


@pytest.fixture
def top(tmp_path):
    (tmp_path / "real/below").mkdir(parents=True)
    (tmp_path / "file").touch()
    tmp_path.chmod(0o777)
    return tmp_path


def link(path: Path, target: str) -> Path:
    """A link that is not root's."""
    path.symlink_to(target)
    if os.geteuid() == 0:
        os.lchown(path, STRANGER, STRANGER)
    return path


def leads_to(descriptor: int, place: Path) -> bool:
    same = os.path.samestat(os.fstat(descriptor), place.stat())
    os.close(descriptor)
    return same


@pytest.fixture(autouse=True)
def no_descriptors_stay_open():
    before = set(os.listdir("/proc/self/fd"))
    yield
    deadline = time.monotonic() + 60
    # Threads that other tests have left may have some for a moment.
    while more := set(os.listdir("/proc/self/fd")) - before:
        assert time.monotonic() < deadline, more
        time.sleep(0.05)


@pytest.mark.parametrize("uid", [ROOT, USER])
@pytest.mark.parametrize("make", [open_entrance, make_entrance])
@pytest.mark.parametrize("way", ["real", "real/below", "real/below/..", "real/./below", "real//below"])
def test_directories_are_entered(top, uid, make, way):
    assert leads_to(make(top / way, uid=uid), top / way)


@pytest.mark.parametrize("uid", [ROOT, USER])
@pytest.mark.parametrize("way", ["", ".", "real", "real/.."])
def test_a_relative_path_begins_where_the_process_is(top, monkeypatch, uid, way):
    monkeypatch.chdir(top)
    for make in (open_entrance, make_entrance):
        assert leads_to(make(Path(way), uid=uid), top / way)


def test_the_very_top_is_entered():
    for uid in (ROOT, USER):
        assert leads_to(make_entrance(Path("/"), uid=uid), Path("/"))


@pytest.mark.parametrize("uid", [ROOT, USER])
def test_what_is_missing_is_made_with_its_mode(top, uid):
    umask = os.umask(0o077)
    assert leads_to(make_entrance(top / "real/new", uid=uid), top / "real/new")
    os.umask(umask)
    assert (top / "real/new").stat().st_mode & 0o7777 == 0o755
    with pytest.raises(FileNotFoundError):
        make_entrance(top / "none/new", uid=uid)
    with pytest.raises(FileNotFoundError):
        open_entrance(top / "none", uid=uid)
    for make in (open_entrance, make_entrance):
        with pytest.raises(NotADirectoryError):
            make(top / "file", uid=uid)


@pytest.mark.parametrize("make", [open_entrance, make_entrance])
@pytest.mark.parametrize("way", ["link", "link/below", "real/../link"])
@pytest.mark.parametrize("target", ["real", "/absolute"])
def test_other_users_links_are_not_for_root(top, make, way, target):
    link(top / "link", target if target == "real" else str(top / "real"))
    assert leads_to(make(top / way, uid=USER), top / way)
    with pytest.raises(Refused, match="another user: link") as caught:
        make(top / way, uid=ROOT)
    assert caught.value.place in (str(top / way), str((top / way).parent))
    assert "chown -h root" in caught.value.hint


def test_links_where_only_root_writes_are_for_root(tmp_path):
    # Every Linux has such links; they are root's, in directories of root's.
    found = [path for path in (Path("/bin"), Path("/lib"), Path("/proc/self")) if path.is_symlink()]
    assert found
    for path in found:
        assert leads_to(open_entrance(path, uid=ROOT), path)


@pytest.mark.root
def test_links_of_root_are_for_root(top):
    (top / "link").symlink_to(top / "real")
    (top / "chain").symlink_to("real/../link/below")
    assert leads_to(open_entrance(top / "chain", uid=ROOT), top / "real/below")
    (top / "round").symlink_to("round")
    with pytest.raises(OSError, match="Too many levels"):
        open_entrance(top / "round", uid=ROOT)
