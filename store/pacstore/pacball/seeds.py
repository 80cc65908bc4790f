"""Chunks of what is here already: pacballs, tars and directories, cut as a publisher cuts them."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from blake3 import blake3

from pacstore.chunker import Chunker
from pacstore.limits import MIB
from pacstore.pacball.stub import STUB_BYTES
from pacstore.progress import Progress, Silent
from pacstore.reader import batches

_SEGMENT_BYTES = 4 * MIB
_SHEBANG = b"#!"


@dataclass
class Cut:
    """Some chunks: their ids and their bytes."""

    ids: list[bytes] = field(default_factory=list)
    data: list[memoryview] = field(default_factory=list)


def chunks_of(seed: Path, progress: Progress) -> Iterator[Cut]:
    """The chunks of all files of a directory, or of a pacball or tar, which may be compressed as tarfile knows.

    What cannot be read ends it, with a warning: a seed is a help and no more.
    """
    if seed.is_dir():
        with batches(seed, Silent()) as stream:
            for batch in stream:
                progress.advance(batch.size)
                yield Cut(batch.ids, batch.data)
        return
    try:
        with open(seed, "rb") as file, closing(_open(file)) as members:
            for member in members:
                content = members.extractfile(member) if member.isreg() else None
                if content is not None:
                    yield from _cut(content, member.size, progress)
                # The members seen so far are of no use, and may be a million.
                members.members.clear()  # type: ignore[attr-defined]  # not in typeshed
    except (OSError, tarfile.TarError, EOFError) as error:
        progress.warn(f"{seed} is used as far as it could be read: {error}")


def _open(file: IO[bytes]) -> tarfile.TarFile:
    begin = file.read(len(_SHEBANG))
    if begin == _SHEBANG:
        file.seek(STUB_BYTES)
        return tarfile.open(fileobj=file, mode="r|")
    file.seek(0)
    return tarfile.open(fileobj=file, mode="r|*")


def _cut(content: IO[bytes], size: int, progress: Progress) -> Iterator[Cut]:
    chunker = Chunker()
    rest = b""
    left = size
    while left:
        piece = content.read(min(_SEGMENT_BYTES, left))
        if not piece:
            return
        left -= len(piece)
        joined = rest + piece
        view = memoryview(joined)
        cut, at = Cut(), 0
        for length in chunker.cut(view, last=not left):
            chunk = view[at : at + length]
            cut.ids.append(blake3(chunk).digest())
            cut.data.append(chunk)
            at += length
        rest = joined[at:]
        progress.advance(len(piece))
        yield cut
