"""Releases taken in from archives: the tree of the directory, its very chunks, and the very file back."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import zlib
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pacstore.archive.returning import _alone
from pacstore.directory_source import DirectorySource
from pacstore.documents import read_manifest
from pacstore.errors import Corrupt, NotFound, Refused, TooLarge, Unavailable
from pacstore.install.documents import fetch_documents
from pacstore.original import Recompression
from pacstore.pacball.building import build
from pacstore.pacball.fetching import fetch
from pacstore.progress import Silent
from pacstore.publish import publish
from pacstore.release import Release
from tests import independent_reader
from tests.store.archive.making import (
    COMPRESSIONS,
    FORMATS,
    Entry,
    give_back,
    original_of,
    tar_of,
    tar_of_directory,
)
from tests.store.releases import NAME, NEXT, NOW, OPTIONS, Notes, leftovers, noise, snapshot, write

THIRD = "Demo-1.2-x86_64"
SCRIPT = b'#!/bin/sh\n# of nobody\nexec tail -n +4 "$0"\n'


def given_back(origin, path, name=NAME):
    """Whether the file that comes back is `path`, bit for bit."""
    output = path.parent / f"back of {path.name}"
    done = give_back(origin, output, name)
    assert done.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    return output.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("compression", "script"),
    [
        ("none", b""),
        ("gzip", SCRIPT),
        *(pytest.param(name, b"", marks=pytest.mark.slow) for name in COMPRESSIONS if name != "none"),
        *(pytest.param(name, SCRIPT, marks=pytest.mark.slow) for name in COMPRESSIONS if name != "gzip"),
    ],
)
def test_the_tree_of_the_directory_and_the_very_file(compression, script, origin, trees, tmp_path):
    origin.publish(trees[0])
    path = write(tmp_path / "a.anything", script + COMPRESSIONS[compression](tar_of_directory(trees[0])))
    done = origin.publish(path, NEXT)
    assert done.tree_digest == origin.entry().tree_digest
    assert origin.entry(NEXT).attributes == origin.entry().attributes
    assert (done.original, done.opaque_bytes) == ("a.anything", 0)
    assert done.bytes_new == done.original_new <= done.original_bytes
    tree_chunks = read_manifest(origin.store.storage, origin.entry()).chunk_ids.tobytes()
    assert read_manifest(origin.store.storage, origin.entry(NEXT)).chunk_ids.tobytes().startswith(tree_chunks)
    assert given_back(origin, path, NEXT)
    assert origin.assembled(NEXT) == origin.assembled()
    assert origin.check().damage == []
    assert not leftovers(origin.store)


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True], ids=["a tar", "a stream that is kept"])
def test_the_text_of_the_format_is_enough_to_read_one(stream, origin, trees, tmp_path):
    data = tar_of_directory(trees[0])
    half = len(data) // 2
    kept = gzip.compress(data[:half], mtime=0) + gzip.compress(data[half:], mtime=0)
    path = write(tmp_path / "a", SCRIPT + (kept if stream else data))
    origin.publish(path)
    read = independent_reader.Store(origin.store.public, NAME)
    assert read.original() == path.read_bytes()
    read.extract(tmp_path / "out")
    assert snapshot(tmp_path / "out") == snapshot(trees[0])


@pytest.mark.slow
def test_what_it_costs(origin, trees, tmp_path):
    origin.publish(trees[0])
    path = write(tmp_path / "a.tar", tar_of_directory(trees[0]))
    before = sum(map(len, origin.public().values()))
    done = origin.publish(path, NEXT)
    assert done.bytes_stored < path.stat().st_size * 0.01
    # Documents are made anew for the other name: as they would be for a directory.
    documents = origin.entry(NEXT).manifest.length + origin.entry(NEXT).placement.length
    assert sum(map(len, origin.public().values())) - before < path.stat().st_size * 0.01 + documents + 20_000


def test_a_pacball_of_ours(origin, trees, tmp_path):
    pacball = build(trees[0], Release.parse(NAME), tmp_path, progress=Silent()).path
    done = origin.publish(pacball)
    assert done.original == pacball.name
    assert given_back(origin, pacball)
    source = DirectorySource(origin.store.path)
    (tmp_path / "made").mkdir()
    made = fetch(origin.entry(), source=source, output=tmp_path / "made", progress=Silent())
    assert made.path.read_bytes() == pacball.read_bytes()
    data = bytearray(pacball.read_bytes())
    data[-5000] ^= 1
    with pytest.raises(Corrupt, match="its payload is not the one that its stub names"):
        origin.publish(write(tmp_path / "bad.sh", bytes(data)), NEXT)


def test_a_pacball_with_the_stub_of_another(origin, trees, tmp_path):
    one = build(trees[0], Release.parse(NAME), tmp_path / "a.sh", progress=Silent()).stub
    path = tmp_path / "a.sh"
    data = path.read_bytes().replace(one.tree_digest.hex.encode(), b"0" * 64)
    with pytest.raises(Corrupt, match=f"says that it has the tree {'0' * 64}"):
        origin.publish(write(path, data))
    assert origin.listed() == []


@pytest.mark.parametrize("of", ["the whole", "its payload"])
def test_the_md5_in_a_name_of_2008(of, origin, tmp_path):
    tar = tar_of(Entry("a", b"1"))
    md5 = hashlib.md5(tar if of == "its payload" else SCRIPT + tar, usedforsecurity=False).hexdigest()
    path = write(tmp_path / f"Release.md5-{md5}.sh", SCRIPT + tar)
    origin.publish(path)
    assert given_back(origin, path)
    other = write(tmp_path / f"Release.md5-{'0' * 32}.sh", SCRIPT + tar)
    with pytest.raises(Corrupt, match="not the one in its name"):
        origin.publish(other, NEXT)


def test_a_stream_that_nothing_makes_again_is_kept(origin, tmp_path):
    tar = tar_of(Entry("a", noise("a", 3000)), Entry("b", b"text " * 5000))
    half = len(tar) // 2
    path = write(tmp_path / "two.tgz", gzip.compress(tar[:half], mtime=0) + gzip.compress(tar[half:], mtime=0))
    done = origin.publish(path)
    assert done.opaque_bytes == path.stat().st_size
    assert (done.files, done.recompression) == (2, "")
    assert given_back(origin, path)


@pytest.mark.slow
def test_a_gzip_that_knows_fewer_options_than_ours(origin, tmp_path, monkeypatch):
    """As on systems with another gzip: that one way cannot be tried is no reason not to publish."""
    for program in ("gzip", "pigz"):
        (tmp_path / program).write_text('#!/bin/sh\n[ "$1" = --version ] && echo 1.0 && exit 0\nexit 1\n')
        (tmp_path / program).chmod(0o755)
    monkeypatch.setattr("pacstore.archive.recompressing._PATH", f"{tmp_path}:/usr/bin:/bin")
    data = tar_of(Entry("a", noise("a", 5000)))
    half = len(data) // 2
    # Flushed in the middle, as none of what is tried does it.
    made = zlib.compressobj(wbits=31)
    stream = made.compress(data[:half]) + made.flush(zlib.Z_FULL_FLUSH) + made.compress(data[half:]) + made.flush()
    path = write(tmp_path / "a.tgz", stream)
    assert origin.publish(path).opaque_bytes == path.stat().st_size
    assert given_back(origin, path)


@pytest.mark.slow
def test_a_stream_that_is_to_be_kept(origin, trees, tmp_path):
    path = write(tmp_path / "a.tgz", gzip.compress(tar_of_directory(trees[0]), mtime=0))
    kept = publish(
        path, Release.parse(NAME), origin.store, origin.catalog, keys=origin.keys, options=OPTIONS, progress=Notes(),
        now=lambda: NOW, keep_stream=True,
    )  # fmt: skip
    assert kept.opaque_bytes == path.stat().st_size
    assert given_back(origin, path)


@pytest.mark.slow
def test_zeros_behind_a_stream_belong_to_it(origin, tmp_path):
    path = write(tmp_path / "tape.tgz", gzip.compress(tar_of(Entry("a", b"1" * 900)), mtime=0) + bytes(5000))
    assert origin.publish(path).opaque_bytes == 0
    assert given_back(origin, path)
    with pytest.raises(Refused, match="something behind the end of its stream"):
        origin.publish(write(tmp_path / "more.tgz", path.read_bytes() + b"x"), NEXT)


def test_the_same_again_and_the_other_form(origin, trees, tmp_path):
    path = write(tmp_path / "a.tar", tar_of_directory(trees[0]))
    origin.publish(trees[0])
    origin.publish(path, NEXT)
    before, notes = origin.public(), Notes()
    assert origin.publish(path, NEXT, progress=notes).existed
    assert origin.publish(trees[0], NEXT, progress=notes).existed
    assert notes.warnings == []
    done = origin.publish(path, progress=notes)
    assert done.existed
    assert not done.original
    other = write(tmp_path / "b.tar", tar_of_directory(trees[0], format=tarfile.PAX_FORMAT))
    assert origin.publish(other, NEXT, progress=notes).original == "a.tar"
    assert ["was published from a directory, so the file a.tar is not kept" in notes.warnings[0],
            "keeps another file, a.tar" in notes.warnings[1], len(notes.warnings)] == [True, True, 2]  # fmt: skip
    assert origin.public() == before
    with pytest.raises(Refused, match="the archive is"):
        origin.publish(write(tmp_path / "c.tar", tar_of(Entry("a"))), NEXT)


def test_what_a_directory_would_have_given(origin, tmp_path):
    members = [
        Entry("z", b"last"),
        Entry("./deep/er//file", b"1"),
        Entry("deep-er", b"between"),
        Entry("run", b"#!", mode=0o755),
        Entry("abs", kind=tarfile.SYMTYPE, target="/etc/passwd"),
        Entry("also", kind=tarfile.LNKTYPE, target="./deep/er/file"),
        Entry("abs2", kind=tarfile.LNKTYPE, target="abs"),
        Entry("empty", kind=tarfile.DIRTYPE),
        Entry("nothing"),
        Entry("older style/"),
    ]
    path = write(tmp_path / "a.tar", tar_of(*members, format=tarfile.PAX_FORMAT))
    tree = tmp_path / "tree"
    for name, data in (
        ("z", b"last"),
        ("deep/er/file", b"1"),
        ("deep-er", b"between"),
        ("run", b"#!"),
        ("nothing", b""),
    ):
        write(tree / name, data)
    (tree / "run").chmod(0o755)
    os.link(tree / "deep/er/file", tree / "also")
    for name in ("abs", "abs2"):
        (tree / name).symlink_to("/etc/passwd")
    (tree / "empty").mkdir()
    (tree / "older style").mkdir()
    done = origin.publish(path)
    assert done.tree_digest == origin.publish(tree, NEXT).tree_digest
    groups = [len(fetch_documents(DirectorySource(origin.store.path), origin.entry(n)).attributes.group_sizes)
              for n in (NAME, NEXT)]  # fmt: skip
    assert groups == [1, 1]
    assert given_back(origin, path)


REFUSED = {
    "..": ([Entry("a/../../b", b"1")], "a/../../b: leads out of the release"),
    "absolute": ([Entry("/etc/x", b"1")], "/etc/x: has an absolute path"),
    "twice": ([Entry("a", b"1"), Entry("./a", b"2")], "a: is in the archive twice"),
    "a directory twice": ([Entry("d", kind=tarfile.DIRTYPE)] * 2, "d: is in the archive twice"),
    "below a file": ([Entry("a", b"1"), Entry("a/b", b"1")], "a/b: lies under a, which is not a directory"),
    "below a link": (
        [Entry("a", kind=tarfile.SYMTYPE, target="/etc"), Entry("a/passwd", b"1")],
        "a/passwd: lies under a",
    ),
    "far below a link": (
        [Entry("a/b/c", b"1"), Entry("a", kind=tarfile.SYMTYPE, target="/")],
        "a/b/c: lies under a",
    ),
    "a hard link out": ([Entry("a", kind=tarfile.LNKTYPE, target="/etc/passwd")], "/etc/passwd: has an absolute path"),
    "a hard link up": ([Entry("a", kind=tarfile.LNKTYPE, target="../b")], "leads out"),
    "a hard link to nothing": ([Entry("a", kind=tarfile.LNKTYPE, target="b")], "a: is a hard link to b, which is not"),
    "a hard link to what follows": (
        [Entry("a", kind=tarfile.LNKTYPE, target="b"), Entry("b", b"1")],
        "a: is a hard link to b, which is not",
    ),
    "a hard link to itself": ([Entry("a", kind=tarfile.LNKTYPE, target="a")], "a: is a hard link to a"),
    "a hard link to a directory": (
        [Entry("d", kind=tarfile.DIRTYPE), Entry("a", kind=tarfile.LNKTYPE, target="d")],
        "a: is a hard link to a directory",
    ),
    "control characters": ([Entry("a\nb", b"1")], r"a\\nb: cannot be part of a release"),
    "an empty link target": ([Entry("a", kind=tarfile.SYMTYPE, target="")], "a: a link target has"),
    "a name too long": ([Entry("n" * 256, b"1")], "a name has 1 to 255 bytes"),
    "a path too long": ([Entry("/".join(["d" * 200] * 30), b"1")], "longer than 4096 bytes"),
    "the top a file": ([Entry(".", b"1")], "is the top of the release"),
    "nothing": ([Entry("./", kind=tarfile.DIRTYPE)], "is empty"),
    "an invalid declaration": ([Entry("pacball.toml", b"format = 9")], "has format 9"),
    "a declaration that is a link": (
        [Entry("pacball.toml", kind=tarfile.SYMTYPE, target="other")],
        "pacball.toml: must be an ordinary file",
    ),
    "a declaration of megabytes": ([Entry("pacball.toml", b"#" * (2 << 20))], "65,?536"),
    "a program that is no program": (
        [
            Entry("pacball.toml", b'format = 1\n[[validate]]\nname = "a"\ncommand = ["bin/a"]\n'),
            Entry("bin/a", b"1"),
        ],
        "names what is no executable file",
    ),
    "a program that is not there": (
        [Entry("pacball.toml", b'format = 1\n[[validate]]\nname = "a"\ncommand = ["bin/a"]\n')],
        "names a program",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, origin, tmp_path):
    entries, message = REFUSED[name]
    path = write(tmp_path / "a.tar", tar_of(*entries))
    with pytest.raises((Refused, Corrupt, TooLarge), match=message):
        origin.publish(path)
    assert origin.listed() == []
    assert not leftovers(origin.store)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_names_that_are_not_utf_8(encoding, origin, tmp_path):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.GNU_FORMAT, encoding=encoding) as tar:
        tar.addfile(tarfile.TarInfo("Grüße"))
    path = write(tmp_path / "a.tar", made.getvalue())
    if encoding == "utf-8":
        assert origin.publish(path).files == 1
        return
    with pytest.raises(Refused, match="the name is not UTF-8"):
        origin.publish(path)


def test_names_that_clash_on_some_file_systems_are_told(origin, tmp_path):
    notes = Notes()
    entries = [Entry("d/xt_mark.h"), Entry("d/xt_MARK.h"), Entry("other/secret", b"1", mode=0o600)]
    origin.publish(write(tmp_path / "a.tar", tar_of(*entries)), progress=notes)
    assert [warning.split(" (")[0][:40] for warning in notes.warnings] == [
        "d has names that differ only in case or ",
        "other/secret cannot be read by group or ",
    ]


def test_bombs(origin, tmp_path, monkeypatch):
    monkeypatch.setattr("pacstore.archive.unpacking.LEAST_BYTES", 1 << 20)
    bomb = tar_of(Entry("zeros", bytes(8 << 20)))
    for name in ("bzip2", "xz", "zstd"):
        with pytest.raises(TooLarge, match="unpacks to more than 1,000 times its size"):
            origin.publish(write(tmp_path / name, COMPRESSIONS[name](bomb)))
    assert not leftovers(origin.store)


def test_archives_of_too_many_members(origin, tmp_path, monkeypatch):
    monkeypatch.setattr("pacstore.archive.entries.MOST_MEMBERS", 2)
    with pytest.raises(TooLarge, match="more than 2 members"):
        origin.publish(write(tmp_path / "a", tar_of(Entry("1"), Entry("2"), Entry("3"))))


@pytest.mark.parametrize("compression", [name for name in COMPRESSIONS if name != "none"])
def test_damaged_streams(compression, origin, tmp_path):
    whole = COMPRESSIONS[compression](tar_of(Entry("a", noise("a", 20_000))))
    for data in (whole[:-10], whole[:100], whole[:9000] + bytes(8) + whole[9008:]):
        with pytest.raises((Corrupt, Refused)):
            origin.publish(write(tmp_path / "a", data))
    assert origin.listed() == []


def test_what_is_no_archive(origin, tmp_path):
    for data, message in (
        (b"", "is no archive that is known"),
        (b"text\n" * 200, "is no archive that is known"),
        (b"#!/bin/sh\necho\n", "a script with no tar behind it"),
        (gzip.compress(b"no tar" * 200), "no header where one must be"),
        (gzip.compress(b""), "is truncated"),
    ):
        with pytest.raises((Refused, Corrupt), match=message):
            origin.publish(write(tmp_path / "a", data))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Refused, match="neither a directory nor a file"):
        origin.publish(tmp_path / "pipe")


def test_an_archive_that_changes_meanwhile(origin, trees, tmp_path):
    path = write(tmp_path / "a.tar", tar_of_directory(trees[0]))
    notes = Notes(lambda step: os.utime(path, ns=(step, step)))
    with pytest.raises(Refused, match="changed while it was read"):
        origin.publish(path, progress=notes)
    assert origin.listed() == []


def test_directories_that_no_member_is_for_are_counted(origin, tmp_path, monkeypatch):
    """A short archive of long paths can stand for millions of them, which would take hours."""
    monkeypatch.setattr("pacstore.archive.entries.MOST_MEMBERS", 3)
    path = write(tmp_path / "a.tar", tar_of(Entry("a/b/c/f"), Entry("a/b/c/g")))
    origin.publish(path)
    path = write(tmp_path / "b.tar", tar_of(Entry("a/b/c/d/f")))
    with pytest.raises(TooLarge, match="more than 3 directories that it does not name"):
        origin.publish(path, NEXT)


@pytest.mark.slow
def test_what_changes_after_it_was_read_is_no_error(origin, trees, tmp_path):
    """The release is in the catalog by then: to say that it was refused would be wrong."""
    path = write(tmp_path / "a.tar", tar_of_directory(trees[0]))

    def touched():
        # The time is asked for last when the catalog changes.
        os.utime(path, ns=(1, 1) if path.stat().st_mtime_ns != 1 else (2, 2))
        return NOW

    publish(
        path, Release.parse(NAME), origin.store, origin.catalog, keys=origin.keys, options=OPTIONS,
        progress=Silent(), now=touched,
    )  # fmt: skip
    assert origin.listed() == [NAME]


def test_a_release_without_an_original(origin, trees, tmp_path):
    origin.publish(trees[0])
    with pytest.raises(NotFound, match="published from a directory"):
        give_back(origin, tmp_path / "a")


@pytest.mark.parametrize("compression", ["gzip", pytest.param("none", marks=pytest.mark.slow)])
def test_what_was_interrupted_continues(compression, origin, trees, tmp_path):
    path = write(tmp_path / "a", COMPRESSIONS[compression](tar_of_directory(trees[0])))
    origin.publish(path)

    class Stopped(Exception):
        pass

    def stop(step):
        if notes.phases[-1] == "downloading" and notes.bytes > 400_000:
            raise Stopped

    notes = Notes(stop)
    with pytest.raises(Stopped):
        give_back(origin, tmp_path / "back", progress=notes)
    done = give_back(origin, tmp_path / "back")
    assert done.bytes_resumed > 0
    assert (tmp_path / "back").read_bytes() == path.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith("back")) == ["back"]
    assert give_back(origin, tmp_path / "back").existed
    (tmp_path / "back").write_bytes(b"mine")
    with pytest.raises(Refused, match="is there already"):
        give_back(origin, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"mine"


class Killed(Exception):
    """The end of a fetch, wherever it is."""


@pytest.mark.parametrize("compression", ["gzip", pytest.param("none", marks=pytest.mark.slow)])
def test_two_fetches_of_one_original_at_once(compression, origin, trees, tmp_path):
    """What the first has verified stays so, though a second one begins, and ends, while it finishes."""
    path = write(tmp_path / "a", COMPRESSIONS[compression](tar_of_directory(trees[0])))
    origin.publish(path)
    seconds = []

    def second(_):
        if first.phases[-1] in ("verifying", "compressing") and not seconds:
            seconds.append(True)
            with pytest.raises((Killed, Unavailable)) as caught:
                give_back(origin, tmp_path / "back", progress=Notes(kill))
            seconds.append(caught.value)

    def kill(step):
        # Once it looks at what is there.
        if step == 2:
            raise Killed

    first = Notes(second)
    give_back(origin, tmp_path / "back", progress=first)
    assert (tmp_path / "back").read_bytes() == path.read_bytes()
    assert "another fetch writes to it" in str(seconds[1])
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith("back")) == ["back"]


@pytest.mark.parametrize("way", ["just ended", "begun anew"])
def test_a_fetch_that_ends_just_as_another_begins(way, tmp_path, monkeypatch):
    """Nobody takes the file that was given its name just now for one that still grows."""
    partial = write(tmp_path / "back.partial", b"whole")

    def ends(*_):
        partial.rename(tmp_path / "back")
        if way == "begun anew":
            partial.write_bytes(b"")

    monkeypatch.setattr("pacstore.archive.returning.fcntl.flock", ends)
    with pytest.raises(Unavailable, match="another fetch has just ended"), _alone(tmp_path / "back"):
        raise AssertionError


@pytest.mark.slow
def test_seeds_for_an_original(origin, trees, tmp_path):
    path = write(tmp_path / "a.tar", tar_of_directory(trees[1]))
    origin.publish(path)
    done = give_back(origin, tmp_path / "back", seeds=(trees[0],))
    assert done.bytes_seeded > 500_000
    assert (tmp_path / "back").read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_a_tool_that_is_another_now(origin, trees, tmp_path, monkeypatch):
    """A stream that cannot be made again here is told, with what would do it, and nothing has the name of the file."""
    path = write(tmp_path / "a.tgz", gzip.compress(tar_of_directory(trees[0]), mtime=0))
    monkeypatch.setattr(
        "pacstore.archive.taking.find_recompression",
        lambda *_: (10, Recompression("zlib", "9.9", {"level": 1, "memory": 8})),
    )
    origin.publish(path)
    with pytest.raises(Unavailable, match=r"zlib .* makes another stream .* zlib 9\.9"):
        give_back(origin, tmp_path / "back")
    assert not (tmp_path / "back").exists()
    assert not (tmp_path / "back.stream").exists()
    monkeypatch.undo()


@pytest.mark.slow
def test_an_original_is_not_downloaded_by_who_installs(origin, trees, tmp_path):
    """Nor by who fetches the pacball: only the frames of files are asked for."""
    origin.publish(trees[0])
    origin.publish(write(tmp_path / "a.tar", tar_of_directory(trees[0])), NEXT)
    source = DirectorySource(origin.store.path)
    sizes = [
        fetch(origin.entry(name), source=source, output=tmp_path / name, progress=Silent()).bytes_downloaded
        - origin.entry(name).manifest.length - origin.entry(name).placement.length
        for name in (NAME, NEXT)
    ]  # fmt: skip
    assert sizes[0] == sizes[1]


MEMBERS = st.lists(
    st.tuples(
        st.lists(st.sampled_from(["a", "b", "B", "lib", "é", "x" * 120]), min_size=1, max_size=3).map("/".join),
        st.sampled_from(["file", "run", "link", "directory", "hard"]),
        st.integers(0, 70_000),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda member: member[0],
)


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    form=st.sampled_from(["pax", "gnu"]),
    compression=st.sampled_from(["none", "gzip", "zstd"]),
    members=MEMBERS,
    data=st.data(),
)
def test_any_archive_is_given_back_or_refused(form, compression, members, data, origin, tmp_path):
    entries, files = [], []
    for path, kind, size, seed in members:
        if kind == "link":
            entries.append(Entry(path, kind=tarfile.SYMTYPE, target="some/where"))
        elif kind == "directory":
            entries.append(Entry(path, kind=tarfile.DIRTYPE))
        elif kind == "hard" and files:
            entries.append(Entry(path, kind=tarfile.LNKTYPE, target=data.draw(st.sampled_from(files))))
        else:
            entries.append(Entry(path, noise(str(seed), size), mode=0o755 if kind == "run" else 0o644))
            files.append(path)
    path = write(tmp_path / "any", COMPRESSIONS[compression](tar_of(*entries, format=FORMATS[form])))
    name = replace(Release.parse(THIRD), version=f"{abs(hash(path.read_bytes()))}")
    if origin.catalog.release(name) is not None:
        return
    try:
        origin.publish(path, str(name))
    except Refused as error:
        assert "lies under" in str(error)  # noqa: PT017 - both ways are right
        return
    back = tmp_path / "back"
    back.unlink(missing_ok=True)
    give_back(origin, back, str(name))
    assert back.read_bytes() == path.read_bytes()
    files = {e.name: e.data for e in entries if e.kind == tarfile.REGTYPE}
    assert {k: v for k, v in origin.assembled(str(name)).items() if k in files} == files
    assert original_of(origin, str(name)).length == path.stat().st_size
