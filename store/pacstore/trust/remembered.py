"""Remembered: the newest catalog that this client has verified, as far as it keeps it, over a source that has an older one.

Where the origin cannot be reached, what is at hand may have the catalog of an earlier day: it is a step backward, and refused.
But nothing forbids to go on with what was seen: the client keeps the newest timestamp (python-tuf's cache), which names
everything else by version, and most of that is in the cache, or has not changed since the earlier day.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pacstore.errors import PacballError
from pacstore.storage import DocumentKind, document_path
from pacstore.trust import private
from pacstore.trust.client import metadata_dir
from pacstore.trust.metadata import METADATA_LIMITS, TIMESTAMP_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from pacstore.digest import Bytes
    from pacstore.source import PackRange, Source, Traffic

_PATH = document_path(DocumentKind.CATALOG, TIMESTAMP_NAME)


class Remembered:
    """`source`, with a timestamp that was seen before in place of its own."""

    def __init__(self, source: Source, timestamp: bytes) -> None:
        self.name = source.name
        self._source = source
        self._timestamp = timestamp

    @property
    def traffic(self) -> Traffic:
        return self._source.traffic

    def read(self, path: str, *, limit: int) -> bytes:
        return self._timestamp if path == _PATH else self._source.read(path, limit=limit)

    def ranges(self, wanted: Iterable[PackRange]) -> Iterator[tuple[PackRange, Bytes]]:
        return self._source.ranges(wanted)

    def close(self) -> None:
        """Whoever owns the source closes it."""


def remembered(source: Source, *, root: bytes, state_dir: Path) -> Source | None:
    """`source` with what the client of `open_catalog` with this root and state has seen; None where it keeps nothing."""
    try:
        timestamp = private.read(metadata_dir(root, state_dir) / TIMESTAMP_NAME, limit=METADATA_LIMITS.timestamp_bytes)
    except PacballError:
        return None
    return Remembered(source, timestamp) if timestamp is not None else None
