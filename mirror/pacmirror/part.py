"""Part: one source as those see it who spread work over several; and the parts that are no HTTP sources."""

from __future__ import annotations

import time
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from pacmirror.meter import Meter
from pacmirror.threads import run_in_thread
from pacstore.errors import Unavailable
from pacstore.source import Tailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pacmirror.throttle import Throttle
    from pacstore.digest import Bytes, Digest
    from pacstore.source import PackRange, Source, Tail, Traffic

T = TypeVar("T")


@dataclass(eq=False)
class Arrival:
    """How far something has come that is being received: written by whoever receives, read by any thread."""

    received: int = 0
    at: float = field(default_factory=time.monotonic)
    held: bool = False
    """Whether it is our own limit on the rate that keeps it waiting."""
    buffer: bytearray | None = None
    """Of a range under way: `filled` bytes from its beginning on have come. Not verified, and they may still change."""
    filled: int = 0

    @property
    def beginning(self) -> bytes:
        """What has come so far of a range that broke off; nothing if it came whole."""
        buffer = self.buffer
        return b"" if buffer is None else bytes(memoryview(buffer)[: self.filled])

    def advance(self, count_bytes: int) -> None:
        """So many bytes more have arrived just now."""
        self.received += count_bytes
        self.at = time.monotonic()


@dataclass(eq=False)
class Transfer(Generic[T]):
    """Something that was asked of a part. Cancelling `result` stops it, where it can be stopped."""

    result: Future[T]
    arrival: Arrival
    began: float = field(default_factory=time.monotonic)


class Part(Protocol):
    """A source that can be asked for several things at once without waiting. Nothing under way lasts for ever."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def traffic(self) -> Traffic:
        """Counters, only ever growing."""

    def progress(self) -> tuple[int, float]:
        """Bytes received so far, and for how many seconds at least one request was under way."""

    def start_range(self, wanted: PackRange) -> Transfer[Bytes]:
        """Begin to fetch a range; the result raises what `Source.ranges` does. Raises Unavailable once it is closed."""

    def start_read(self, path: str, *, limit: int) -> Transfer[bytes]:
        """Begin to read a public file; the result raises what `Source.read` does. Raises Unavailable once it is closed."""

    def start_tail(self, pack: Digest, *, length: int) -> Transfer[Tail]:
        """Begin to read the end of a pack; the result raises what `Tailed.tail` does. Raises Unavailable once it is closed."""

    def close(self) -> None:
        """End all that is under way."""


class PartSource:
    """A part as a source for callers that wait, one thing at a time."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self.name = part.name

    @property
    def traffic(self) -> Traffic:
        return self._part.traffic

    def read(self, path: str, *, limit: int) -> bytes:
        return self.wait(self._part.start_read(path, limit=limit))

    def ranges(self, wanted: Iterable[PackRange]) -> Iterator[tuple[PackRange, Bytes]]:
        for one in wanted:
            yield one, self.wait(self._part.start_range(one))

    def tail(self, pack: Digest, *, length: int) -> Tail:
        return self.wait(self._part.start_tail(pack, length=length))

    def close(self) -> None:
        """Whoever owns the part closes it."""

    def wait(self, transfer: Transfer[T]) -> T:
        """What a transfer brings; an exception in this thread, such as ^C, cancels it."""
        try:
            return transfer.result.result()
        except CancelledError as error:
            raise Unavailable("the source was closed", place=self.name) from error
        except BaseException:
            transfer.result.cancel()
            raise


class BlockingPart:
    """A source whose calls block, such as a directory: each in a thread of its own, which nobody has to wait for."""

    def __init__(self, source: Source, *, throttle: Throttle | None = None) -> None:
        self.name = source.name
        self._source = source
        self._throttle = throttle
        self._meter = Meter()

    @property
    def traffic(self) -> Traffic:
        return self._source.traffic

    def progress(self) -> tuple[int, float]:
        return self._source.traffic.bytes_downloaded, self._meter.progress()[1]

    def start_range(self, wanted: PackRange) -> Transfer[Bytes]:
        return self._start(lambda: next(data for _, data in self._source.ranges([wanted])), len)

    def start_read(self, path: str, *, limit: int) -> Transfer[bytes]:
        return self._start(lambda: self._source.read(path, limit=limit), len)

    def start_tail(self, pack: Digest, *, length: int) -> Transfer[Tail]:
        source = self._source
        if not isinstance(source, Tailed):
            raise Unavailable("cannot be asked for a pack of unknown length", place=self.name)
        return self._start(lambda: source.tail(pack, length=length), lambda tail: len(tail.data))

    def close(self) -> None:
        self._source.close()

    def _start(self, read: Callable[[], T], measure: Callable[[T], int]) -> Transfer[T]:
        arrival = Arrival()

        def work() -> T:
            self._meter.begin()
            try:
                data = read()
            finally:
                self._meter.end()
            count = measure(data)
            arrival.advance(count)
            if self._throttle is not None:
                arrival.held = True
                time.sleep(self._throttle.take(count))
            return data

        return Transfer(run_in_thread(work, name="pacball-read"), arrival)
