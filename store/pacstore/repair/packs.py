"""Repairing packs: the good frames of a damaged one and what others give for the bad ones, together in a new file.

The new file takes the place of the old one by a rename, when every byte of it was verified and is durable. Where something
cannot be had, the pack is withdrawn: it leaves the docroot and goes on as a partial pack, of which all good frames are
served and kept, and which becomes whole when the others come.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pacstore.damage import WHOLE, DamagedPart, damaged_pack
from pacstore.disk import DiskBuffer, DiskFile, is_media_error
from pacstore.durable import unavailable, wrapped
from pacstore.errors import Corrupt, NotFound, Unavailable
from pacstore.pack import HEADER, Table, ending, read_table
from pacstore.partial import PartialPacks
from pacstore.repair.tables import search_table
from pacstore.rereading import Rereader
from pacstore.spool import Spool
from pacstore.storage import ObjectKind, object_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from pacstore.digest import Digest
    from pacstore.partial_pack import PartialPack
    from pacstore.progress import Progress
    from pacstore.repair.giver import Giver
    from pacstore.store import Store

NO_TABLE = "its table is lost, and nobody has it"


@dataclass(frozen=True)
class PackRepair:
    """What became of one pack. `whole`: it is public, and was read back from the disk without a fault.

    `frames` is how many were made good, with `bytes_got` bytes, and `givers` who gave how many of them. `lost`: what is still
    wrong; `withdrawn`: the pack is not public any more, but goes on as a partial one. `faults`: why givers gave nothing.
    """

    pack: Digest
    whole: bool
    frames: int = 0
    bytes_got: int = 0
    givers: dict[str, int] = field(default_factory=dict)
    lost: tuple[DamagedPart, ...] = ()
    withdrawn: bool = False
    faults: tuple[str, ...] = ()


class PackRepairer:
    """Repairs packs of `store`, with what `givers` have, asked in their order. Not for several threads at once.

    `known_table` may find the table of a pack in what the store holds beside it.
    """

    def __init__(
        self,
        store: Store,
        givers: Sequence[Giver],
        *,
        known_table: Callable[[Digest], bytes | None],
        progress: Progress,
    ) -> None:
        self._store = store
        self._partial = PartialPacks(store.private, store.storage)
        self._givers = givers
        self._known_table = known_table
        self._progress = progress
        self._buffer = DiskBuffer()
        self._reader = Rereader(store.public)

    def close(self) -> None:
        """Release memory. May be repeated."""
        self._buffer.close()
        self._reader.close()

    def repair(self, pack: Digest, length: int | None) -> PackRepair:
        """Make a pack whole and public, or withdraw it. `length`: what releases say it has in bytes, if any do.

        Raises Unavailable when the store's own disk is full or fails in writing; what was there stays then.
        """
        for giver in self._givers:
            giver.faults.clear()
        file = self._open(pack)
        if file is None:
            return self._fill(pack, length)
        with closing(file):
            data = search_table(file, pack) or self._find_table(pack, length or file.length)
            return self._mend(pack, file, data) if data is not None else self._give_up(pack)

    def read_back(self, pack: Digest) -> list[DamagedPart]:
        """What is wrong with a public pack, by reading it from the disk. Raises NotFound, or Unavailable."""
        path = object_path(ObjectKind.PACK, pack)
        steps = list(self._reader.pack(path))
        if not steps:
            raise NotFound("does not exist", place=path)
        for step in steps:
            if step.unread:
                raise Unavailable(step.unread[0], place=path)
        return [part for step in steps for part in step.damage]

    def _open(self, pack: Digest) -> DiskFile | None:
        """The public pack; None where there is none."""
        path = self._store.public / object_path(ObjectKind.PACK, pack)
        try:
            return DiskFile(open(path, "rb", buffering=0), self._buffer)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise unavailable(error, path) from error

    def _find_table(self, pack: Digest, length: int) -> bytes | None:
        known = self._known_table(pack)
        return known or next(filter(None, (giver.table(pack, length) for giver in self._givers)), None)

    # A pack that is public

    def _mend(self, pack: Digest, file: DiskFile, data: bytes) -> PackRepair:
        table = Table.parse(data, place=object_path(ObjectKind.PACK, pack))
        bad = list(self._bad_frames(file, table))
        if not bad and self._frames_it(file, table, data):
            return PackRepair(pack, whole=True)
        self._progress.begin("repairing", sum(int(table.lengths[number]) for number in bad))
        with closing(_Found(self._store)) as found:
            got = self._collect(pack, table, bad, found.put)
            if len(found) < len(bad):
                self._withdraw(pack, data, found)
                left = [number for number in bad if number not in found]
                return self._ended(pack, got, _lost(pack, table, left), table, withdrawn=True)
            self._rewrite(pack, file, table, data, found)
        lost = tuple(self.read_back(pack))
        return self._ended(pack, got, lost, table)

    def _bad_frames(self, file: DiskFile, table: Table) -> Iterator[int]:
        for run in table.runs(self._buffer.size):
            yield from self._bad_in(file, table, run)

    def _bad_in(self, file: DiskFile, table: Table, run: range) -> Iterator[int]:
        begin, end = int(table.offsets[run.start]), int(table.offsets[run.stop])
        try:
            yield from table.bad_frames(run, file.bytes_at(begin, end - begin))
        except OSError as error:
            if not is_media_error(error):
                raise unavailable(error) from error
            if len(run) == 1:
                yield run.start
                return
            for number in run:
                yield from self._bad_in(file, table, range(number, number + 1))

    def _frames_it(self, file: DiskFile, table: Table, data: bytes) -> bool:
        """Whether header, table and footer are right, too."""
        if file.length != table.pack_length:
            return False
        end = int(table.offsets[-1])
        try:
            head, tail = bytes(file.bytes_at(0, len(HEADER))), b"".join(_pieces(file, end, file.length))
        except OSError:
            return False
        return head == HEADER and tail == ending(data)

    def _rewrite(self, pack: Digest, file: DiskFile, table: Table, data: bytes, found: _Found) -> None:
        """Put a new file in the place of the old one; every frame is verified once more on its way into it."""
        with self._store.storage.stage(ObjectKind.PACK) as staged:
            staged.write(HEADER)
            for number in range(len(table.lengths)):
                frame = found.get(number) if number in found else self._read(file, table, number)
                if table.bad_frames(range(number, number + 1), frame):
                    place = f"{object_path(ObjectKind.PACK, pack)}, frame at {int(table.offsets[number])}"
                    raise Unavailable("changed while the pack was repaired", place=place, hint="run it again")
                staged.write(frame)
            staged.write(ending(data))
            staged.publish(pack)

    def _read(self, file: DiskFile, table: Table, number: int) -> bytes:
        with wrapped(f"frame {number}"):
            return bytes(file.bytes_at(int(table.offsets[number]), int(table.lengths[number])))

    # A pack that is not public: missing, or withdrawn before

    def _fill(self, pack: Digest, length: int | None) -> PackRepair:
        """Fill what is here of the pack, maybe nothing, until it is whole."""
        with suppress(NotFound, Corrupt), closing(self._partial.open(pack)) as partial:
            return self._complete(pack, partial)
        data = self._find_table(pack, length) if length is not None else self._known_table(pack)
        if data is None:
            fault = NO_TABLE if length is not None else "is missing, and nothing here says how long it was"
            return PackRepair(pack, whole=False, lost=(damaged_pack(pack, WHOLE, fault),), faults=self._faults())
        with closing(self._partial.begin(pack, data)) as partial:
            return self._complete(pack, partial)

    def _complete(self, pack: Digest, partial: PartialPack) -> PackRepair:
        with closing(partial.open_file()) as file:
            table = read_table(file, place=f"the partial pack {pack}")
        missing = partial.missing(range(len(table.lengths)))
        self._progress.begin("repairing", sum(int(table.lengths[number]) for number in missing))
        got = self._collect(pack, table, missing, partial.write)
        if not partial.is_whole:
            left = [number for number in missing if not partial.has(number)]
            return self._ended(pack, got, _lost(pack, table, left), table, withdrawn=True)
        partial.publish()
        return self._ended(pack, got, tuple(self.read_back(pack)), table)

    # What both share

    def _collect(
        self, pack: Digest, table: Table, wanted: list[int], put: Callable[[int, bytes], None]
    ) -> dict[int, str]:
        """Ask for the `wanted` frames, and give what comes to `put`; who gave each."""
        got: dict[int, str] = {}
        for giver in self._givers:
            left = [number for number in wanted if number not in got]
            if not left:
                break
            for number, data in giver.frames(pack, table, left):
                put(number, data)
                got[number] = giver.name
                self._progress.advance(len(data))
        return got

    def _give_up(self, pack: Digest) -> PackRepair:
        """Withdraw a pack whose table nobody has: not even its good frames can be told from others."""
        self._partial.demote(pack)
        return self._ended(pack, {}, (damaged_pack(pack, WHOLE, NO_TABLE),), None, withdrawn=True)

    def _withdraw(self, pack: Digest, data: bytes, found: _Found) -> None:
        """Let the pack be a partial one, with what was found for it."""
        self._partial.demote(pack)
        with closing(self._partial.begin(pack, data)) as partial:
            with closing(partial.open_file()) as file:
                # Its frames are to be judged by what the disk has, not by what is remembered of it.
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            for number in found.numbers:
                partial.write(number, found.get(number))

    def _ended(
        self, pack: Digest, got: dict[int, str], lost: tuple[DamagedPart, ...], table: Table | None, *,
        withdrawn: bool = False,
    ) -> PackRepair:  # fmt: skip
        return PackRepair(
            pack,
            whole=not lost and not withdrawn,
            frames=len(got),
            bytes_got=sum(int(table.lengths[number]) for number in got) if table is not None else 0,
            givers=dict(Counter(got.values())),
            lost=lost,
            withdrawn=withdrawn,
            faults=self._faults(),
        )

    def _faults(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(fault for giver in self._givers for fault in giver.faults))


class _Found:
    """Frames that were found, kept in a file without a name until they are needed."""

    def __init__(self, store: Store) -> None:
        self._spool = Spool(store.staging)
        self._places: dict[int, tuple[int, int]] = {}

    def put(self, number: int, data: bytes) -> None:
        """Keep frame `number`."""
        self._places[number] = len(self._spool), len(data)
        self._spool.append(data)

    def get(self, number: int) -> bytes:
        """The frame."""
        return self._spool.read(*self._places[number])

    @property
    def numbers(self) -> list[int]:
        """Those that are kept."""
        return list(self._places)

    def __contains__(self, number: int) -> bool:
        return number in self._places

    def __len__(self) -> int:
        return len(self._places)

    def close(self) -> None:
        """Nothing is left of it."""
        self._spool = Spool()


def _lost(pack: Digest, table: Table, numbers: Sequence[int]) -> tuple[DamagedPart, ...]:
    fault = "the frame is damaged, and nobody has it"
    return tuple(
        damaged_pack(pack, int(table.offsets[number]), fault, int(table.lengths[number])) for number in numbers
    )


def _pieces(file: DiskFile, begin: int, end: int) -> Iterator[bytes]:
    while begin < end and (data := bytes(file.bytes_at(begin, end - begin))):
        yield data
        begin += len(data)
