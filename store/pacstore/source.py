"""Source: where an installer or a reader gets a store's public files from. Sources are never trusted.

`DirectorySource` reads a store directory; `pacmirror.source.HttpSource` any web server over one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pacstore.digest import Bytes, Digest


@dataclass(frozen=True, slots=True)
class PackRange:
    """Bytes `offset` to `offset + length` of the pack `pack`."""

    pack: Digest
    offset: int
    length: int


@dataclass
class Traffic:
    """What a source has moved so far: payload bytes received, requests sent, requests sent again after a failure."""

    bytes_downloaded: int = 0
    requests: int = 0
    retries: int = 0


class Source(Protocol):
    """Public files of one store, unverified. Threads may share a source; `read` and `ranges` may be used at once.

    Raises NotFound only for a definite absence, Unavailable for all that may pass (after bounded retries within total
    deadlines), TooLarge when more arrives than announced, Corrupt when an answer cannot be what was asked for (for
    example an error page). Nothing blocks for ever.
    """

    @property
    def name(self) -> str:
        """For messages: the directory or URL."""

    @property
    def traffic(self) -> Traffic:
        """Counters, only ever growing."""

    def read(self, path: str, *, limit: int) -> bytes:
        """The whole public file at `path` (see storage.object_path), at most `limit` bytes."""

    def ranges(self, wanted: Sequence[PackRange]) -> Iterator[tuple[PackRange, Bytes]]:
        """The bytes of each range, exactly as long as asked for, several fetched at once, in any order.

        At most `parallel` ranges are held in memory before the caller takes them. Closing the iterator stops it.
        """

    def close(self) -> None:
        """Release connections. May be repeated."""
