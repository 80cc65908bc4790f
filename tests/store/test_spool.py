from __future__ import annotations

import gc
import os
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacstore.errors import PacballError
from pacstore.spool import Spool


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 300_000), max_size=8), st.integers(0, 2_000_000), st.integers(0, 2_000_000))
def test_what_was_appended_comes_back(lengths, offset, length):
    spool = Spool()
    data = b""
    for number, size in enumerate(lengths):
        piece = bytes([number]) * size
        spool.append(piece)
        data += piece
    assert len(spool) == len(data)
    assert b"".join(spool.blocks()) == data
    assert spool.read(offset, length) == data[offset : offset + length]


def test_its_file_has_no_name_and_goes_with_it(tmp_path):
    spool = Spool(tmp_path)
    spool.append(bytes(1_000_000))
    assert os.listdir(tmp_path) == []
    assert len(open_files(tmp_path)) == 1
    del spool
    gc.collect()
    assert open_files(tmp_path) == []


def open_files(directory) -> list[str]:
    """What this process has open in `directory`; files without a name too."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the listing itself, and what other threads close
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return [path for path in found if path.startswith(f"{directory}/")]


def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(PacballError, match="missing"):
        Spool(tmp_path / "missing").append(bytes(1_000_000))
