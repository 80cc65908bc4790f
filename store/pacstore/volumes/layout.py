"""Layout: where each member lies in a volume, which is a tar; it follows from the contents alone, byte for byte."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pacstore.errors import Refused
from pacstore.pacball.members import END, Member, padding
from pacstore.tree import EntryKind
from pacstore.volumes.contents import NAME, VOLUMES, Contents, Piece

_DIGITS = 3
_COMMAS = 8
"""So many bytes at most does a volume more add to what an export says of itself, apart from its members."""


@dataclass(frozen=True, slots=True)
class Place:
    """One member in a volume: its header `at` this offset, its content, of `length` bytes, from `begin` on; `end` is the next
    one's.
    """

    path: str
    at: int
    begin: int
    length: int

    @property
    def header(self) -> bytes:
        """All blocks before the content."""
        return header_of(self.path, self.length)

    @property
    def padding(self) -> bytes:
        """All zero bytes after the content."""
        return padding(self.length)

    @property
    def end(self) -> int:
        """Where the next member begins, or the end of the tar."""
        return self.begin + self.length + len(self.padding)


def header_of(path: str, length: int) -> bytes:
    """The header of a member: the same at any time, by anybody."""
    return Member(path.encode(), EntryKind.FILE, 0, length).header()


def places_of(contents: Contents, number: int) -> list[Place]:
    """Every member of volume `number`, that with the contents first."""
    first = Piece(NAME, len(contents.encode(number)))
    places: list[Place] = []
    at = 0
    for piece in (first, *contents.shared, *contents.volumes[number - 1]):
        place = Place(piece.path, at, at + len(header_of(piece.path, piece.length)), piece.length)
        places.append(place)
        at = place.end
    return places


def volume_bytes(places: Sequence[Place]) -> int:
    """The length of the whole volume."""
    return places[-1].end + len(END)


def divide(contents: Contents, packs: Sequence[Piece], last: Sequence[Piece], most_bytes: int) -> Contents:
    """`contents` with these packs in as few volumes of `most_bytes` at most as their order allows, and `last` in the last one.

    Raises Refused where a volume would have to be longer.
    """
    # Room for what is in each of them, as if it were the last.
    whole = _with(contents, [(*packs, *last)])
    said = len(whole.encode(VOLUMES)) + _COMMAS * (len(packs) + 1)
    fixed = sum(_bytes(piece) for piece in (Piece(NAME, said), *contents.shared, *last)) + len(END)
    needed = fixed + max(map(_bytes, packs), default=0)
    if needed > most_bytes:
        hint = f"give at least {-(-needed // 10**6)}M; what each volume has, and its longest pack, must fit"
        raise Refused(f"{most_bytes:,} bytes are too few for a volume of this export", place="--split", hint=hint)
    volumes: list[list[Piece]] = [[]]
    left = most_bytes - fixed
    for pack in packs:
        if _bytes(pack) > left:
            volumes.append([])
            left = most_bytes - fixed
        volumes[-1].append(pack)
        left -= _bytes(pack)
    if len(volumes) > VOLUMES:
        raise Refused(f"that would be {len(volumes):,} volumes, more than {VOLUMES:,}", place="--split")
    volumes[-1] += last
    return _with(contents, [tuple(pieces) for pieces in volumes])


def undivided(contents: Contents, packs: Sequence[Piece], last: Sequence[Piece]) -> Contents:
    """`contents` with all of this in one volume."""
    return _with(contents, [(*packs, *last)])


def volume_path(output: Path, number: int, *, is_split: bool) -> Path:
    """The file of volume `number` of the export that is written to `output`."""
    return output.with_name(f"{output.name}.{number:0{_DIGITS}}") if is_split else output


def _with(contents: Contents, volumes: Sequence[tuple[Piece, ...]]) -> Contents:
    return Contents(contents.root, contents.version, contents.releases, contents.since, contents.shared, tuple(volumes))


def _bytes(piece: Piece) -> int:
    return len(header_of(piece.path, piece.length)) + piece.length + len(padding(piece.length))
