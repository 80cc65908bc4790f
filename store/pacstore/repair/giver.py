"""Givers: where the repair of a pack gets tables and frames from. What they give is verified here."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Protocol

from pacstore.documents import FETCH_ATTEMPTS
from pacstore.errors import Corrupt, PacballError, Unavailable
from pacstore.limits import MIB
from pacstore.source import PackRange, blame
from pacstore.transfer import fetch_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pacstore.digest import Bytes, Digest
    from pacstore.pack import Table
    from pacstore.source import Source

_RANGE_BYTES = 4 * MIB


class Giver(Protocol):
    """Somebody who may have frames. Never raises a PacballError: `faults` has what went wrong, a sentence each."""

    name: str
    faults: list[str]

    def table(self, pack: Digest, length: int) -> bytes | None:
        """The table of a pack of `length` bytes, compared with the pack's id, or None."""

    def frames(self, pack: Digest, table: Table, numbers: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """Those of these frames that it has, in any order, each compared with its digest."""


class SourceGiver:
    """A source, asked for what is needed. A source of several parts is told what is wrong, and asked again."""

    def __init__(self, source: Source) -> None:
        self.name = source.name
        self.faults: list[str] = []
        self._source = source

    def table(self, pack: Digest, length: int) -> bytes | None:
        try:
            return fetch_table(self._source, pack, length, place=f"{self.name}, pack {pack}")
        except PacballError as error:
            self._add(error)
            return None

    def frames(self, pack: Digest, table: Table, numbers: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        wrong: Counter[str] = Counter()
        while numbers:
            runs = {_range_of(pack, table, run): run for run in runs_of(table, numbers)}
            bad: list[int] = []
            for wanted, data in self._ranges(runs):
                run = runs[wanted]
                lost = table.bad_frames(run, data)
                yield from _cut(table, run, data, frozenset(lost))
                if lost:
                    error = Corrupt("gave wrong bytes", place=f"{self.name}, pack {pack}")
                    wrong[blame(self._source, wanted, error)] += 1
                    self._add(error)
                    bad += lost
            numbers = bad if max(wrong.values(), default=0) < FETCH_ATTEMPTS else ()

    def _ranges(self, wanted: dict[PackRange, range]) -> Iterator[tuple[PackRange, Bytes]]:
        """What comes of these ranges: all at once, and where that fails, each by itself."""
        left = dict.fromkeys(wanted)
        try:
            for one, data in self._source.ranges(list(left)):
                del left[one]
                yield one, data
        except PacballError as error:
            self._add(error)
            if isinstance(error, Unavailable) or len(left) == 1:
                return
        for one in left:
            try:
                yield from self._source.ranges([one])
            except PacballError as error:
                self._add(error)
                if isinstance(error, Unavailable):
                    return

    def _add(self, error: PacballError) -> None:
        text = str(error)
        if text not in self.faults:
            self.faults.append(text)


def runs_of(table: Table, numbers: Sequence[int]) -> Iterator[range]:
    """These frames as runs of neighbours, of a few megabytes each."""
    first = last = -1
    for number in sorted(numbers):
        if first >= 0 and number == last + 1 and int(table.offsets[number + 1] - table.offsets[first]) <= _RANGE_BYTES:
            last = number
            continue
        if first >= 0:
            yield range(first, last + 1)
        first = last = number
    if first >= 0:
        yield range(first, last + 1)


def _range_of(pack: Digest, table: Table, run: range) -> PackRange:
    begin, end = int(table.offsets[run.start]), int(table.offsets[run.stop])
    return PackRange(pack, begin, end - begin)


def _cut(table: Table, run: range, data: Bytes, bad: frozenset[int]) -> Iterator[tuple[int, bytes]]:
    view = memoryview(data)
    begin = int(table.offsets[run.start])
    for number in run:
        if number not in bad:
            at = int(table.offsets[number]) - begin
            yield number, bytes(view[at : at + int(table.lengths[number])])
