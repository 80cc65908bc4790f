"""Bundled: the documents of a release and the catalog that signs them, from the bundle of its dataset.

The bundle is fetched when something of it is asked for, from one storage after the other until its bytes are those of its name.
It is verified so, and no more: whose catalog is in it is for whoever reads it to judge.
"""

from __future__ import annotations

import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from blake3 import blake3

from pacmirror.verdict import all_failed
from pacstore.durable import wrapped
from pacstore.errors import Corrupt, NotFound, PacballError, TooLarge, Unavailable
from pacstore.limits import MIB
from pacstore.source import PackRange, Traffic
from pacstore.volumes.bundle import open_bundle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pacmirror.mirrors import Single
    from pacstore.digest import Bytes, Digest
    from pacstore.volumes.volume import Volume

BUNDLE_BYTES = 2048 * MIB
"""The longest bundle that is fetched."""
_PIECE_BYTES = 8 * MIB
_ATTEMPTS = 3
_PAUSE_SECONDS = 0.5


class BundledDocuments:
    """What is in the bundle `digest`, of `length` bytes as Rucio says, as a Source that has no packs. For any threads.

    `carriers` gives the storages to fetch it from, in the order in which they are to be asked.
    """

    def __init__(self, name: str, digest: Digest, length: int) -> None:
        """`name`: of the dataset, for messages."""
        self.name = name
        self.digest = digest
        self.carriers: Callable[[], Sequence[Single]] = list
        self.traffic = Traffic()  # it is the storages that move something
        self._length = length
        self._volume: Volume | None = None
        self._file = ExitStack()
        self._error: PacballError | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def volume(self) -> Volume:
        """The bundle, which is closed with this; until then its `path` may be read.

        Raises Corrupt or TooLarge for what is none, Unavailable also where no storage has it any more, and Refused as those do.
        """
        with self._lock:
            if self._closed.is_set():
                raise Unavailable("the source was closed", place=self.name)
            if self._error is not None:
                raise self._error
            if self._volume is None:
                try:
                    self._volume = self._fetch()
                except (Corrupt, TooLarge) as error:
                    self._error = error  # what all who have it give does not become another
                    raise
            volume = self._volume
            if self._closed.is_set():
                self._release(volume)
            return volume

    # The Source

    def read(self, path: str, *, limit: int) -> bytes:
        volume = self.volume()
        try:
            return volume.read(path, limit=limit)
        except NotFound as error:
            raise NotFound("is not in its bundle", place=f"{self.name}: {path}") from error

    def ranges(self, wanted: Iterable[PackRange]) -> Iterator[tuple[PackRange, Bytes]]:
        for one in wanted:
            raise NotFound("a bundle has no packs", place=f"{self.name}: {one.pack}")
        yield from ()

    def close(self) -> None:
        """Let go of it. May be repeated; whoever is fetching it is not waited for, and closes it then."""
        self._closed.set()
        if self._volume is not None:
            self._release(self._volume)

    def _release(self, volume: Volume) -> None:
        volume.close()
        self._file.close()

    def _fetch(self) -> Volume:
        if not 0 < self._length <= BUNDLE_BYTES:
            message = f"has {self._length:,} bytes, as Rucio says; a bundle has 1 to {BUNDLE_BYTES:,}"
            raise TooLarge(message, place=f"{self.name}: {self.digest}.bundle")
        errors: dict[str, PacballError] = {}
        for attempt in range(_ATTEMPTS):
            # What may pass is asked for again once all were.
            for carrier in self.carriers():
                if carrier.name not in errors or isinstance(errors[carrier.name], Unavailable):
                    try:
                        return self._fetch_from(carrier)
                    except PacballError as error:
                        errors[carrier.name] = error
            is_over = not any(isinstance(one, Unavailable) for one in errors.values())
            if is_over or attempt == _ATTEMPTS - 1 or self._closed.wait(_PAUSE_SECONDS * 2**attempt):
                break
        failed = all_failed(f"{self.name}: {self.digest}.bundle", errors)
        if isinstance(failed, NotFound):
            # Rucio says that it is there. Whether something is in it, nobody knows then.
            raise Unavailable(failed.message, place=failed.place, hint="its replicas are stale: declare them bad")
        raise failed

    def _fetch_from(self, carrier: Single) -> Volume:
        # A file without a name: nothing is left of it, however this ends.
        with wrapped(Path(tempfile.gettempdir())), ExitStack() as undo:
            file = undo.enter_context(tempfile.TemporaryFile())
            hasher = blake3()
            for at in range(0, self._length, _PIECE_BYTES):
                piece = self._piece(carrier, PackRange(self.digest, at, min(_PIECE_BYTES, self._length - at)))
                hasher.update(piece)
                file.write(piece)
            if hasher.digest() != self.digest.raw:
                error = Corrupt("its bytes are not those that its name says", place=f"{self.digest}.bundle")
                carrier.blame(PackRange(self.digest, 0, self._length), error)
                raise error
            file.flush()
            volume = open_bundle(Path(f"/proc/self/fd/{file.fileno()}"))
            self._file = undo.pop_all()
        volume.name = self.name
        return volume

    def _piece(self, carrier: Single, wanted: PackRange) -> Bytes:
        """A range, asked for again if something has come before. Raises what the storage raised last."""
        attempt = 1
        while True:
            try:
                [(_, data)] = carrier.ranges([wanted])
            except Unavailable:
                if not wanted.offset or attempt == _ATTEMPTS or self._closed.wait(_PAUSE_SECONDS):
                    raise
                attempt += 1
            else:
                return data
