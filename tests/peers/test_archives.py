"""Archives that real programs made: GNU tar, bsdtar, makeself, and every compressor that people use; the very file comes back."""

from __future__ import annotations

import os
import subprocess

import pytest

from pacstore.errors import Unavailable
from tests.peers.programs import call, program
from tests.peers.volumes import memory_volume
from tests.store.archive.making import give_back
from tests.store.releases import NAME, NEXT, Origin, make_tree, noise, prose, write

pytestmark = pytest.mark.peers

STREAMS = {
    **{f"gzip -{level}": f"gzip -{level} -c FILE" for level in (1, 3, 6, 9)},
    "gzip from a pipe": "gzip -n -c < FILE",
    "gzip --rsyncable": "gzip --rsyncable -c FILE",
    "pigz": "pigz -c FILE",
    "pigz -9": "pigz -9 -p 4 -c FILE",
    "bzip2": "bzip2 -c FILE",
    "bzip2 -1": "bzip2 -1 -c FILE",
    "xz -0": "xz -0 -c FILE",
    "xz -6": "xz -6 -c FILE",
    "xz -2e": "xz -2e -c FILE",
    "xz of threads": "xz -1 -T2 -c FILE",
    "xz --check=sha256": "xz -1 --check=sha256 -c FILE",
    "zstd": "zstd -q -c FILE",
    "zstd from a pipe": "zstd -q -c < FILE",
    "zstd -9": "zstd -q -9 -c < FILE",
    "zstd of threads": "zstd -q -12 -T2 -c < FILE",
    "zstd --no-check": "zstd -q --no-check -1 -c < FILE",
    "zstd --single-thread": "zstd -q --single-thread -c < FILE",
}
OPAQUE = {
    "xz with a filter": "xz --x86 --lzma2=preset=1 -c FILE",
    "several streams": "(head -c 700000 FILE | gzip -c; tail -c +700001 FILE | gzip -c)",
}
TARS = {
    "GNU tar": "tar -cf FILE -C TREE .",
    "GNU tar, names": "tar -cf FILE -C TREE $(ls TREE)",
    "GNU tar, posix": "tar --format=posix -cf FILE -C TREE .",
    "GNU tar, ustar": "tar --format=ustar -cf FILE -C TREE .",
    "GNU tar, old": "tar --format=oldgnu -cf FILE -C TREE .",
    "GNU tar, sorted": "tar --sort=name --owner=0 --group=0 --mtime=@0 -cf FILE -C TREE .",
    "GNU tar, attributes": "tar --xattrs --acls --selinux -cf FILE -C TREE .",
    "bsdtar": "bsdtar -cf FILE -C TREE .",
    "bsdtar, pax": "bsdtar --format=pax -cf FILE -C TREE .",
    "bsdtar, gnu": "bsdtar --format=gnutar -cf FILE -C TREE .",
    "busybox": "busybox tar -cf FILE -C TREE .",
}
MAKESELF = ["--gzip", "--bzip2", "--xz", "--zstd", "--pigz", "--nocomp"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    top = make_tree(tmp_path_factory.mktemp("archives") / "tree")
    write(top / ("long" * 24) / "Grüße", b"1")
    for number in range(40):
        write(top / f"more/{number}", prose(str(number), 30_000) + noise(str(number), 20_000))
    return top


@pytest.fixture(scope="module")
def tar(tree):
    path = tree.parent / "made.tar"
    call(program("tar"), "--format=gnu", "-cf", str(path), "-C", str(tree), ".")
    return path


@pytest.fixture(scope="module")
def published(tree, tmp_path_factory):
    """A store in which the tree is already; every test publishes under a name of its own."""
    origin = Origin.make(tmp_path_factory.mktemp("origin"))
    origin.publish(tree)
    yield origin
    origin.store.close()


def shell(line):
    subprocess.run(["sh", "-c", line], check=True, stderr=subprocess.PIPE, env={"PATH": os.environ["PATH"]})


def comes_back(origin, path, number):
    name = NEXT.replace("1.1", f"2.{number}")
    done = origin.publish(path, name)
    give_back(origin, path.parent / "back", name)
    assert (path.parent / "back").read_bytes() == path.read_bytes()
    assert done.tree_digest == origin.entry(NAME).tree_digest
    return done


@pytest.mark.parametrize("name", STREAMS)
def test_streams_that_are_made_again(name, tar, published, tmp_path):
    shell(f"{STREAMS[name].replace('FILE', str(tar))} > {tmp_path}/a")
    done = comes_back(published, tmp_path / "a", f"1.{list(STREAMS).index(name)}")
    assert done.opaque_bytes == 0, f"{name}: nothing was found"
    assert done.bytes_stored < tar.stat().st_size * 0.01


@pytest.mark.parametrize("name", OPAQUE)
def test_streams_that_are_kept(name, tar, published, tmp_path):
    shell(f"{OPAQUE[name].replace('FILE', str(tar))} > {tmp_path}/a")
    done = comes_back(published, tmp_path / "a", f"2.{list(OPAQUE).index(name)}")
    assert done.opaque_bytes == (tmp_path / "a").stat().st_size


@pytest.mark.parametrize("name", TARS)
def test_tars(name, tree, published, tmp_path):
    shell(TARS[name].replace("FILE", f"{tmp_path}/a").replace("TREE", str(tree)))
    done = comes_back(published, tmp_path / "a", f"3.{list(TARS).index(name)}")
    assert done.bytes_stored < (tmp_path / "a").stat().st_size * 0.01


@pytest.mark.parametrize("option", MAKESELF)
def test_scripts_of_makeself(option, tree, published, tmp_path):
    path = tmp_path / "a.run"
    call(program("makeself"), "--quiet", option, str(tree), str(path), "A release", "true")
    done = comes_back(published, path, f"4.{MAKESELF.index(option)}")
    assert done.opaque_bytes == 0, f"{option}: nothing was found"
    assert os.access(tmp_path / "back", os.X_OK)


def test_a_sparse_tar_is_refused_by_name(published, tmp_path):
    with open(tmp_path / "holes", "wb") as file:
        file.truncate(5 << 20)
    for form in ("gnu", "posix"):
        shell(f"tar --format={form} -S -cf {tmp_path}/a -C {tmp_path} holes")
        with pytest.raises(Exception, match=r"holes.*is a sparse file"):
            published.publish(tmp_path / "a", "Demo-9.9-x86_64")


def test_what_is_appended_to_a_tar_is_refused_by_name(tree, published, tmp_path):
    shell(f"tar -cf {tmp_path}/a -C {tree} none version && tar -rf {tmp_path}/a -C {tree} version")
    with pytest.raises(Exception, match="version: is in the archive twice"):
        published.publish(tmp_path / "a", "Demo-9.9-x86_64")


def test_too_little_room_for_the_plain_tar(tar, published, tmp_path):
    """Publishing says what the room is for; fetching says how much, before it begins: for the plain tar and the stream."""
    shell(f"gzip -c {tar} > {tmp_path}/a.tgz")
    name = "Demo-5.0-x86_64"
    published.publish(tmp_path / "a.tgz", name)
    with memory_volume(tmp_path, f"size={tar.stat().st_size * 2 // 3}") as volume:
        origin = Origin.make(volume)
        with pytest.raises(Unavailable, match=r"the plain tar of .*a.tgz, in the staging directory .* no space left"):
            origin.publish(tmp_path / "a.tgz", name)
        assert origin.listed() == []
        origin.store.close()
    (tmp_path / "other").mkdir()
    room = f"size={tar.stat().st_size + (1 << 20)}"
    with memory_volume(tmp_path / "other", room) as volume, pytest.raises(Unavailable, match="more are needed"):
        give_back(published, volume / "back", name)
