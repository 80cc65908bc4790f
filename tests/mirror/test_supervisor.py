"""systemd: the socket that it hands over, and what it is told; with real sockets, and without systemd."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys

import pytest

from pacmirror.config import AccessConfig, Config
from pacmirror.serve import run
from pacmirror.supervisor import Supervisor
from pacstore.errors import Refused
from tests.mirror.daemons import Daemon

PROGRAM = """
import os, sys; from pathlib import Path
if sys.argv[2]:
    os.dup2(int(sys.argv[2]), 3)
    os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.environ["WATCHDOG_PID"] = str(os.getpid())
from pacmirror.config import Config; from pacmirror.serve import serve
serve(Config(Path(sys.argv[1]), port=0), ready=lambda url: print(url, flush=True))
"""


@pytest.fixture
def notified(tmp_path):
    """The socket on which systemd would listen."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(20)
        yield sock


def start(store, notified, listening=None):
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "NOTIFY_SOCKET": notified.getsockname(),
        "WATCHDOG_USEC": "200000",
    }
    number = str(listening.fileno()) if listening else ""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAM, str(store), number],
        env=environment,
        stdout=subprocess.PIPE,
        pass_fds=[listening.fileno()] if listening else [],
        text=True,
    )


def receive_until(notified, wanted):
    """All that is told until a line `wanted` comes."""
    found = []
    while wanted not in found:
        found += notified.recv(4096).decode().splitlines()
    return found


def test_it_is_told_when_the_daemon_is_ready_alive_and_stopping(store, notified):
    with start(store, notified) as process:
        assert "READY=1" in receive_until(notified, "READY=1")
        assert any(line.startswith("STATUS=") for line in receive_until(notified, "WATCHDOG=1"))
        receive_until(notified, "WATCHDOG=1")
        process.send_signal(signal.SIGTERM)
        receive_until(notified, "STOPPING=1")
        process.communicate(timeout=20)
    assert process.returncode == 0


def test_the_socket_that_it_hands_over_is_served(store, notified):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        # What comes before the daemon has started waits for it.
        early = socket.create_connection(listening.getsockname(), timeout=20)
        early.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        with start(store, notified, listening) as process:
            url = process.stdout.readline().strip()
            assert url == f"http://127.0.0.1:{listening.getsockname()[1]}"
            with early:
                assert early.recv(15) == b"HTTP/1.1 200 OK"
            assert Daemon(url, store).request("/readyz")[0] == 200
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=20)
        assert process.returncode == 0


def test_a_socket_for_other_machines_wants_tls_for_tokens(store):
    class Handing(Supervisor):
        def take_socket(self):
            return socket.create_server(("0.0.0.0", 0))

    access = AccessConfig(read="token", token_file=store / "tokens")
    with pytest.raises(Refused, match="plain http to"):
        asyncio.run(run(Config(store, access=access), ready=print, stop=asyncio.Event(), supervisor=Handing({})))


def test_what_is_meant_for_another_process_is_left_alone():
    assert Supervisor({"LISTEN_FDS": "1", "LISTEN_PID": "1"}).take_socket() is None
    assert Supervisor({"LISTEN_FDS": "one", "LISTEN_PID": str(os.getpid())}).take_socket() is None
    Supervisor({"NOTIFY_SOCKET": "/nothing/there"}).tell(READY="1")


def test_several_sockets_are_refused():
    with pytest.raises(Refused, match="2 sockets were handed over"):
        Supervisor({"LISTEN_FDS": "2", "LISTEN_PID": str(os.getpid())}).take_socket()


def test_an_abstract_address_is_told_too():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0pacball-test-{os.getpid()}")
        sock.settimeout(20)
        Supervisor({"NOTIFY_SOCKET": f"@pacball-test-{os.getpid()}"}).tell(READY="1", STATUS="well")
        assert sock.recv(100) == b"READY=1\nSTATUS=well"
