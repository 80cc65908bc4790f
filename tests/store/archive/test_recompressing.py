"""Making streams again: what a manifest asks for that is not known or not here is told, and nothing else is ever run."""

from __future__ import annotations

import os

import pytest

from pacstore.archive.headers import Plain
from pacstore.archive.recompressing import remake, version_of
from pacstore.errors import NewerFormat, PacballError, Unavailable
from pacstore.original import Recompression


@pytest.fixture
def plain():
    descriptor = os.memfd_create("plain", os.MFD_CLOEXEC)
    os.pwrite(descriptor, b"some text " * 2000, 0)
    yield Plain(descriptor, 0, 20_000, "a.tar")
    os.close(descriptor)


UNKNOWN = {
    "a tool of later": Recompression("brotli", "1", {"level": 6}),
    "a program that is no compressor": Recompression("sh-program", "1", {"level": 6}),
    "a path": Recompression("/bin/sh", "1", {"level": 6}),
    "a setting that is missing": Recompression("zlib", "1", {"level": 6}),
    "a level beyond all": Recompression("zlib", "1", {"level": 99, "memory": 8}),
    "a memory beyond all": Recompression("zlib", "1", {"level": 6, "memory": 2**40}),
    "bzip2's level": Recompression("bzip2", "1", {"level": 10}),
    "xz's level": Recompression("liblzma", "5", {"level": 77, "extreme": 0, "check": 4}),
    "xz's check": Recompression("liblzma", "5", {"level": 1, "extreme": 0, "check": 9}),
    "the program's level": Recompression("gzip-program", "1", {"level": 10, "rsyncable": 0}),
    "the xz program's check": Recompression("xz-program", "5", {"level": 1, "extreme": 0, "check": 77}),
    "as many threads as processors": Recompression("libzstd", "1", {"level": 1, "checksum": 1, "sized": 0, "threads": -1}),
    "a level that needs gigabytes": Recompression("libzstd", "1", {"level": 22, "checksum": 1, "sized": 0, "threads": 0}),
    "the zstd program's level": Recompression("zstd-program", "1", {"level": 20, "checksum": 1, "sized": 0, "threads": 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_known_is_of_a_newer_version(name, plain):
    with pytest.raises(NewerFormat, match="a way that this pacball does not know"):
        list(remake(UNKNOWN[name], plain))


def test_what_a_manifest_calls_a_tool_moves_no_cursor():
    shown = str(Recompression("\x1b[2Jzlib", "1\n", {"\x1b[31mlevel": 6}))
    assert shown.isprintable()
    assert "zlib 1" in shown


def test_a_program_that_is_not_here_is_named(plain, monkeypatch, tmp_path):
    monkeypatch.setattr("pacstore.archive.recompressing._PATH", str(tmp_path))
    assert version_of("gzip-program") == ""
    with pytest.raises(Unavailable, match=r"there is no gzip here \(install gzip"):
        list(remake(Recompression("gzip-program", "1.12", {"level": 6, "rsyncable": 0}), plain))


def test_a_program_that_fails_is_told(plain, monkeypatch, tmp_path):
    (tmp_path / "gzip").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "gzip").chmod(0o755)
    monkeypatch.setattr("pacstore.archive.recompressing._PATH", f"{tmp_path}:/bin")
    with pytest.raises(PacballError, match="gzip failed"):
        list(remake(Recompression("gzip-program", "1.12", {"level": 6, "rsyncable": 0}), plain))
