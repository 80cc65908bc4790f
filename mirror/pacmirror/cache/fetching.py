"""Fetching: what a worker thread does for the filler: it brings a pack's table, or a run of its frames, verified."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pacstore.digest import Digest
from pacstore.errors import Corrupt, PacballError, TooLarge, Unavailable
from pacstore.pack import FOOTER_BYTES, parse_footer
from pacstore.source import PackRange
from pacstore.storage import ObjectKind, object_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pacmirror.limits import CacheLimits
    from pacmirror.mirrors import MirrorList
    from pacstore.digest import Bytes
    from pacstore.frame_list import FrameList
    from pacstore.partial_pack import PartialPack
    from pacstore.source import Tail


@dataclass
class Fetched:
    """What came of a run of frames, all of which were verified.

    `written`: to disk; `passed`: good, but not to be written, since `disk_error`; `wrong`: of other bytes than they should
    have, as `wrong_error` says; `left`: not come, since the source broke off after the others.
    """

    bytes_fetched: int = 0
    written: list[int] = field(default_factory=list)
    passed: dict[int, memoryview] = field(default_factory=dict)
    wrong: list[int] = field(default_factory=list)
    wrong_error: PacballError | None = None
    disk_error: PacballError | None = None
    left: range = range(0)


class _Enough(Exception):
    """What has come is worth keeping, although the rest does not follow."""


def fetch_frames(
    source: MirrorList, pack: Digest, frames: FrameList, run: range, *, partial: PartialPack | None, kept_bytes: int
) -> Fetched:
    """Fetch the frames of `run`, verify each, and write it to `partial`, if that is not None.

    If the source breaks off after good frames of at least `kept_bytes`, those are all that comes. Whoever gave wrong bytes is
    blamed for it. Raises what the source raises.
    """
    begin, place = frames.begin(run.start), object_path(ObjectKind.PACK, pack)
    wanted = PackRange(pack, begin, frames.begin(run.stop) - begin)
    fetched = Fetched(wanted.length)

    def piece_of(data: Bytes, number: int) -> memoryview:
        at = frames.begin(number) - begin
        piece = memoryview(data)[at : at + frames.length(number)]
        frames.check(number, piece, place=place)
        return piece

    def keep_beginning(_: PackRange, data: Bytes) -> None:
        good = run.start
        with contextlib.suppress(Corrupt):  # the last one has not come whole
            for number in run:
                piece_of(data, number)
                good = number + 1
        if frames.begin(good) - begin < kept_bytes:
            return
        for number in range(run.start, good):
            _keep(fetched, number, piece_of(data, number), partial, alone=False)
        fetched.bytes_fetched, fetched.left = frames.begin(good) - begin, range(good, run.stop)
        raise _Enough

    with contextlib.suppress(_Enough):
        for _, data in source.ranges([wanted], broken=keep_beginning):
            for number in run:
                try:
                    _keep(fetched, number, piece_of(data, number), partial, alone=len(run) == 1)
                except Corrupt as error:
                    fetched.wrong.append(number)
                    fetched.wrong_error = error
    if (wrong := fetched.wrong_error) is not None:
        name = source.blame(wanted, wrong)
        fetched.wrong_error = Corrupt(f"{name} gives wrong bytes: {wrong.message}", place=wrong.place)
    return fetched


def keep_frames(fetched: Fetched, frames: Mapping[int, memoryview], partial: PartialPack) -> None:
    """Write frames that were verified before, and remain in memory if they cannot be."""
    for number, data in frames.items():
        _keep(fetched, number, data, partial, alone=True)


def _keep(fetched: Fetched, number: int, piece: memoryview, partial: PartialPack | None, *, alone: bool) -> None:
    if partial is not None and fetched.disk_error is None:
        try:
            partial.write_verified(number, piece)
        except Unavailable as error:
            fetched.disk_error = error
        else:
            fetched.written.append(number)
            return
    # What came with others is copied, so that it does not keep them in memory.
    fetched.passed[number] = piece if alone else memoryview(bytes(piece))


def fetch_table(source: MirrorList, pack: Digest, limits: CacheLimits) -> tuple[bytes, Tail]:
    """The table of a pack of which nothing else is known, compared with its id; and the end of the pack that it came in.

    Whoever gave another one is blamed, and others are asked. Raises what the source raises, or Corrupt.
    """
    place = object_path(ObjectKind.PACK, pack)
    times = 0
    while True:
        tail = source.tail(pack, length=limits.tail_bytes)
        try:
            size = parse_footer(tail.data[-FOOTER_BYTES:], tail.pack_length, limit=limits.table_bytes, place=place)
            if size + FOOTER_BYTES > len(tail.data):
                # All of it from one source again, so that there is no doubt who is to blame.
                tail = source.tail(pack, length=size + FOOTER_BYTES)
            return _table_of(tail, size, pack, place), tail
        except (Corrupt, TooLarge) as error:
            times += 1
            name = source.blame(place, error)
            if times == limits.wrong_times:
                raise Corrupt(f"{name} gives a wrong pack: {error.message}", place=place) from error


def _table_of(tail: Tail, size: int, pack: Digest, place: str) -> bytes:
    if len(tail.data) < size + FOOTER_BYTES:
        raise Corrupt("has become shorter", place=place)
    data = bytes(tail.data[-FOOTER_BYTES - size : -FOOTER_BYTES])
    if Digest.of(data) != pack:
        raise Corrupt("its table is not the one that its name says", place=place)
    return data
