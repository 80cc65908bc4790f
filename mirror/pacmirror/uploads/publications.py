"""Publications: what the origin does for each release that is published over HTTP, beside the uploads.

While somebody is at it, there is a lease for each publication, so that what the client was told to be here stays. A lease ends a
while after the client's last request: then the commit says what has gone, and the client sends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, TypeVar

from pacmirror.service import Service
from pacmirror.tasks import Tasks, keep_doing
from pacmirror.threads import start_thread
from pacmirror.turns import Turns
from pacmirror.uploads.refusals import Later, TooMany
from pacstore.consignment import Consignment, consign, take_back
from pacstore.errors import NotFound, Refused
from pacstore.incoming import publication
from pacstore.incoming.damage import of_the_store
from pacstore.incoming.publication import Placed
from pacstore.packing import PackingOptions
from pacstore.progress import Silent
from pacstore.trust.change import Change
from pacstore.trust.entries import line_role
from pacstore.trust.keyring import KeyRing
from pacstore.trust.metadata import Expiry
from pacstore.trust.repository import Catalog, Outcome
from pacstore.volumes.judging import first_root

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence

    from pacmirror.config import Config
    from pacmirror.uploads.intake import Intake
    from pacmirror.watch import Watch
    from pacstore.digest import Digest
    from pacstore.release import Release
    from pacstore.store import Store
    from pacstore.trust.targets import CatalogRelease, SignedDocument

_THREAD = "pacball-publish"
_LOOK_SECONDS = 15.0
_NO_KEYS = "no keys"
T = TypeVar("T")


class AtWork(Later):
    """It takes long, and goes on: the same request is to be sent again."""

    status = 503
    seconds = 1


@dataclass(frozen=True)
class Begun:
    """What is known of a release that is to be published: as the catalog has it, if it does, and whether it waits there.

    `commits`: whether the online key is here, so that a signed change is committed at once.
    """

    entry: CatalogRelease | None
    waits: bool
    commits: bool


class _Stoppable(Silent):
    """Ends the work when the daemon stops."""

    def __init__(self, stopped: Event) -> None:
        self._stopped = stopped

    def advance(self, count_bytes: int) -> None:  # noqa: ARG002 - only that it was called counts
        if self._stopped.is_set():
            raise Later("the daemon stops", hint="ask again when it is back: it goes on where it was")


@dataclass
class _Lease:
    holding: contextlib.ExitStack
    begun: float
    used: float


class Publications(Service):
    """The service `publications`. `intake` has the store; `watch` serves the catalog."""

    def __init__(self, config: Config, intake: Intake, watch: Watch) -> None:
        self._config = config
        self._limits = config.limits.uploads
        self._intake = intake
        self._watch = watch
        self._leases: dict[tuple[str, Release], _Lease] = {}
        self._holding = Turns()
        self._begun: set[tuple[str, Release]] = set()
        """Those whose lease is being taken."""
        self._jobs: dict[tuple[str, Hashable], asyncio.Task[object]] = {}
        self._over: dict[tuple[str, Hashable], asyncio.Task[object]] = {}
        """The jobs that were done at the last look, and whose results nobody had asked for."""
        self._tasks = Tasks()
        self._stopped = Event()
        self._ending: asyncio.Task[None] | None = None
        self._committing = asyncio.Semaphore(1)
        self._committed = 0

    @property
    def name(self) -> str:
        """The section of /v1/status."""
        return "publications"

    async def start(self) -> None:
        """Let leases end when they are over."""
        if self._intake.enabled:
            self._ending = asyncio.create_task(keep_doing(self._end_leases, every_seconds=_LOOK_SECONDS, what="leases"))

    def stop(self) -> None:
        """Begin nothing new; what can be done again is not brought to its end."""
        self._stopped.set()
        if self._ending is not None:
            self._ending.cancel()

    async def end(self) -> None:
        """Wait for what is being committed; give back the leases."""
        self.stop()
        await self._tasks.ended()
        for key in list(self._leases):
            await self.close(*key)
        if self._ending is not None:
            await asyncio.wait([self._ending])

    async def begin(self, owner: str, release: Release) -> Begun:
        """What there is of a release. Raises Refused where its line was not begun, NotFound where there is no catalog."""
        store = self._intake.store

        @of_the_store()
        def look() -> Begun:
            catalog = self._catalog(store)
            if release.project not in catalog.projects():
                hint = "the holders of the targets keys begin it where the store is: pacball trust add-line"
                raise Refused("there is no such line", place=release.project, hint=hint)
            entry, waits = publication.release_known(catalog, release)
            return Begun(entry, waits, self._config.online_keys is not None)

        await self._hold(owner, release, store)
        return await start_thread(look, name=_THREAD)

    async def missing(self, owner: str, release: Release, ids: Sequence[bytes]) -> list[bytes]:
        """Those of the chunks `ids` that are not here; the others stay as long as the lease does."""
        store = self._intake.store
        await self._hold(owner, release, store)
        return await start_thread(lambda: of_the_store()(publication.missing_chunks)(store, ids), name=_THREAD)

    async def place(self, owner: str, release: Release, manifest: SignedDocument, attributes: SignedDocument) -> Placed:
        """A placement of the release. Raises StillMissing, AtWork, and what `publication.place` raises."""
        store = self._intake.store
        await self._hold(owner, release, store)

        async def work() -> Placed:
            return await start_thread(
                lambda: publication.place(store, release, manifest, attributes, options=PackingOptions()), name=_THREAD
            )

        return await self._job((owner, (release, manifest, attributes)), work)

    async def pending(self, release: Release) -> Change | None:
        """What waits of the line, to be signed on top of; None if nothing does."""
        store, role = self._intake.store, line_role(release.project)

        @of_the_store()
        def look() -> Change | None:
            try:
                change = self._catalog(store).export()
            except NotFound:
                return None
            change.context = None
            return change.only({role: change.roles[role]}) if role in change.roles else None

        return await start_thread(look, name=_THREAD)

    async def commit(self, owner: str, release: Release, data: bytes) -> Outcome:
        """Take in the signed change `data`; the catalog as it is served has it then, if it was committed.

        Raises Outdated where the catalog has gone on meanwhile, StillMissing, AtWork, and what `publication.take_change` raises.
        """
        store = self._intake.store
        await self._hold(owner, release, store)

        def take() -> Outcome:
            ring = KeyRing(self._config.online_keys or store.private / _NO_KEYS, self._config.secrets)
            change = Change.parse(data, place="the change that was sent")
            take_change = of_the_store()(publication.take_change)
            return take_change(store, self._catalog(store), change, release, ring, now=time.time())

        async def work() -> Outcome:
            async with self._committing:
                outcome = await start_thread(take, name=_THREAD)
            self._committed += bool(outcome.committed)
            await self._watch.catalog.look()
            return outcome

        digest = await start_thread(lambda: hashlib.sha256(data).digest(), name=_THREAD)
        return await self._job((owner, (release, digest)), work)

    async def consign(self, owner: str, release: Release, known: Digest | None, *, with_pacball: bool) -> Consignment:
        """What is to be said elsewhere of a release that the catalog has, and pin it. `known`: the bundle that it has there.

        Raises AtWork, NotFound where the catalog does not have it, and what `pacstore.consignment.consign` raises.
        """
        store = self._intake.store

        @of_the_store()
        def work() -> Consignment:
            entry = self._catalog(store).release(release)
            root = first_root(store)
            if entry is None or root is None:
                raise NotFound("is not in the catalog", place=str(release), hint="publish it first")
            progress = _Stoppable(self._stopped)
            return consign(
                store, entry, known=known, with_pacball=with_pacball, root=root, clock=time.time, progress=progress
            )

        key = owner, ("consign", release, known, with_pacball)
        return await self._job(key, lambda: start_thread(work, name=_THREAD))

    async def take_back(self, release: Release) -> bool:
        """Keep a consigned release for that no longer; whether it was kept for it."""
        store = self._intake.store
        return await start_thread(lambda: of_the_store()(take_back)(store, release), name=_THREAD)

    async def close(self, owner: str, release: Release) -> None:
        """The client is done: nothing is kept for it any longer."""
        lease = self._leases.pop((owner, release), None)
        if lease is not None:
            await _give_back(lease)

    def status(self) -> Mapping[str, object]:
        """How many are at it."""
        return {"under_way": len(self._leases), "committed": self._committed} if self._intake.enabled else {}

    def _catalog(self, store: Store) -> Catalog:
        days = self._config.timestamp_days
        expiry = Expiry() if days is None else Expiry(timestamp=days, snapshot=days)
        return Catalog.open(store.storage, store.drafts, expiry=expiry)

    async def _job(self, key: tuple[str, Hashable], work: Callable[[], Awaitable[T]]) -> T:
        """The result of `work`, which is done once for all that ask for the same with one token, whose id is the first of `key`.

        Raises AtWork where it takes long, TooMany or Later where there is too much of it.
        """
        job = self._jobs.get(key)
        if job is None:
            under_way = [owner for (owner, _), other in self._jobs.items() if not other.done()]
            if under_way.count(key[0]) >= self._limits.jobs_per_token:
                raise TooMany(
                    "too many releases are being placed and committed with this token", hint="try again later"
                )
            if len(under_way) >= self._limits.jobs:
                raise Later("too many releases are being placed and committed at once", hint="try again later")
            job = self._jobs[key] = self._tasks.begin(_awaiting(work))
        await asyncio.wait([job], timeout=self._limits.wait_seconds)
        if not job.done():
            raise AtWork("this takes longer, and goes on", hint="ask the same again")
        self._jobs.pop(key, None)
        return job.result()  # type: ignore[return-value]

    async def _hold(self, owner: str, release: Release, store: Store) -> None:
        key = owner, release
        async with self._holding.take(key):
            now = time.monotonic()
            lease = self._leases.get(key)
            if lease is not None and now - lease.begun < self._limits.lease_most_seconds:
                lease.used = now
                return
            if lease is None:
                self._check_room(owner)
            # Counted before the lease is there: others come meanwhile.
            self._begun.add(key)
            try:
                holding = contextlib.ExitStack()
                await start_thread(lambda: holding.enter_context(store.lease()), name=_THREAD)
                before, self._leases[key] = self._leases.get(key), _Lease(holding, now, now)
            finally:
                self._begun.discard(key)
            if before is not None:
                await _give_back(before)

    def _check_room(self, owner: str) -> None:
        """Raise TooMany or Later unless one more release may be published now; one token must not take the place of all."""
        every = self._leases.keys() | self._begun
        if sum(other == owner for other, _ in every) >= self._limits.publications_per_token:
            hint = "finish some first: pacball publish says when it is done"
            raise TooMany("too many releases are being published with this token at once", hint=hint)
        if len(every) >= self._limits.publications:
            raise Later("too many releases are being published at once", hint="try again later")

    async def _end_leases(self) -> None:
        now = time.monotonic()
        for key, lease in list(self._leases.items()):
            if now - lease.used > self._limits.lease_seconds:
                await self.close(*key)
        # Of clients that have left: who waits for a result asks again long before the second look at it.
        done = {key: job for key, job in self._jobs.items() if job.done()}
        for asked, job in done.items():
            if self._over.get(asked) is job:
                del self._jobs[asked]
        self._over = done


async def _give_back(lease: _Lease) -> None:
    await start_thread(lease.holding.close, name=_THREAD)


async def _awaiting(work: Callable[[], Awaitable[T]]) -> T:
    return await work()
