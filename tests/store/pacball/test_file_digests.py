"""Digests of single files: of the very file that the manifest names."""

from __future__ import annotations

import hashlib
import zlib

import pytest

from pacstore.digest import Digest
from pacstore.errors import Corrupt
from pacstore.pacball.file_digests import FileDigests, FileHasher


@pytest.mark.parametrize("pieces", [[], [b"a"], [b"a" * 1000, memoryview(b"b"), b""]])
def test_they_are_those_of_the_whole_file(pieces):
    data = b"".join(pieces)
    hasher = FileHasher(Digest.of(data), place="file")
    for piece in pieces:
        hasher.update(piece)
    expected = FileDigests(hashlib.sha256(data).digest(), hashlib.md5(data).digest(), zlib.adler32(data))
    assert hasher.finish() == expected


def test_another_file_than_the_manifest_names_has_none():
    """Or digests of one line's file could be given for another line's."""
    hasher = FileHasher(Digest.of(b"right"), place="lib/file")
    hasher.update(b"wrong")
    with pytest.raises(Corrupt, match="lib/file"):
        hasher.finish()
