"""The servers of a measurement: each on a free port of 127.0.0.1, each ended with its block, whatever happens."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Command, CommandFailedError, end_with_parent, plain_environment

READY_S = 30.0
END_S = 10.0

_NGINX = """
{user}
daemon off;
worker_processes auto;
pid {home}/nginx.pid;
error_log {home}/error.log warn;
events {{ worker_connections 512; }}
http {{
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
    log_format counted '$status $bytes_sent $uri';
    access_log {home}/access.log counted;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {root};
        {put}
    }}
}}
"""

_PUT = "dav_methods PUT; client_max_body_size 0;"
_RSYNCD = """
use chroot = no
read only = yes
{user}
[tree]
path = {root}
"""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a server sent: header and body bytes, requests (failed ones too)."""

    sent_bytes: int
    requests: int


@dataclass(frozen=True, slots=True)
class Daemon:
    pid: int
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True, slots=True)
class Nginx(Daemon):
    log: Path

    def traffic(self, *, after: int = 0) -> Traffic:
        """What was sent since the log had ``after`` lines."""
        time.sleep(0.3)  # a line is written after its response has left
        lines = self.log.read_text().splitlines()[after:] if self.log.exists() else []
        return Traffic(sum(int(line.split()[1]) for line in lines), len(lines))

    def mark(self) -> int:
        return self.traffic().requests


@contextmanager
def nginx(root: Path, home: Path, *, accepts_put: bool = False) -> Iterator[Nginx]:
    """nginx over the files of ``root``; its configuration, logs and temporary files go to ``home``."""
    home.mkdir(parents=True, exist_ok=True)
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""
    config = home / "nginx.conf"
    config.write_text(_NGINX.format(user=user, home=home, port=port, root=root, put=_PUT if accepts_put else ""))
    argv = ["nginx", "-p", str(home), "-e", str(home / "error.log"), "-c", str(config)]
    with _daemon(Command(argv), port=port, log=home / "nginx.out") as pid:
        yield Nginx(pid, port, home / "access.log")


@contextmanager
def rsyncd(root: Path, home: Path) -> Iterator[Daemon]:
    """An rsync daemon with ``root`` as its read-only module ``tree``."""
    home.mkdir(parents=True, exist_ok=True)
    port = free_port()
    user = "uid = root\ngid = root" if os.geteuid() == 0 else ""
    config = home / "rsyncd.conf"
    config.write_text(_RSYNCD.format(user=user, root=root))
    argv = ["rsync", "--daemon", "--no-detach", "--address=127.0.0.1", f"--port={port}", f"--config={config}"]
    with _daemon(Command(argv), port=port, log=home / "rsyncd.out") as pid:
        yield Daemon(pid, port)


@contextmanager
def healthy(command: Command, *, port: int, log: Path) -> Iterator[Daemon]:
    """A daemon of ours, from when its /healthz answers 200."""
    with _daemon(command, port=port, log=log, health="/healthz") as pid:
        yield Daemon(pid, port)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _daemon(command: Command, *, port: int, log: Path, health: str | None = None) -> Iterator[int]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command.argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=plain_environment(command.env),
            cwd=command.cwd,
            start_new_session=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509 -- no other thread runs while a daemon is started
        )
    try:
        _await(process, port=port, log=log, health=health)
        yield process.pid
    finally:
        _end(process)


def _await(process: subprocess.Popen[bytes], *, port: int, log: Path, health: str | None) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        if _answers(port, health):
            return
        time.sleep(0.05)
    said = log.read_text(errors="replace").strip()[-600:]
    raise CommandFailedError(f"{process.args!r} does not serve on port {port} (exit {process.returncode}): {said}")


def _answers(port: int, health: str | None) -> bool:
    try:
        if health is None:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return True
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        connection.request("GET", health)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            continue
    process.poll()
