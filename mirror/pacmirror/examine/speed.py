"""Speed: how long a small request takes, and how fast a few megabytes of a pack come over one connection and over several."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass

import aiohttp

from pacmirror.examine.examination import Examination
from pacmirror.fetch import check_answer
from pacstore.finding import Finding, Level
from pacstore.limits import KIB, MIB
from pacstore.source import PackRange
from pacstore.storage import ObjectKind, object_path

CONNECTIONS = 4
_BYTES = 4 * MIB
_SECONDS = 6.0
_MOST_SECONDS = 2 * _SECONDS + 6.0
_ENOUGH_BYTES = 64 * KIB
_SLOW_BYTES_PER_SECOND = 256 * KIB


@dataclass
class _Count:
    received: int = 0


async def measure_speed(one: Examination, pack: PackRange) -> list[Finding]:
    """Fetch some of `pack`, which is named whole. Never raises for what is wrong outside."""
    return await one.step("speed", lambda: _measured(one, pack), most_seconds=_MOST_SECONDS)


async def _measured(one: Examination, pack: PackRange) -> list[Finding]:
    async with one.session() as session:
        latency = await _latency(one, session, pack)
        single = await _rate(one, session, pack, 1)
        several = await _rate(one, session, pack, CONNECTIONS)
    values = {
        "latency_seconds": round(latency, 4),
        "bytes_per_second": round(single),
        "bytes_per_second_4": round(several),
    }
    if max(single, several) <= 0:
        return [Finding("speed", Level.SKIP, "the packs are too small to measure it", values=values)]
    text = f"{_words(single)} over one connection, {_words(several)} over {CONNECTIONS}; a request takes {latency * 1000:.0f} ms"
    if several < _SLOW_BYTES_PER_SECOND:
        return [Finding("speed", Level.WARN, text, "a release of 5 GB takes hours: look for a nearer source", values)]
    return [Finding("speed", Level.OK, text, values=values)]


async def _latency(one: Examination, session: aiohttp.ClientSession, pack: PackRange) -> float:
    """The shortest of some small requests, after a first one that may have to connect."""
    times = []
    for _ in range(4):
        began = time.monotonic()
        await _fetch(one, session, PackRange(pack.pack, 0, 16), _Count())
        times.append(time.monotonic() - began)
    return min(times[1:])


async def _rate(one: Examination, session: aiohttp.ClientSession, pack: PackRange, connections: int) -> float:
    """Bytes a second over so many connections at once; 0 where there is too little to fetch."""
    length = min(_BYTES, pack.length) // connections
    if length * connections < _ENOUGH_BYTES:
        return 0.0
    count = _Count()
    began = time.monotonic()
    parts = [PackRange(pack.pack, n * length, length) for n in range(connections)]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_SECONDS), asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(_fetch(one, session, part, count))
    return count.received / max(time.monotonic() - began, 1e-6)


async def _fetch(one: Examination, session: aiohttp.ClientSession, part: PackRange, count: _Count) -> None:
    url = one.place(object_path(ObjectKind.PACK, part.pack))
    headers = {"Range": f"bytes={part.offset}-{part.offset + part.length - 1}"}
    async with session.get(url, headers=headers, allow_redirects=False) as response:
        check_answer(response, url)
        async for piece in response.content.iter_any():
            count.received += len(piece)


def _words(rate: float) -> str:
    return f"{rate / 1e6:,.1f} MB/s"
