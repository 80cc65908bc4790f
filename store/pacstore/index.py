"""The index: which chunk is in which pack, frame and place. SQLite; it can always be rebuilt from the packs.

A pack's rows appear in one transaction, after the pack itself is durable and visible. A row that is missing costs space, never
correctness; a row that is wrong is caught where bytes are verified.

A pack that is to be collected is *condemned* first: its chunks are found no more, while its frames stay for who found them
before. It is deleted only while it is condemned, in the transaction that forgets it; who stores the same pack again claims it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa

from pacstore.database import Database, Schema
from pacstore.digest import DIGEST_BYTES, Digest
from pacstore.errors import Corrupt
from pacstore.frames import FramePlace
from pacstore.pack import Frame, Table

SCHEMA_VERSION = 2
_LOOKUP_BATCH = 500
_OFFSETS = 1 << 22
"""More than an offset inside a frame can be."""

_metadata = sa.MetaData()
_packs = sa.Table(
    "packs",
    _metadata,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("id", sa.LargeBinary(DIGEST_BYTES), nullable=False, unique=True),
    sa.Column("length", sa.Integer, nullable=False),
)
_frames = sa.Table(
    "frames",
    _metadata,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("pack", sa.Integer, nullable=False, index=True),
    sa.Column("kind", sa.Integer, nullable=False),
    sa.Column("offset", sa.Integer, nullable=False),
    sa.Column("length", sa.Integer, nullable=False),
    sa.Column("plain_length", sa.Integer, nullable=False),
    sa.Column("digest", sa.LargeBinary(DIGEST_BYTES), nullable=False),
    # So that the number of a frame that is gone is never given to another: a publisher may still hold it.
    sqlite_autoincrement=True,
)
_chunks = sa.Table(
    "chunks",
    _metadata,
    sa.Column("id", sa.LargeBinary(DIGEST_BYTES), primary_key=True),
    sa.Column("frame", sa.Integer, nullable=False),
    sa.Column("offset", sa.Integer, nullable=False),
    sa.Column("length", sa.Integer, nullable=False),
    sqlite_with_rowid=False,
)
_condemned = sa.Table(
    "condemned",
    _metadata,
    sa.Column("id", sa.LargeBinary(DIGEST_BYTES), primary_key=True),
    sqlite_with_rowid=False,
)
_SCHEMA = Schema(
    "the index", SCHEMA_VERSION, _metadata, mend="run: pacball store reindex", newer="run: pacball store reindex"
)
"""Version 1 knew no condemned packs."""
_next_frame = sa.text("SELECT coalesce(max(seq), 0) + 1 FROM sqlite_sequence WHERE name = 'frames'")
_INSERT_CHUNK = "INSERT OR REPLACE INTO chunks (id, frame, offset, length) VALUES (?, ?, ?, ?)"
_RESTORE_CHUNK = "INSERT OR IGNORE INTO chunks (id, frame, offset, length) VALUES (?, ?, ?, ?)"
_HIDE_CHUNK = "DELETE FROM chunks WHERE id = ? AND frame = ?"
_HIDE_CHUNKS = "DELETE FROM chunks WHERE frame BETWEEN ? AND ?"


class _ChunkRow(NamedTuple):
    id: bytes
    frame: int
    offset: int
    length: int


class ChunkPlace(NamedTuple):
    """Where a chunk is: the index's number of its frame, offset and length in the frame's plain bytes."""

    frame: int
    offset: int
    length: int


class ChunkIndex:
    """The index in the SQLite database `path`. Any number of processes may share it.

    It is made if it is missing, unless `make` is false: then, and if it is to be read only, to miss it is Corrupt.
    """

    def __init__(self, path: Path, *, read_only: bool = False, make: bool = True) -> None:
        self.path = path
        self._database = Database(path, _SCHEMA, read_only=read_only, make=make)

    def close(self) -> None:
        """Close the database. May be repeated."""
        self._database.close()

    def find(self, ids: Sequence[bytes]) -> dict[bytes, ChunkPlace]:
        """The places of those of the chunks `ids` (32 bytes each) that the index has."""
        found: dict[bytes, ChunkPlace] = {}
        with self._database.reading() as connection:
            for start in range(0, len(ids), _LOOKUP_BATCH):
                batch = ids[start : start + _LOOKUP_BATCH]
                marks = ",".join("?" * len(batch))
                # One prepared text a batch size; SQLAlchemy's expanding IN costs twice as much here.
                query = f"SELECT id, frame, offset, length FROM chunks WHERE id IN ({marks})"  # noqa: S608
                for chunk_id, frame, offset, length in connection.exec_driver_sql(query, tuple(batch)).all():
                    if not (type(frame) is type(offset) is type(length) is int and frame > 0 <= offset < _OFFSETS):
                        raise self.corrupt("a chunk's place is no place")
                    found[chunk_id] = ChunkPlace(frame, offset, length)
        return found

    def frames(self, numbers: Iterable[int]) -> Iterator[FramePlace]:
        """The frames with these numbers, ascending; Corrupt if the index lacks one."""
        wanted = sorted(set(numbers))
        query = sa.select(
            _frames.c.number,
            _packs.c.id,
            _packs.c.length,
            _frames.c.kind,
            _frames.c.offset,
            _frames.c.length,
            _frames.c.plain_length,
            _frames.c.digest,
        ).join(_packs, _packs.c.number == _frames.c.pack)
        with self._database.reading() as connection:
            for start in range(0, len(wanted), _LOOKUP_BATCH):
                batch = wanted[start : start + _LOOKUP_BATCH]
                rows = connection.execute(query.where(_frames.c.number.in_(batch)).order_by(_frames.c.number)).all()
                if len(rows) != len(batch):
                    hint = "if nobody rebuilt it meanwhile, run: pacball store reindex; then run the same command again"
                    raise Corrupt("the index lacks frames that it referred to", place=str(self.path), hint=hint)
                for row in rows:
                    if not _is_frame(tuple(row)):
                        raise self.corrupt("a frame's place is no place")
                    yield FramePlace(row[0], Digest(row[1]), row[2], Frame(row[0], *row[3:]))

    def add(self, table: Table, *, keep_known: bool = False) -> int:
        """Record a pack that is durable; the number of its first frame. Repeating it changes nothing; it is condemned no more.

        The frames of a pack are numbered one after another. Of a chunk that is known already, the new place is the better
        one: a publisher stores a chunk again only because its old frame is hardly used any more; unless `keep_known`.
        """
        with self._database.writing() as connection:
            insert = sa.insert(_packs).prefix_with("OR IGNORE").values(id=table.id.raw, length=table.pack_length)
            fresh = connection.execute(insert).rowcount == 1
            pack = connection.execute(sa.select(_packs.c.number).where(_packs.c.id == table.id.raw)).scalar_one()
            connection.execute(sa.delete(_condemned).where(_condemned.c.id == table.id.raw))
            if not fresh:
                first = _first_frame(connection, pack)
                rows = list(_chunk_rows(table, first))
                if rows:
                    connection.exec_driver_sql(_RESTORE_CHUNK, rows)
                return first
            first_frame = int(connection.execute(_next_frame).scalar_one())
            if len(table.lengths):
                connection.execute(sa.insert(_frames), list(_frame_rows(table, pack, first_frame)))
                # As plain text, since SQLAlchemy's way of many rows costs three times as much.
                insert_chunk = _RESTORE_CHUNK if keep_known else _INSERT_CHUNK
                connection.exec_driver_sql(insert_chunk, list(_chunk_rows(table, first_frame)))
            return first_frame

    def has(self, pack: Digest) -> bool:
        """Whether the pack is in the index, and not condemned."""
        query = sa.select(sa.func.count()).select_from(_packs).where(_packs.c.id == pack.raw)
        with self._database.reading() as connection:
            known = bool(connection.execute(query).scalar_one())
        return known and not self.condemned(pack)

    def claim(self, pack: Digest) -> None:
        """Let the pack be condemned no more: whoever is about to store it does so before it is visible."""
        if self.condemned(pack):
            with self._database.writing() as connection:
                connection.execute(sa.delete(_condemned).where(_condemned.c.id == pack.raw))

    def condemned(self, pack: Digest) -> bool:
        """Whether the pack is condemned."""
        query = sa.select(sa.func.count()).where(_condemned.c.id == pack.raw)
        with self._database.reading() as connection:
            return bool(connection.execute(query).scalar_one())

    def all_condemned(self) -> list[Digest]:
        """Every pack that is condemned, by id."""
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(_condemned.c.id).order_by(_condemned.c.id)).scalars().all()
        return [Digest(row) for row in rows]

    def condemn(self, pack: Digest, table: Table | None) -> None:
        """Let nobody find the chunks of this pack here any more; `table` is its table, None if that cannot be read.

        Repeating it changes nothing. What is not in the index is condemned, too.
        """
        with self._database.writing() as connection:
            connection.execute(sa.insert(_condemned).prefix_with("OR IGNORE").values(id=pack.raw))
            number = connection.execute(sa.select(_packs.c.number).where(_packs.c.id == pack.raw)).scalar_one_or_none()
            if number is None:
                return
            first = _first_frame(connection, number)
            if table is None:
                # Looks at every chunk of the index, of which there are many.
                count = sa.select(sa.func.count()).where(_frames.c.pack == number)
                last = first + connection.execute(count).scalar_one() - 1
                connection.exec_driver_sql(_HIDE_CHUNKS, (first, last))
            else:
                rows = [(row.id, row.frame) for row in _chunk_rows(table, first)]
                if rows:
                    connection.exec_driver_sql(_HIDE_CHUNK, rows)

    @contextmanager
    def forgetting(self, pack: Digest) -> Iterator[bool]:
        """Forget a pack that is deleted inside, if it is still condemned, as the value says; nobody can claim it meanwhile."""
        with self._database.writing() as connection:
            still = connection.execute(sa.delete(_condemned).where(_condemned.c.id == pack.raw)).rowcount == 1
            yield still
            if still:
                number = sa.select(_packs.c.number).where(_packs.c.id == pack.raw).scalar_subquery()
                connection.execute(sa.delete(_frames).where(_frames.c.pack == number))
                connection.execute(sa.delete(_packs).where(_packs.c.id == pack.raw))

    def confirm(self, table: Table) -> int:
        """How many chunks the index says to be in this pack. Raises Corrupt unless the pack's table says the same.

        Of a chunk that is missing in the index nothing is said: it may be in another pack, and costs only space.
        """
        with self._database.reading() as connection:
            pack = sa.select(_packs.c.number).where(_packs.c.id == table.id.raw).scalar_subquery()
            numbers = connection.execute(sa.select(_frames.c.number).where(_frames.c.pack == pack)).scalars().all()
        frames = [
            (p.pack, p.pack_length, dataclasses.replace(p.frame, number=n)) for n, p in enumerate(self.frames(numbers))
        ]
        if frames != [(table.id, table.pack_length, frame) for frame in table.frames()]:
            raise self.corrupt(f"it has other frames of pack {table.id} than the pack")
        first = min(numbers, default=0)
        places: dict[bytes, list[ChunkPlace]] = {}
        for row in _chunk_rows(table, first):
            places.setdefault(row.id, []).append(ChunkPlace(row.frame, row.offset, row.length))
        here = {i: p for i, p in self.find(list(places)).items() if first <= p.frame < first + len(frames)}
        if any(place not in places[chunk_id] for chunk_id, place in here.items()):
            raise self.corrupt(f"it has other chunks of pack {table.id} than the pack")
        return len(here)

    def clear(self) -> None:
        """Forget every pack. Publishers that are at work find out and fail with a clear error; no frame number comes again."""
        with self._database.writing() as connection:
            for table in (_chunks, _frames, _packs, _condemned):
                connection.execute(sa.delete(table))

    def packs(self) -> list[tuple[Digest, int]]:
        """Every pack of the index with its length in bytes, by id."""
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(_packs.c.id, _packs.c.length).order_by(_packs.c.id)).all()
        if any(type(row[0]) is not bytes or len(row[0]) != DIGEST_BYTES for row in rows):
            raise self.corrupt("a pack's id is no digest")
        return [(Digest(row[0]), row[1]) for row in rows]

    def counts(self) -> tuple[int, int, int]:
        """The numbers of packs, frames and chunks."""
        with self._database.reading() as connection:
            packs, frames, chunks = (
                connection.execute(sa.select(sa.func.count()).select_from(t)).scalar_one()
                for t in (_packs, _frames, _chunks)
            )
        return packs, frames, chunks

    def check(self) -> None:
        """Raise Corrupt if the database is damaged as such."""
        self._database.check()

    def corrupt(self, fault: str) -> Corrupt:
        """The error that the index is damaged."""
        return self._database.corrupt(fault)


def _first_frame(connection: sa.Connection, pack: int) -> int:
    """The number of the first frame of the pack with that number; 0 if it has none."""
    first = connection.execute(sa.select(sa.func.min(_frames.c.number)).where(_frames.c.pack == pack))
    return int(first.scalar_one() or 0)


def _is_frame(row: Sequence[object]) -> bool:
    number, pack, *numbers, digest = row
    if not isinstance(pack, bytes) or not isinstance(digest, bytes):
        return False
    return len(pack) == len(digest) == DIGEST_BYTES and all(isinstance(n, int) and n >= 0 for n in (number, *numbers))


def _frame_rows(table: Table, pack: int, first: int) -> Iterator[dict[str, object]]:
    for frame in table.frames():
        yield {
            "number": first + frame.number,
            "pack": pack,
            "kind": frame.kind,
            "offset": frame.offset,
            "length": frame.length,
            "plain_length": frame.plain_length,
            "digest": frame.digest,
        }


def _chunk_rows(table: Table, first: int) -> Iterator[_ChunkRow]:
    ids = table.chunk_ids.tobytes()
    lengths = table.chunk_lengths.tolist()
    bounds = table.first_chunks.tolist()
    for frame in range(len(table.lengths)):
        offset = 0
        for chunk in range(bounds[frame], bounds[frame + 1]):
            chunk_id = ids[chunk * DIGEST_BYTES : (chunk + 1) * DIGEST_BYTES]
            yield _ChunkRow(chunk_id, first + frame, offset, lengths[chunk])
            offset += lengths[chunk]
