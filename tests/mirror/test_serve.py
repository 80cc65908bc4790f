"""Starting and stopping: addresses, clear failures, signals, draining."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import resources

import pytest
from openapi_spec_validator import validate

from pacmirror.config import Config, format_address, parse_address
from pacmirror.limits import CacheLimits, ServerLimits
from pacmirror.routes import ROUTES
from pacmirror.serve import listen
from pacstore.errors import Corrupt, Refused, Unavailable
from tests.mirror.daemons import PACK_ID, receive_all, running

PROGRAM = """
import sys; from pathlib import Path
from pacmirror.config import Config, LogConfig; from pacmirror.serve import serve
serve(Config(Path(sys.argv[1]), port=0, log=LogConfig(level="warning")), ready=lambda url: print(url, flush=True))
print("stopped")
"""


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:80", "127.0.0.1", 80),
        ("[::1]:8080", "::1", 8080),
        ("localhost:0", "localhost", 0),
        ("[::]:65535", "::", 65535),
    ],
)
def test_addresses(text, host, port):
    assert parse_address(text) == (host, port)
    assert format_address(host, port) == text


@pytest.mark.parametrize(
    "text", ["", "8080", ":8080", "host", "host:", "::1:80", "[::1]", "h:65536", "h:-1", "h:٣", "h/x:1", "u@h:1"]
)
def test_no_addresses(text):
    with pytest.raises(Refused, match=r"write HOST:PORT"):
        parse_address(text)


def test_failures_to_listen_say_why(tmp_path):
    with listen(Config(tmp_path, port=0)) as taken, pytest.raises(Unavailable, match="in use"):
        listen(Config(tmp_path, port=taken.getsockname()[1]))
    with pytest.raises(Refused, match="no address of this machine"):
        listen(Config(tmp_path, host="192.0.2.1", port=0))
    with pytest.raises(Refused, match="not known"):
        listen(Config(tmp_path, host="no-such-host.invalid", port=0))


def test_ipv6_is_listened_on(tmp_path):
    # A machine without IPv6 has no such address, and says so.
    with contextlib.suppress(Refused), listen(Config(tmp_path, host="::1", port=0)) as sock:
        assert sock.family == socket.AF_INET6


def test_no_store_no_daemon(tmp_path, store):
    with pytest.raises(Unavailable, match="is it mounted"), running(tmp_path / "nothing"):
        pass
    (store / "public/store.json").write_bytes(b"{}")
    with pytest.raises(Corrupt, match="not the marker"), running(store):
        pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_stop_it(store, number):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "error", "-c", PROGRAM, str(store)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        url = process.stdout.readline().strip()
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as idle:
            process.send_signal(number)
            assert receive_all(idle) == b""
        out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (0, "stopped\n", "")


def test_a_request_in_progress_ends_before_the_daemon_does(store):
    data = os.urandom(24 << 20)
    (store / f"public/packs/ab/{PACK_ID}").write_bytes(data)
    with running(store) as daemon:
        sock = socket.create_connection(daemon.address, timeout=5)
        sock.sendall(f"GET /packs/ab/{PACK_ID} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        start = sock.recv(1000)
        reader = _read_later(sock)
    assert (start + reader.result()).endswith(data)


def _read_later(sock):
    def read():
        time.sleep(0.3)
        with sock:
            return receive_all(sock)

    pool = ThreadPoolExecutor(1)
    future = pool.submit(read)
    pool.shutdown(wait=False)
    return future


def test_draining_has_a_limit(store):
    (store / f"public/packs/ab/{PACK_ID}").write_bytes(bytes(24 << 20))
    began = time.monotonic()
    with running(store, ServerLimits(drain_seconds=0.3)) as daemon:
        sock = socket.create_connection(daemon.address, timeout=5)
        sock.sendall(f"GET /packs/ab/{PACK_ID} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        sock.recv(1000)
    sock.close()
    assert time.monotonic() - began < 60


def test_it_allows_itself_the_files_that_its_limits_may_need(store):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1_024, before[1]))
    try:
        with running(store, ServerLimits(connections=300, backlog=10, cache=CacheLimits(packs=1_000))):
            assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 2 * 300 + 10 + 1_000
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_description_is_valid_and_complete(daemon):
    status, headers, body = daemon.request("/openapi.json")
    document = json.loads(body)
    validate(document)
    assert (status, headers["content-type"]) == (200, "application/json")
    assert body == resources.files("pacmirror").joinpath("openapi.json").read_bytes()
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    paths = {(method, path.replace(":.*}", "}")) for method, path, _ in ROUTES}
    assert described == paths | {("HEAD", path) for method, path in paths if method == "GET"}
