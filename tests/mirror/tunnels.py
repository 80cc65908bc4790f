"""A proxy that tunnels: CONNECT to any name leads to one port of this machine. It remembers what it was asked."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Thread


@dataclass
class Proxy:
    """`status`: what it answers in place of a tunnel, if not 200. `requests`: the heads of all requests."""

    to_port: int
    status: str = "200 Connection established"
    authorization: str = ""
    requests: list[str] = field(default_factory=list)
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.requests.append(head)
            allowed = not self.authorization or f"Proxy-Authorization: {self.authorization}\r\n" in head
            status = self.status if allowed else "407 Proxy Authentication Required"
            extra = "" if status.startswith("200") else "Content-Length: 0\r\n"
            writer.write(f"HTTP/1.1 {status}\r\n{extra}\r\n".encode())
            await writer.drain()
            if status.startswith("200"):
                theirs = await asyncio.open_connection("127.0.0.1", self.to_port)
                await asyncio.gather(_pump(reader, theirs[1]), _pump(theirs[0], writer))
        writer.close()


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
    finally:
        target.close()


@contextlib.contextmanager
def proxying(to_port: int, **options: str):
    """A running proxy; `options` are the fields of Proxy."""
    proxy = Proxy(to_port, **options)
    started: Future = Future()
    thread = Thread(target=lambda: asyncio.run(_serve(proxy, started)))
    thread.start()
    loop, stop, port = started.result(60)
    proxy.url = f"http://127.0.0.1:{port}"
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)


async def _serve(proxy: Proxy, started: Future) -> None:
    stop = asyncio.Event()
    tasks: set[asyncio.Task] = set()

    async def serve(reader, writer):
        tasks.add(asyncio.current_task())
        with contextlib.suppress(asyncio.CancelledError):
            await proxy.serve(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    started.set_result((asyncio.get_running_loop(), stop, server.sockets[0].getsockname()[1]))
    async with server:
        await stop.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)
