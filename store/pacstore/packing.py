"""Packing: new chunks become frames, frames become packs, and durable packs enter the index.

Frames are compressed by a few threads, written in order, and each full pack is made durable by one more thread, so that
reading, compressing and writing overlap. Nothing here grows with the release except a few bytes a frame.
"""

from __future__ import annotations

from array import array
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, Self

from pacstore import codec
from pacstore.chunker import CHUNKER
from pacstore.digest import Digest
from pacstore.errors import Corrupt
from pacstore.limits import LIMITS, PackSizes
from pacstore.pack import HEADER, Table, TableBuilder, ending
from pacstore.storage import ObjectKind, ObjectStorage, Staged

_COMPRESSING_AT_ONCE = 6
_FINISHING_AT_ONCE = 2
_PACK_CHUNKS = 16 * 1024
"""A pack of more chunks than this is full, however short: so that the chunks remembered stay few, of small files too."""


@dataclass(frozen=True)
class PackingOptions:
    """`level`: of zstd, 1 to 19; `threads`: how many compress; `read_back`: decode every new frame once and compare."""

    level: int = codec.DEFAULT_LEVEL
    read_back: bool = False
    threads: int = 2
    sizes: PackSizes = field(default_factory=PackSizes)


class NewPlace(NamedTuple):
    """Where a chunk goes: frame number `frame` of this Packer (from 0), offset in its plain bytes."""

    frame: int
    offset: int


@dataclass
class _Pending:
    """A frame being filled: `plain` is its buffer, of which `size` bytes are used.

    Chunks are copied into it, since one chunk that is kept as a view keeps the megabytes that were read with it.
    """

    plain: bytearray
    ids: list[bytes] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    size: int = 0


@dataclass
class _OpenPack:
    """A pack being written: its staged file, its table so far, its first frame's number, the ids of its chunks."""

    resources: ExitStack
    staged: Staged
    first_frame: int
    builder: TableBuilder = field(default_factory=TableBuilder)
    ids: list[bytes] = field(default_factory=list)


class PackIndex(Protocol):
    """What is told of packs: before one is visible (`claim`), and when it is durable (`add`; the number of its first frame)."""

    def claim(self, pack: Digest) -> None:
        """The pack is about to be stored."""

    def add(self, table: Table) -> int:
        """The pack is durable."""


class Packer:
    """Stores new chunks. For one thread; use as a context, which drops what was not finished when it ends in an error."""

    def __init__(self, storage: ObjectStorage, index: PackIndex, options: PackingOptions) -> None:
        self._storage = storage
        self._index = index
        self._options = options
        self._compressors = ThreadPoolExecutor(options.threads, "compress")
        self._finisher = ThreadPoolExecutor(1, "finish")
        self._compressing: deque[tuple[_Pending, Future[bytes]]] = deque()
        self._finishing: deque[tuple[_OpenPack, Future[tuple[int, int]]]] = deque()
        self._known: dict[bytes, NewPlace] = {}
        self._spare: list[bytearray] = []
        self._frame = self._empty_frame()
        self._frames_begun = 0
        self._frames_written = 0
        self._pack: _OpenPack | None = None
        self.index_numbers: array[int] = array("q")
        """For each frame of this Packer, in order, the index's number of it; complete after `finish`."""
        self.stored_bytes = 0
        """Length of the packs that were made durable."""

    def find(self, chunk_id: bytes) -> NewPlace | None:
        """Where a chunk is that was added lately and that the index may not know yet."""
        return self._known.get(chunk_id)

    def add(self, chunk_id: bytes, data: bytes | memoryview) -> NewPlace:
        """Store a chunk after the one before it."""
        frame = self._frame
        place = NewPlace(self._frames_begun, frame.size)
        frame.ids.append(chunk_id)
        frame.lengths.append(len(data))
        frame.plain[frame.size : frame.size + len(data)] = data
        frame.size += len(data)
        self._known[chunk_id] = place
        if frame.size >= self._options.sizes.frame_plain_bytes or len(frame.ids) >= LIMITS.frame_chunks:
            self.end_frame()
        return place

    def end_frame(self) -> None:
        """Begin a new frame with the next chunk."""
        if not self._frame.size:
            return
        frame = self._frame
        plain = memoryview(frame.plain)[: frame.size]
        self._compressing.append((frame, self._compressors.submit(_compress, plain, self._options)))
        self._frame = self._empty_frame()
        self._frames_begun += 1
        while len(self._compressing) >= _COMPRESSING_AT_ONCE:
            self._write_frame()

    def finish(self) -> None:
        """Write and make durable all that was added. When this returns, the index knows every frame."""
        self.end_frame()
        while self._compressing:
            self._write_frame()
        self._end_pack()
        while self._finishing:
            self._await_pack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._compressors.shutdown(cancel_futures=True)
        self._finisher.shutdown()
        if self._pack is not None:
            self._pack.resources.close()
        while self._finishing:
            self._finishing.popleft()[0].resources.close()

    def _empty_frame(self) -> _Pending:
        # Buffers are used again: new ones would be zeroed, and faulted in page by page, for each frame.
        if self._spare:
            return _Pending(self._spare.pop())
        return _Pending(bytearray(self._options.sizes.frame_plain_bytes + CHUNKER.max_bytes))

    def _write_frame(self) -> None:
        frame, future = self._compressing.popleft()
        compressed = future.result()
        self._spare.append(frame.plain)
        if self._pack is None:
            resources = ExitStack()
            staged = resources.enter_context(self._storage.stage(ObjectKind.PACK))
            self._pack = _OpenPack(resources, staged, self._frames_written)
            staged.write(HEADER)
        pack = self._pack
        pack.staged.write(compressed)
        pack.builder.add(codec.KIND_ZSTD, compressed, b"".join(frame.ids), frame.lengths)
        pack.ids += frame.ids
        self._frames_written += 1
        full = len(pack.builder.lengths) >= LIMITS.pack_frames or len(pack.ids) >= _PACK_CHUNKS
        if pack.builder.end >= self._options.sizes.pack_bytes or full:
            self._end_pack()

    def _end_pack(self) -> None:
        pack, self._pack = self._pack, None
        if pack is None:
            return
        # Submitted before waiting, so that `__exit__` finds the pack and closes it whatever happens.
        self._finishing.append((pack, self._finisher.submit(self._publish, pack)))
        while len(self._finishing) > _FINISHING_AT_ONCE:
            self._await_pack()

    def _publish(self, pack: _OpenPack) -> tuple[int, int]:
        """Make a pack durable and known; the index's number of its first frame, and its length in bytes."""
        data = pack.builder.encode()
        table = Table.parse(data, place="a new pack")
        with pack.resources:
            pack.staged.write(ending(data))
            # Before it is visible: a collection that found this very pack without use leaves it alone from here on.
            self._index.claim(table.id)
            pack.staged.publish(table.id)
        return self._index.add(table), table.pack_length

    def _await_pack(self) -> None:
        pack, future = self._finishing[0]
        first, length = future.result()
        self._finishing.popleft()
        self.index_numbers.extend(range(first, first + len(pack.builder.lengths)))
        self.stored_bytes += length
        for chunk_id in pack.ids:
            place = self._known.get(chunk_id)
            if place is not None and place.frame < pack.first_frame + len(pack.builder.lengths):
                del self._known[chunk_id]


def _compress(plain: memoryview, options: PackingOptions) -> bytes:
    """The frame of `plain`; with `read_back`, known to come out again as it went in."""
    data = codec.compress(plain, options.level)
    if options.read_back and codec.decompress(codec.KIND_ZSTD, data, len(plain), place="a new frame") != plain:
        raise Corrupt(
            "does not decompress to what was compressed", place="a new frame", hint="check this machine's memory"
        )
    return data
