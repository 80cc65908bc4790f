"""Reading one file of a store again, from the disk, piece by piece, and comparing it with what it must be.

What goes wrong with one part of a file says nothing about the others. A file that is gone was removed by somebody else: that is
no damage here. A file that cannot be looked at, for a reason that says nothing about its bytes, is told apart from damage.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, cast

from blake3 import blake3

from pacstore.damage import WHOLE, DamagedPart
from pacstore.digest import Digest
from pacstore.disk import DiskBuffer, DiskFile, is_media_error
from pacstore.durable import unavailable
from pacstore.errors import Corrupt, PacballError, printable
from pacstore.pack import Table, read_table
from pacstore.trust.targets import SignedDocument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_NOT_ITS_NAME = "is not what its name says"
_NOT_ITS_DIGEST = "the bytes of the frame are not those that its digest says"


@dataclass(frozen=True, order=True, slots=True)
class Position:
    """How far a reading came: all before the public `path`, and of the pack there the frames before `offset`."""

    path: str = ""
    offset: int = 0

    @property
    def section(self) -> str:
        """The directory of the docroot that the path is in."""
        return self.path.partition("/")[0]


@dataclass(frozen=True, slots=True)
class Step:
    """A piece of a reading: where it ended, what was read, and what was wrong with that. `objects`: how many ended with it.

    `unread`: what could be neither read nor called damaged, a sentence each.
    """

    position: Position
    bytes_read: int = 0
    objects: int = 0
    damage: tuple[DamagedPart, ...] = ()
    unread: tuple[str, ...] = ()


class Rereader:
    """Reads files below the docroot `public`, a few megabytes with each step. Not for several threads at once."""

    def __init__(self, public: Path) -> None:
        self._public = public
        self._buffer = DiskBuffer()

    def close(self) -> None:
        """Release memory. May be repeated."""
        self._buffer.close()

    def pack(self, path: str, offset: int = 0) -> Iterator[Step]:
        """The pack at `path`: its table, and the frames from `offset` on. The last step has `objects` 1, unless it is gone."""
        return self._reading(path, lambda file: self._pack(file, path, offset))

    def single(self, path: str, _offset: int = 0) -> Iterator[Step]:
        """The object at `path`, which is no pack."""

        def work(file: DiskFile) -> Iterator[Step]:
            hasher = blake3()
            yield from self._hashed(file, path, hasher.update)
            if hasher.digest() != Digest.parse(path[-64:]).raw:
                raise Corrupt(_NOT_ITS_NAME)

        return self._reading(path, work)

    def document(self, path: str, signed: SignedDocument) -> Iterator[Step]:
        """The document at `path`, which must be `signed`."""

        def work(file: DiskFile) -> Iterator[Step]:
            hasher = blake3()
            yield from self._hashed(file, path, hasher.update)
            if file.length != signed.length or hasher.digest() != signed.digest.raw:
                raise Corrupt("is not what the catalog says")

        return self._reading(path, work)

    def sha256(self, path: str, expected: str, fault: str = _NOT_ITS_NAME) -> Iterator[Step]:
        """The file at `path`, which must have this SHA-256 (64 hexadecimal digits); otherwise its fault is `fault`."""

        def work(file: DiskFile) -> Iterator[Step]:
            hasher = hashlib.sha256()
            yield from self._hashed(file, path, hasher.update)
            if hasher.hexdigest() != expected:
                raise Corrupt(fault)

        return self._reading(path, work)

    def _reading(self, path: str, work: Callable[[DiskFile], Iterator[Step]]) -> Iterator[Step]:
        end = Position(path)
        try:
            with closing(DiskFile(open(self._public / path, "rb", buffering=0), self._buffer)) as file:
                yield from work(file)
        except FileNotFoundError:
            return
        except OSError as error:
            yield judged(path, error)
        except PacballError as error:
            yield Step(end, objects=1, damage=(DamagedPart(path, WHOLE, error.message),))
        else:
            yield Step(end, objects=1)

    def _hashed(self, file: DiskFile, path: str, update: Callable[[memoryview], object]) -> Iterator[Step]:
        at = 0
        while data := file.bytes_at(at, self._buffer.size):
            update(data)
            at += len(data)
            yield Step(Position(path), len(data))

    def _pack(self, file: DiskFile, path: str, offset: int) -> Iterator[Step]:
        table = read_table(cast("BinaryIO", file), place=path)
        if table.id != Digest.parse(path[-64:]):
            raise Corrupt("its table is not the one that its name says")
        first = int((table.offsets[:-1] < offset).sum())
        if not first:
            yield Step(Position(path), table.length)
        for run in table.runs(self._buffer.size, first=first):
            begin, end = int(table.offsets[run.start]), int(table.offsets[run.stop])
            damage = tuple(_bad_frames(file, table, run, path))
            yield Step(Position(path, end), end - begin, damage=damage)


def judged(path: str, error: OSError) -> Step:
    """The step that ended with `error`, which is damage only where the disk says that it lost these bytes."""
    text = str(unavailable(error, path).message)
    if is_media_error(error):
        return Step(Position(path), objects=1, damage=(DamagedPart(path, WHOLE, f"cannot be read: {text}"),))
    return Step(Position(path), objects=1, unread=(printable(f"{path} cannot be looked at: {text}"),))


def _bad_frames(file: DiskFile, table: Table, run: range, path: str) -> Iterator[DamagedPart]:
    begin, end = int(table.offsets[run.start]), int(table.offsets[run.stop])
    try:
        for number in table.bad_frames(run, file.bytes_at(begin, end - begin)):
            yield DamagedPart(path, int(table.offsets[number]), _NOT_ITS_DIGEST, int(table.lengths[number]))
    except OSError as error:
        if not is_media_error(error):
            raise
        if len(run) == 1:
            fault = f"the frame cannot be read: {os.strerror(error.errno or 0).lower()}"
            yield DamagedPart(path, begin, fault, end - begin)
            return
        # The others of the run may well be readable.
        for number in run:
            yield from _bad_frames(file, table, range(number, number + 1), path)
