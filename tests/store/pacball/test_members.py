"""Members of a pacball's tar: read as other programs read them, and the same bytes for ever."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacstore.pacball.members import END, Member, header_bytes, padding
from pacstore.tree import EntryKind
from tests.store.samples import BOUNDED

NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/"), min_size=1, max_size=60)
PATHS = st.lists(NAMES, min_size=1, max_size=6).map("/".join).filter(lambda path: len(path.encode()) <= 4096)
TIMES = st.integers(-(2**62), 2**62) | st.sampled_from([-1, 0, 1, 8**11 - 1, 8**11, 2**31])


@st.composite
def members(draw):
    kind = draw(st.sampled_from(list(EntryKind)))
    path = draw(PATHS).encode()
    linked = kind.is_file and draw(st.booleans())
    target = draw(PATHS).encode() if linked or kind is EntryKind.SYMLINK else b""
    size = draw(st.integers(0, 2**40) | st.sampled_from([8**11 - 1, 8**11])) if kind.is_file and not linked else 0
    return Member(path, kind, draw(TIMES), size, target, linked)


@BOUNDED
@given(members())
def test_tarfile_reads_what_was_meant(member):
    header = member.header()
    assert len(header) % 512 == 0
    with tarfile.open(fileobj=io.BytesIO(header + END), errorlevel=2) as tar:
        info = tar.next()
    assert info.name.encode("utf-8", "surrogateescape") == member.path
    assert info.mtime == member.mtime
    assert info.size == member.size
    assert (info.uid, info.gid, info.uname, info.gname) == (0, 0, "", "")
    assert info.linkname.encode("utf-8", "surrogateescape") == member.target
    assert info.islnk() == member.linked
    if not member.linked:
        assert info.isdir() == (member.kind is EntryKind.DIRECTORY)
        assert info.issym() == (member.kind is EntryKind.SYMLINK)
    modes = {EntryKind.DIRECTORY: 0o755, EntryKind.FILE: 0o644, EntryKind.EXECUTABLE: 0o755, EntryKind.SYMLINK: 0o777}
    assert info.mode == modes[member.kind]


@BOUNDED
@given(members())
def test_lengths_of_headers_are_known_before_they_are_made(member):
    name = len(member.path) + (member.kind is EntryKind.DIRECTORY)
    assert header_bytes(np.array([name]), np.array([len(member.target)])).tolist() == [len(member.header())]


@pytest.mark.parametrize("length", [99, 100, 101, 510, 511, 512, 513, 1023, 1024, 4095])
def test_lengths_of_names_around_whole_blocks(length):
    member = Member(b"n" * length, EntryKind.SYMLINK, 0, target=b"t" * length)
    assert header_bytes(np.array([length]), np.array([length])).tolist() == [len(member.header())]
    with tarfile.open(fileobj=io.BytesIO(member.header() + END)) as tar:
        info = tar.next()
    assert (info.name, info.linkname) == ("n" * length, "t" * length)


def test_the_same_bytes_as_gnu_tar(tmp_path):
    """Where GNU tar writes owners as numbers alone, one block at a time."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d/file").write_bytes(b"x" * 700)
    (tmp_path / "d/file").chmod(0o644)
    (tmp_path / "run").write_bytes(b"")
    (tmp_path / "run").chmod(0o755)
    (tmp_path / "s").symlink_to("t" * 120)
    (tmp_path / ("l" * 130)).write_bytes(b"long")
    names = ["d", "l" * 130, "run", "s"]
    argv = [
        "tar",
        "--format=gnu",
        "-b1",
        "--numeric-owner",
        "--owner=0",
        "--group=0",
        "--mtime=@1234567890",
        "--sort=name",
    ]
    done = subprocess.run([*argv, "-cf", "-", *names], cwd=tmp_path, capture_output=True, check=True)
    time = 1234567890
    own = [
        Member(b"d", EntryKind.DIRECTORY, time).header(),
        Member(b"d/file", EntryKind.FILE, time, 700).header() + b"x" * 700 + padding(700),
        Member(b"l" * 130, EntryKind.FILE, time, 4).header() + b"long" + padding(4),
        Member(b"run", EntryKind.EXECUTABLE, time).header(),
        Member(b"s", EntryKind.SYMLINK, time, target=b"t" * 120).header(),
    ]
    assert _without_owner_names(done.stdout) == b"".join(own) + END


def _without_owner_names(tar: bytes) -> bytes:
    """GNU tar names the owner of the headers of long names, root, whatever it was told; nobody reads that."""
    blocks = [bytearray(tar[at : at + 512]) for at in range(0, len(tar), 512)]
    for block in blocks:
        if block.startswith(b"././@LongLink") and block[265:269] == b"root":
            block[265:269] = block[297:301] = bytes(4)
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
    return b"".join(blocks)


def test_the_bytes_never_change():
    headers = [
        Member(b"bin", EntryKind.DIRECTORY, 1_500_000_000),
        Member("größe/名前".encode(), EntryKind.FILE, -1, 2**33),
        Member(b"a/" * 200 + b"b", EntryKind.EXECUTABLE, 8**11, 1),
        Member(b"link", EntryKind.SYMLINK, 0, target=b"../" * 50),
        Member(b"second", EntryKind.FILE, 1, target=b"first", linked=True),
    ]
    digest = hashlib.sha256(b"".join(member.header() for member in headers)).hexdigest()
    assert digest == "2c92578607c8925bfb7aeba3cffcd32d16481586555cdcf1f6c92532408e93a2"
