"""Damage: parts of a store that are not what they must be, one row for each part that can be repaired alone."""

from __future__ import annotations

from dataclasses import dataclass, field

from pacstore.digest import Digest
from pacstore.storage import ObjectKind, object_path

WHOLE = -1
"""The offset of damage that is not one frame's: a document, or of a pack its table, header or footer, or that it is missing."""


@dataclass(frozen=True, order=True, slots=True)
class DamagedPart:
    """The public `path` of the object or document; `offset` in bytes of the damaged frame of a pack, otherwise WHOLE.

    `fault` is a sentence without a subject, like those of errors. `length` of the frame in bytes, 0 where it is none or unknown.
    """

    path: str
    offset: int
    fault: str = field(compare=False)
    length: int = field(compare=False, default=0)

    @property
    def pack(self) -> Digest | None:
        """The pack that it is a part of, if it is one's."""
        return pack_at(self.path)

    def __str__(self) -> str:
        where = self.path if self.offset == WHOLE else f"{self.path}, frame at {self.offset}"
        return f"{where}: {self.fault}"


def pack_at(path: str) -> Digest | None:
    """The pack whose public path this is, or None."""
    kind, _, name = path.partition("/")
    return Digest.parse(name[-64:]) if kind == ObjectKind.PACK.value else None


def damaged_pack(pack: Digest, offset: int, fault: str, length: int = 0) -> DamagedPart:
    """Damage of a pack."""
    return DamagedPart(object_path(ObjectKind.PACK, pack), offset, fault, length)
