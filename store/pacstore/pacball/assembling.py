"""Assembling a pacball: the bytes of any range of it, from the packs of a store, without a pacball anywhere on disk."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pacstore.assemble import Assembler
from pacstore.pacball.members import Member, padding
from pacstore.pacball.payload import Payload
from pacstore.pacball.stub import STUB_BYTES, Stub
from pacstore.tree import Tree


class AssembledPacball:
    """One pacball of `total_bytes`. Not for several threads at once; `payload` may be shared by several of these."""

    def __init__(self, stub: Stub, payload: Payload, tree: Tree, assembler: Assembler) -> None:
        self.total_bytes = STUB_BYTES + payload.total_bytes
        self._stub = stub
        self._payload = payload
        self._tree = tree
        self._assembler = assembler

    def read(self, begin: int, end: int) -> Iterator[bytes]:
        """The bytes from `begin` to `end` of the file, piece by piece, every chunk verified. Raises as Assembler.read does."""
        if begin < STUB_BYTES:
            yield self._stub.encode()[begin : min(end, STUB_BYTES)]
        yield from self.read_payload(max(begin - STUB_BYTES, 0), end - STUB_BYTES)

    def read_payload(self, begin: int, end: int) -> Iterator[bytes]:
        """Likewise from `begin` to `end` of the payload."""
        payload = self._payload
        end = min(end, payload.total_bytes)
        first = max(int(np.searchsorted(payload.begins, begin, side="right")) - 1, 0)
        file = payload.file_of(first)
        ends = payload.begins[first + 1 :]
        for number, member in enumerate(payload.members(first)):
            stop = int(ends[number])
            if begin >= end:
                return
            yield from self._member(member, file, begin - stop, min(end, stop) - stop)
            begin = max(begin, stop)
            file += member.kind.is_file
        if begin < end:
            yield bytes(end - begin)

    def _member(self, member: Member, file: int, begin: int, end: int) -> Iterator[bytes]:
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
