"""A store directory, or a docroot alone, as a Source: what an installer reads without any server."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

from pacstore.backends.directory import DirectoryStorage, read_bounded
from pacstore.digest import Bytes, Digest
from pacstore.durable import wrapped
from pacstore.errors import Corrupt, NotFound, Unavailable
from pacstore.source import PackRange, Tail, Traffic
from pacstore.storage import STORE_MARKER, ObjectKind, object_path


class DirectorySource:
    """The public files of the store in `path`; nothing is ever written to it."""

    def __init__(self, path: Path) -> None:
        self._public = path / "public" if (path / "public").is_dir() else path
        self._storage = DirectoryStorage(self._public, self._public)
        self._traffic = Traffic()
        self._lock = threading.Lock()
        self.name = str(path)

    @property
    def traffic(self) -> Traffic:
        return self._traffic

    def read(self, path: str, *, limit: int) -> bytes:
        try:
            data = read_bounded(self._public / path, limit)
        except NotFound:
            self._check_there(path)
            raise
        self._count(len(data))
        return data

    def ranges(self, wanted: Iterable[PackRange]) -> Iterator[tuple[PackRange, Bytes]]:
        for piece in wanted:
            place = object_path(ObjectKind.PACK, piece.pack)
            try:
                with closing(self._storage.open(ObjectKind.PACK, piece.pack)) as file, wrapped(place):
                    data = os.pread(file.fileno(), piece.length, piece.offset)
            except NotFound:
                self._check_there(place)
                raise
            if len(data) != piece.length:
                raise Corrupt("is shorter than its placement says", place=place)
            self._count(len(data))
            yield piece, data

    def tail(self, pack: Digest, *, length: int) -> Tail:
        """The last `length` bytes of the pack, or all of a shorter one. Raises as `read`."""
        place = object_path(ObjectKind.PACK, pack)
        try:
            with closing(self._storage.open(ObjectKind.PACK, pack)) as file, wrapped(place):
                whole = os.fstat(file.fileno()).st_size
                data = os.pread(file.fileno(), length, max(whole - length, 0))
        except NotFound:
            self._check_there(place)
            raise
        self._count(len(data))
        return Tail(whole, data)

    def close(self) -> None:
        """Nothing is held open."""

    def _check_there(self, missing: str) -> None:
        """Raise Unavailable if the store itself is gone, as when its disk is not mounted: then nothing is known to be absent."""
        if missing != STORE_MARKER and not (self._public / STORE_MARKER).exists():
            hint = "is its disk mounted?"
            raise Unavailable(
                f"cannot be looked for: the store has no {STORE_MARKER}", place=f"{self.name}: {missing}", hint=hint
            )

    def _count(self, length: int) -> None:
        with self._lock:
            self._traffic.bytes_downloaded += length
            self._traffic.requests += 1
