"""The mirror of a cell: a real process that can be killed and started again at the same address, and is watched."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.site import PACBALL, Site, free_port
from tests.fault.matrix.clients import Asked, Client

READY_S = 60.0
END_S = 60.0
MEMORY_BYTES = 300 << 20
_CONFIG = """
store = "{store}"
listen = "127.0.0.1:{port}"
trusted_root = "{root_keys}"
[upstream]
urls = {upstreams}
[sync]
poll = "2s"
[[sync.subscriptions]]
releases = "Held-*"
# Who takes the digests of pacballs finds damage, and has it repaired: here a check is to find all of it.
[pacballs]
ahead = false
"""


class Daemon:
    """`pacball serve` over the store `where`/mirror. `before`: what runs it."""

    def __init__(
        self, site: Site, where: Path, root_keys: Path, upstreams: Sequence[str], before: Sequence[str] = ()
    ) -> None:
        self.store = where / "mirror"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = site.home / "mirror.log"
        self.most_memory_bytes = 0
        self.most_descriptors = 0
        self.first_descriptors = 0
        self.slowest_start_s = 0.0
        self._site = site
        self._before = before
        self._config = site.home / "mirror.toml"
        self._config.write_text(
            _CONFIG.format(store=self.store, port=self.port, root_keys=root_keys, upstreams=json.dumps(list(upstreams)))
        )
        self._process: subprocess.Popen | None = None

    @property
    def pid(self) -> int:
        """Of the process that serves."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it, and wait until clients should be sent to it. Fails if it ends, or takes for ever."""
        began = time.monotonic()
        self._process = process = await asyncio.to_thread(self._launch)
        while await self._status("readyz") != 200:
            assert process.poll() is None, self.log.read_text()
            assert time.monotonic() < began + READY_S, f"not ready after {READY_S} s: {self.log.read_text()}"
            await asyncio.sleep(0.05)
        self.slowest_start_s = max(self.slowest_start_s, time.monotonic() - began)
        self.first_descriptors = self.descriptors()

    def kill(self) -> None:
        """As kill -9 does."""
        assert self._process is not None
        self.look()
        self._process.kill()
        self._process.wait()

    async def end(self) -> None:
        """Stop it as systemd does; it must end cleanly."""
        assert self._process is not None
        self.look()
        self._process.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(self._process.wait, END_S)
        assert code == 0, (code, self.log.read_text())

    def let_go(self) -> None:
        """Whatever happened, nothing goes on."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def look(self) -> None:
        """Measure memory and descriptors."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError, IndexError):
            status = Path(f"/proc/{self.pid}/status").read_text()
            peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
            self.most_memory_bytes = max(self.most_memory_bytes, peak)
            self.most_descriptors = max(self.most_descriptors, self.descriptors())

    def descriptors(self) -> int:
        """How many it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    async def json(self, path: str) -> dict:
        """What a route of /v1 says; empty if it does not."""
        with contextlib.closing(Client(self.url)) as client:
            answer = await client.ask(Asked(path))
            return json.loads(answer.body) if answer.status == 200 and answer.body is not None else {}

    async def complete(self) -> set[str]:
        """The releases that it says to hold whole."""
        return {one["release"] for one in (await self.json("v1/releases?state=complete")).get("releases", ())}

    def _launch(self) -> subprocess.Popen:
        argv = [*self._before, str(PACBALL), "serve", "--config", str(self._config)]
        with self.log.open("ab") as log:
            return subprocess.Popen(argv, env=self._site.environment, cwd=self._site.home, stdin=subprocess.DEVNULL,
                                    stdout=subprocess.DEVNULL, stderr=log)  # fmt: skip

    async def _status(self, path: str) -> int:
        with contextlib.closing(Client(self.url)) as client:
            return (await client.ask(Asked(path))).status
