"""Taking in an archive: its entries as a release's, and what lies between them, so that the very file can be given back."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from blake3 import blake3

from pacstore.archive.entries import Entries
from pacstore.archive.headers import Plain
from pacstore.archive.kinds import Compression, Kind, identify
from pacstore.archive.trials import find_recompression
from pacstore.archive.unpacking import Unpacked, unpack
from pacstore.chunker import Chunker
from pacstore.document import U32
from pacstore.durable import wrapped
from pacstore.errors import Corrupt, Refused, printable
from pacstore.limits import MIB
from pacstore.original import ENDS_BYTES, NO_FILE, Original, Recompression
from pacstore.progress import Progress
from pacstore.reader import Batch
from pacstore.tree import check_name

_READ_BYTES = 1 * MIB
_SEGMENT_BYTES = 4 * MIB
_LARGEST_LITERAL = 2**32 - 1
_ENDS_BYTES = ENDS_BYTES - 1 * MIB
"""The header of the stream comes to what stands before it."""
_MD5_NAME = re.compile(r"\.md5-([0-9a-f]{32})(?:\.|\Z)")
_STUB = re.compile(rb"\nrelease='[^'\n]*'\ntree='([0-9a-f]{64})'\nsha256='([0-9a-f]{64})'\nstub_bytes=([0-9]{1,9})\n")
_AGAIN = "fetch or make it again"


@dataclass(frozen=True, eq=False)
class Archive:
    """An archive that is open for being taken in. `stub_tree`: the tree digest that a pacball of ours names, or empty.

    `opaque_bytes`: how long the compressed stream is that is kept as it is, because nothing was found that makes it again.
    """

    path: Path
    entries: Entries
    original: Original
    stub_tree: str
    opaque_bytes: int
    _source: Plain
    _plain: Plain
    _status: os.stat_result

    def residue(self) -> Iterator[Batch]:
        """The chunks of all that is not the content of a file. Raises Corrupt and Unavailable."""
        return _cut(self._residue())

    def _residue(self) -> Iterator[bytes]:
        original = self.original
        yield from _read(self._source, 0, original.before)
        yield from _read(self._source, original.length - original.after, original.after)
        at = 0
        sizes = {stretch.file: stretch.size for stretch in self.entries.stretches()}
        for length, file in zip(original.literal_lengths.tolist(), original.literal_files.tolist(), strict=True):
            yield from _read(self._plain, at, length)
            at += length + sizes.get(file, 0)

    def check_unchanged(self) -> None:
        """Raise Refused if the file is not the one any more that was opened."""
        now, old = os.fstat(self._source.descriptor), self._status
        if (now.st_size, now.st_mtime_ns, now.st_ctime_ns) != (old.st_size, old.st_mtime_ns, old.st_ctime_ns):
            raise Refused(
                "changed while it was read", place=str(self.path), hint="publish a file that nobody writes to"
            )


@contextmanager
def taken(path: Path, staging: Path, *, keep_stream: bool, progress: Progress) -> Iterator[Archive]:
    """The archive at `path`. The plain bytes of a compressed one stand in a file without a name in `staging` meanwhile.

    With `keep_stream` a compressed stream is kept as it is. Who has read it calls `check_unchanged`. Raises Refused for what is
    no archive or may not be in a release, Corrupt for one that is damaged or not what its name or its stub says, TooLarge,
    Unavailable.
    """
    name = printable(str(path))
    check_name(os.fsencode(path.name))
    with ExitStack() as resources:
        with wrapped(path):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            resources.callback(os.close, descriptor)
            status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Refused("is neither a directory nor a file", place=str(path))
        source = Plain(descriptor, 0, status.st_size, name)
        kind = identify(descriptor, name=name)
        sha256, stub_tree = _digests(source, kind, path.name, progress)
        if kind.compression is Compression.NONE:
            plain, stream = Plain(descriptor, kind.begin, source.length - kind.begin, name), _Stream(kind.begin)
            entries = Entries(plain)
        else:
            with wrapped(staging):
                file = resources.enter_context(tempfile.TemporaryFile(dir=staging, buffering=0))
            plain, done = _unpacked(source, kind, file.fileno(), progress)
            # Refused before anything is tried, which may take minutes.
            entries = Entries(plain)
            stream = _stream(source, kind, plain, done, keep_stream=keep_stream, progress=progress)
        original = _original(path.name, source, plain, stream, sha256, entries)
        yield Archive(path, entries, original, stub_tree, stream.opaque_bytes, source, plain, status)


@dataclass(frozen=True)
class _Stream:
    """Where the plain bytes stand in an archive: behind `before` bytes, and before `after`; or as a stream that is made again.

    `opaque_bytes`: how long the stream is, if it is kept as it is.
    """

    before: int
    after: int = 0
    recompression: Recompression | None = None
    opaque_bytes: int = 0


def _digests(source: Plain, kind: Kind, file_name: str, progress: Progress) -> tuple[bytes, str]:
    """The SHA-256 of the file, and the tree that its stub names, after a look at all digests that the file itself tells."""
    progress.begin("reading", source.length)
    whole, named = hashlib.sha256(), _MD5_NAME.search(file_name)
    stub = _STUB.search(source.read(0, kind.begin))
    payload = hashlib.sha256()
    # Of all of it, or of what its script carries: both were called the digest of a pacball.
    md5s = [(0, hashlib.md5(usedforsecurity=False)), (kind.begin, hashlib.md5(usedforsecurity=False))] if named else []
    at = 0
    for piece in _read(source, 0, source.length):
        whole.update(piece)
        for begin, md5 in md5s:
            md5.update(piece[max(begin - at, 0) :])
        if stub:
            payload.update(piece[max(int(stub[3]) - at, 0) :])
        at += len(piece)
        progress.advance(len(piece))
    if named and named[1] not in [md5.hexdigest() for _, md5 in md5s]:
        raise Corrupt(f"has the md5 {md5s[0][1].hexdigest()}, not the one in its name", place=source.name, hint=_AGAIN)
    if stub and payload.hexdigest() != stub[2].decode():
        raise Corrupt("is damaged: its payload is not the one that its stub names", place=source.name, hint=_AGAIN)
    return whole.digest(), stub[1].decode() if stub else ""


def _unpacked(source: Plain, kind: Kind, output: int, progress: Progress) -> tuple[Plain, Unpacked]:
    """The plain bytes of a compressed archive, now in the file `output`."""
    progress.begin("unpacking", source.length - kind.begin)
    done = unpack(
        source.descriptor, kind.begin, source.length, kind.compression, output, name=source.name, progress=progress
    )
    return Plain(output, 0, done.plain_bytes, source.name), done


def _stream(
    source: Plain, kind: Kind, plain: Plain, done: Unpacked, *, keep_stream: bool, progress: Progress
) -> _Stream:
    """How the plain bytes of a compressed archive become its stream again."""
    # Several streams are the work of tools that are not known here, or of none.
    if not keep_stream and done.streams == 1 and kind.begin + done.after <= _ENDS_BYTES:
        progress.begin("looking how it was compressed", None)
        end = source.length - done.after
        found = find_recompression(source.descriptor, kind.begin, end, kind.compression, plain)
        if found is not None:
            return _Stream(found[0], done.after, found[1])
    return _Stream(source.length, opaque_bytes=source.length - kind.begin)


def _original(name: str, source: Plain, plain: Plain, stream: _Stream, sha256: bytes, entries: Entries) -> Original:
    lengths: list[int] = []
    files: list[int] = []
    at = 0
    for stretch in [] if stream.opaque_bytes else entries.stretches():
        _row(lengths, files, stretch.offset - at, stretch.file)
        at = stretch.offset + stretch.size
    if not stream.opaque_bytes:
        _row(lengths, files, plain.length - at, NO_FILE)
    return Original(
        name, source.length, sha256, stream.before, stream.after, 0 if stream.opaque_bytes else plain.length,
        np.array(lengths, dtype=U32), np.array(files, dtype=U32), stream.recompression,
    )  # fmt: skip


def _row(lengths: list[int], files: list[int], length: int, file: int) -> None:
    while length > _LARGEST_LITERAL:
        lengths.append(_LARGEST_LITERAL)
        files.append(NO_FILE)
        length -= _LARGEST_LITERAL
    lengths.append(length)
    files.append(file)


def _read(plain: Plain, offset: int, length: int) -> Iterator[bytes]:
    for at in range(offset, offset + length, _READ_BYTES):
        yield plain.read(at, min(_READ_BYTES, offset + length - at))


def _cut(pieces: Iterator[bytes]) -> Iterator[Batch]:
    """The chunks of some bytes, some megabytes at a time."""
    chunker = Chunker()
    held = bytearray()
    for piece in pieces:
        held += piece
        if len(held) >= _SEGMENT_BYTES:
            batch = _batch(chunker, bytes(held), last=False)
            del held[: batch.size]
            yield batch
    yield _batch(chunker, bytes(held), last=True)


def _batch(chunker: Chunker, data: bytes, *, last: bool) -> Batch:
    batch, view = Batch(), memoryview(data)
    for length in chunker.cut(view, last=last):
        chunk = view[batch.size : batch.size + length]
        batch.ids.append(blake3(chunk).digest())
        batch.data.append(chunk)
        batch.size += length
    return batch
