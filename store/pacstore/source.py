"""Source: where an installer or a reader gets a store's public files from. Sources are never trusted.

`DirectorySource` reads a store directory; `pacmirror.source.HttpSource` any web server over one;
`pacmirror.mirrors.MirrorList` is several of them, seen as one.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from pacstore.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pacstore.digest import Bytes, Digest
    from pacstore.errors import PacballError


@dataclass(frozen=True, slots=True)
class PackRange:
    """Bytes `offset` to `offset + length` of the pack `pack`."""

    pack: Digest
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Tail:
    """The last bytes of a pack, and how long all of it is, in bytes, as its source says."""

    pack_length: int
    data: Bytes


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

    def ranges(self, wanted: Iterable[PackRange]) -> Iterator[tuple[PackRange, Bytes]]:
        """The bytes of each range, exactly as long as asked for, several fetched at once, in any order.

        `wanted` is asked for its next range, in the thread of the caller, only when that can be fetched at once: so it may
        be cut by how fast the line is (`Pace`). What is held in memory before the caller takes it is bounded. Closing
        the iterator stops it.
        """

    def close(self) -> None:
        """Release connections. May be repeated."""


class PerhapsAbsent(Unavailable):
    """Some of several sources definitely do not have it; the others could not be asked, or gave something else."""


class Condition(enum.StrEnum):
    """What is known of a source: `UNUSED` is one that nothing was asked of; all after `GOOD` are reported to the user."""

    UNUSED = "unused"
    GOOD = "good"
    SLOW = "slow"
    FAILING = "failing"
    WRONG = "wrong"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class SourceState:
    """How one source does, or did. `bytes_per_second` is 0 while nothing was measured.

    `state`: the worst that is known since it was last good. `error`: why it last failed, empty if it never did; `failures`:
    how often something asked of it did not come, or came wrong.
    """

    name: str
    bytes_downloaded: int
    requests: int
    retries: int
    bytes_per_second: float
    state: Condition
    error: str = ""
    failures: int = 0

    @property
    def is_bad(self) -> bool:
        """Whether people should be told of it."""
        return bool(self.failures) or self.state not in (Condition.UNUSED, Condition.GOOD)


@runtime_checkable
class Surveyed(Protocol):
    """A source that tells how it does, or how each of its parts does."""

    def states(self) -> tuple[SourceState, ...]:
        """One state for each part, in the order in which they were named. May be called from any thread, often."""


@runtime_checkable
class Tailed(Protocol):
    """A source that can be asked for the end of a pack of which nothing is known but its id."""

    def tail(self, pack: Digest, *, length: int) -> Tail:
        """The last `length` bytes of the pack, or all of a shorter one. Raises as `Source.read`."""


@runtime_checkable
class Pace(Protocol):
    """A source that knows how long a range should be now."""

    def range_bytes(self) -> int:
        """About how many bytes the next range that `ranges` takes from its caller should have.

        Small while nothing is known and where the line is slow, so that an interruption costs little.
        """


@runtime_checkable
class Answerable(Protocol):
    """A source of several parts, which must be told when bytes that it gave prove to be wrong."""

    def blame(self, given: PackRange | str, error: PacballError) -> str:
        """Who gave the bytes of the range, or of the file at the path, that were taken last: its name.

        It is trusted less from now on; when the same bytes are asked for again, another part is asked before this one.
        """


def states_of(source: Source) -> tuple[SourceState, ...]:
    """The states of the parts of `source`, or of itself."""
    if isinstance(source, Surveyed):
        return source.states()
    traffic = source.traffic
    condition = Condition.GOOD if traffic.requests else Condition.UNUSED
    return (SourceState(source.name, traffic.bytes_downloaded, traffic.requests, traffic.retries, 0.0, condition),)


def blame(source: Source, given: PackRange | str, error: PacballError) -> str:
    """Tell `source` that what it gave is wrong, if it wants to know; the name of the part that gave it."""
    return source.blame(given, error) if isinstance(source, Answerable) else source.name
