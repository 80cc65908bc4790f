"""Reading frames back from a store: every frame is checked against its digest, then decoded within its bounds."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import BinaryIO

from pacstore import codec
from pacstore.damage import DamagedPart
from pacstore.digest import Digest
from pacstore.durable import wrapped
from pacstore.errors import Corrupt
from pacstore.pack import Frame, read_frame
from pacstore.storage import ObjectKind, ObjectStorage, object_path

CACHED_FRAMES = 8
_OPEN_PACKS = 16


@dataclass(frozen=True, slots=True)
class FramePlace:
    """A frame and the pack that it lies in; `number` is whatever the caller counts frames by."""

    number: int
    pack: Digest
    pack_length: int
    frame: Frame


class DamagedFrame(Corrupt):
    """A frame that is not what its digest says: `part` is what is to be repaired."""

    def __init__(self, cause: Corrupt, part: DamagedPart) -> None:
        super().__init__(cause.message, place=cause.place, hint="run: pacball store check")
        self.part = part


class FrameReader:
    """Decoded frames of a store's packs; keeps a few of the last ones. Not for several threads at once."""

    def __init__(self, storage: ObjectStorage, *, cached: int = CACHED_FRAMES) -> None:
        """`cached`: how many it keeps, of about 1 MiB each."""
        self._storage = storage
        self._cached = cached
        self._plain: OrderedDict[tuple[Digest, int], bytes] = OrderedDict()
        self._packs: OrderedDict[Digest, BinaryIO] = OrderedDict()

    def plain(self, pack: Digest, frame: Frame) -> bytes:
        """The plain bytes of `frame`, verified. Raises NotFound, Unavailable, or DamagedFrame naming pack and frame."""
        key = (pack, frame.offset)
        cached = self._plain.get(key)
        if cached is not None:
            self._plain.move_to_end(key)
            return cached
        place = object_path(ObjectKind.PACK, pack)
        try:
            with wrapped(place):
                data = read_frame(self._open(pack), frame.offset, frame.length, frame.digest, place=place)
            plain = codec.decompress(frame.kind, data, frame.plain_length, place=place)
        except Corrupt as error:
            raise DamagedFrame(error, DamagedPart(place, frame.offset, error.message, frame.length)) from error
        self._plain[key] = plain
        if len(self._plain) > self._cached:
            self._plain.popitem(last=False)
        return plain

    def forget(self) -> bool:
        """Release the memory of decoded frames, which are decoded again if they are wanted; whether there were any."""
        found = bool(self._plain)
        self._plain.clear()
        return found

    def close(self) -> None:
        """Close what is open. May be repeated."""
        while self._packs:
            self._packs.popitem()[1].close()

    def _open(self, pack: Digest) -> BinaryIO:
        file = self._packs.get(pack)
        if file is None:
            file = self._packs[pack] = self._storage.open(ObjectKind.PACK, pack)
            if len(self._packs) > _OPEN_PACKS:
                self._packs.popitem(last=False)[1].close()
        else:
            self._packs.move_to_end(pack)
        return file
