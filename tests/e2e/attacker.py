"""A mirror that lies, over real HTTP: the public files of a store, except where it was told to do something else."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from threading import Thread

from tests.mirror import scripted
from tests.mirror.scripted import Drip, Pause, Script, Step, answer, part

_RANGE = re.compile(r"^range: bytes=([0-9]+)-([0-9]+)\r$", re.IGNORECASE | re.MULTILINE)
COOKIE = "Set-Cookie: watched=you; Path=/; Max-Age=86400"


class Mirror(Script):
    """Serves the files below `public`, which may be changed at any time; each connection gets one answer.

    `asked` counts requests by path, `requests` has their headers, `sent` counts bytes. Every answer sets a cookie.
    """

    def __init__(self, public: Path) -> None:
        super().__init__([])
        self.public = public
        self.asked: Counter[str] = Counter()
        self.sent = 0
        self._lies: dict[str, tuple[Step, ...]] = {}

    def says(self, path: str, *steps: Step) -> None:
        """From now on, answer requests for `path`, below `public`, with these very bytes and pauses."""
        self._lies[path] = steps

    def gives(self, path: str, data: bytes, *headers: str) -> None:
        """From now on, give `data` for `path`, and say nothing but the truth about it."""
        self.says(path, answer("200 OK", data, *headers))

    def is_honest(self) -> None:
        """From now on, lie no more; the counters begin anew."""
        self._lies.clear()
        self.forget()

    def forget(self) -> None:
        """Begin to count anew."""
        self.asked.clear()
        self.requests.clear()
        self.sent = 0

    async def play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            request = (await reader.readuntil(b"\r\n\r\n")).decode()
            path = request.split(" ")[1].removeprefix("/")
            self.requests.append(request)
            self.asked[path] += 1
            for step in self._lies.get(path) or (self._truth(path, request),):
                await self._play(step, writer)
        writer.close()

    def _truth(self, path: str, request: str) -> bytes:
        try:
            data = (self.public / path).read_bytes()
        except OSError:
            return answer("404 Not Found", b"<html>", "Content-Type: text/html", COOKIE)
        wanted = _RANGE.search(request)
        if wanted is None:
            return answer("200 OK", data, COOKIE, "Connection: close")
        first, last = int(wanted[1]), int(wanted[2])
        return part(data[first : last + 1], first, COOKIE, "Connection: close", total=len(data))

    async def _play(self, step: Step, writer: asyncio.StreamWriter) -> None:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return
        data, again = (step.data, step.seconds) if isinstance(step, Drip) else (step, None)
        while not writer.is_closing():
            writer.write(data)
            self.sent += len(data)
            await writer.drain()
            if again is None:
                return
            await asyncio.sleep(again)


@contextlib.contextmanager
def mirroring(public: Path) -> Iterator[Mirror]:
    """A mirror of the directory `public` on a free port, honest at first."""
    mirror = Mirror(public)
    started: Future = Future()
    thread = Thread(target=lambda: asyncio.run(scripted._serve(mirror, started)))
    thread.start()
    loop, stop, port = started.result(60)
    mirror.url = f"http://127.0.0.1:{port}"
    try:
        yield mirror
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
