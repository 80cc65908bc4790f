"""Copying objects from one place to another: verified on the way, durable before they are visible, nothing twice.

What goes wrong where bytes are read is a `Fault`, so that the caller can name it and go on with the rest; what goes wrong where
they are written is an error like any other, and stops the work.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager

from blake3 import blake3

from pacstore.digest import Bytes, Digest
from pacstore.durable import wrapped
from pacstore.errors import Corrupt, PacballError, TooLarge
from pacstore.limits import KIB, LIMITS, MIB
from pacstore.pack import (
    FOOTER_BYTES,
    FOOTER_MAGIC,
    FRAMES_BEGIN,
    HEADER,
    Table,
    check_frame,
    ending,
    read_frame,
    read_table,
)
from pacstore.progress import Progress
from pacstore.source import PackRange, Source, blame
from pacstore.storage import ObjectKind, ObjectStorage, object_path

_TAIL_BYTES = 128 * KIB
"""Asked for first, from the end of a pack: of most packs it is the footer and the whole table."""
_RANGE_BYTES = 4 * MIB
FETCH_ATTEMPTS = 2
"""How often a part of a source may give what is wrong of one range."""
_RANGES_AT_ONCE = 8
"""Ranges come in any order and are written in theirs: at most so many are held in memory."""


class Fault(Exception):
    """`error`: what is wrong with the place that was read from."""

    def __init__(self, error: PacballError) -> None:
        super().__init__(str(error))
        self.error = error


@contextmanager
def reading(place: str) -> Iterator[None]:
    """Errors inside become a Fault; those of the operating system name `place`."""
    try:
        with wrapped(place):
            yield
    except PacballError as error:
        raise Fault(error) from error


def copy_object(
    reader: ObjectStorage, writer: ObjectStorage, kind: ObjectKind, digest: Digest, *, progress: Progress
) -> int:
    """Copy one object and return its length in bytes; every byte is compared with the object's name before it is visible.

    Raises Fault where the copy would not be the object; other errors are the writer's.
    """
    return _store(writer, kind, digest, verified_pieces(reader, kind, digest), progress)


def check_object(storage: ObjectStorage, kind: ObjectKind, digest: Digest, *, progress: Progress) -> None:
    """Read one object back. Raises Fault unless it is what its name says."""
    for piece in verified_pieces(storage, kind, digest):
        progress.advance(len(piece))


def verified_pieces(storage: ObjectStorage, kind: ObjectKind, digest: Digest) -> Iterator[bytes]:
    """The bytes of one object, in order. Raises Fault unless it is what its name says: at its end at the latest."""
    return _pack_pieces(storage, digest) if kind is ObjectKind.PACK else _pieces(storage, kind, digest)


def fetch_object(
    source: Source, writer: ObjectStorage, kind: ObjectKind, digest: Digest, *, limit: int, progress: Progress
) -> int:
    """Like copy_object for an object that is no pack, from a source; it has at most `limit` bytes."""
    return _store(writer, kind, digest, [read_public(source, object_path(kind, digest), digest, limit=limit)], progress)


def read_public(source: Source, path: str, digest: Digest, *, limit: int) -> bytes:
    """The public file at `path` of a source, of at most `limit` bytes. Raises Fault unless its digest is `digest`."""
    with reading(path):
        data = source.read(path, limit=limit)
        if Digest.of(data) != digest:
            raise Corrupt("is not what its digest says", place=f"{source.name}/{path}")
    return data


def fetch_pack(source: Source, writer: ObjectStorage, pack: Digest, length: int, *, progress: Progress) -> int:
    """Like copy_object for a pack of `length` bytes, by ranges of a source: its table and every frame are verified."""
    return _store(writer, ObjectKind.PACK, pack, fetched_pieces(source, pack, length), progress)


def _store(writer: ObjectStorage, kind: ObjectKind, digest: Digest, pieces: Iterable[Bytes], progress: Progress) -> int:
    length = 0
    with writer.stage(kind) as staged:
        for piece in pieces:
            staged.write(memoryview(piece))
            length += len(piece)
            progress.advance(len(piece))
        staged.publish(digest)
    return length


def _pieces(reader: ObjectStorage, kind: ObjectKind, digest: Digest) -> Iterator[bytes]:
    place = object_path(kind, digest)
    hasher = blake3()
    with reading(place):
        file = reader.open(kind, digest)
    with closing(file):
        while True:
            with reading(place):
                data = file.read(MIB)
            if not data:
                break
            hasher.update(data)
            yield data
    if hasher.digest() != digest.raw:
        raise Fault(Corrupt("is not what its name says", place=place))


def _pack_pieces(reader: ObjectStorage, pack: Digest) -> Iterator[bytes]:
    place = object_path(ObjectKind.PACK, pack)
    with reading(place):
        file = reader.open(ObjectKind.PACK, pack)
    with closing(file):
        with reading(place):
            table = read_table(file, place=place)
            if table.id != pack:
                raise Corrupt("its table is not the one that its name says", place=place)
        yield HEADER
        for frame in table.frames():
            with reading(place):
                data = read_frame(file, frame.offset, frame.length, frame.digest, place=place)
            yield data
        with reading(place):
            file.seek(int(table.offsets[-1]))
            data = file.read(table.length)
            if Digest.of(data) != pack:
                raise Corrupt("its table changed while it was read", place=place)
        yield ending(data)


def fetched_pieces(source: Source, pack: Digest, length: int) -> Iterator[Bytes]:
    """The bytes of a pack of `length` bytes, in their order, each piece verified before it is given. Raises Fault."""
    place = f"{source.name}/{object_path(ObjectKind.PACK, pack)}"
    with reading(place):
        data = _fetch_right_table(source, pack, length, place)
        table = Table.parse(data, place=f"the table of {place}")
        if table.pack_length != length:
            raise Corrupt(f"implies {table.pack_length} bytes, not {length}", place=f"the table of {place}")
    yield HEADER
    runs = list(table.runs(_RANGE_BYTES))
    for first in range(0, len(runs), _RANGES_AT_ONCE):
        batch = runs[first : first + _RANGES_AT_ONCE]
        with reading(place):
            found = dict(source.ranges([_range_of(table, pack, run) for run in batch]))
            for run in batch:
                wanted = _range_of(table, pack, run)
                found[wanted] = _right_run(source, table, run, wanted, found[wanted], place)
        for run in batch:
            yield found.pop(_range_of(table, pack, run))
    yield ending(data)


def fetch_table(source: Source, pack: Digest, length: int, *, place: str) -> bytes:
    """The table of a pack of `length` bytes, compared with the pack's id. Raises Corrupt, TooLarge and what the source raises."""
    if not FRAMES_BEGIN + FOOTER_BYTES <= length <= LIMITS.pack_bytes:
        raise TooLarge(f"cannot be a pack: it would have {length} bytes", place=place)
    tail = min(_TAIL_BYTES, length - FRAMES_BEGIN)
    data = _fetch(source, PackRange(pack, length - tail, tail))
    table_bytes, magic = struct.unpack("<Q8s", data[-FOOTER_BYTES:])
    if magic != FOOTER_MAGIC or table_bytes > min(LIMITS.table_bytes, length - FRAMES_BEGIN - FOOTER_BYTES):
        raise Corrupt("is not a whole pack: its last bytes are not a pack's", place=place)
    if table_bytes + FOOTER_BYTES > tail:
        data = _fetch(source, PackRange(pack, length - FOOTER_BYTES - table_bytes, table_bytes)) + data[-FOOTER_BYTES:]
    data = data[-FOOTER_BYTES - table_bytes : -FOOTER_BYTES]
    if Digest.of(data) != pack:
        raise Corrupt("its table is not the one that its name says", place=place)
    return data


def _fetch_right_table(source: Source, pack: Digest, length: int, place: str) -> bytes:
    """As `fetch_table`; a source of several parts is told of what is wrong, and asked again until a part was wrong twice."""
    wrong: Counter[str] = Counter()
    while True:
        try:
            return fetch_table(source, pack, length, place=place)
        except Corrupt as error:
            tail = min(_TAIL_BYTES, length - FRAMES_BEGIN)
            _count_wrong(source, PackRange(pack, length - tail, tail), error, wrong)


def _right_run(source: Source, table: Table, run: range, wanted: PackRange, data: Bytes, place: str) -> Bytes:
    """The bytes of a run, which are `data` if these are right; otherwise asked for again as the table is."""
    wrong: Counter[str] = Counter()
    while True:
        try:
            _check_run(table, run, data, place)
        except Corrupt as error:
            _count_wrong(source, wanted, error, wrong)
            data = _fetch(source, wanted)
        else:
            return data


def _count_wrong(source: Source, wanted: PackRange, error: Corrupt, wrong: Counter[str]) -> None:
    """Tell the source; raise `error`, which names who gave it, if that one was wrong before."""
    giver = blame(source, wanted, error)
    wrong[giver] += 1
    if wrong[giver] >= FETCH_ATTEMPTS:
        said = error.message if giver == source.name else f"{error.message}, as {giver} gave it"
        raise Corrupt(said, place=error.place, hint=error.hint) from error


def _fetch(source: Source, wanted: PackRange) -> bytes:
    return b"".join(bytes(data) for _, data in source.ranges([wanted]))


def _range_of(table: Table, pack: Digest, run: range) -> PackRange:
    begin, end = int(table.offsets[run.start]), int(table.offsets[run.stop])
    return PackRange(pack, begin, end - begin)


def _check_run(table: Table, run: range, data: Bytes, place: str) -> None:
    view = memoryview(data)
    begin = int(table.offsets[run.start])
    for number in run:
        frame = table.frame(number)
        piece = view[frame.offset - begin : frame.offset - begin + frame.length]
        check_frame(piece, frame.digest, place=f"{place}, frame at {frame.offset}")
