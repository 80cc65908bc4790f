"""Hashing of files at the speed of the disk or the memory: what is read is hashed while the processor has it in its cache."""

from __future__ import annotations

import os
import queue
import struct
import threading
from collections.abc import Sequence

from blake3 import blake3

from pacstore.limits import MIB

_LARGE_BYTES = 64 * MIB
"""Files from this size on are read by a thread of their own while they are hashed."""
_PIECE_BYTES = 1 * MIB
_PIECES = 4
_MOST_KNOWN = 250_000
_KEY = struct.Struct("<QQQqq")


def digest_of(descriptor: int, size: int, buffer: memoryview) -> bytes:
    """The BLAKE3-256 of the open file, which has `size` bytes, read from its beginning through `buffer`.

    Memory maps would be no quicker, and a file that is cut short or cannot be read would end the process. Raises OSError.
    """
    if size >= _LARGE_BYTES:
        return _digest_of_large(descriptor, size)
    hasher = blake3()
    done = 0
    while done < size and (count := os.readv(descriptor, [buffer])):
        hasher.update(buffer[:count])
        done += count
    return hasher.digest()


def _digest_of_large(descriptor: int, size: int) -> bytes:
    free: queue.SimpleQueue[memoryview | None] = queue.SimpleQueue()
    full: queue.SimpleQueue[tuple[memoryview, int] | OSError] = queue.SimpleQueue()
    for _ in range(_PIECES):
        free.put(memoryview(bytearray(_PIECE_BYTES)))

    def read() -> None:
        try:
            while (piece := free.get()) is not None:
                count = os.readv(descriptor, [piece])
                full.put((piece, count))
                if not count:
                    return
        except OSError as error:
            full.put(error)

    reader = threading.Thread(target=read, name="reading", daemon=True)
    reader.start()
    hasher = blake3()
    done = 0
    try:
        # What has become longer is another file already; it may have no end.
        while done <= size:
            found = full.get()
            if isinstance(found, OSError):
                raise found
            piece, count = found
            if not count:
                break
            hasher.update(piece[:count])
            done += count
            free.put(piece)
        return hasher.digest()
    finally:
        free.put(None)
        reader.join()


class Known:
    """Digests of files with several links that were hashed already, so that none is hashed twice. For several threads.

    A file that changed meanwhile has another time of change, and so another key. Bounded: where there are more files, some are
    hashed again.
    """

    def __init__(self) -> None:
        self._digests: dict[bytes, bytes] = {}

    def find_all(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The digest of each of the files with these keys; None where it is not known."""
        return [self._digests.get(key) for key in keys]

    def keep_all(self, digests: Sequence[tuple[bytes, bytes]]) -> None:
        """Remember digests of files, by their keys."""
        for key, digest in digests:
            if len(self._digests) < _MOST_KNOWN:
                self._digests[key] = digest


def key_of(found: os.stat_result) -> bytes | None:
    """What tells a file of which `found` was just asked from others and from what it was before; None if it has one link."""
    if found.st_nlink < 2:
        return None
    return _KEY.pack(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
