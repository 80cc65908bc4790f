"""A server that plays a script: what it sends to each connection, whatever was asked."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Thread


@dataclass(frozen=True)
class Pause:
    """Say nothing for `seconds`."""

    seconds: float


@dataclass(frozen=True)
class Drip:
    """Send `data` again and again, every `seconds`, until the client has gone."""

    data: bytes
    seconds: float


Step = bytes | Pause | Drip


def answer(status: str, body: bytes = b"", *headers: str, length: int | None = None) -> bytes:
    """An answer's bytes, with a Content-Length unless it is negative."""
    size = len(body) if length is None else length
    lines = [f"HTTP/1.1 {status}", *headers, *([f"Content-Length: {size}"] if size >= 0 else []), "", ""]
    return "\r\n".join(lines).encode() + body


def part(body: bytes, offset: int, *headers: str, total: int = 1000, length: int | None = None) -> bytes:
    """A 206 that is right, unless told otherwise."""
    where = f"Content-Range: bytes {offset}-{offset + len(body) - 1}/{total}"
    return answer("206 Partial Content", body, where, *headers, length=length)


@dataclass
class Script:
    """Each connection gets the next entry, the last one for ever; then it is closed."""

    connections: list[list[Step]]
    requests: list[str] = field(default_factory=list)
    url: str = ""
    port: int = 0

    async def play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            self.requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
            steps = self.connections.pop(0) if len(self.connections) > 1 else self.connections[0]
            for step in steps:
                await _play(step, writer)
        writer.close()


async def _play(step: Step, writer: asyncio.StreamWriter) -> None:
    if isinstance(step, Pause):
        await asyncio.sleep(step.seconds)
    elif isinstance(step, Drip):
        while not writer.is_closing():
            writer.write(step.data)
            await writer.drain()
            await asyncio.sleep(step.seconds)
    else:
        writer.write(step)
        await writer.drain()


@contextlib.contextmanager
def playing(*connections: list[Step], host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None):
    """A scripted server on a free port."""
    script = Script(list(connections))
    started: Future = Future()
    thread = Thread(target=lambda: asyncio.run(_serve(script, started, host, port, tls)))
    thread.start()
    loop, stop, script.port = started.result(60)
    scheme, name = "https" if tls else "http", f"[{host}]" if ":" in host else host
    script.url = f"{scheme}://{name}:{script.port}"
    try:
        yield script
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)


async def _serve(
    script: Script, started: Future, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> None:
    stop = asyncio.Event()
    tasks: set[asyncio.Task] = set()
    writers: list[asyncio.StreamWriter] = []

    async def play(reader, writer):
        tasks.add(asyncio.current_task())
        writers.append(writer)
        await script.play(reader, writer)

    server = await asyncio.start_server(play, host, port, ssl=tls)
    started.set_result((asyncio.get_running_loop(), stop, server.sockets[0].getsockname()[1]))
    async with server:
        await stop.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in writers:
            # asyncio of Python 3.11 does not expect it of a transport that was closed while it had something to send.
            with contextlib.suppress(AttributeError):
                writer.transport.abort()  # over TLS a polite end would wait for the client's
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)
        await asyncio.sleep(0.01)
