from __future__ import annotations

import os
import socket
import stat

import pytest

from pacstore.errors import Refused, Unavailable
from pacstore.tree import EntryKind
from pacstore.walk import measure, walk
from tests.store.releases import Notes, as_nobody, write


def found(top, notes=None):
    return list(walk(top, notes or Notes()))


def paths(top):
    return [os.fsdecode(one.path)[len(str(top)) + 1 :] for one in found(top)]


def test_entries_come_in_the_order_of_a_tree(tmp_path):
    for name in ("a-b", "a.b", "a/b", "a/é", "b", "a/b.c/d", "A", "\U0001f600", "\uffee", "ａ", "z" * 255):
        write(tmp_path / name / "x", b"")
    names = paths(tmp_path)
    assert names == sorted(names, key=lambda path: [part.encode() for part in path.split("/")])
    assert names[:6] == ["A", "A/x", "a", "a/b", "a/b/x", "a/b.c"]
    assert names.index("\uffee") < names.index("\U0001f600")


def test_kinds_sizes_and_targets(tmp_path):
    write(tmp_path / "plain", b"12345").chmod(0o644)
    for name, mode in (("owner", 0o744), ("group", 0o654), ("others", 0o645), ("only", 0o100)):
        write(tmp_path / name, b"").chmod(mode)
    (tmp_path / "empty").mkdir()
    for name, target in (("absolute", "/etc/passwd"), ("dangling", "no such"), ("loop", "loop"), ("tabbed", "a\tb")):
        (tmp_path / name).symlink_to(target)
    kinds = {os.fsdecode(one.name): (one.kind, one.target) for one in found(tmp_path)}
    assert kinds == {
        "plain": (EntryKind.FILE, b""),
        "owner": (EntryKind.EXECUTABLE, b""),
        "group": (EntryKind.FILE, b""),
        "others": (EntryKind.FILE, b""),
        "only": (EntryKind.EXECUTABLE, b""),
        "empty": (EntryKind.DIRECTORY, b""),
        "absolute": (EntryKind.SYMLINK, b"/etc/passwd"),
        "dangling": (EntryKind.SYMLINK, b"no such"),
        "loop": (EntryKind.SYMLINK, b"loop"),
        "tabbed": (EntryKind.SYMLINK, b"a\tb"),
    }
    extent = measure(tmp_path, Notes())
    assert (extent.entries, extent.files, extent.total_bytes) == (10, 5, 5)


def test_a_link_to_a_directory_may_be_the_top_but_is_never_followed_below(tmp_path):
    write(tmp_path / "real/dir/file", b"x")
    (tmp_path / "real/link").symlink_to("dir")
    (tmp_path / "top").symlink_to("real")
    assert paths(tmp_path / "top") == ["dir", "dir/file", "link"]


def a_socket(path):
    with socket.socket(socket.AF_UNIX) as one:
        old = os.getcwd()
        os.chdir(path.parent)
        try:
            one.bind(path.name)
        finally:
            os.chdir(old)


def a_device(path):
    """A device where that is allowed, and otherwise what is refused for the same reason."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        a_socket(path)


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (os.mkfifo, "is a FIFO"),
        (a_socket, "is a socket"),
        (a_device, "is a (device|socket)"),
        (lambda path: write(path, b"x").chmod(0o4755), "setuid.*chmod ug-s"),
        (lambda path: write(path, b"x").chmod(0o2755), "setgid.*chmod ug-s"),
    ],
)
def test_special_files_are_refused_with_their_path(tmp_path, make, fault):
    (tmp_path / "dir").mkdir()
    make(tmp_path / "dir/it")
    with pytest.raises(Refused, match=fault) as caught:
        found(tmp_path)
    assert caught.value.place == str(tmp_path / "dir/it")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "shown", "fault"),
    [
        (b"\xff\xfe", r"\\udcff\\udcfe", "not UTF-8"),
        (b"caf\xe9", r"caf\\udce9", "not UTF-8"),
        (b"new\nline", r"new\\nline", "control characters"),
        (b"bell\x07", r"bell\\x07", "control characters"),
        (b"c1\xc2\x85", r"c1\\x85", "control characters"),
        (b"return\r", r"return\\r", "control characters"),
    ],
)
def test_names_that_no_release_may_have(tmp_path, name, shown, fault):
    (tmp_path / "dir").mkdir()
    write(tmp_path / "dir" / os.fsdecode(name), b"")
    with pytest.raises(Refused, match=fault) as caught:
        found(tmp_path)
    assert f"{tmp_path}/dir/" in str(caught.value)
    assert str(caught.value).isprintable()
    assert "rename it" in caught.value.hint
    assert shown.replace("\\\\", "\\") in str(caught.value)


@pytest.mark.parametrize("target", [b"\xff", b"a\xc3"])
def test_targets_that_no_release_may_have(tmp_path, target):
    os.symlink(target, os.fsencode(tmp_path) + b"/link")
    with pytest.raises(Refused, match="link target is not UTF-8") as caught:
        found(tmp_path)
    assert caught.value.place == f"{tmp_path}/link"


def test_a_path_that_is_too_long_or_too_deep(tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for _ in range(18):
        os.mkdir("d" * 250, dir_fd=descriptor)
        inner = os.open("d" * 250, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)
    with pytest.raises((Refused, Unavailable), match=r"longer than the 4096 bytes"):
        found(tmp_path)


def test_no_directory(tmp_path):
    write(tmp_path / "file", b"")
    for name in ("missing", "file"):
        with pytest.raises(Refused, match="is not a directory"):
            found(tmp_path / name)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o604])
def test_possible_secrets_are_warned_of_once(tmp_path, mode):
    for name in ("a", "b", "c"):
        write(tmp_path / name, b"key").chmod(mode)
    notes = Notes()
    found(tmp_path, notes)
    assert len(notes.warnings) == 1
    assert notes.warnings[0].startswith(f"{tmp_path}/a cannot be read by group or others (a secret?)")
    assert notes.warnings[0].endswith("(and 2 more)")


@pytest.mark.parametrize("mode", [0o2755, 0o1777, 0o777])
def test_bits_of_directories_that_are_dropped_are_warned_of(tmp_path, mode):
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir").chmod(mode)
    notes = Notes()
    found(tmp_path, notes)
    assert [warning.split(" has ")[0] for warning in notes.warnings] == [f"{tmp_path}/dir"]


@pytest.mark.parametrize("names", [("xt_MARK.h", "xt_mark.h"), ("é", "e\u0301"), ("STRASSE", "straße")])
def test_names_that_some_file_systems_cannot_hold_both_are_warned_of(tmp_path, names):
    for name in names:
        write(tmp_path / "dir" / name, b"").chmod(0o644)
    notes = Notes()
    assert len(found(tmp_path, notes)) == 3
    assert len(notes.warnings) == 1
    assert "differ only in case or Unicode normalization" in notes.warnings[0]
    assert str(tmp_path / "dir") in notes.warnings[0]


def test_an_ordinary_tree_gives_no_warning(tmp_path):
    write(tmp_path / "dir/file", b"").chmod(0o644)
    write(tmp_path / "dir/tool", b"").chmod(0o755)
    notes = Notes()
    found(tmp_path, notes)
    assert notes.warnings == []


def test_an_unreadable_directory_is_named(shared_path):
    write(shared_path / "tree/dir/file", b"")
    (shared_path / "tree/dir").chmod(0)

    def attempt():
        with pytest.raises(Unavailable, match="permission denied") as caught:
            found(shared_path / "tree")
        return caught.value.place

    assert as_nobody(attempt, owner_of=shared_path) == f"{shared_path}/tree/dir"


def step_to(top, name, change):
    """Walk to the entry `name`, change the tree, and walk on."""
    steps = walk(top, Notes())
    for one in steps:
        if one.name == name:
            change()
            return list(steps)
    raise AssertionError(name)


def test_a_directory_that_vanishes(tmp_path):
    (tmp_path / "dir").mkdir()
    with pytest.raises(Refused, match=r"vanished or changed.*nobody is writing to"):
        step_to(tmp_path, b"dir", (tmp_path / "dir").rmdir)


def test_a_directory_that_becomes_a_link_is_not_followed(tmp_path):
    write(tmp_path / "outside/secret", b"x")
    (tmp_path / "top/dir").mkdir(parents=True)

    def swap():
        (tmp_path / "top/dir").rmdir()
        (tmp_path / "top/dir").symlink_to("../outside")

    with pytest.raises(Refused, match="vanished or changed") as caught:
        step_to(tmp_path / "top", b"dir", swap)
    assert caught.value.place == f"{tmp_path}/top/dir"


def test_a_file_that_vanishes(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name, b"")
    with pytest.raises(Refused, match="vanished or changed") as caught:
        step_to(tmp_path, b"a", (tmp_path / "b").unlink)
    assert caught.value.place == f"{tmp_path}/b"


def test_no_descriptor_stays_open(tmp_path):
    write(tmp_path / "a/b/c/d", b"")
    before = len(os.listdir("/proc/self/fd"))
    steps = walk(tmp_path, Notes())
    next(steps)
    next(steps)
    steps.close()
    found(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before
