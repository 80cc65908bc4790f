"""Reading a pacball back: every byte is compared with what it must be, and the SHA-256 of the payload is taken on the way."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from blake3 import blake3

from pacstore.errors import Corrupt
from pacstore.limits import MIB
from pacstore.pacball.payload import Payload
from pacstore.pacball.stub import STUB_BYTES
from pacstore.progress import Progress
from pacstore.tree import Tree

_READ_BYTES = 1 * MIB
_HINT = "run the same command again: what is right is kept; if it happens again, check the disk"


def check_payload(descriptor: int, payload: Payload, tree: Tree, *, place: Path, progress: Progress) -> str:
    """The SHA-256, in hexadecimal, of the payload in the open file. Raises Corrupt at the first byte that is wrong."""
    progress.begin("verifying", payload.total_bytes)
    digest = hashlib.sha256()
    os.lseek(descriptor, STUB_BYTES, os.SEEK_SET)
    with open(descriptor, "rb", buffering=_READ_BYTES, closefd=False) as file:
        for _, piece, number in payload.around_contents():
            if file.read(len(piece)) != piece:
                raise Corrupt("has another header than it must have", place=str(place), hint=_HINT)
            digest.update(piece)
            progress.advance(len(piece))
            if number >= 0:
                content = blake3()
                for data in _pieces(file, int(tree.sizes[number])):
                    digest.update(data)
                    content.update(data)
                    progress.advance(len(data))
                if content.digest() != tree.contents[number].tobytes():
                    raise Corrupt(f"has wrong bytes in {_name(payload, number)}", place=str(place), hint=_HINT)
    return digest.hexdigest()


def _pieces(file: IO[bytes], size: int) -> Iterator[bytes]:
    while size:
        data = file.read(min(size, _READ_BYTES))
        if not data:
            return
        size -= len(data)
        yield data


def _name(payload: Payload, number: int) -> str:
    return payload.paths.shown(int(payload.paths.file_entries[number]))
