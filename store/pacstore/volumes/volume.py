"""Volume: one file of an export, read as a Source that nobody trusts.

Where each member lies, and every byte that is not a member's content, follows from the contents in the first member: so
nothing of a tar is interpreted. A volume that has another byte anywhere else, or another length, is refused when it is opened.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

from pacstore.digest import Bytes
from pacstore.durable import wrapped
from pacstore.errors import Corrupt, NotFound, Refused, TooLarge
from pacstore.limits import MIB
from pacstore.pacball.members import BLOCK_BYTES, END
from pacstore.source import PackRange, Traffic
from pacstore.storage import ObjectKind, object_path
from pacstore.volumes.contents import CONTENTS_BYTES, NAME, Contents, parse_contents
from pacstore.volumes.layout import Place, header_of, places_of, volume_bytes

BEGINNING = NAME.encode().ljust(100, b"\0")
_PIECE_BYTES = 4 * MIB
_SIZE = re.compile(rb"[0-7]{11}\0")
_AGAIN = "copy it again from where it was made"


class Volume:
    """Volume `number` of an export with these `contents`. Threads may use it at once, except for `close`."""

    def __init__(self, path: Path, descriptor: int, contents: Contents, number: int) -> None:
        """Of an open file, which may lack members. It is closed with this."""
        self.path = path
        self.contents = contents
        self.number = number
        self.name = str(path)
        self.traffic = Traffic()
        self._descriptor = descriptor
        self._places = {place.path: place for place in places_of(contents, number)}

    @classmethod
    def open(cls, path: Path) -> Self:
        """The volume in the file `path`, no member of which was looked at yet, apart from the first.

        Raises NotFound, Refused for what is no file or no volume, Corrupt for one that was cut or altered, NewerFormat,
        Unavailable.
        """
        with wrapped(path):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            with wrapped(path):
                contents, number = read_contents(descriptor, path)
                volume = cls(path, descriptor, contents, number)
                volume._check_whole()
        except BaseException:
            os.close(descriptor)
            raise
        return volume

    @property
    def places(self) -> Sequence[Place]:
        """Every member, in order."""
        return list(self._places.values())

    def has_around(self, place: Place) -> bool:
        """Whether what surrounds the content of a member is there, as it must be. Raises OSError."""
        after = place.begin + place.length
        return (
            os.pread(self._descriptor, place.begin - place.at, place.at) == place.header
            and os.pread(self._descriptor, place.end - after, after) == place.padding
        )

    def pieces(self) -> Iterator[bytes]:
        """All bytes of the file, in order. Raises Unavailable."""
        at = 0
        while True:
            with wrapped(self.path):
                data = os.pread(self._descriptor, _PIECE_BYTES, at)
            if not data:
                return
            yield data
            at += len(data)

    # The Source

    def read(self, path: str, *, limit: int) -> bytes:
        place = self._places.get(path)
        if place is None:
            raise NotFound("is not in this volume", place=f"{self.name}: {path}")
        if place.length > limit:
            raise TooLarge(f"has {place.length} bytes, more than {limit}", place=f"{self.name}: {path}")
        return self._content(place, 0, place.length)

    def ranges(self, wanted: Iterable[PackRange]) -> Iterator[tuple[PackRange, Bytes]]:
        for one in wanted:
            path = object_path(ObjectKind.PACK, one.pack)
            place = self._places.get(path)
            if place is None:
                raise NotFound("is not in this volume", place=f"{self.name}: {path}")
            if one.offset + one.length > place.length:
                raise Corrupt("is shorter than its table says", place=f"{self.name}: {path}")
            yield one, self._content(place, one.offset, one.length)

    def close(self) -> None:
        """Close the file. May be repeated."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _content(self, place: Place, offset: int, length: int) -> bytes:
        parts: list[bytes] = []
        at, end = place.begin + offset, place.begin + offset + length
        with wrapped(self.path):
            while at < end and (part := os.pread(self._descriptor, end - at, at)):
                parts.append(part)
                at += len(part)
        if at < end:
            raise Corrupt("was truncated while it was read", place=self.name, hint=_AGAIN)
        self.traffic.bytes_downloaded += length
        self.traffic.requests += 1
        return b"".join(parts) if len(parts) != 1 else parts[0]

    def _check_whole(self) -> None:
        places = self.places
        wanted, found = volume_bytes(places), os.fstat(self._descriptor).st_size
        if found < wanted:
            raise Corrupt(f"is truncated: it has {found:,} of {wanted:,} bytes", place=self.name, hint=_AGAIN)
        if found > wanted or os.pread(self._descriptor, len(END), places[-1].end) != END:
            raise Corrupt("does not end where it must", place=self.name, hint=_AGAIN)
        for place in places:
            if not self.has_around(place):
                raise Corrupt(f"was altered at {place.path}", place=self.name, hint=_AGAIN)


def read_contents(descriptor: int, path: Path) -> tuple[Contents, int]:
    """The contents of the volume in an open file, and its number. Raises as `Volume.open`, and OSError."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise Refused("is not a file", place=str(path), hint="name the files that pacball export wrote")
    header = os.pread(descriptor, BLOCK_BYTES, 0)
    if header[: len(BEGINNING)] != BEGINNING:
        hint = "name the files that pacball export wrote"
        raise Refused("is not a volume of an export" if header else "is empty", place=str(path), hint=hint)
    size = header[124:136]
    length = int(size[:11], 8) if _SIZE.match(size) else 0
    if not 0 < length <= CONTENTS_BYTES or header != header_of(NAME, length):
        raise Corrupt("its beginning was altered", place=str(path), hint=_AGAIN)
    data = os.pread(descriptor, length, BLOCK_BYTES)
    if len(data) < length:
        raise Corrupt("is truncated: not even what it says of itself is there whole", place=str(path), hint=_AGAIN)
    return parse_contents(data, place=str(path))
