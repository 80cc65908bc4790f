"""Packs of noise: right in every byte that anybody checks without decoding frames."""

from __future__ import annotations

from dataclasses import dataclass

from pacstore import codec
from pacstore.digest import Digest
from pacstore.frame_list import FrameList
from pacstore.pack import HEADER, Table, TableBuilder, ending
from tests.store.releases import noise


@dataclass(frozen=True)
class Pack:
    id: Digest
    data: bytes
    table: bytes

    @property
    def path(self) -> str:
        return f"packs/{self.id.hex[:2]}/{self.id.hex}"

    @property
    def frames(self) -> FrameList:
        return FrameList.of(Table.parse(self.table, place="the sample"))

    def frame(self, number: int) -> bytes:
        begin = self.frames.begin(number)
        return self.data[begin : begin + self.frames.length(number)]


def noise_pack(frames: int = 3, frame_bytes: int = 1000, chunks: int = 2, seed: str = "") -> Pack:
    """A pack of so many frames, the same one each time."""
    builder = TableBuilder()
    body = b""
    for number in range(frames):
        data = noise(f"frame {seed}{number}", frame_bytes)
        builder.add(codec.KIND_ZSTD, data, noise(f"ids {seed}{number}", 32 * chunks), [1] * chunks)
        body += data
    table = builder.encode()
    return Pack(Digest.of(table), HEADER + body + ending(table), table)
