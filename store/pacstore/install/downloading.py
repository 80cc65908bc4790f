"""Downloading: missing chunks from the source, every frame checked before it is decoded, every chunk before it is written.

Works in rounds: a round asks for all that is missing; what fails is asked for once more in the next. When the
source no longer has a pack, the store was repacked: the next round uses a newer placement.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

from blake3 import blake3

from pacstore.codec import decompress
from pacstore.digest import Bytes
from pacstore.errors import Corrupt, NotFound, PacballError, TooLarge, Unavailable
from pacstore.install.crew import Crew
from pacstore.install.options import InstallOptions
from pacstore.install.planning import Fetch, plan_fetch
from pacstore.install.tools import Tools
from pacstore.install.wanted import Batch, Wanted
from pacstore.install.writer import Writer
from pacstore.pack import check_frame
from pacstore.placement import Placement
from pacstore.progress import Progress
from pacstore.source import Source

ATTEMPTS = 2
"""How often a frame is asked for while what arrives is wrong."""


class Downloading:
    """Brings what no seed had. `replaced` gives a newer placement than the one given, or raises the error given."""

    def __init__(
        self,
        wanted: Wanted,
        writer: Writer,
        source: Source,
        *,
        replaced: Callable[[NotFound], Placement],
        progress: Progress,
        options: InstallOptions,
    ) -> None:
        self._wanted = wanted
        self._writer = writer
        self._source = source
        self._replaced = replaced
        self._progress = progress
        self._options = options
        self._failures: Counter[bytes] = Counter()
        self._lock = threading.Lock()

    def download(self, crew: Crew[Tools], placement: Placement) -> None:
        """Fetch and write all that is missing. Raises what the source raises, Corrupt and Unavailable."""
        missing = self._wanted.missing()
        if len(missing):
            self._progress.begin("downloading", plan_fetch(self._wanted, placement, missing, self._options).bytes)
        while len(missing):
            try:
                self._round(crew, placement, plan_fetch(self._wanted, placement, missing, self._options))
            except NotFound as error:
                crew.finish()
                placement = self._replaced(error)
            missing = self._wanted.missing()

    def _round(self, crew: Crew[Tools], placement: Placement, fetch: Fetch) -> None:
        expected = {wanted: number for number, wanted in enumerate(fetch.ranges)}
        arriving = self._source.ranges(fetch.ranges)
        try:
            for wanted, data in arriving:
                number = expected.pop(wanted, None)
                if number is None:
                    raise Corrupt("gave a range that was not asked for", place=self._source.name)
                crew.give(self._job(placement, fetch, number, data))
        finally:
            close = getattr(arriving, "close", None)
            if close is not None:
                close()
        crew.finish()
        if expected:
            raise Unavailable(
                f"gave {len(expected)} ranges too few", place=self._source.name, hint="run the same command again"
            )

    def _job(self, placement: Placement, fetch: Fetch, number: int, data: Bytes) -> Callable[[Tools], None]:
        return lambda tools: self._take(tools, placement, fetch, number, data)

    def _take(self, tools: Tools, placement: Placement, fetch: Fetch, number: int, data: Bytes) -> None:
        """Check, decode and write what is wanted of one range that arrived."""
        first, last = fetch.by_range[number], fetch.by_range[number + 1]
        by_frame = fetch.by_frame[first : last + 1]
        numbers = fetch.numbers[by_frame[0] : by_frame[-1]]
        batch = self._wanted.batch(numbers)
        offsets = placement.chunk_offsets[self._wanted.examples[numbers]].tolist()
        bounds = (by_frame - by_frame[0]).tolist()
        view = memoryview(data)
        for at, frame in enumerate(fetch.frames[first:last].tolist()):
            begin = int(placement.frame_offsets[frame]) - fetch.ranges[number].offset
            compressed = view[begin : begin + int(placement.frame_lengths[frame])]
            positions = range(bounds[at], bounds[at + 1])
            try:
                plain = self._decoded(placement, frame, compressed)
                chunks = _verified(batch, positions, offsets, plain)
            except (Corrupt, TooLarge) as error:
                self._failed(placement, frame, error)
            else:
                self._write(tools, batch, positions, chunks)
        self._progress.advance(len(data))

    def _decoded(self, placement: Placement, frame: int, compressed: memoryview) -> bytes:
        digest = placement.frame_digests[frame].tobytes()
        check_frame(compressed, digest, place="")
        plain_length = int(placement.frame_plain_lengths[frame])
        return decompress(int(placement.frame_kinds[frame]), compressed, plain_length, place="")

    def _write(self, tools: Tools, batch: Batch, positions: range, chunks: list[memoryview]) -> None:
        have = self._wanted.have
        for at, data in zip(positions, chunks, strict=True):
            self._writer.put(tools.tree, batch, at, data)
            have[batch.numbers[at]] = True

    def _failed(self, placement: Placement, frame: int, error: PacballError) -> None:
        digest = placement.frame_digests[frame].tobytes()
        with self._lock:
            self._failures[digest] += 1
            times = self._failures[digest]
        pack = placement.pack(int(placement.frame_packs[frame]))
        place = f"{self._source.name}: pack {pack}, frame at {int(placement.frame_offsets[frame])}"
        if times >= ATTEMPTS:
            raise Corrupt(
                f"{error.message}, {times} times",
                place=place,
                hint="use another source, and tell the operator of this one",
            ) from error
        self._progress.warn(f"{place}: {error.message}; it is asked for again")


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
