"""The headers of tars: what tarfile writes is read as it was meant; what no release may contain is refused, by its name."""

from __future__ import annotations

import os
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacstore.archive.headers import Plain, members
from pacstore.errors import Corrupt, PacballError, Refused
from pacstore.tree import EntryKind
from tests.store.archive.making import FORMATS, Entry, tar_of
from tests.store.samples import BOUNDED


def read(data):
    descriptor = os.memfd_create("tar", os.MFD_CLOEXEC)
    try:
        os.pwrite(descriptor, data, 0)
        return [(m, os.pread(descriptor, m.size, m.offset)) for m in members(Plain(descriptor, 0, len(data), "a.tar"))]
    finally:
        os.close(descriptor)


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cc", "Cs"]), min_size=1)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join).filter(lambda path: len(path.encode()) < 90)


@settings(BOUNDED, max_examples=30)
@given(
    st.sampled_from(sorted(FORMATS)),
    st.lists(st.tuples(PATHS, st.binary(max_size=1200), st.integers(0, 2**31), st.booleans()), max_size=5),
)
def test_ordinary_members(form, wanted):
    made = tar_of(
        *(Entry(path, data, mtime=mtime, mode=0o755 if run else 0o600) for path, data, mtime, run in wanted),
        format=FORMATS[form],
    )
    found = read(made)
    assert [(m.path.decode(), data, m.mtime, m.kind is EntryKind.EXECUTABLE) for m, data in found] == wanted


@pytest.mark.parametrize("form", ["pax", "gnu"])
def test_what_ustar_cannot_hold(form):
    name, target = "n" * 200 + "/" + "Grüße" * 20, "t" * 300
    made = tar_of(
        Entry(name, b"x" * 513, mtime=-5.25),
        Entry("link", kind=tarfile.SYMTYPE, target=target),
        Entry("again", kind=tarfile.LNKTYPE, target=name),
        format=FORMATS[form],
    )
    found = read(made)
    assert [m.path.decode() for m, _ in found] == [name, "link", "again"]
    assert [(m.target.decode(), m.linked) for m, _ in found] == [("", False), (target, False), (name, True)]
    assert found[0][0].mtime == (-6 if form == "pax" else -5)
    assert found[0][1] == b"x" * 513


def test_a_global_header_as_archives_of_repositories_have_it():
    info = tarfile.TarInfo("a")
    header = info.create_pax_global_header({"comment": "0123456789abcdef"})
    assert [m.path for m, _ in read(header + tar_of(Entry("a", b"1")))] == [b"a"]
    with pytest.raises(Corrupt, match="global header that names a file"):
        read(info.create_pax_global_header({"path": "b"}) + tar_of(Entry("a", b"1")))


def test_global_headers_that_mean_nothing_are_not_kept():
    """However many there are, and however long: a member is read as fast behind them as without them."""
    info = tarfile.TarInfo("a")
    headers = b"".join(
        info.create_pax_global_header({f"comment.{n}.{m}": "x" * 50 for m in range(200)}) for n in range(20)
    )
    assert [m.path for m, _ in read(headers + tar_of(Entry("a", b"1")))] == [b"a"]
    with pytest.raises(Corrupt, match="more global headers than can be meant"):
        read(info.create_pax_global_header({f"GNU.sparse.{n}": "1" for n in range(20)}) + tar_of(Entry("a", b"1")))


def test_numbers_in_base_256():
    block = bytearray(tar_of(Entry("a", b"12345")))
    block[124:136] = b"\x80" + (5).to_bytes(11, "big")
    assert read(checked(block))[0][1] == b"12345"


def checked(block):
    """With the right checksum of its first header."""
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    return bytes(block)


def changed(at, value, entry=Entry("a", b"12345")):  # noqa: B008 - frozen
    block = bytearray(tar_of(entry))
    block[at : at + len(value)] = value
    return checked(block)


GOOD = tar_of(Entry("dir/file", b"content" * 100))
HOSTILE = {
    "empty": (b"", "truncated"),
    "a content cut off": (GOOD[:900], "dir/file: is truncated"),
    "no end": (GOOD[:1536], "blocks of zeros"),
    "half a header": (GOOD[:1536] + GOOD[:100], "truncated"),
    "a wrong checksum": (GOOD[:5] + b"X" + GOOD[6:], "no header where one must be"),
    "something behind the end": (GOOD + b"\0" * 512 + b"garbage", "behind the end"),
    "a second tar behind it": (GOOD + GOOD, "behind the end"),
    "a device": (tar_of(Entry("dev", kind=tarfile.CHRTYPE)), "dev: is a device"),
    "a block device": (tar_of(Entry("dev", kind=tarfile.BLKTYPE)), "dev: is a device"),
    "a FIFO": (tar_of(Entry("pipe", kind=tarfile.FIFOTYPE)), "pipe: is a FIFO"),
    "a sparse file of GNU tar": (changed(156, b"S"), "a: is a sparse file"),
    "a sparse file of pax": (
        tar_of(Entry("a", b"1", pax=(("GNU.sparse.major", "1"),)), format=tarfile.PAX_FORMAT),
        "a: is a sparse file",
    ),
    "a volume": (changed(156, b"M"), "another volume"),
    "a label": (changed(156, b"V"), "label of a volume"),
    "an unknown type": (changed(156, b"Z"), "unknown type"),
    "a setuid file": (tar_of(Entry("su", b"1", mode=0o4755)), "su: is a setuid"),
    "a directory with content": (changed(156, b"5"), "a: has content"),
    "a link with content": (changed(156, b"2"), "a: has content"),
    "a hard link with content": (changed(156, b"1"), "a: has content"),
    "a size of 2^63": (changed(124, b"\x80" + (2**63).to_bytes(11, "big")), "cannot be"),
    "a size of 2^62": (changed(124, b"\x80" + (2**62).to_bytes(11, "big")), "a: is truncated"),
    "a negative size": (changed(124, b"\xff" * 12), "cannot be"),
    "a size that is no number": (changed(124, b"99999999999\0"), "not octal"),
    "a time beyond all": (changed(136, b"\x80" + (2**62).to_bytes(11, "big")), "time"),
    "a pax size that is no number": (
        tar_of(Entry("a", b"1", pax=(("size", "-1"),)), format=tarfile.PAX_FORMAT),
        "size that is no number",
    ),
    "a pax time that is no number": (
        tar_of(Entry("a", b"1", pax=(("mtime", "1e9"),)), format=tarfile.PAX_FORMAT),
        "time that is no number",
    ),
    "a long name of many megabytes": (
        changed(156, b"L", Entry("././@LongLink", b"n" * (2 << 20))),
        "more or other extensions",
    ),
    "a long name of nothing": (changed(156, b"L", Entry("././@LongLink", b"n" * 200)), "does not come"),
    "a record that does not fit": (changed(156, b"x", Entry("x", b"99 path=a\n")), "does not fit"),
    "a record without a length": (changed(156, b"x", Entry("x", b"path=a\n")), "without a length"),
    "many extensions in a row": (
        b"".join(changed(156, b"L", Entry("././@LongLink", b"n"))[:1024] for _ in range(20)),
        "more or other extensions",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name):
    data, message = HOSTILE[name]
    with pytest.raises((Corrupt, Refused), match=message):
        read(data)


@settings(BOUNDED, max_examples=80)
@given(st.data())
def test_mutations_are_read_or_refused(data):
    made = bytearray(tar_of(Entry("dir/a", b"12345"), Entry("l" * 150, kind=tarfile.SYMTYPE, target="x"), format=1))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, 2100))
        made[at] = data.draw(st.integers(0, 255))
    block = checked(made) if data.draw(st.booleans()) else bytes(made)
    try:
        found = read(block)
    except PacballError:
        return
    assert all(m.size == len(content) for m, content in found)
