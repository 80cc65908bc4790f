"""A mirror's filler over a fresh store, in an event loop of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from pacmirror.cache.filler import Filler
from pacmirror.config import UpstreamConfig
from pacmirror.limits import LIST_LIMITS, UPSTREAM_LIMITS, CacheLimits, ClientLimits, MirrorLimits
from pacmirror.upstream import Upstream
from pacstore.partial import PartialPacks
from pacstore.store import Store
from tests.store.packs import Pack

T = TypeVar("T")
QUICK = replace(UPSTREAM_LIMITS, pause_seconds=0.05, drought_pause_seconds=0.05, patience_seconds=0.5)
"""Gives up soon."""


def files_of(*packs: Pack) -> dict[str, bytes]:
    """What a server of these packs has."""
    return {"store.json": b'{"format":1,"kind":"pacball store"}\n', **{pack.path: pack.data for pack in packs}}


@contextlib.asynccontextmanager
async def filling_store(
    store: Store,
    upstreams: Sequence[str] | UpstreamConfig,
    *,
    limits: CacheLimits | None = None,
    each: ClientLimits = LIST_LIMITS,
    together: MirrorLimits = QUICK,
) -> AsyncIterator[Filler]:
    """A filler with these upstreams, which has started, and ends with the context."""
    config = upstreams if isinstance(upstreams, UpstreamConfig) else UpstreamConfig(urls=tuple(upstreams))
    upstream = Upstream(config, each=each, limits=together)
    filler = Filler(PartialPacks(store.private, store.storage), store.storage, upstream, limits=limits)
    await upstream.start()
    await filler.start()
    try:
        yield filler
    finally:
        filler.stop()
        upstream.stop()
        await filler.end()
        await upstream.end()


def run(work: Callable[[], Awaitable[T]]) -> T:
    """The result of `work` in a loop of its own; nothing hangs."""

    async def bounded() -> T:
        async with asyncio.timeout(60):
            return await work()

    return asyncio.run(bounded())


async def until(condition: Callable[[], object]) -> None:
    """Return when `condition` holds."""
    while not condition():  # noqa: ASYNC110 - of many kinds, most of them in threads
        await asyncio.sleep(0.01)
