"""Archives for tests: made by Python's tarfile, which is nobody's code here; and a store that they are taken in to."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from dataclasses import dataclass
from pathlib import Path

import zstandard

from pacstore.archive.returning import Returned, fetch_original
from pacstore.directory_source import DirectorySource
from pacstore.documents import read_manifest
from pacstore.progress import Progress, Silent
from tests.store.releases import NAME, Origin


def _zstd(data: bytes) -> bytes:
    stream = zstandard.ZstdCompressor(level=3, write_checksum=True).compressobj()
    return stream.compress(data) + stream.flush()


COMPRESSIONS = {
    "none": lambda data: data,
    "gzip": lambda data: gzip.compress(data, 6, mtime=5),
    "bzip2": lambda data: bz2.compress(data, 1),
    "xz": lambda data: lzma.compress(data, preset=1),
    "zstd": _zstd,
}
FORMATS = {"pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT, "ustar": tarfile.USTAR_FORMAT}


@dataclass(frozen=True)
class Entry:
    """A member: of `kind`, one of tarfile's type flags, at `name`."""

    name: str
    data: bytes = b""
    kind: bytes = tarfile.REGTYPE
    target: str = ""
    mode: int = 0o644
    mtime: float = 1_500_000_000
    pax: tuple[tuple[str, str], ...] = ()


def tar_of(*entries: Entry, format: int = tarfile.GNU_FORMAT) -> bytes:  # noqa: A002 - as tarfile has it
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=format) as tar:
        for entry in entries:
            info = tarfile.TarInfo(entry.name)
            info.type, info.linkname, info.mode, info.mtime = entry.kind, entry.target, entry.mode, entry.mtime
            info.size = len(entry.data)
            info.pax_headers = dict(entry.pax)
            tar.addfile(info, io.BytesIO(entry.data))
    return made.getvalue()


def tar_of_directory(top: Path, *, format: int = tarfile.GNU_FORMAT) -> bytes:  # noqa: A002 - as tarfile has it
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=format) as tar:
        tar.add(top, arcname=".")
    return made.getvalue()


def original_of(origin: Origin, name: str = NAME):
    return read_manifest(origin.store.storage, origin.entry(name)).original


def give_back(origin: Origin, output: Path, name: str = NAME, progress: Progress | None = None, **more) -> Returned:
    source = DirectorySource(origin.store.path)
    return fetch_original(origin.entry(name), source=source, output=output, progress=progress or Silent(), **more)
