"""Files of TUF metadata: their names, sizes, lifetimes and bytes, for those who write a catalog and those who read it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tuf.api.metadata import Metadata, Root
from tuf.api.serialization.json import JSONSerializer

from pacstore.limits import KIB, MIB

TIMESTAMP_NAME = "timestamp.json"
FIRST_ROOT_NAME = "1.root.json"
SIGNED_AT = "signed_at"
"""A field of the timestamp: when it was signed, so that its age can be told."""
RETAIN = "retain"
"""A field of a line: how long its releases are kept (`pacstore.trust.retention`)."""
TIME = "%Y-%m-%dT%H:%M:%SZ"
LINE_PREFIX = "line-"
PLACEMENT_PREFIX = "placement-"
# Without spaces a line's metadata is a third smaller, and every client of the line fetches it after each release.
COMPACT = JSONSerializer(compact=True)


@dataclass(frozen=True)
class MetadataLimits:
    """The most that a reader accepts of each kind of file, in bytes, and of root rotations.

    `targets_bytes` fits a line of 10,000 releases: with the longest names that are allowed, the two targets of a
    release take 1,202 bytes. `snapshot_bytes` fits 10,000 lines.
    """

    root_bytes: int = 512 * KIB
    timestamp_bytes: int = 16 * KIB
    snapshot_bytes: int = 8 * MIB
    targets_bytes: int = 16 * MIB
    root_rotations: int = 256


METADATA_LIMITS = MetadataLimits()


@dataclass(frozen=True)
class Expiry:
    """For how many days newly signed metadata is valid, by role; `line` and `placement` are the roles of each line."""

    root: float = 365
    targets: float = 365
    line: float = 365
    placement: float = 30
    snapshot: float = 30
    timestamp: float = 30

    def days(self, role: str) -> float:
        """The lifetime of a role's metadata, in days."""
        if role.startswith(LINE_PREFIX):
            return self.line
        if role.startswith(PLACEMENT_PREFIX):
            return self.placement
        return float(getattr(self, role))


@dataclass(frozen=True)
class Thresholds:
    """How many keys must sign, by role. `online` is that of snapshot, timestamp and placements."""

    root: int = 1
    targets: int = 1
    line: int = 1
    online: int = 1


def file_name(role: str, version: int) -> str:
    """The name of a version of a role's metadata in the catalog directory."""
    return f"{version}.{role}.json"


def at(now: float) -> datetime:
    """`now`, in seconds since 1970, as python-tuf wants it."""
    return datetime.fromtimestamp(now, UTC)


def expiry_date(now: float, days: float) -> datetime:
    """The moment `days` after `now` (seconds since 1970), in whole seconds."""
    return (at(now) + timedelta(days=days)).replace(microsecond=0)


def verify_root(data: bytes, *, previous: Root | None = None) -> Root:
    """The root in `data`, signed by itself and, if there is one, by the root before it.

    Raises tuf's RepositoryError or ValueError.
    """
    metadata: Metadata[Any] = Metadata.from_bytes(data)
    root = metadata.signed
    if not isinstance(root, Root):
        raise ValueError(f"it is of type {root.type}, not root")  # noqa: TRY004 - one kind for all that is no root
    for delegator in (root, previous or root):
        delegator.verify_delegate(Root.type, metadata.signed_bytes, metadata.signatures)
    if previous is not None and root.version != previous.version + 1:
        raise ValueError(f"its version is {root.version}, not {previous.version + 1}")
    return root
