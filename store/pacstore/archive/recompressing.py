"""Making a compressed stream again, bit for bit: which tool with which settings made it is found by trying.

Libraries in this process come first where they do as well; programs are run where only these can do it. What is run is fixed
here, by name: from a manifest come only numbers.
"""

from __future__ import annotations

import bz2
import lzma
import os
import shutil
import subprocess
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing

import zstandard

from pacstore.archive.headers import Plain
from pacstore.errors import NewerFormat, Unavailable
from pacstore.limits import MIB
from pacstore.original import Recompression

_PIECE_BYTES = 1 * MIB
_PATH = "/usr/local/bin:/usr/bin:/bin:/opt/homebrew/bin"
_GZIP_HEADER_BYTES = 10
"""Of what gzip and pigz write when they are told no name."""
_PIGZ_THREADS = "-p2"
_XZ_CHECKS = {0: "none", 1: "crc32", 4: "crc64", 10: "sha256"}


class ProgramFailed(Unavailable):
    """A program that is here did not do it: some know fewer options than others of the same name."""


def remake(recompression: Recompression, plain: Plain) -> Generator[bytes]:
    """The stream that the plain bytes become. Raises Unavailable without the tool, NewerFormat for one that is not known."""
    try:
        if recompression.tool in _PROGRAMS:
            program = recompression.tool.removesuffix("-program")
            pieces = _run(program, _PROGRAMS[recompression.tool](recompression.settings, plain), plain)
        else:
            pieces = _TOOLS[recompression.tool](recompression.settings, plain)
        yield from _after(pieces, recompression.skipped)
    except (KeyError, OverflowError, ValueError, lzma.LZMAError, zstandard.ZstdError) as error:
        raise NewerFormat(
            f"was compressed in a way that this pacball does not know: {recompression}",
            place=plain.name,
            hint="install a newer one",
        ) from error


def version_of(tool: str) -> str:
    """The version of a tool that is here; empty where there is none."""
    if tool in _VERSIONS:
        return _VERSIONS[tool]()
    program = shutil.which(tool.removesuffix("-program"), path=_PATH)
    if program is None:
        return ""
    done = subprocess.run(  # noqa: S603 - a name of ours
        [program, "--version"], capture_output=True, check=False, env=_environment(), stdin=subprocess.DEVNULL
    )
    words = (done.stdout or done.stderr).decode(errors="replace").split()
    found = next((word for word in words if word.lstrip("v")[:1].isdigit()), "unknown")
    return found.strip("v,")


def _after(pieces: Iterator[bytes], skipped: int) -> Iterator[bytes]:
    for piece in pieces:
        if skipped < len(piece):
            yield piece[skipped:]
        skipped = max(skipped - len(piece), 0)


def read_plain(plain: Plain) -> Iterator[bytes]:
    """All plain bytes, piece by piece."""
    for at in range(0, plain.length, _PIECE_BYTES):
        yield plain.read(at, min(_PIECE_BYTES, plain.length - at))


def _zlib(settings: dict[str, int], plain: Plain) -> Iterator[bytes]:
    """A raw stream, and what follows it in gzip's format."""
    made = zlib.compressobj(settings["level"], zlib.DEFLATED, -15, settings["memory"])
    checksum = 0
    for piece in read_plain(plain):
        checksum = zlib.crc32(piece, checksum)
        yield made.compress(piece)
    yield made.flush()
    yield checksum.to_bytes(4, "little") + (plain.length % 2**32).to_bytes(4, "little")


def _bzip2(settings: dict[str, int], plain: Plain) -> Iterator[bytes]:
    made = bz2.BZ2Compressor(settings["level"])
    for piece in read_plain(plain):
        yield made.compress(piece)
    yield made.flush()


def _liblzma(settings: dict[str, int], plain: Plain) -> Iterator[bytes]:
    preset = settings["level"] | (lzma.PRESET_EXTREME if settings["extreme"] else 0)
    made = lzma.LZMACompressor(lzma.FORMAT_XZ, check=settings["check"], preset=preset)
    for piece in read_plain(plain):
        yield made.compress(piece)
    yield made.flush()


def _libzstd(settings: dict[str, int], plain: Plain) -> Iterator[bytes]:
    # Beyond these a manifest could ask for gigabytes of memory: with -1 there are as many threads as processors.
    parameters = zstandard.ZstdCompressionParameters.from_level(
        _zstd_level(settings["level"]),
        source_size=plain.length if settings["sized"] else 0,
        write_checksum=settings["checksum"],
        write_content_size=settings["sized"],
        threads=_flag(settings["threads"]),
    )
    made = zstandard.ZstdCompressor(compression_params=parameters)
    stream = made.compressobj(size=plain.length) if settings["sized"] else made.compressobj()
    for piece in read_plain(plain):
        yield stream.compress(piece)
    yield stream.flush()


def _gzip_arguments(settings: dict[str, int], _: Plain) -> list[str]:
    return ["-c", "-n", f"-{_digit(settings['level'])}", *(["--rsyncable"] if settings["rsyncable"] else [])]


def _pigz_arguments(settings: dict[str, int], plain: Plain) -> list[str]:
    return [_PIGZ_THREADS, *_gzip_arguments(settings, plain)]


def _xz_arguments(settings: dict[str, int], _: Plain) -> list[str]:
    extreme = ["-e"] if settings["extreme"] else []
    return ["-c", "-T2", f"-{_digit(settings['level'])}", *extreme, f"--check={_XZ_CHECKS[settings['check']]}"]


def _zstd_arguments(settings: dict[str, int], plain: Plain) -> list[str]:
    level = _zstd_level(settings["level"])
    checksum = "--check" if settings["checksum"] else "--no-check"
    threads = "-T1" if settings["threads"] else "--single-thread"
    sized = [f"--stream-size={plain.length}"] if settings["sized"] else []
    return ["-c", "-q", f"-{level}", checksum, threads, *sized]


def _zstd_level(level: int) -> int:
    if not 1 <= level <= 19:
        raise ValueError(level)
    return level


def _flag(value: int) -> int:
    if value not in (0, 1):
        raise ValueError(value)
    return value


def _digit(level: int) -> int:
    if not 0 <= level <= 9:
        raise ValueError(level)
    return level


def _run(program: str, arguments: list[str], plain: Plain) -> Iterator[bytes]:
    """What the program makes of the plain bytes, which are the whole of their file."""
    path = shutil.which(program, path=_PATH)
    if path is None:
        hint = f"install {program}, and run the same command again"
        raise Unavailable(f"cannot be compressed again: there is no {program} here", place=plain.name, hint=hint)
    descriptor = os.open(f"/proc/self/fd/{plain.descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as file:
        process = subprocess.Popen(  # noqa: S603 - a name of ours, and numbers
            [path, *arguments], stdin=file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_environment()
        )
    try:
        assert process.stdout is not None
        while piece := process.stdout.read(_PIECE_BYTES):
            yield piece
        if process.wait() != 0:
            raise ProgramFailed(f"cannot be compressed again: {program} failed", place=plain.name)
    finally:
        process.kill()
        process.communicate()


def _environment() -> dict[str, str]:
    """Without the variables in which people keep options for these programs."""
    return {"PATH": _PATH, "LC_ALL": "C"}


_TOOLS: dict[str, Callable[[dict[str, int], Plain], Iterator[bytes]]] = {
    "zlib": _zlib,
    "bzip2": _bzip2,
    "liblzma": _liblzma,
    "libzstd": _libzstd,
}
_PROGRAMS: dict[str, Callable[[dict[str, int], Plain], list[str]]] = {
    "gzip-program": _gzip_arguments,
    "pigz-program": _pigz_arguments,
    "xz-program": _xz_arguments,
    "zstd-program": _zstd_arguments,
}
_VERSIONS: dict[str, Callable[[], str]] = {
    "zlib": lambda: zlib.ZLIB_RUNTIME_VERSION,
    "bzip2": lambda: "1.0",
    "liblzma": lambda: "5",
    "libzstd": lambda: ".".join(map(str, zstandard.ZSTD_VERSION)),
}


def is_made_again(recompression: Recompression, plain: Plain, source: int, begin: int, end: int) -> bool:
    """Whether the stream made so is what the file `source` has from `begin` to `end`. Stops at the first difference.

    Raises ProgramFailed, and what reading does.
    """
    at = begin
    with closing(remake(recompression, plain)) as pieces:
        for piece in pieces:
            if len(piece) > end - at or os.pread(source, len(piece), at) != piece:
                return False
            at += len(piece)
    return at == end
