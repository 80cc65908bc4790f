"""When a sync looks, with a catalog that changes as the test says."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from dataclasses import replace

import pytest

from pacmirror.config import Config, SyncConfig, UpstreamConfig
from pacmirror.limits import EventLimits, ServerLimits, SyncLimits
from pacmirror.sync.bookkeeping import Bookkeeping
from pacmirror.sync.syncing import Syncing
from pacstore.errors import NotFound, Unavailable
from pacstore.ledger import releases
from pacstore.ledger.completion import record_complete, withdraw
from pacstore.ledger.releases import ReleaseState
from pacstore.limits import KIB
from pacstore.storage import ObjectKind, object_path
from pacstore.store import Store
from pacstore.subscription import Subscription
from pacstore.trust.targets import Withdrawal
from tests.mirror.mirrors import until
from tests.store.releases import NEXT, Origin, make_tree, noise, write
from tests.store.trust_world import NOW, entry

ONE = entry("Demo-1-x")
LIMITS = ServerLimits(sync=SyncLimits(look_seconds=0.02))


class View:
    """A catalog; `show` lets it be known as a replication does: first its version, and its releases a moment later."""

    def __init__(self):
        self.version = None
        self._releases = {}
        self._changes = 0
        self._changed = asyncio.Condition()

    def releases(self):
        return self._releases

    async def loaded(self):
        return

    async def changed(self, changes):
        async with self._changed:
            await self._changed.wait_for(lambda: self._changes > changes)
        return self._changes

    async def show(self, *entries):
        self._releases = {one.release: one for one in entries}
        self._changes += 1
        async with self._changed:
            self._changed.notify_all()


class Supplies:
    """Documents and packs that nobody has. `asked` is set by the first release that is asked for."""

    def __init__(self):
        self.asked = asyncio.Event()

    async def fetch(self, *_, **__):
        self.asked.set()
        raise NotFound("is not here", place="manifests/x")


@pytest.fixture
def config(tmp_path):
    Store.create(tmp_path / "store").close()
    sync = SyncConfig(subscriptions=(Subscription("*"),))
    return Config(tmp_path / "store", limits=LIMITS, sync=sync, upstream=UpstreamConfig(("http://127.0.0.1:9",)))


@contextlib.asynccontextmanager
async def syncing(config, view, supplies, *, documents=None, announce=lambda *_, **__: None):
    """A sync with its books, which have started, and end with the context."""
    books = Bookkeeping(config, view, clock=lambda: NOW)
    sync = Syncing(config, books, view, documents or supplies, supplies, announce=announce, clock=lambda: NOW)
    await books.start()
    await sync.start()
    try:
        yield books, sync
    finally:
        for service in (sync, books):
            await service.end()


def run(work):
    async def bounded():
        async with asyncio.timeout(60):
            await work()

    asyncio.run(bounded())


def test_releases_that_are_known_later_than_the_version_are_mirrored(config):
    async def work():
        view, supplies = View(), Supplies()
        async with syncing(config, view, supplies) as (books, sync):
            view.version = 1
            await until(lambda: sync.roster is not None)
            assert sync.roster.due == ()
            await view.show(ONE)
            await supplies.asked.wait()
            await until(lambda: books.standing.count(ReleaseState.FAILED))
            assert "manifests/x" in books.standing.troubled[0].reason

    run(work)


class Faltering:
    """A line: at its first attempts nothing comes of a release, at the next one pack, and then nothing ends."""

    def __init__(self, origin, store):
        self.attempts = 0
        self.ended = asyncio.Event()
        self._origin, self._store, self._brought = origin, store, False

    async def bring(self, entry):
        self.attempts += 1
        for path in sorted(self._origin.rglob("*")):
            if path.is_file() and path.relative_to(self._origin).parts[0] in ("manifests", "attributes", "placements"):
                copied = self._store / "public" / path.relative_to(self._origin)
                copied.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, copied)

    async def fetch(self, pack, **_):
        if self.attempts > 3:
            self.ended.set()
            await asyncio.Event().wait()
        if self.attempts < 3 or self._brought:
            raise Unavailable("the line is down", place=pack.hex)
        self._brought = True
        path = object_path(ObjectKind.PACK, pack)
        (self._store / "public" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self._origin / path, self._store / "public" / path)


class Documents:
    """The documents of the same line."""

    def __init__(self, line):
        self.fetch = line.bring


def test_a_release_of_which_something_came_is_tried_again_as_soon_as_a_new_one(config, tmp_path):
    """Of a line that falters all day, each interruption would otherwise cost the longest pause."""
    origin = Origin.make(tmp_path / "origin")
    with contextlib.closing(origin.store):
        tree = make_tree(tmp_path / "tree", kib=300)
        write(tree / "more", noise("more", 900 * KIB))
        origin.publish(tree)
        origin.publish(tree, NEXT)
        write(tree / "still more", noise("still more", 900 * KIB))
        origin.publish(tree, "Demo-3.0-x86_64")
        release = origin.entry("Demo-3.0-x86_64")
        line = Faltering(origin.store.public, config.store)

        async def work():
            view = View()
            limits = replace(config.limits, sync=SyncLimits(look_seconds=0.02, backoff_seconds=0))
            async with syncing(replace(config, limits=limits), view, line, documents=Documents(line)) as (books, _):
                view.version = 1
                await view.show(release)
                await line.ended.wait()
                with books.keeping.store.ledger.reading() as connection:
                    assert releases.find(connection, release.release).attempts == 1

        run(work)


def test_many_releases_are_looked_at_once_and_not_for_each_that_ends(config):
    many = [entry(f"Demo-{number}-x") for number in range(8)]

    async def work():
        view, supplies = View(), Supplies()
        view.version = 1
        await view.show(*many)
        async with syncing(config, view, supplies) as (books, sync):
            await until(lambda: sync.roster is not None and len(sync.roster.due) == len(many))
            roster = sync.roster
            await until(lambda: books.standing.count(ReleaseState.FAILED) == len(many))
            await until(lambda: sync.status()["queued"] == 0 and not sync.status()["transfers"])
            assert sync.roster is roster

    run(work)


def test_who_listens_can_read_while_very_many_releases_leave(config):
    many = [entry(f"Demo-{number}-x") for number in range(200)]
    waiting, most, dropped = 0, 0, 0

    def announce(_, *, complete):
        nonlocal waiting, dropped
        waiting += 1
        dropped += not complete

    async def read():
        nonlocal waiting, most
        while True:
            most, waiting = max(most, waiting), 0
            await asyncio.sleep(0)

    async def work():
        view, supplies = View(), Supplies()
        view.version = 1
        await view.show(*many)
        async with syncing(config, view, supplies, announce=announce) as (_, sync):
            reader = asyncio.create_task(read())
            await until(lambda: sync.roster is not None and len(sync.roster.wanted) == len(many))
            await view.show(*(replace(one, withdrawal=Withdrawal(int(NOW), "bad")) for one in many))
            await until(lambda: dropped == len(many))
            reader.cancel()
        assert most < EventLimits().queued

    run(work)


def test_a_release_that_somebody_else_finds_damaged_is_fetched_again(config):
    """cvmfs#3268: what was lost stayed lost until something else changed."""
    limits = replace(LIMITS, sync=replace(LIMITS.sync, roster_seconds=0.05))
    config = replace(config, limits=limits)
    with Store.open(config.store, writable=True) as store:
        record_complete(store.ledger, store.storage, ONE, {}, now=NOW)

    async def work():
        view, supplies = View(), Supplies()
        view.version = 1
        await view.show(ONE)
        async with syncing(config, view, supplies) as (books, sync):
            await until(lambda: sync.roster is not None)
            assert not supplies.asked.is_set()
            withdraw(books.store.ledger, books.store.storage, ONE.release, reason="damaged", now=NOW)
            await supplies.asked.wait()

    run(work)


def test_what_is_held_is_verified_once_the_releases_are_known(config):
    """And not taken for what no catalog names, because the version was known a moment earlier."""
    with Store.open(config.store, writable=True) as store:
        record_complete(store.ledger, store.storage, ONE, {}, now=NOW)
        with store.ledger.writing() as connection:
            releases.forget(connection, ONE.release)

    async def work():
        view = View()
        view.version = 1
        books = Bookkeeping(config, view, clock=lambda: NOW)
        await books.start()
        await view.show(ONE)
        await books.settled()
        await books.look()
        # There is nothing of it but its holdings file, which is found out.
        assert books.standing.count(ReleaseState.PARTIAL) == 1
        await books.end()

    run(work)
