"""Assembling a pacball: the bytes of any range of it, from the packs of a store, without a pacball anywhere on disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from pacstore.assemble import Assembler
from pacstore.digest import Bytes
from pacstore.pacball.members import Member, padding
from pacstore.pacball.payload import Payload
from pacstore.pacball.stub import STUB_BYTES, Stub
from pacstore.tree import Tree

_JOINED_BYTES = 1 << 16


class AssembledPacball:
    """One pacball of `total_bytes`. Not for several threads at once; `payload` may be shared by several of these."""

    def __init__(self, stub: Stub, payload: Payload, tree: Tree, assembler: Assembler) -> None:
        self.total_bytes = STUB_BYTES + payload.total_bytes
        self._stub = stub
        self._payload = payload
        self._tree = tree
        self._assembler = assembler

    def read(self, begin: int, end: int) -> Iterator[Bytes]:
        """The bytes from `begin` to `end` of the file, piece by piece, every chunk verified. Raises as Assembler.read does."""
        if begin < STUB_BYTES:
            yield self._stub.encode()[begin : min(end, STUB_BYTES)]
        yield from self.read_payload(max(begin - STUB_BYTES, 0), end - STUB_BYTES)

    def read_payload(self, begin: int, end: int) -> Iterator[Bytes]:
        """Likewise from `begin` to `end` of the payload."""
        payload = self._payload
        end = min(end, payload.total_bytes)
        first = max(int(np.searchsorted(payload.begins, begin, side="right")) - 1, 0)
        file = payload.file_of(first)
        ends = payload.begins[first + 1 :]
        start, before = int(payload.begins[first]), b""
        for number, member in enumerate(payload.members(first)):
            if begin >= end:
                break
            stop = int(ends[number])
            if begin > start or stop > end:
                yield before
                before = b""
                yield from self._member(member, file, begin - stop, min(end, stop) - stop)
            elif member.size:
                yield before + member.header()
                yield from self._assembler.whole(file)
                before = padding(member.size)
            elif len(before) < _JOINED_BYTES:
                before += member.header()
            else:
                yield before
                before = member.header()
            begin, start = max(begin, stop), stop
            file += member.kind.is_file
        yield before
        if begin < end:
            yield bytes(end - begin)

    def _member(self, member: Member, file: int, begin: int, end: int) -> Iterator[Bytes]:
        """The bytes of a member from `begin` to `end`, both counted from where it ends, so at most 0."""
        rest = padding(member.size)
        content = -len(rest) - member.size
        header = member.header()
        if begin < content:
            yield header[len(header) + begin - content : len(header) + min(end - content, 0)]
        if member.size and end > content:
            first = max(begin - content, 0)
            yield from self._assembler.read(file, first, min(end - content, member.size) - first)
            yield rest[max(begin + len(rest), 0) : max(end + len(rest), 0)]


def batches(pieces: Iterable[Bytes], *, most_bytes: int, most_pieces: int) -> Iterator[list[Bytes]]:
    """The pieces that have any bytes, in lists of no more than `most_pieces` which end when they have `most_bytes`."""
    batch: list[Bytes] = []
    count = 0
    for piece in pieces:
        if piece:
            batch.append(piece)
            count += len(piece)
            if count >= most_bytes or len(batch) >= most_pieces:
                yield batch
                batch, count = [], 0
    if batch:
        yield batch
