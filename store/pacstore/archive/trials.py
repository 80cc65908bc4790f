"""Which ways of making a compressed stream again are worth trying: what its first bytes say, and the likely ones first."""

from __future__ import annotations

import lzma
import os
from collections.abc import Iterator
from dataclasses import replace

import zstandard

from pacstore.archive.headers import Plain
from pacstore.archive.kinds import Compression
from pacstore.archive.recompressing import ProgramFailed, is_made_again, remake, version_of
from pacstore.limits import KIB, MIB
from pacstore.original import Recompression

_HEAD_BYTES = 64 * KIB
_TRIAL_BYTES = 2 * MIB
_SMALL_BYTES = 8 * MIB
"""Streams of fewer plain bytes are tried whole at once."""
_FEW = ("bzip2", "xz-program")
"""What is tried in few ways, and whose first bytes depend on many that follow."""
_LEVELS = (6, 9, 1, 5, 7, 8, 4, 3, 2)
_XZ_DICTIONARIES_KIB = {
    256: (0,),
    1024: (1,),
    2048: (2,),
    4096: (3, 4),
    8192: (6, 5),
    16384: (7,),
    32768: (8,),
    65536: (9,),
}
_ZSTD_LEVELS = (3, 19, 1, 9, 10, 6, 15, 12, 18, 2, 4, 5, 7, 8, 11, 13, 14, 16, 17)
_ZSTD_MAX, _ZSTD_SLOW = 19, 13
_ZSTD_WAYS = (("zstd-program", 1), ("libzstd", 0), ("zstd-program", 0), ("libzstd", 1))


def find_recompression(
    source: int, begin: int, end: int, compression: Compression, plain: Plain
) -> tuple[int, Recompression] | None:
    """How the stream that the file `source` has from `begin` to `end` is made again: from which byte on, and with what.

    It was redone and compared, every byte. None where nothing was found.
    """
    head = os.pread(source, min(_HEAD_BYTES, end - begin), begin)
    header = _gzip_header_bytes(head) if compression is Compression.GZIP else 0
    versions: dict[str, str] = {}
    for trial in _TRIALS[compression](head, plain):
        if trial.tool not in versions:
            versions[trial.tool] = version_of(trial.tool)
        if versions[trial.tool] and _does(trial, plain, source, begin + header, end):
            return begin + header, replace(trial, version=versions[trial.tool])
    return None


def _does(trial: Recompression, plain: Plain, source: int, begin: int, end: int) -> bool:
    try:
        return _is_likely(trial, plain, source, begin, end) and is_made_again(trial, plain, source, begin, end)
    except ProgramFailed:
        # Not every gzip knows --rsyncable: then it is not what made the stream.
        return False


def _is_likely(trial: Recompression, plain: Plain, source: int, begin: int, end: int) -> bool:
    """Whether the stream begins as it must. Of a long one the beginning is made alone: some tools give nothing for long."""
    if plain.length < _SMALL_BYTES or trial.tool in _FEW or trial.settings.get("sized"):
        return True
    made = b"".join(_begun(trial, replace(plain, length=_TRIAL_BYTES)))
    wanted = os.pread(source, min(len(made), end - begin), begin)
    # Where the input ends the last blocks are other ones.
    most = len(made) // 4
    return made[:most] == wanted[:most]


def _begun(trial: Recompression, beginning: Plain) -> Iterator[bytes]:
    if not trial.tool.endswith("-program"):
        yield from remake(trial, beginning)
        return
    # A program reads a whole file: one with the beginning alone.
    descriptor = os.memfd_create("beginning", os.MFD_CLOEXEC)
    try:
        os.pwrite(descriptor, beginning.read(0, beginning.length), 0)
        yield from remake(trial, Plain(descriptor, 0, beginning.length, beginning.name))
    finally:
        os.close(descriptor)


def _gzip_header_bytes(head: bytes) -> int:
    """The length of the header of a gzip stream (RFC 1952)."""
    flags, at = head[3], 10
    if flags & 4:
        at += 2 + int.from_bytes(head[at : at + 2], "little")
    for flag in (8, 16):
        if flags & flag:
            at = head.find(b"\0", at) + 1 or len(head)
    return at + (2 if flags & 2 else 0)


def _gzip_trials(head: bytes, _: Plain) -> Iterator[Recompression]:
    # The ninth byte says whether the best or the fastest level was used.
    said = {2: (9,), 4: (1,)}.get(head[8], ())
    levels = (*said, *(level for level in _LEVELS if level not in said))
    for level in levels:
        yield Recompression("zlib", "", {"level": level, "memory": 8})
        yield Recompression("gzip-program", "", {"level": level, "rsyncable": 0}, skipped=10)
        yield Recompression("pigz-program", "", {"level": level, "rsyncable": 0}, skipped=10)
    for level in levels:
        yield Recompression("zlib", "", {"level": level, "memory": 9})
        yield Recompression("gzip-program", "", {"level": level, "rsyncable": 1}, skipped=10)


def _bzip2_trials(head: bytes, _: Plain) -> Iterator[Recompression]:
    yield Recompression("bzip2", "", {"level": min(max(head[3] - ord("0"), 1), 9)})


def _xz_trials(head: bytes, _: Plain) -> Iterator[Recompression]:
    check, flags = head[7], head[13]
    sizes_given = bool(flags & 0xC0)
    levels = _xz_levels(head, sizes_given=sizes_given)
    for extreme in (0, 1):
        for level in levels:
            settings = {"level": level, "extreme": extreme, "check": check}
            yield Recompression("xz-program" if sizes_given else "liblzma", "", settings)


def _xz_levels(head: bytes, *, sizes_given: bool) -> tuple[int, ...]:
    """The presets with the dictionary that the first block has, if its only filter is LZMA2 (The .xz File Format 1.1)."""
    at = 14
    if sizes_given:
        for flag in (0x40, 0x80):
            if head[13] & flag:
                while at < len(head) and head[at] & 0x80:
                    at += 1
                at += 1
    if head[13] & 3 or head[at : at + 2] != b"\x21\x01" or not lzma.is_check_supported(head[7]):
        return ()
    bits = head[at + 2]
    size = (2 | bits & 1) << (bits // 2 + 11)
    return _XZ_DICTIONARIES_KIB.get(size // KIB, ())


def _zstd_trials(head: bytes, plain: Plain) -> Iterator[Recompression]:
    described = head[4]
    sized = int(described >> 6 > 0 or bool(described & 0x20))
    window = 0 if described & 0x20 else 10 + (head[5] >> 3)
    levels = [level for level in _ZSTD_LEVELS if not window or window == _window(level, plain.length if sized else 0)]
    for level in levels:
        # The high levels take long to be tried, and are used by people, who use the program, rather than by others.
        for tool, threads in _ZSTD_WAYS[: 2 if level >= _ZSTD_SLOW else None]:
            settings = {"level": level, "checksum": described >> 2 & 1, "sized": sized, "threads": threads}
            yield Recompression(tool, "", settings)


def _window(level: int, size: int) -> int:
    found = zstandard.ZstdCompressionParameters.from_level(min(level, _ZSTD_MAX), source_size=size).window_log
    return int(found)


_TRIALS = {
    Compression.GZIP: _gzip_trials,
    Compression.BZIP2: _bzip2_trials,
    Compression.XZ: _xz_trials,
    Compression.ZSTD: _zstd_trials,
}
