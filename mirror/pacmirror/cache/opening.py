"""Opening: what a thread does to begin with a pack: it takes what is here of it, or brings its table from the upstreams."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pacmirror.cache.fetching import fetch_table
from pacstore.errors import Corrupt, NotFound, PacballError, Unavailable
from pacstore.frame_list import FrameList
from pacstore.pack import Table, ending
from pacstore.storage import ObjectKind

if TYPE_CHECKING:
    from pacmirror.limits import CacheLimits
    from pacmirror.mirrors import MirrorList
    from pacstore.digest import Digest
    from pacstore.partial import PartialPacks
    from pacstore.partial_pack import PartialPack
    from pacstore.source import Tail
    from pacstore.storage import ObjectStorage


@dataclass(frozen=True)
class OpenedPack:
    """`partial` is None where the disk cannot be written, as `disk_error` says; then `ending` is what follows the frames."""

    frames: FrameList
    partial: PartialPack | None
    ending: bytes = b""
    disk_error: PacballError | None = None


def is_public(storage: ObjectStorage, pack: Digest) -> bool:
    """Whether the pack is whole and public. Raises Unavailable if that cannot be told."""
    with suppress(NotFound):
        storage.size(ObjectKind.PACK, pack)
        return True
    return False


def open_here(partials: PartialPacks, pack: Digest) -> OpenedPack | None:
    """What is here of the pack; None if that is nothing, or cannot be used."""
    with suppress(NotFound, Corrupt, Unavailable):
        partial = partials.open(pack)
        return OpenedPack(partial.frames, partial)
    return None


def begin(partials: PartialPacks, source: MirrorList, pack: Digest, limits: CacheLimits) -> OpenedPack:
    """Fetch the table of the pack, and make room for all of it. Raises what the source raises, or Corrupt."""
    table, tail = fetch_table(source, pack, limits)
    try:
        partial = partials.begin(pack, table)
    except Unavailable as error:
        frames = FrameList.of(Table.parse(table, place=f"the table of {pack}"))
        return OpenedPack(frames, None, ending(table), error)
    _keep_frames(partial, tail)
    return OpenedPack(partial.frames, partial)


def _keep_frames(partial: PartialPack, tail: Tail) -> None:
    """Of a small pack, much, or all, came with its table."""
    begin, view = tail.pack_length - len(tail.data), memoryview(tail.data)
    for number in partial.frames.covering(begin, len(tail.data)):
        at = partial.frames.begin(number) - begin
        if at >= 0:
            with suppress(Corrupt, Unavailable):
                partial.write(number, view[at : at + partial.frames.length(number)])
