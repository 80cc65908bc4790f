"""Spools: bytes that grow beyond what memory should hold, kept in an unnamed file until they are put together."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pacstore.digest import Bytes
from pacstore.durable import wrapped
from pacstore.limits import KIB, MIB

_BUFFER_BYTES = 256 * KIB
_BLOCK_BYTES = 1 * MIB


class Spool:
    """Appended bytes. The last few are in memory, the others in a file of `directory` without a name, gone with the spool.

    Raises Unavailable when the disk is full or fails.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._buffer = bytearray()
        self._file: IO[bytes] | None = None
        self._filed = 0

    def __len__(self) -> int:
        return self._filed + len(self._buffer)

    def append(self, data: Bytes) -> None:
        """Append `data`."""
        self._buffer += data
        if len(self._buffer) >= _BUFFER_BYTES:
            self._flush()

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`, or up to the end."""
        filed = b""
        if self._file is not None and offset < self._filed:
            with wrapped("a temporary file"):
                filed = os.pread(self._file.fileno(), min(length, self._filed - offset), offset)
        begin = max(offset + len(filed) - self._filed, 0)
        return filed + self._buffer[begin : begin + length - len(filed)]

    def blocks(self) -> Iterator[bytes]:
        """All bytes, in pieces."""
        at = 0
        while at < len(self):
            yield (block := self.read(at, _BLOCK_BYTES))
            at += len(block)

    def _flush(self) -> None:
        with wrapped(self._directory or tempfile.gettempdir()):
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._directory, buffering=0)  # noqa: SIM115 - see the next line
                weakref.finalize(self, self._file.close)
            left = memoryview(self._buffer)
            while left:
                left = left[self._file.write(left) :]
        self._filed += len(self._buffer)
        self._buffer = bytearray()
