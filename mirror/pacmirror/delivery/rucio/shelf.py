"""Shelf: what is in a store of the files that Rucio knows: whole, damaged, or not there."""

from __future__ import annotations

import enum
from contextlib import closing
from typing import TYPE_CHECKING

from pacmirror.delivery.rucio.naming import FileKind, parse_file_name
from pacstore.errors import NotFound, PacballError, Unavailable
from pacstore.ledger import damage, packs
from pacstore.ledger.packs import PackState
from pacstore.rereading import Rereader
from pacstore.storage import ObjectKind, object_path

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pacmirror.delivery.rucio.rse import RseFile
    from pacstore.damage import DamagedPart
    from pacstore.digest import Digest
    from pacstore.store import Store


class Here(enum.StrEnum):
    """What is here of a file: all of it, verified when it came and durable; something that is wrong; or nothing."""

    WHOLE = "whole"
    DAMAGED = "damaged"
    ABSENT = "absent"


class Shelf:
    """The files of a store, as its ledger and its disk are when this is made."""

    def __init__(self, store: Store) -> None:
        self._store = store
        with store.ledger.reading() as connection:
            self._damaged = frozenset(damage.damaged_paths(connection))

    def look(self, file: RseFile) -> Here:
        """What is here of a file; one that is none of ours is absent. Raises Unavailable if that cannot be known."""
        found = file.object
        if found is None:
            return Here.ABSENT
        kind, digest = found
        try:
            length = self._store.storage.size(kind.object_kind, digest)
        except NotFound:
            return Here.ABSENT
        if length != file.length or object_path(kind.object_kind, digest) in self._damaged:
            return Here.DAMAGED
        return self._pack(digest) if kind is FileKind.PACK else Here.WHOLE

    def whole(self, files: Iterable[RseFile]) -> list[str]:
        """The names of those of the files that are here whole."""
        return [file.name for file in files if self.look(file) is Here.WHOLE]

    def _pack(self, pack: Digest) -> Here:
        with self._store.ledger.reading() as connection:
            row = packs.find(connection, pack)
        # Stores to which was published have packs that their ledgers do not know.
        return Here.DAMAGED if row is not None and row.state is PackState.DAMAGED else Here.WHOLE


def reread(store: Store, file: RseFile) -> list[DamagedPart]:
    """What is wrong with a file that is here: all of it is read from the disk. Raises Unavailable where it cannot be."""
    if file.object is None:
        return []
    kind, digest = file.object
    path = object_path(kind.object_kind, digest)
    with closing(Rereader(store.public)) as reader:
        reading = reader.pack if kind.object_kind is ObjectKind.PACK else reader.single
        found: list[DamagedPart] = []
        for step in reading(path):
            if step.unread:
                raise Unavailable(step.unread[0], place=path)
            found += step.damage
    return found


def is_here(store: Store, name: str) -> bool:
    """Whether the object that is called so in Rucio is here. Raises Unavailable if that cannot be known."""
    found = parse_file_name(name)
    if found is None:
        return False
    kind, digest = found
    try:
        store.storage.size(kind.object_kind, digest)
    except NotFound:
        return False
    return True


def name_of(path: str) -> str | None:
    """The name in Rucio of the object at a public path; None for what is none of those that are registered."""
    directory, _, rest = path.partition("/")
    try:
        kind = FileKind(directory.removesuffix("s"))
    except (ValueError, PacballError):
        return None
    return f"{rest[-64:]}.{kind}" if kind.object_kind.value == directory else None
