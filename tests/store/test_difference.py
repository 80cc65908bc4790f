from __future__ import annotations

import os
import shutil

import pytest

from pacstore.difference import compare
from pacstore.directory_source import DirectorySource
from pacstore.install.documents import fetch_documents, fetch_placement
from tests.store.releases import NAME, NEXT, noise, write


@pytest.fixture
def compared(origin, tmp_path):
    """The difference of a tree and what `change` makes of it, both published."""

    def publish_both(make, change):
        old, new = tmp_path / "old", tmp_path / "new"
        make(old)
        shutil.copytree(old, new, symlinks=True)
        change(new)
        origin.publish(old, NAME)
        origin.publish(new, NEXT)
        source = DirectorySource(origin.store.path)
        entries = origin.entry(NAME), origin.entry(NEXT)
        documents = [fetch_documents(source, entry) for entry in entries]
        return compare(*documents, fetch_placement(source, entries[1], documents[1].manifest))

    return publish_both


def make(top):
    for name in ("a/b", "a-b", "a.b", "b/c/d", "é", "z"):
        write(top / name, noise(name, 50_000))
    (top / "link").symlink_to("a")


def test_nothing_changes(compared):
    found = compared(make, lambda _: None)
    assert (found.added, found.removed, found.changed) == ([], [], [])
    assert (found.unchanged, found.chunks_new, found.bytes_new, found.requests) == (10, 0, 0, 3)


def test_every_kind_of_change(compared):
    def change(top):
        write(top / "a.b", b"changed")
        (top / "z").unlink()
        shutil.rmtree(top / "b")
        write(top / "a/c", b"added")
        write(top / "zz/é", b"added")
        (top / "link").unlink()
        (top / "link").symlink_to("b")
        (top / "a-b").chmod(0o755)
        (top / "é").unlink()
        (top / "é").mkdir()

    found = compared(make, change)
    assert found.added == ["a/c", "zz", "zz/é"]
    assert found.removed == ["b", "b/c", "b/c/d", "z"]
    assert found.changed == ["a-b", "a.b", "link", "é"]
    assert found.unchanged == 2
    assert found.bytes_new == len(b"changed" + b"added")
    assert found.chunks_new == 2
    assert found.bytes_to_download > found.bytes_new
    assert found.requests == 4


def test_times_do_not_count(compared):
    found = compared(make, lambda top: os.utime(top / "z", (1, 1)))
    assert (found.changed, found.chunks_new) == ([], 0)


def test_chunks_that_move_to_another_file_are_not_downloaded(compared):
    found = compared(make, lambda top: (top / "z").rename(top / "moved"))
    assert (found.added, found.removed) == (["moved"], ["z"])
    assert (found.chunks_new, found.requests) == (0, 3)
