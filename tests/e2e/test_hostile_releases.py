"""Hostile names and trees: refused at publish, and at install where a line's key was used to sign them all the same."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import time

import pytest

from tests.e2e import trees
from tests.e2e.handmade import Handmade
from tests.store.hostile_trees import HOSTILE, names

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

MEMORY_BYTES = 1 << 30
SECONDS = 60
CODES = {"Corrupt": 4, "TooLarge": 5, "NewerFormat": 9}
BOUNDED = ("prlimit", f"--as={MEMORY_BYTES}")


@pytest.fixture(scope="module")
def signed(tmp_path_factory, origin):
    """A store whose catalog signs every hostile tree: the name of each release by what is hostile."""
    home = tmp_path_factory.mktemp("hostile")
    store, tree = home / "store", trees.fill(home / "tree", seed=1, files=1, file_bytes=10)
    origin.site.publish(tree, "Hostile-0-any", store)
    handmade = Handmade(store)
    releases = {}
    for number, (what, (document, _)) in enumerate(HOSTILE.items(), 1):
        releases[what] = f"Hostile-{number}-any"
        handmade.sign(releases[what], document)
    handmade.sign("Hostile-9999-any", names(b"good", b"names"), entries=2)
    return store, releases


def outside(root):
    """All that is below `root`, but for what the installer keeps for itself."""
    return sorted(
        str(path.relative_to(root)) for path in root.rglob("*") if path.relative_to(root).parts[0] != ".pacball"
    )


def test_what_is_signed_here_could_be_installed(site, signed, root):
    """What these tests rest on: it is the tree alone that is refused."""
    store, _ = signed
    site.ok("install", "Hostile-9999-any", "--from", store, "--insecure", "--root", root)
    assert sorted(os.listdir(root / "releases/Hostile-9999-any")) == ["good", "names"]


@pytest.mark.parametrize("what", HOSTILE)
def test_installing(site, signed, tmp_path, root, what):
    store, releases = signed
    release, (_, error) = releases[what], HOSTILE[what]
    began = time.monotonic()
    done = site.run("install", release, "--from", store, "--insecure", "--root", root, before=BOUNDED, timeout=SECONDS)
    assert time.monotonic() - began < SECONDS
    assert done.code == CODES[error.__name__], done.err
    assert all(line.isprintable() for line in done.err.splitlines())
    assert release in str(done.json["place"])
    assert outside(root) in ([], ["current", "releases"])
    assert not (root / ".pacball/staging").exists() or os.listdir(root / ".pacball/staging") == []
    assert sorted(path.name for path in tmp_path.iterdir()) in (["home"], ["home", "root"])


def a_socket(path):
    with socket.socket(socket.AF_UNIX) as one:
        here = os.getcwd()
        os.chdir(path.parent)
        try:
            one.bind(path.name)
        finally:
            os.chdir(here)


def a_file(name, mode=0o644):
    def make(directory):
        path = os.path.join(os.fsencode(directory), name)
        with open(path, "wb") as file:
            file.write(b"x")
        os.chmod(path, mode)

    return make


def too_deep(name, depth):
    def make(directory):
        here = os.open(directory, os.O_RDONLY)
        for _ in range(depth):
            os.mkdir(name, dir_fd=here)
            below = os.open(name, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(here)

    return make


PUBLISHED = {
    "newline": (a_file(b"a\nb"), "control characters"),
    "trailing CR": (a_file(b"a\r"), "control characters"),
    "escape sequence": (a_file(b"\x1b[2J"), "control characters"),
    "C1 control": (a_file("a\u009bb".encode()), "control characters"),
    "not UTF-8": (a_file(b"caf\xe9"), "not UTF-8"),
    "surrogate": (a_file(b"\xed\xa0\x80"), "not UTF-8"),
    "FIFO": (lambda directory: os.mkfifo(directory / "it"), "is a FIFO"),
    "socket": (lambda directory: a_socket(directory / "it"), "is a socket"),
    "setuid": (a_file(b"it", 0o4755), "setuid"),
    "setgid": (a_file(b"it", 0o2755), "setgid"),
    "path of 4,352 bytes": (too_deep("x" * 255, 17), "4096 bytes"),
    "depth of 2,100": (too_deep("x", 2100), "4096 bytes"),
    "target not UTF-8": (lambda directory: os.symlink(b"\xff", os.fsencode(directory / "it")), "not UTF-8"),
}


@pytest.fixture
def tree(tmp_path):
    """A directory that may be filled with what Python cannot remove again."""
    (tmp_path / "tree/below").mkdir(parents=True)
    yield tmp_path / "tree"
    subprocess.run(["rm", "-r", tmp_path / "tree"], check=True)


@pytest.mark.parametrize("what", PUBLISHED)
def test_publishing(site, tmp_path, tree, what):
    make, why = PUBLISHED[what]
    make(tree / "below")
    done = site.run("publish", tree, "Hostile-1-any", "--to", tmp_path / "store", before=BOUNDED)
    assert done.code in (5, 7), done.err
    assert why in done.err
    assert all(line.isprintable() for line in done.err.splitlines())
    assert site.run("list", "--from", tmp_path / "store").json.get("releases", []) == []


def test_bits_that_nobody_needs_are_dropped_with_one_warning(site, tmp_path, root):
    tree = trees.fill(tmp_path / "tree", seed=1, files=2, file_bytes=10)
    for name, mode in (("sticky", 0o1777), ("world", 0o777), ("group", 0o2775)):
        (tree / name).mkdir()
        (tree / name).chmod(mode)
        (tree / name / "file").write_text("x")
        (tree / name / "file").chmod(0o666)
    done = site.run("publish", tree, "Wide-1-any", "--to", tmp_path / "store")
    assert done.code == 0
    assert done.err.count("warning") == 1
    site.ok("install", "Wide-1-any", "--from", tmp_path / "store", "--root", root)
    for path in (root / "releases/Wide-1-any").rglob("*"):
        assert stat.S_IMODE(path.lstat().st_mode) == (0o755 if path.is_dir() else 0o644)


def test_names_that_fold_into_one_are_warned_of_and_installed_where_they_are_two(site, tmp_path, root):
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("xt_MARK.h", "xt_mark.h", "caf\u00e9", "cafe\u0301", "stra\u00dfe", "strasse"):
        (tree / name).write_text(name)
    done = site.run("publish", tree, "Folding-1-any", "--to", tmp_path / "store")
    assert done.code == 0
    assert "differ only in case or Unicode normalization" in done.err
    site.ok("install", "Folding-1-any", "--from", tmp_path / "store", "--root", root)
    trees.assert_same(root / "releases/Folding-1-any", tree)


def test_a_hard_link_out_of_the_tree_is_a_file_of_its_own(site, tmp_path, root):
    (tmp_path / "tree").mkdir()
    (tmp_path / "outside").write_text("shared")
    os.link(tmp_path / "outside", tmp_path / "tree/inside")
    site.publish(tmp_path / "tree", "Linked-1-any", tmp_path / "store")
    site.ok("install", "Linked-1-any", "--from", tmp_path / "store", "--root", root)
    found = (root / "releases/Linked-1-any/inside").stat()
    assert found.st_nlink == 1
    assert found.st_ino != (tmp_path / "outside").stat().st_ino
