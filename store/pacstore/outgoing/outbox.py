"""The outbox: packs and documents that are sent, several at once; each stays here until the origin has verified it.

They are durable files under their digests, so that whoever was killed finds them again and goes on with what is left of
each. Only so many wait at once: whoever makes them faster than the line takes them waits.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from pacstore.backends.directory import DirectoryStorage
from pacstore.digest import DIGEST_BYTES, Digest
from pacstore.durable import make_directory, wrapped
from pacstore.errors import Corrupt, NotFound, Unavailable
from pacstore.storage import ObjectKind, object_path

if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path

    from pacstore.outgoing.origin import Origin
    from pacstore.pack import Table
    from pacstore.progress import Progress
    from pacstore.release import Release

_AT_ONCE = 6
"""Packs that may wait: some are sent, others wait for their turn, one is being made."""
KINDS = (ObjectKind.PACK, ObjectKind.MANIFEST, ObjectKind.ATTRIBUTES)


class Outbox:
    """What is sent of one release. A `PackIndex` for whoever makes packs; its files are in `storage` (see `open_files`)."""

    def __init__(self, storage: DirectoryStorage, origin: Origin, release: Release) -> None:
        self.storage = storage
        self.bytes_sent = 0
        """Acknowledged by the origin since this was made."""
        self.progress: Progress | None = None
        """Told what is acknowledged, while nothing else is to be told."""
        self._origin = origin
        self._release = release
        self._sending: dict[tuple[ObjectKind, Digest], Future[None]] = {}
        self._ids: dict[Digest, set[bytes]] = {}
        self._changed = threading.Condition()
        self._fault: BaseException | None = None
        self._left_bytes = 0

    @property
    def left_bytes(self) -> int:
        """Of what is here: not acknowledged yet."""
        return self._left_bytes

    def go_on(self) -> None:
        """Send what was left here before. Raises what made it fail."""
        for kind in KINDS:
            for digest in list(self.storage.digests(kind)):
                self.send(kind, digest)

    def claim(self, pack: Digest) -> None:
        """Nothing is to be done before a pack is stored here."""

    def add(self, table: Table) -> int:
        """Send a pack that was made, as soon as there is room for it; 0, since the origin numbers the frames."""
        ids = table.chunk_ids.tobytes()
        with self._changed:
            self._ids[table.id] = {ids[at : at + DIGEST_BYTES] for at in range(0, len(ids), DIGEST_BYTES)}
        self.send(ObjectKind.PACK, table.id)
        with self._changed:
            self._changed.wait_for(lambda: len(self._sending) < _AT_ONCE or self._fault is not None)
        self._raise()
        return 0

    def has(self, chunk_id: bytes) -> bool:
        """Whether a chunk is on its way."""
        with self._changed:
            return any(chunk_id in ids for ids in self._ids.values())

    def send(self, kind: ObjectKind, digest: Digest) -> None:
        """Begin to send an object that is in `storage`."""
        self._raise()
        key, path = (kind, digest), self.storage.public / object_path(kind, digest)
        with self._changed:
            if key in self._sending:
                return
            self._left_bytes += self.storage.size(kind, digest)
            future = self._origin.start_upload(self._release, kind, digest, path, self._sent)
            self._sending[key] = future
        future.add_done_callback(lambda done: self._ended(key, done))

    def finish(self) -> None:
        """Wait until all is there. Raises what made one of them fail."""
        with self._changed:
            self._changed.wait_for(lambda: not self._sending or self._fault is not None)
        self._raise()

    def give_up(self) -> None:
        """Let nobody wait here any longer: whoever makes packs has failed."""
        with self._changed:
            self._fault = self._fault or Unavailable("was given up")
            self._changed.notify_all()

    def _sent(self, count_bytes: int) -> None:
        with self._changed:
            self.bytes_sent += count_bytes
            self._left_bytes -= count_bytes
        if self.progress is not None:
            self.progress.advance(count_bytes)

    def _ended(self, key: tuple[ObjectKind, Digest], done: Future[None]) -> None:
        kind, digest = key
        fault = Unavailable("the upload was ended") if done.cancelled() else done.exception()
        if fault is None or isinstance(fault, Corrupt):
            # Also what the origin took for something else: it may be damaged here, and is made again.
            try:
                self.storage.delete(kind, digest)
            except Exception as error:  # noqa: BLE001 - it is raised where somebody waits
                fault = fault or error
        with self._changed:
            del self._sending[key]
            self._ids.pop(digest, None)
            self._fault = self._fault or fault
            self._changed.notify_all()

    def _raise(self) -> None:
        if self._fault is not None:
            raise self._fault


def open_files(directory: Path) -> DirectoryStorage:
    """The storage of an outbox, made if it is missing. Raises Unavailable."""
    public, staging = directory / "public", directory / "staging"
    with wrapped(directory):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for one in (public, staging):
            make_directory(one, mode=0o700)
        for kind in KINDS:
            make_directory(public / kind.value)
        for left in staging.iterdir():
            left.unlink(missing_ok=True)
    return DirectoryStorage(public, staging)


def drop_files(directory: Path) -> None:
    """Remove an outbox in which nothing is left."""
    public = directory / "public"
    try:
        for kind in KINDS:
            for inner in (public / kind.value).iterdir():
                inner.rmdir()
            (public / kind.value).rmdir()
        for one in (public, directory / "staging"):
            one.rmdir()
        with wrapped(directory):
            directory.rmdir()
    except (OSError, NotFound):
        return
