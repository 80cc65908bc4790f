"""File digesting: takes the digests of single files when somebody asks for them, and remembers some by what is in them."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from pacmirror.threads import start_thread
from pacmirror.turns import Turns
from pacstore.pacball.assembling import batches
from pacstore.pacball.file_digests import FileHasher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from threading import BoundedSemaphore

    from pacmirror.limits import PacballLimits
    from pacstore.digest import Bytes, Digest
    from pacstore.pacball.file_digests import FileDigests

_THREAD = "pacball-file-digests"


class FileDigesting:
    """For use in one event loop. `turns`: who may decode frames, in a thread."""

    def __init__(self, limits: PacballLimits, turns: BoundedSemaphore) -> None:
        self._limits = limits
        self._decoding = turns
        self._known: OrderedDict[Digest, FileDigests] = OrderedDict()
        self._turns = Turns()

    async def take(
        self, content: Digest, place: str, reading: Callable[[], AbstractContextManager[Iterator[Bytes]]]
    ) -> FileDigests:
        """The digests of the file with that content, whose bytes the context of `reading` gives if they are not known.

        Those who ask for the same file at once wait for one of them. Raises what reading raises, and Corrupt for another file.
        """
        async with self._turns.take(content):
            found = self._known.get(content)
            if found is None:
                with reading() as pieces:
                    hasher = FileHasher(content, place=place)
                    found = await start_thread(lambda: self._hash(pieces, hasher), name=_THREAD)
                self._known[content] = found
                if len(self._known) > self._limits.file_digests:
                    self._known.popitem(last=False)
            self._known.move_to_end(content)
            return found

    def _hash(self, pieces: Iterator[Bytes], hasher: FileHasher) -> FileDigests:
        limits = self._limits
        made = batches(pieces, most_bytes=limits.batch_bytes, most_pieces=limits.batch_pieces)
        while True:
            with self._decoding:
                batch = next(made, [])
                for piece in batch:
                    hasher.update(piece)
            if not batch:
                return hasher.finish()
