"""The versions below which a client never goes back: durable, and independent of python-tuf's own files.

What holds is the highest version that any record (records.py) has for a role, so clients that run at once can only raise
the floor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pacstore.errors import Untrusted
from pacstore.trust.records import Records

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_FIRST = ("root", "timestamp")
_BEHIND = "the source is behind, or lies: use another source"


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
        self._records = Records(directory)

    def raise_to(self, seen: Seen, place: str) -> None:
        """Check `seen`, a verified state of the source `place`, against the floor; then make it the floor, durably.

        Raises Untrusted if a role is below the floor, Unavailable.
        """
        floor = self._versions(seen.online_keys)
        # The timestamp's version is the catalog's, and says more to people than that of a line.
        for role, version in sorted(floor.items(), key=lambda item: (item[0] not in _FIRST, item)):
            _check(role, version, seen.versions.get(role), place)
        record = {"format": 1, "online_keys": list(seen.online_keys), "versions": dict(seen.versions)}
        self._records.add(record, superseded=self._records)

    def _versions(self, online_keys: tuple[str, ...]) -> dict[str, int]:
        floor: dict[str, int] = {}
        for record in self._records:
            for role, version in record["versions"].items():
                # After a root has changed the online keys, their versions may start anew: this is how a catalog recovers
                # from a thief who has signed the highest possible version (TUF 5.3.11).
                if role == "root" or tuple(record["online_keys"]) == online_keys:
                    floor[role] = max(version, floor.get(role, 0))
        return floor


def _check(role: str, floor: int, version: int | None, place: str) -> None:
    if version is None:
        raise Untrusted(
            f"the catalog was rolled back: {role}, seen at version {floor}, is gone", place=place, hint=_BEHIND
        )
    if version < floor:
        message = f"the catalog was rolled back: {role} is version {version}, and version {floor} was seen before"
        raise Untrusted(message, place=place, hint=_BEHIND)
