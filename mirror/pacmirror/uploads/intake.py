"""The intake of an origin: uploads that are under way, within their limits, verified before they count.

An upload goes on where it stopped, whoever was killed: what the spool says is acknowledged is never asked for again. One that
turns out to be something else than its name says is dropped as a whole.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from pacmirror.room import SharedRoom
from pacmirror.service import Service
from pacmirror.tasks import Tasks, keep_doing
from pacmirror.threads import start_thread
from pacmirror.turns import Turns
from pacmirror.uploads.receiving import Interrupted, Piece
from pacmirror.uploads.refusals import Later, NoRoom, OutOfStep, TooMany, Wrong
from pacstore.errors import Corrupt, NewerFormat, NotFound, PacballError, Refused, TooLarge
from pacstore.incoming.admission import LENGTHS, admit, is_admitted
from pacstore.incoming.spool import SPOOL_NAME, Upload, UploadName, UploadSpool
from pacstore.storage import ObjectKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aiohttp import StreamReader
    from prometheus_client.core import Metric

    from pacmirror.config import Config
    from pacmirror.sync.bookkeeping import Bookkeeping
    from pacstore.store import Store

_THREAD = "pacball-upload"
_log = logging.getLogger(__name__)


class Intake(Service):
    """The service `uploads`. `books` has the store."""

    def __init__(self, config: Config, books: Bookkeeping) -> None:
        self._config = config.uploads
        self.limits = config.limits.uploads
        share = self.limits.bodies_bytes_per_token
        self.bodies = SharedRoom(self.limits.bodies_bytes, 256, share_bytes=share, share_count=64)
        """Room for bodies that are read whole."""
        self._books = books
        self._open: dict[UploadName, int] = {}
        self._pieces: dict[UploadName, Piece] = {}
        self._turns = Turns()
        self._verifying = asyncio.Semaphore(self.limits.verifying)
        self._tasks = Tasks()
        self._collecting: asyncio.Task[None] | None = None
        self._counts: Counter[str] = Counter()
        self._stopping = False

    @property
    def name(self) -> str:
        """The section of /v1/status."""
        return "uploads"

    @property
    def enabled(self) -> bool:
        """Whether anything may be uploaded here."""
        return self._config.enabled

    @property
    def store(self) -> Store:
        """Where uploads go. Raises NotFound where none are taken, Unavailable."""
        if not self.enabled:
            hint = "its operator allows it with [uploads] enabled = true; or publish where the store is"
            raise NotFound("no releases are published here over HTTP", hint=hint)
        if self._stopping:
            raise Later("the server is stopping", hint="it will be back soon")
        return self._books.store

    async def start(self) -> None:
        """Find out what is under way. Raises Unavailable where uploads are enabled and the store cannot be written."""
        if not self.enabled:
            return
        spool = self._spool
        found = await start_thread(lambda: list(spool.uploads()), name=_THREAD)
        self._open = {upload.name: upload.length for upload, _ in found}
        every = min(self.limits.collect_seconds, max(self._config.keep_seconds / 4, 0.1))
        self._collecting = asyncio.create_task(keep_doing(self.collect, every_seconds=every, what="collecting uploads"))

    def stop(self) -> None:
        """Let the pieces that are received end here: what has come of them is acknowledged."""
        self._stopping = True
        for piece in self._pieces.values():
            piece.interrupt()
        if self._collecting is not None:
            self._collecting.cancel()

    async def end(self) -> None:
        """Wait for what is being verified; its upload is whole all the same, and is verified when the client asks again."""
        self.stop()
        await self._tasks.ended()
        if self._collecting is not None:
            await asyncio.wait([self._collecting])

    # What clients ask

    async def begin(self, name: UploadName, length: int) -> Upload | None:
        """An upload of an object of `length` bytes, begun now or before; None if the object is here already.

        Raises TooLarge, Refused for another length than before, TooMany and NoRoom where there is no room for it.
        """
        store = self.store
        most = self.limits.pack_bytes if name.kind is ObjectKind.PACK else self.limits.document_bytes
        if not length:
            raise Refused("an object of no bytes is none", place=name.file)
        if length > min(most, LENGTHS[name.kind]):
            hint = "make smaller packs, or publish it where the store is"
            raise TooLarge(f"{length} bytes are more than the {most} that are taken", place=name.file, hint=hint)
        async with self._turns.take(name):
            upload = await self._find(name)
            if upload is None and await start_thread(lambda: is_admitted(store, name.kind, name.digest), name=_THREAD):
                return None
            if upload is not None and upload.length == length:
                return upload
            if upload is not None:
                raise Refused(
                    f"was begun with a length of {upload.length} bytes", place=name.file, hint="cancel it first"
                )
            # Counted before anybody else is asked: while the disk is looked at, others come.
            self._check_room(name, length)
            self._open[name] = length
            try:
                return await start_thread(lambda: self._begin(name, length), name=_THREAD)
            except BaseException:
                self._open.pop(name, None)
                raise

    async def look(self, name: UploadName) -> Upload | None:
        """How far an upload is; None if the object is here. What is being received of it ends. Raises NotFound."""
        store = self.store
        if name in self._pieces:
            self._pieces[name].interrupt()
        async with self._turns.take(name):
            upload = await self._find(name)
            if upload is not None:
                return upload
            if await start_thread(lambda: is_admitted(store, name.kind, name.digest), name=_THREAD):
                return None
        raise NotFound("there is no such upload", place=name.file, hint="begin it with POST")

    async def append(self, name: UploadName, content: StreamReader, *, offset: int, is_last: bool) -> Upload | None:
        """Take in a piece of an upload that goes on at `offset`; None if the object is whole, verified and in the store.

        `is_last`: whether it is to be whole then. Raises NotFound for an upload that was not begun, OutOfStep, TooLarge,
        Interrupted, Wrong, TooMany and Unavailable.
        """
        _ = self.store
        if name in self._pieces:
            raise OutOfStep("another request is sending this upload", self._pieces[name].upload.offset)
        async with self._turns.take(name):
            upload = await self._find(name)
            if upload is None:
                raise NotFound("there is no such upload", place=name.file, hint="begin it with POST")
            if offset != upload.offset:
                raise OutOfStep(f"goes on at {upload.offset}, not at {offset}", upload.offset)
            upload = await self._receive(upload, content)
            if upload.offset < upload.length:
                if is_last:
                    raise OutOfStep(f"is not whole yet: it has {upload.offset} of {upload.length} bytes", upload.offset)
                return upload
            await self._admit(upload)
        return None

    async def drop(self, name: UploadName) -> None:
        """Cancel an upload. Raises NotFound if there is none."""
        _ = self.store
        if name in self._pieces:
            self._pieces[name].interrupt()
        async with self._turns.take(name):
            if await self._find(name) is None:
                raise NotFound("there is no such upload", place=name.file)
            await self._forget(name)

    async def collect(self) -> None:
        """Drop the uploads of which nothing has come for long."""
        before, spool = time.time() - self._config.keep_seconds, self._spool
        try:
            gone = await start_thread(lambda: spool.collect(before), name=_THREAD)
        except PacballError as error:
            _log.error("uploads that were left could not be collected: %s", error)
            return
        for upload in gone:
            if upload.name not in self._pieces and not self._turns.is_taken(upload.name):
                self._open.pop(upload.name, None)
        if gone:
            self._counts["collected"] += len(gone)
            _log.info("dropped %s uploads of which nothing came for %g s", len(gone), self._config.keep_seconds)

    # How it is done

    @property
    def _spool(self) -> UploadSpool:
        store = self._books.store
        return UploadSpool(store.private / SPOOL_NAME, store.staging)

    async def _find(self, name: UploadName) -> Upload | None:
        spool = self._spool
        upload = await start_thread(lambda: spool.find(name), name=_THREAD)
        if upload is None:
            self._open.pop(name, None)
        return upload

    def _begin(self, name: UploadName, length: int) -> Upload:
        spool = self._spool
        # What others have announced and not sent yet is as good as taken.
        announced = sum(self._open.values()) - sum(upload.offset for upload, _ in spool.uploads())
        if spool.free_bytes() - announced < self._config.reserve_bytes:
            raise NoRoom("the disk is too full for this upload", hint="tell its operator")
        return spool.begin(name, length)

    def _check_room(self, name: UploadName, length: int) -> None:
        own = [size for other, size in self._open.items() if other.owner == name.owner]
        if len(own) >= self.limits.open_per_token or sum(own) + length > self._config.max_bytes_per_token:
            message = f"this token has {len(own)} uploads of {sum(own)} bytes under way, and may have no more"
            raise TooMany(message, hint="finish or cancel some first")
        total = sum(self._open.values())
        if len(self._open) >= self.limits.open or total + length > self._config.max_bytes:
            raise NoRoom(f"{len(self._open)} uploads of {total} bytes are under way, and there is no room for more",
                         hint="try again later")  # fmt: skip

    async def _receive(self, upload: Upload, content: StreamReader) -> Upload:
        own = sum(1 for other in self._pieces if other.owner == upload.name.owner)
        if own >= self.limits.receiving_per_token or len(self._pieces) >= self.limits.receiving:
            raise TooMany("too many pieces are received at once", hint="send fewer at once")
        piece = self._pieces[upload.name] = Piece(self._spool, upload, self.limits)
        try:
            most = min(upload.length - upload.offset, self.limits.piece_bytes)
            return await piece.receive(content, most=most)
        except Interrupted as error:
            if piece.upload.offset == upload.length:
                return piece.upload
            raise OutOfStep(error.message, piece.upload.offset) from error
        finally:
            self._counts["received_bytes"] += piece.upload.offset - upload.offset
            del self._pieces[upload.name]

    async def _admit(self, upload: Upload) -> None:
        """Verify a whole upload, and put it into the store. It goes on if the client leaves."""
        await asyncio.shield(self._tasks.begin(self._verify(upload)))

    async def _verify(self, upload: Upload) -> None:
        name, store = upload.name, self._books.store
        async with self._verifying:
            try:
                await start_thread(lambda: admit(store, name.kind, name.digest, upload.path), name=_THREAD)
            except (Corrupt, TooLarge, NewerFormat, Refused) as error:
                self._counts["refused"] += 1
                _log.warning("an upload with the token %s was dropped: %s", name.owner, error)
                await self._forget(name)
                raise Wrong(f"was dropped: {error.message}", place=name.file, hint="send what its name says") from error
        self._counts["admitted"] += 1
        await self._forget(name)

    async def _forget(self, name: UploadName) -> None:
        spool = self._spool
        await start_thread(lambda: spool.drop(name), name=_THREAD)
        self._open.pop(name, None)

    # What is told

    def status(self) -> Mapping[str, object]:
        """What is under way, and what there was since the daemon started."""
        if not self.enabled:
            return {}
        return {
            "open": len(self._open),
            "open_bytes": sum(self._open.values()),
            "receiving": len(self._pieces),
            **{key: self._counts[key] for key in ("received_bytes", "admitted", "refused", "collected")},
        }

    def metrics(self) -> Iterable[Metric]:
        """The same as numbers."""
        if not self.enabled:
            return
        yield GaugeMetricFamily("pacball_uploads_open", "Uploads that are not finished", value=len(self._open))
        text = "Bytes that unfinished uploads have announced"
        yield GaugeMetricFamily("pacball_uploads_open_bytes", text, value=sum(self._open.values()))
        for key, text in (
            ("received_bytes", "Bytes of uploads that were acknowledged"),
            ("admitted", "Uploads that were verified and came into the store"),
            ("refused", "Uploads that were dropped since they were not what they should be"),
            ("collected", "Uploads that were dropped since nothing more came"),
        ):
            yield CounterMetricFamily(f"pacball_uploads_{key}", text, value=float(self._counts[key]))
