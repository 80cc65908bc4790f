from __future__ import annotations

import os
import threading

import pytest
from blake3 import blake3

from pacstore.chunker import Chunker
from pacstore.errors import Refused, Unavailable
from pacstore.limits import MIB
from pacstore.reader import FileEnd, Linked, _open, batches
from pacstore.walk import walk
from tests.store.releases import Notes, as_nobody, noise, write

SIZES = [
    0,
    1,
    16_384,
    16_385,
    262_144,
    *(4 * MIB + d for d in (-1, 0, 1)),
    *(8 * MIB + d for d in (-1, 0, 1)),
    9_000_001,
]


def read(top, notes=None):
    with batches(top, notes or Notes()) as stream:
        return list(stream)


def readers():
    return [thread for thread in threading.enumerate() if thread.name == "reader"]


@pytest.mark.parametrize("fill", ["noise", "zeros"])
def test_files_of_every_size_are_cut_as_if_they_were_read_at_once(tmp_path, fill):
    datas = [noise(f"{n}", size) if fill == "noise" else bytes(size) for n, size in enumerate(SIZES)]
    for number, data in enumerate(datas):
        write(tmp_path / f"{number:02}", data)
    found = read(tmp_path)
    assert [one.name for batch in found for one in batch.entries] == [b"%02d" % n for n in range(len(SIZES))]
    ends = [end for batch in found for end in batch.ends]
    assert [(e.size, e.content) for e in ends] == [(len(d), blake3(d).digest()) for d in datas]
    chunks = [bytes(data) for batch in found for data in batch.data]
    expected = []
    for data in datas:
        at = 0
        for length in Chunker().cut(memoryview(data), last=True):
            expected.append(data[at : at + length])
            at += length
    assert chunks == expected
    assert [e.chunks for e in ends] == [len(Chunker().cut(memoryview(d), last=True)) for d in datas]
    assert [i for batch in found for i in batch.ids] == [blake3(chunk).digest() for chunk in expected]
    assert all(batch.size == sum(len(d) for d in batch.data) <= 9 * MIB for batch in found)


def test_hard_links_are_read_once_across_batches(tmp_path):
    write(tmp_path / "0", noise("linked", 5 * MIB))
    os.link(tmp_path / "0", tmp_path / "1")
    for number in range(600):
        write(tmp_path / f"m{number:03}", b"%d" % number)
    os.link(tmp_path / "0", tmp_path / "z")
    os.link(tmp_path / "m007", tmp_path / "zz")
    found = read(tmp_path)
    assert len(found) == 3
    ends = [end for batch in found for end in batch.ends]
    assert [(n, e.earlier) for n, e in enumerate(ends) if isinstance(e, Linked)] == [(1, 0), (602, 0), (603, 9)]
    assert sum(len(d) for batch in found for d in batch.data) == 5 * MIB + 10 + 90 * 2 + 500 * 3


def test_a_link_from_outside_the_tree_makes_no_group(tmp_path):
    write(tmp_path / "out", b"x")
    (tmp_path / "top").mkdir()
    os.link(tmp_path / "out", tmp_path / "top/in")
    assert isinstance(read(tmp_path / "top")[0].ends[0], FileEnd)


def test_sparse_files_are_read_as_their_bytes(tmp_path):
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(5 * MIB)
        file.seek(3 * MIB)
        file.write(b"data")
    data = (tmp_path / "sparse").read_bytes()
    assert read(tmp_path)[-1].ends == [FileEnd(5 * MIB, blake3(data).digest(), 20)]


def rewrite(path):
    data = path.read_bytes()
    status = path.stat()
    write(path, bytes([data[0] ^ 1]) + data[1:])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def become_link(path):
    path.unlink()
    path.symlink_to("/etc/passwd")


def become_fifo(path):
    path.unlink()
    os.mkfifo(path)


def become_directory(path):
    path.unlink()
    path.mkdir()


def become_another(path):
    write(path.with_name("new"), path.read_bytes())
    path.with_name("new").replace(path)


def append(path):
    with open(path, "ab") as file:
        file.write(b"more")


CHANGES = {
    "grows": append,
    "shrinks": lambda path: os.truncate(path, 5 * MIB),
    "changes in place": rewrite,
    "vanishes": lambda path: path.unlink(),
    "becomes a link": become_link,
    "becomes a FIFO": become_fifo,
    "becomes a directory": become_directory,
    "becomes another file": become_another,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("size", [4 * MIB + 5, 12 * MIB])
def test_a_file_that_changes_while_it_is_read(tmp_path, change, size):
    """After its first segment: the reader tells progress of it before it reads the next. An open file that loses its name
    is read to its end, but counts as changed too."""
    path = write(tmp_path / "top/dir/file", bytes(size))
    notes = Notes(lambda step: CHANGES[change](path) if step == 1 else None)
    with pytest.raises(Refused, match=r"changed while it was read.*nobody is writing to") as caught:
        read(tmp_path / "top", notes)
    assert caught.value.place == str(path)
    assert readers() == []


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_between_looking_and_opening(tmp_path, change):
    path = write(tmp_path / "top/file", bytes(6 * MIB))
    found = next(walk(tmp_path / "top", Notes()))
    CHANGES[change](path)
    with pytest.raises(Refused, match="changed while it was read") as caught:
        os.close(_open(found))
    assert caught.value.place == str(path)


def test_an_unreadable_file_is_named(shared_path):
    write(shared_path / "tree/secret", b"x").chmod(0)

    def attempt():
        with pytest.raises(Unavailable, match="permission denied") as caught:
            read(shared_path / "tree")
        return caught.value.place

    assert as_nobody(attempt, owner_of=shared_path) == f"{shared_path}/tree/secret"


def interrupted(top):
    with batches(top, Notes()) as stream:
        next(stream)
        raise KeyboardInterrupt


def test_a_consumer_that_goes_away_ends_the_reader(tmp_path):
    for number in range(20):
        write(tmp_path / f"{number:02}", bytes(MIB))
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path)
    assert readers() == []
    with batches(tmp_path, Notes()):
        pass
    assert readers() == []
    assert len(os.listdir("/proc/self/fd")) == before


class Odd(BaseException):
    """Neither ours nor an Exception."""


@pytest.mark.parametrize("kind", [ValueError, MemoryError, Odd, SystemExit])
def test_whatever_ends_the_reader_reaches_the_consumer(tmp_path, kind):
    for number in range(3):
        write(tmp_path / f"{number}", noise(f"{number}", 5 * MIB))

    def act(step):
        if step == 2:
            raise kind

    with pytest.raises(kind):
        read(tmp_path, Notes(act))
    assert readers() == []


def test_an_empty_directory(tmp_path):
    assert [batch.entries for batch in read(tmp_path)] == [[]]
