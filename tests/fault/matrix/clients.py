"""Clients of a cell: they ask for what a mirror must serve, in one of four patterns, and have every answer judged."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

PATTERNS = ("cold", "warm", "same object", "ranges")
ANSWER_S = 90.0
"""After which a client gives an answer up: more than the daemon itself lets one wait for frames that do not come."""
SAME_S = 0.4
"""For how long all clients ask for the same object."""
LEAVING = 0.05
"""The share of requests before which a client begins another one, and goes away."""
_STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")


@dataclass(frozen=True)
class Asked:
    """A file, or the bytes `first` to `last` of it."""

    path: str
    first: int | None = None
    last: int = 0


@dataclass(frozen=True)
class Answer:
    """What came: `status` 0 if nothing did; `body` None unless it came whole, as long as announced; `error` says why."""

    asked: Asked
    status: int
    body: bytes | None
    error: str
    began: float
    ended: float


class Client:
    """One connection after another, each for as many requests as it survives."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = parts.hostname, parts.port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, asked: Asked) -> Answer:
        """The answer, whatever it is. Raises nothing but cancellation."""
        began, status, body, error = time.monotonic(), 0, None, ""
        try:
            async with asyncio.timeout(ANSWER_S):
                status, body = await self._exchange(asked)
        except (OSError, EOFError, ValueError, TimeoutError) as fault:
            error = f"{type(fault).__name__}: {fault}"
            self.close()
        return Answer(asked, status, body, error, began, time.monotonic())

    async def leave(self, asked: Asked) -> None:
        """Ask, and go away in the middle of the answer."""
        with contextlib.suppress(OSError, EOFError, TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                reader, writer = await asyncio.open_connection(*self._address)
                with contextlib.closing(writer):
                    writer.write(f"GET /{asked.path} HTTP/1.1\r\nHost: mirror\r\nConnection: close\r\n\r\n".encode())
                    await reader.readexactly(1000)

    def close(self) -> None:
        """Let go of the connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _exchange(self, asked: Asked) -> tuple[int, bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address)
        reader, writer = self._streams
        wanted = f"Range: bytes={asked.first}-{asked.last}\r\n" if asked.first is not None else ""
        writer.write(f"GET /{asked.path} HTTP/1.1\r\nHost: mirror\r\n{wanted}\r\n".encode())
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        body = await reader.readexactly(int(fields[b"content-length"]))
        if fields.get(b"connection") == b"close":
            self.close()
        found = _STATUS.match(head)
        if found is None:
            raise ValueError(f"no answer of HTTP: {head[:100]!r}")
        if int(found[1]) == 206 and not fields[b"content-range"].startswith(b"bytes %d-" % asked.first):
            raise ValueError("another range than was asked for")
        return int(found[1]), body


class Crowd:
    """`count` clients that ask in `pattern` for `files`, whose lengths are known."""

    def __init__(self, url: str, pattern: str, count: int, files: dict[str, int], dice: random.Random) -> None:
        self.url = url
        self.pattern = pattern
        self.seeds = [dice.random() for _ in range(count)]
        self.files = files

    async def run(self, judge: Callable[[Answer], bool], stop: asyncio.Event) -> None:
        """Ask and ask until told to stop; what is under way then still ends."""
        began = time.monotonic()

        async def one(seed: float) -> None:
            dice = random.Random(seed)
            with contextlib.closing(Client(self.url)) as client:
                while not stop.is_set():
                    await self._round(client, dice, began, judge, stop)

        await self._each(one)

    async def satisfy(self, judge: Callable[[Answer], bool], *, tries: int) -> None:
        """Each client gets all it ever asks for, now that nothing is wrong any more. Fails if one needs more tries."""

        async def one(seed: float) -> None:
            dice = random.Random(seed)
            with contextlib.closing(Client(self.url)) as client:
                for asked in self._wishes(dice):
                    for _ in range(tries):
                        answer = await client.ask(asked)
                        if judge(answer):
                            break
                        await asyncio.sleep(0.5)
                    else:
                        body = answer.body[:300] if answer.body else b""
                        raise AssertionError(f"not in {tries} tries: {asked}: {answer.status} {answer.error} {body!r}")

        await self._each(one)

    async def _each(self, one: Callable) -> None:
        async with asyncio.TaskGroup() as group:
            for seed in self.seeds:
                group.create_task(one(seed))

    async def _round(self, client, dice, began, judge, stop) -> None:
        for asked in self._wishes(dice):
            if self.pattern == "same object":
                names = list(self.files)
                asked = Asked(names[int((time.monotonic() - began) / SAME_S) % len(names)])  # noqa: PLW2901
            if dice.random() < LEAVING:
                await client.leave(asked)
            # A person, or an installer, does something with what came; and what failed is not tried again at once.
            await asyncio.sleep(dice.uniform(0, 0.02) if judge(await client.ask(asked)) else 0.1)
            if stop.is_set():
                return

    def _wishes(self, dice: random.Random) -> Sequence[Asked]:
        names = list(self.files)
        if self.pattern == "same object":
            return [Asked(name) for name in names]
        dice.shuffle(names)
        if self.pattern != "ranges":
            return [Asked(name) for name in names]
        return [self._range(name, dice) for name in names for _ in range(2)]

    def _range(self, name: str, dice: random.Random) -> Asked:
        first = dice.randrange(self.files[name])
        return Asked(name, first, min(first + dice.randrange(1, 200_000), self.files[name] - 1))
