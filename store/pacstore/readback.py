"""Reading packs back: every frame is compared with its digest and decoded, every chunk compared with its id."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field

from blake3 import blake3

from pacstore import codec
from pacstore.digest import Digest
from pacstore.durable import wrapped
from pacstore.errors import Corrupt, PacballError
from pacstore.pack import Frame, Table, read_frame, read_table
from pacstore.progress import Progress
from pacstore.storage import ObjectKind, ObjectStorage, object_path


@dataclass(frozen=True)
class Damage:
    """Something that is not as it must be: `place` in the store, and `fault`, a sentence."""

    place: str
    fault: str


@dataclass
class Report:
    """What a check found. `bytes_read` of packs; `damage` is empty if all is well; `releases` are the damaged ones."""

    packs: int = 0
    frames: int = 0
    bytes_read: int = 0
    releases_checked: int = 0
    damage: list[Damage] = field(default_factory=list)
    releases: list[str] = field(default_factory=list)

    def add(self, error: PacballError, place: str) -> None:
        """Record an error met at `place`."""
        self.damage.append(Damage(error.place or place, error.message))


@dataclass(frozen=True)
class PackState:
    """What was found of a pack: its table, None if that cannot be read or is another's; offsets and lengths of its bad frames."""

    table: Table | None
    bad_frames: Mapping[int, int] = field(default_factory=dict)


def total_length(storage: ObjectStorage, packs: list[Digest]) -> int:
    """The sum of the lengths of those of these packs that can be looked at."""
    total = 0
    for pack in packs:
        try:
            total += storage.size(ObjectKind.PACK, pack)
        except PacballError:
            continue
    return total


def read_back(storage: ObjectStorage, pack: Digest, report: Report, *, progress: Progress) -> PackState:
    """Read the whole pack, and record in `report` what is wrong with it."""
    place = object_path(ObjectKind.PACK, pack)
    bad: dict[int, int] = {}
    report.packs += 1
    try:
        with closing(storage.open(ObjectKind.PACK, pack)) as file, wrapped(place):
            table = read_table(file, place=place)
            if table.id != pack:
                raise Corrupt("its table is not the one that its name says", place=place)
            for frame in table.frames():
                try:
                    data = read_frame(file, frame.offset, frame.length, frame.digest, place=place)
                    check_chunks(table, frame, data, place)
                except Corrupt as error:
                    report.add(error, place)
                    bad[frame.offset] = frame.length
                report.frames += 1
                report.bytes_read += frame.length
                progress.advance(frame.length)
    except PacballError as error:
        report.add(error, place)
        return PackState(None)
    return PackState(table, bad)


def check_chunks(table: Table, frame: Frame, data: bytes, place: str) -> None:
    """Raise Corrupt unless `data`, the compressed bytes of a frame of `table`, hold the chunks that it lists."""
    if frame.kind != codec.KIND_ZSTD:
        return  # Of a later version: its bytes are right, and more cannot be said here (FORMAT.md section 5.2).
    plain = memoryview(codec.decompress(frame.kind, data, frame.plain_length, place=place))
    at = 0
    for chunk in range(int(table.first_chunks[frame.number]), int(table.first_chunks[frame.number + 1])):
        length = int(table.chunk_lengths[chunk])
        if blake3(plain[at : at + length]).digest() != table.chunk_ids[chunk].tobytes():
            raise Corrupt("a chunk is not the one that the table names", place=f"{place}, frame at {frame.offset}")
        at += length
