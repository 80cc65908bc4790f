"""Starts real daemons in threads, and speaks to them byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

from pacmirror.config import Config
from pacmirror.limits import ServerLimits
from pacmirror.serve import run
from tests.e2e.site import wait_until
from tests.store.signed_catalog import SignedCatalog

PACK_ID = "ab" + "1" * 62
MANIFEST_ID = "cd" + "2" * 62
RELEASE = "Demo-1.0-x86_64"
PACK = bytes(range(256)) * 4096 * 3


def make_store(where: Path, catalog: SignedCatalog | None = None) -> Path:
    """A store directory with a file of each kind, and a catalog; the daemon looks into nothing else."""
    files = {
        "store.json": b'{"format":1,"kind":"pacball store"}\n',
        f"packs/ab/{PACK_ID}": PACK,
        f"manifests/cd/{MANIFEST_ID}": b"manifest",
        f"attributes/cd/{MANIFEST_ID}": b"",
        f"provenance/cd/{MANIFEST_ID}": b"{}",
        f"bundles/cd/{MANIFEST_ID}": b"bundle",
        f"placements/{RELEASE}.1": b"placement",
        f"releases/Demo/{RELEASE}/{MANIFEST_ID}.manifest": b"manifest",
        f"releases/Demo/{RELEASE}/{MANIFEST_ID}.secret": b"never served",
        f"holdings/{RELEASE}": b'{"format":1}\n',
        f"packs/ab/{PACK_ID}.gz": b"never served",
        "holdings/.hidden": b"never served",
        "packs/stray": b"never served",
    }
    for path, data in files.items():
        file = where / "public" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    (catalog or SignedCatalog("Demo")).write(where / "public")
    (where / "private").mkdir()
    (where / "private" / "secret").write_bytes(b"secret")
    return where


@dataclass(frozen=True)
class Daemon:
    url: str
    store: Path

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or 0

    def exchange(self, request: bytes, *, timeout: float = 5.0, end: bool = False) -> bytes:
        """Everything that the daemon answers to `request` until it closes the connection or is silent for `timeout`."""
        with socket.create_connection(self.address, timeout=timeout) as sock:
            sock.sendall(request)
            if end:
                sock.shutdown(socket.SHUT_WR)
            return receive_all(sock)

    def get(self, path: str) -> bytes:
        """The body of an answer that must be 200."""
        status, _, body = self.request(path)
        assert status == 200, body
        return body

    def status(self) -> dict:
        """What /v1/status says."""
        return json.loads(self.get("/v1/status"))

    def metrics(self) -> dict[str, float]:
        """What /metrics says, by name and labels."""
        lines = [line for line in self.get("/metrics").decode().splitlines() if not line.startswith("#")]
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}

    def request(
        self, path: str, *headers: str, method: str = "GET", timeout: float = 5.0
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers with lower-case names, body."""
        lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", *headers, "", ""]
        return parse_answer(self.exchange("\r\n".join(lines).encode("latin-1"), timeout=timeout))


def eventually(condition: Callable[[], object]) -> None:
    """Return when `condition` holds, which may take as long as a busy machine needs."""
    wait_until(condition, seconds=60)


def receive_all(sock: socket.socket) -> bytes:
    received = bytearray()
    with contextlib.suppress(TimeoutError, ConnectionResetError):
        while piece := sock.recv(1 << 20):
            received += piece
    return bytes(received)


def parse_answer(data: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = [line.split(": ", 1) for line in lines]
    assert len({name.lower() for name, _ in fields}) == len(fields), "a header came twice"
    return int(first.split()[1]), {name.lower(): value for name, value in fields}, body


@contextlib.contextmanager
def running(store: Path, limits: ServerLimits | None = None, **options: object):
    """A daemon over `store` on a free port, stopped at the end; `options` are those of Config."""
    config = Config(store, **{"port": 0, "limits": limits or ServerLimits(), **options})
    started: Future = Future()
    thread = Thread(target=lambda: asyncio.run(_serve(config, started)))
    thread.start()
    try:
        url, loop, stop = started.result(60)
        try:
            yield Daemon(url, store)
        finally:
            loop.call_soon_threadsafe(stop.set)
    finally:
        thread.join(60)
        assert not thread.is_alive()


async def _serve(config: Config, started: Future) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    try:
        await run(config, ready=lambda url: started.set_result((url, loop, stop)), stop=stop)
    except BaseException as error:
        if started.done():
            raise
        started.set_exception(error)
