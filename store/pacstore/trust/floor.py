"""The versions below which a client never goes back: durable, and independent of python-tuf's own files.

The floor is a directory of records; what holds is the highest version that any of them has for a role. Records are named
by their digest and never changed, and a client adds its own before it removes those it has read, so clients that run at
once, on file systems without locks too, can only raise the floor.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pacstore.digest import Digest
from pacstore.durable import wrapped
from pacstore.errors import Corrupt, Unavailable, Untrusted
from pacstore.limits import MIB
from pacstore.trust import private

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

RECORD_BYTES = 16 * MIB
READ_ATTEMPTS = 100
_FIRST = ("root", "timestamp")


@dataclass(frozen=True)
class Seen:
    """A verified state: each role's version, and the ids of the keys that sign snapshot and timestamp, sorted."""

    versions: Mapping[str, int]
    online_keys: tuple[str, ...]


class Floor:
    """The floor in `directory`, which belongs to one pinned root, as it was when this object was made.

    Make it before the catalog is fetched: what other clients see meanwhile must not make this one's answer look old.
    Raises Corrupt for a damaged record, Unavailable.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        private.make_directory(directory)
        self._records = self._read()

    def raise_to(self, seen: Seen, place: str) -> None:
        """Check `seen`, a verified state of the source `place`, against the floor; then make it the floor, durably.

        Raises Untrusted if a role is below the floor, Unavailable.
        """
        floor = _join(self._records.values(), seen.online_keys)
        # The timestamp's version is the catalog's, and says more to people than that of a line.
        for role, version in sorted(floor.items(), key=lambda item: (item[0] not in _FIRST, item)):
            _check(role, version, seen.versions.get(role), place)
        self._add(_encode(seen), [path for path, record in self._records.items() if record != seen])

    def _read(self) -> dict[Path, Seen]:
        for _ in range(READ_ATTEMPTS):
            with wrapped(self._directory):
                paths = sorted(self._directory.glob("*.json"))
            found = {path: private.read(path, limit=RECORD_BYTES) for path in paths}
            records = {path: _decode(data, path) for path, data in found.items() if data is not None}
            # One that is gone by now was replaced by a higher one, which may be too new to be among these.
            if len(records) == len(found):
                return records
        raise Unavailable("is changed by others all the time", place=str(self._directory), hint="try again")

    def _add(self, data: bytes, superseded: list[Path]) -> None:
        path = self._directory / _name(data)
        if not path.exists():
            private.replace(path, data)
        with wrapped(self._directory):
            for old in superseded:
                old.unlink(missing_ok=True)


def _join(records: Iterable[Seen], online_keys: tuple[str, ...]) -> dict[str, int]:
    floor: dict[str, int] = {}
    for record in records:
        for role, version in record.versions.items():
            # After a root has changed the online keys, their versions may start anew: this is how a catalog recovers
            # from a thief who has signed the highest possible version (TUF 5.3.11).
            if role == "root" or record.online_keys == online_keys:
                floor[role] = max(version, floor.get(role, 0))
    return floor


def _check(role: str, floor: int, version: int | None, place: str) -> None:
    hint = "the source is behind, or lies: use another source"
    if version is None:
        raise Untrusted(
            f"the catalog was rolled back: {role}, seen at version {floor}, is gone", place=place, hint=hint
        )
    if version < floor:
        message = f"the catalog was rolled back: {role} is version {version}, and version {floor} was seen before"
        raise Untrusted(message, place=place, hint=hint)


def _encode(seen: Seen) -> bytes:
    record = {"format": 1, "online_keys": list(seen.online_keys), "versions": dict(seen.versions)}
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode()


def _decode(data: bytes, path: Path) -> Seen:
    if _name(data) != path.name:
        hint = (
            "if you are sure that your source is honest, remove this file; the protection against rollback starts anew"
        )
        raise Corrupt("this record of the newest catalog seen is damaged", place=str(path), hint=hint)
    # These are bytes that this class has written.
    record = json.loads(data)
    return Seen(record["versions"], tuple(record["online_keys"]))


def _name(data: bytes) -> str:
    return f"{Digest.of(data).hex[:32]}.json"
