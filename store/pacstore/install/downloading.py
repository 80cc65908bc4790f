"""Downloading: missing chunks from the source, every frame checked before it is decoded, every chunk before it is written.

Works in rounds: a round asks for all that is missing; what fails is asked for once more in the next, and the source is
told, which may have somebody else to ask. When it no longer has a pack, the store was repacked: the next round uses a newer
placement. Ranges are cut when they are asked for, as long as the line is fast: what an interruption loses, which is all that
is under way or not written yet, is small where it would take long to fetch again.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic

from blake3 import blake3

from pacstore.codec import decompress
from pacstore.digest import Bytes
from pacstore.errors import Corrupt, NotFound, PacballError, TooLarge, Unavailable
from pacstore.install.crew import Crew, Tools
from pacstore.install.options import InstallOptions
from pacstore.install.planning import Cut, Fetch, plan_fetch
from pacstore.install.wanted import Batch, Wanted
from pacstore.pack import check_frame
from pacstore.placement import Placement
from pacstore.progress import Progress
from pacstore.source import Pace, PackRange, PerhapsAbsent, Source, blame

ATTEMPTS = 2
"""How often a frame is taken from one source, or one part of it, while what arrives is wrong."""
_CHECK_SECONDS = 0.2


class Downloading(Generic[Tools]):
    """Brings what no seed had. `replaced` gives a newer placement than the present one, or raises the error given.

    `put` writes the chunk at a position of a batch to all of its places, with the tools of the thread that it is called in.
    """

    def __init__(
        self,
        wanted: Wanted,
        put: Callable[[Tools, Batch, int, memoryview], None],
        source: Source,
        *,
        replaced: Callable[[NotFound | PerhapsAbsent], Placement],
        progress: Progress,
        options: InstallOptions,
    ) -> None:
        self._wanted = wanted
        self._put = put
        self._source = source
        self._replaced = replaced
        self._progress = progress
        self._options = options
        self._failures: Counter[tuple[bytes, str]] = Counter()
        self._lock = threading.Lock()
        self._unwritten = _Unwritten(options.unwritten_bytes)

    def download(self, crew: Crew[Tools], placement: Placement) -> None:
        """Fetch and write all that is missing. Raises what the source raises, Corrupt and Unavailable."""
        missing = self._wanted.missing()
        if len(missing):
            self._progress.begin("downloading", self._plan(placement).frame_bytes)
        while len(missing):
            try:
                self._round(crew, placement, self._plan(placement))
            except (NotFound, PerhapsAbsent) as error:
                crew.finish()
                placement = self._replaced(error)
            missing = self._wanted.missing()

    def _plan(self, placement: Placement) -> Fetch:
        return plan_fetch(self._wanted, placement, self._wanted.missing(), self._options)

    def _round(self, crew: Crew[Tools], placement: Placement, fetch: Fetch) -> None:
        expected: dict[PackRange, Cut] = {}
        cuts = fetch.cut(self._source.range_bytes if isinstance(self._source, Pace) else lambda: 1 << 62)
        arriving = self._source.ranges(_noted(cuts, expected))
        try:
            for wanted, data in arriving:
                cut = expected.pop(wanted, None)
                if cut is None:
                    raise Corrupt("gave a range that was not asked for", place=self._source.name)
                self._unwritten.enter(len(data), crew.check)
                crew.give(self._job(placement, fetch, cut, data))
        finally:
            close = getattr(arriving, "close", None)
            if close is not None:
                close()
        crew.finish()
        missing = len(expected) + sum(1 for _ in cuts)
        if missing:
            raise Unavailable(
                f"gave {missing} ranges too few", place=self._source.name, hint="run the same command again"
            )

    def _job(self, placement: Placement, fetch: Fetch, cut: Cut, data: Bytes) -> Callable[[Tools], None]:
        def job(tools: Tools) -> None:
            with self._unwritten.leaving(len(data)):
                self._take(tools, placement, fetch, cut, data)

        return job

    def _take(self, tools: Tools, placement: Placement, fetch: Fetch, cut: Cut, data: Bytes) -> None:
        """Check, decode and write what is wanted of one range that arrived."""
        by_frame = fetch.by_frame[cut.first : cut.last + 1]
        numbers = fetch.numbers[by_frame[0] : by_frame[-1]]
        batch = self._wanted.batch(numbers)
        offsets = placement.chunk_offsets[self._wanted.examples[numbers]].tolist()
        bounds = (by_frame - by_frame[0]).tolist()
        view = memoryview(data)
        for at, frame in enumerate(fetch.frames[cut.first : cut.last].tolist()):
            begin = int(placement.frame_offsets[frame]) - cut.range.offset
            compressed = view[begin : begin + int(placement.frame_lengths[frame])]
            positions = range(bounds[at], bounds[at + 1])
            try:
                plain = self._decoded(placement, frame, compressed)
                chunks = _verified(batch, positions, offsets, plain)
            except (Corrupt, TooLarge) as error:
                self._failed(placement, frame, cut.range, error)
            else:
                self._write(tools, batch, positions, chunks)
                self._progress.advance(int(placement.frame_lengths[frame]))

    def _decoded(self, placement: Placement, frame: int, compressed: memoryview) -> bytes:
        digest = placement.frame_digests[frame].tobytes()
        check_frame(compressed, digest, place="")
        plain_length = int(placement.frame_plain_lengths[frame])
        return decompress(int(placement.frame_kinds[frame]), compressed, plain_length, place="")

    def _write(self, tools: Tools, batch: Batch, positions: range, chunks: list[memoryview]) -> None:
        have = self._wanted.have
        for at, data in zip(positions, chunks, strict=True):
            self._put(tools, batch, at, data)
            have[batch.numbers[at]] = True

    def _failed(self, placement: Placement, frame: int, given: PackRange, error: PacballError) -> None:
        pack = placement.pack(int(placement.frame_packs[frame]))
        what = f"pack {pack}, frame at {int(placement.frame_offsets[frame])}"
        giver = blame(self._source, given, Corrupt(error.message, place=what))
        key = placement.frame_digests[frame].tobytes(), giver
        with self._lock:
            self._failures[key] += 1
            times = self._failures[key]
        place = f"{giver}: {what}"
        if times >= ATTEMPTS:
            raise Corrupt(
                f"{error.message}, {times} times",
                place=place,
                hint="use another source, and tell the operator of this one",
            ) from error
        self._progress.warn(f"{place}: {error.message}; it is asked for again")


class _Unwritten:
    """Bounds the bytes that have arrived and are not written yet: they are lost when the process is killed."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._bytes = 0
        self._changed = threading.Condition()

    def enter(self, count_bytes: int, check: Callable[[], None]) -> None:
        """Wait until so many more are allowed. Raises what `check` raises meanwhile: nothing is written any more then."""
        with self._changed:
            while self._bytes and self._bytes + count_bytes > self._limit:
                check()
                self._changed.wait(_CHECK_SECONDS)
            self._bytes += count_bytes

    @contextmanager
    def leaving(self, count_bytes: int) -> Iterator[None]:
        """They are written, or given up, at the end of the context."""
        try:
            yield
        finally:
            with self._changed:
                self._bytes -= count_bytes
                self._changed.notify()


def _noted(cuts: Iterator[Cut], expected: dict[PackRange, Cut]) -> Iterator[PackRange]:
    """The ranges of `cuts`, each noted in `expected` when it is asked for."""
    for cut in cuts:
        expected[cut.range] = cut
        yield cut.range


def _verified(batch: Batch, positions: range, offsets: list[int], plain: bytes) -> list[memoryview]:
    """The wanted chunks of a frame. Raises Corrupt if any is not what its id says; then none of the frame is used."""
    view = memoryview(plain)
    chunks = []
    for at in positions:
        data = view[offsets[at] : offsets[at] + batch.lengths[at]]
        if blake3(data).digest() != batch.id(at):
            raise Corrupt("a frame does not hold the chunk that its placement promises")
        chunks.append(data)
    return chunks
