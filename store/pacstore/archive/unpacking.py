"""Undoing compression: a stream becomes plain bytes in a file without a name, piece by piece, and no more than may be meant."""

from __future__ import annotations

import bz2
import lzma
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import zstandard

from pacstore.archive.kinds import MAGICS, Compression
from pacstore.durable import wrapped, write_all
from pacstore.errors import Corrupt, Refused, TooLarge
from pacstore.limits import GIB, MIB
from pacstore.progress import Progress

RATIO = 1_000
LEAST_BYTES = 1 * GIB
"""A stream becomes at most RATIO times as long, or this long if that is more: beyond is no release, but a bomb."""

_READ_BYTES = 256 * 1024
_ZSTD_READ_BYTES = 2_048
"""Of which zstd can make 64 MiB at once."""
_PIECE_BYTES = 1 * MIB
_XZ_MEMORY_BYTES = 256 * MIB
_ZSTD_WINDOW_BYTES = 128 * MIB


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    @property
    def needs_input(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Zlib:
    """zlib's, with the interface of the others."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail and not self._inner.eof

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


class _Zstd:
    """zstandard's, likewise; it gives all that its input makes, which is little at a time for that reason."""

    needs_input = True

    def __init__(self) -> None:
        self._inner = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES).decompressobj()

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:  # noqa: ARG002 - see the class
        return self._inner.decompress(data)


_DECOMPRESSORS: dict[Compression, Callable[[], _Decompressor]] = {
    Compression.GZIP: _Zlib,
    Compression.XZ: lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES),
    Compression.ZSTD: _Zstd,
    Compression.BZIP2: bz2.BZ2Decompressor,
}


@dataclass(frozen=True)
class Unpacked:
    """Plain bytes of this length. `streams`: of how many streams they came; `after`: zero bytes that follow the last."""

    plain_bytes: int
    streams: int
    after: int


class _Input:
    """The bytes of the open file `descriptor` from `at` to `end`."""

    def __init__(self, descriptor: int, at: int, end: int, progress: Progress) -> None:
        self._descriptor = descriptor
        self._at = at
        self._end = end
        self._progress = progress

    def read(self, count: int) -> bytes:
        data = os.pread(self._descriptor, min(count, self._end - self._at), self._at)
        self._at += len(data)
        self._progress.advance(len(data))
        return data


def unpack(
    descriptor: int, begin: int, end: int, compression: Compression, output: int, *, name: str, progress: Progress
) -> Unpacked:
    """Write what the stream from `begin` to `end` is compressed from to the file `output`.

    Raises Corrupt for a stream that is damaged or truncated, Refused for one with something behind it, TooLarge for a bomb, and
    Unavailable.
    """
    source = _Input(descriptor, begin, end, progress)
    most = max(RATIO * (end - begin), LEAST_BYTES)
    rest = source.read(_amount(compression))
    done = streams = 0
    try:
        while rest.startswith(MAGICS[compression]):
            streams += 1
            done, rest = _stream(source, rest, compression, output, done, most, name)
            rest += source.read(_amount(compression)) if len(rest) < _ZSTD_READ_BYTES else b""
    except (zlib.error, lzma.LZMAError, zstandard.ZstdError, OSError, ValueError, EOFError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        hint = "fetch or make it again"
        raise Corrupt(f"its {compression} stream is damaged: {error}", place=name, hint=hint) from error
    return Unpacked(done, streams, _zeros(source, rest, name))


def _amount(compression: Compression) -> int:
    return _ZSTD_READ_BYTES if compression is Compression.ZSTD else _READ_BYTES


def _stream(
    source: _Input, data: bytes, compression: Compression, output: int, done: int, most: int, name: str
) -> tuple[int, bytes]:
    """Undo one stream, which begins with `data`; how much is done then, and what was read beyond its end."""
    decompressor = _DECOMPRESSORS[compression]()
    while True:
        plain = decompressor.decompress(data, _PIECE_BYTES)
        done += len(plain)
        if done > most:
            limit = f"more than {RATIO:,} times its size, or than {LEAST_BYTES:,} bytes"
            hint = "if it is right, unpack it and publish the directory"
            raise TooLarge(f"unpacks to {limit}", place=name, hint=hint)
        with wrapped(f"the plain tar of {name}, in the staging directory of the store"):
            write_all(output, plain)
        if decompressor.eof:
            return done, decompressor.unused_data
        data = source.read(_amount(compression)) if decompressor.needs_input else b""
        if not data and not plain and decompressor.needs_input:
            raise Corrupt(f"is truncated: its {compression} stream ends too early", place=name, hint="fetch it again")


def _zeros(source: _Input, rest: bytes, name: str) -> int:
    count = 0
    while rest:
        if rest.count(0) != len(rest):
            raise Refused("has something behind the end of its stream", place=name, hint="cut it off")
        count += len(rest)
        rest = source.read(_READ_BYTES)
    return count
