"""Copying frames, compressed as they are, into new packs: first each is compared with its digest, its chunks with their ids."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from pacstore import codec
from pacstore.digest import Digest
from pacstore.durable import wrapped
from pacstore.errors import Corrupt, NewerFormat, NotFound, PacballError, TooLarge
from pacstore.pack import HEADER, Frame, Table, TableBuilder, ending, read_frame, read_table
from pacstore.readback import Damage, check_chunks
from pacstore.storage import ObjectKind, object_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pacstore.document import Numbers
    from pacstore.frames import FramePlace
    from pacstore.index import ChunkIndex
    from pacstore.progress import Progress
    from pacstore.repack.plan import Frames
    from pacstore.storage import ObjectStorage, Staged

_OPEN_PACKS = 16
_FAULTS = (Corrupt, NotFound, TooLarge, NewerFormat)


class Packs:
    """The tables and frames of packs; a few are kept open. For one thread."""

    def __init__(self, storage: ObjectStorage) -> None:
        self._storage = storage
        self._open: OrderedDict[Digest, tuple[BinaryIO, Table]] = OrderedDict()

    def table(self, pack: Digest) -> Table:
        """The table of a pack. Raises NotFound, Unavailable, or Corrupt, TooLarge, NewerFormat if it is not right."""
        return self._get(pack)[1]

    def read(self, pack: Digest, frame: Frame) -> bytes:
        """The compressed bytes of a frame of that pack, of which all is right. Raises as `table` does."""
        file, table = self._get(pack)
        place = object_path(ObjectKind.PACK, pack)
        with wrapped(place):
            data = read_frame(file, frame.offset, frame.length, frame.digest, place=place)
        check_chunks(table, frame, data, place)
        return data

    def close(self) -> None:
        """Close what is open. May be repeated."""
        while self._open:
            self._open.popitem()[1][0].close()

    def _get(self, pack: Digest) -> tuple[BinaryIO, Table]:
        if pack in self._open:
            self._open.move_to_end(pack)
            return self._open[pack]
        file = self._storage.open(ObjectKind.PACK, pack)
        try:
            table = _table(file, pack)
        except BaseException:
            file.close()
            raise
        self._open[pack] = (file, table)
        if len(self._open) > _OPEN_PACKS:
            self._open.popitem(last=False)[1][0].close()
        return file, table


def _table(file: BinaryIO, pack: Digest) -> Table:
    place = object_path(ObjectKind.PACK, pack)
    with wrapped(place):
        table = read_table(file, place=place)
    if table.id != pack:
        raise Corrupt("its table is not the one that its name says", place=place)
    return table


def frame_at(table: Table, offset: int, length: int) -> Frame:
    """The frame that begins there. Raises Corrupt if none of that length does."""
    number = int(np.searchsorted(table.offsets[:-1], offset))
    if number >= len(table.lengths) or (int(table.offsets[number]), int(table.lengths[number])) != (offset, length):
        place = object_path(ObjectKind.PACK, table.id)
        raise Corrupt(f"has no frame of {length} bytes at {offset}, which a placement names", place=place)
    return table.frame(number)


class Copier:
    """Moves `frames` (in the order in which they are to be stored) out of the packs `ids`, whose numbers they have.

    `to` is, for each of them, the number in `places` of the pack that it is in now, or -1; `offsets` where it lies there.
    `damage`: why packs cannot be repacked, by their numbers. Whoever uses it has a lease. For one thread.
    """

    def __init__(self, storage: ObjectStorage, index: ChunkIndex, ids: Sequence[Digest], frames: Frames) -> None:
        self.frames = frames
        self.to = np.full(len(frames), -1, dtype=np.int64)
        self.offsets = np.zeros(len(frames), dtype=np.int64)
        self.places: list[tuple[Digest, int]] = []
        self.damage: dict[int, Damage] = {}
        self.new_packs = 0
        self.new_bytes = 0
        self.packs = Packs(storage)
        self._storage = storage
        self._index = index
        self._ids = ids
        self._leaving = {ids[number] for number in np.unique(frames.packs).tolist()}
        self._numbers: dict[Digest, int] = {}

    def chunk_counts(self) -> Numbers:
        """How many chunks each frame has; 0 where its pack cannot be repacked, which is in `damage` then."""
        counts = np.zeros(len(self.frames), dtype=np.int64)
        for number in np.unique(self.frames.packs).tolist():
            rows = np.flatnonzero(self.frames.packs == number)
            try:
                counts[rows] = [self._chunks(*self._frame(row)) for row in rows.tolist()]
            except _FAULTS as error:
                self._spoil(number, error)
        return counts

    def find(self, progress: Progress | None) -> None:
        """Find frames that an earlier attempt has put into other packs. They are read, if `progress` is given."""
        for number in np.unique(self.frames.packs).tolist():
            if number not in self.damage:
                rows = np.flatnonzero(self.frames.packs == number)
                try:
                    found = list(self._elsewhere(rows.tolist()))
                except _FAULTS as error:
                    self._spoil(number, error)
                    continue
                for row, place in found:
                    if progress is None or self._is_good(place):
                        self._place(row, place.pack, place.pack_length, place.frame.offset)
                        if progress is not None:
                            progress.advance(place.frame.length)

    def store(self, rows: Iterable[int], progress: Progress) -> None:
        """Copy these frames into one new pack, which is durable and in the index afterwards. Raises Unavailable."""
        builder, done = TableBuilder(), []
        with self._storage.stage(ObjectKind.PACK) as staged:
            staged.write(HEADER)
            for row in rows:
                at = builder.end
                if self._copy(row, builder, staged):
                    done.append((row, at))
                progress.advance(int(self.frames.lengths[row]))
            if not done:
                return
            data = builder.encode()
            table = Table.parse(data, place="a new pack")
            staged.write(ending(data))
            # Before it is visible: a collection that found this very pack without use leaves it alone from here on.
            self._index.claim(table.id)
            staged.publish(table.id)
        self._index.add(table)
        self.new_packs, self.new_bytes = self.new_packs + 1, self.new_bytes + table.pack_length
        for row, at in done:
            self._place(row, table.id, table.pack_length, at)

    def _copy(self, row: int, builder: TableBuilder, staged: Staged) -> bool:
        number = int(self.frames.packs[row])
        if number in self.damage:
            return False
        try:
            table, frame = self._frame(row)
            data = self.packs.read(table.id, frame)
        except _FAULTS as error:
            self._spoil(number, error)
            return False
        chunks = slice(int(table.first_chunks[frame.number]), int(table.first_chunks[frame.number + 1]))
        lengths = table.chunk_lengths[chunks].tolist()
        builder.add_row(frame.kind, frame.length, frame.digest, table.chunk_ids[chunks].tobytes(), lengths)
        staged.write(data)
        return True

    def _frame(self, row: int) -> tuple[Table, Frame]:
        table = self.packs.table(self._ids[int(self.frames.packs[row])])
        frame = frame_at(table, int(self.frames.offsets[row]), int(self.frames.lengths[row]))
        if frame.kind != codec.KIND_ZSTD:
            place = object_path(ObjectKind.PACK, table.id)
            raise NewerFormat("has a frame of a kind that this pacball does not know", place=place)
        return table, frame

    @staticmethod
    def _chunks(table: Table, frame: Frame) -> int:
        return int(table.first_chunks[frame.number + 1] - table.first_chunks[frame.number])

    def _elsewhere(self, rows: list[int]) -> Iterator[tuple[int, FramePlace]]:
        """Those frames of one pack that the index knows in packs which stay."""
        known = [(row, *self._frame(row)) for row in rows]
        first = {row: _chunk_ids(table, frame)[0] for row, table, frame in known}
        begins = self._index.find(list(first.values()))
        numbers = {place.frame for place in begins.values()}
        places = {place.number: place for place in self._index.frames(numbers)}
        for row, table, frame in known:
            begin = begins.get(first[row])
            place = places[begin.frame] if begin is not None else None
            if place is not None and self._is_same(table, frame, place):
                yield row, place

    def _is_same(self, table: Table, frame: Frame, place: FramePlace) -> bool:
        """Whether the frame at `place`, in a pack that stays, is this one: its bytes, and the chunks in it."""
        if place.pack in self._leaving or place.frame.digest != frame.digest or place.frame.length != frame.length:
            return False
        try:
            if self._storage.size(ObjectKind.PACK, place.pack) != place.pack_length:
                return False
            other = self.packs.table(place.pack)
            there = frame_at(other, place.frame.offset, place.frame.length)
        except _FAULTS:
            return False
        return there.digest == frame.digest and _chunk_ids(other, there) == _chunk_ids(table, frame)

    def _is_good(self, place: FramePlace) -> bool:
        try:
            table = self.packs.table(place.pack)
            self.packs.read(place.pack, frame_at(table, place.frame.offset, place.frame.length))
        except _FAULTS:
            return False
        return True

    def _place(self, row: int, pack: Digest, length: int, offset: int) -> None:
        number = self._numbers.setdefault(pack, len(self.places))
        if number == len(self.places):
            self.places.append((pack, length))
        self.to[row], self.offsets[row] = number, offset

    def _spoil(self, number: int, error: PacballError) -> None:
        place = error.place or object_path(ObjectKind.PACK, self._ids[number])
        self.damage.setdefault(number, Damage(place, error.message))


def _chunk_ids(table: Table, frame: Frame) -> list[bytes]:
    """The ids of the chunks of a frame: two frames of the same bytes may be cut differently."""
    chunks = slice(int(table.first_chunks[frame.number]), int(table.first_chunks[frame.number + 1]))
    return [row.tobytes() for row in table.chunk_ids[chunks]]
