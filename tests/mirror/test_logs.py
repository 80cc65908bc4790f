"""What is logged and counted: for people and for programs, with ids that lead from an answer to the log, and nothing forged."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import struct
import subprocess
import sys

import pytest

from pacmirror.config import LogConfig
from pacmirror.logs import FIELDS, JsonLines, TextLines
from tests.mirror.daemons import PACK, PACK_ID, Daemon, running

PACK_PATH = f"/packs/ab/{PACK_ID}"
PROGRAM = """
import sys; from pathlib import Path
from pacmirror.config import Config, LogConfig; from pacmirror.serve import serve
log = LogConfig(style=sys.argv[2], requests=sys.argv[3] == "requests")
serve(Config(Path(sys.argv[1]), port=0, log=log), ready=lambda url: print(url, flush=True))
"""


def record(message, *words, level=logging.INFO, **fields):
    made = logging.LogRecord("pacmirror.x", level, "x.py", 1, message, words, None)
    made.created = 1_800_000_000.25
    setattr(made, FIELDS, fields)
    return made


def test_lines_for_people():
    assert TextLines().format(record("all is %s", "well")) == "2027-01-15T08:00:00.250Z all is well"
    assert TextLines().format(record("no", level=logging.ERROR, request_id="r1")).endswith("Z error: no [r1]")
    assert TextLines(in_journal=True).format(record("no", level=logging.WARNING)) == "<4>warning: no"


def test_lines_for_programs():
    line = json.loads(JsonLines().format(record("all is %s", "well", request_id="r1", status=200)))
    assert line == {
        "time": "2027-01-15T08:00:00.250Z",
        "level": "info",
        "logger": "pacmirror.x",
        "message": "all is well",
        "request_id": "r1",
        "status": 200,
    }


@pytest.mark.parametrize("formatter", [TextLines(), JsonLines(), TextLines(in_journal=True)])
def test_nobody_forges_a_line(formatter):
    assert formatter.format(record("asked for %s", "/x\n2027 all is well\x1b[31m")).isprintable()


def test_a_request_keeps_its_id_and_gets_one_if_it_has_none(daemon):
    assert daemon.request("/nothing", "X-Request-Id: site-4711")[1]["x-request-id"] == "site-4711"
    status, _, body = daemon.request("/nothing", "X-Request-Id: site-4711")
    assert (status, json.loads(body)["request_id"]) == (404, "site-4711")
    for given in ["", "abc", "a b c d", "x" * 129, '"quoted"', "\u00e4\u00e4\u00e4\u00e4", "-abcd"]:
        made = daemon.request("/healthz", f"X-Request-Id: {given}")[1]["x-request-id"]
        assert made != given
        assert len(made) == 16
    twice = daemon.request("/healthz", "X-Request-Id: first-one", "X-Request-Id: second-one")[1]["x-request-id"]
    assert twice not in ("first-one", "second-one")


def lines_of(store, style, requests, ask):
    """What a daemon logs while `ask` talks to it."""
    environment = {name: value for name, value in os.environ.items() if name != "JOURNAL_STREAM"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, "-W", "error", "-c", PROGRAM, str(store), style, requests]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        ask(Daemon(process.stdout.readline().strip(), store))
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    return err.splitlines()


def test_each_request_is_a_line_that_programs_can_read(store):
    def ask(daemon):
        daemon.request(PACK_PATH, "Range: bytes=0-999", "X-Request-Id: site-4711")
        daemon.request("/no%0athing")
        daemon.exchange(b"nonsense\r\n\r\n")

    lines = [json.loads(line) for line in lines_of(store, "json", "requests", ask)]
    first, second, third = [line for line in lines if line["logger"] == "pacmirror.requests"]
    assert 0 <= first.pop("seconds") < 60
    assert first.pop("time")
    assert first == {
        "level": "info",
        "logger": "pacmirror.requests",
        "message": first["message"],
        "request_id": "site-4711",
        "client": "127.0.0.1",
        "method": "GET",
        "path": PACK_PATH,
        "status": 206,
        "bytes": 1000,
        "served": "held",
        "range": "bytes=0-999",
    }
    assert (second["status"], second["path"]) == (404, "/no%0athing")
    assert third["status"] == 400


def test_requests_need_not_be_logged(store):
    def ask(daemon):
        daemon.request("/healthz", "X-Request-Id: site-4711")

    assert not any("/healthz" in line for line in lines_of(store, "text", "quiet", ask))
    (line,) = (line for line in lines_of(store, "text", "requests", ask) if "/healthz" in line)
    assert "127.0.0.1 GET /healthz 200 16 bytes" in line
    assert line.endswith("[site-4711]")


def test_a_client_that_goes_in_the_middle_is_said_to_have_gone(store):
    def ask(daemon):
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.connect(daemon.address)
            sock.sendall(f"GET {PACK_PATH} HTTP/1.1\r\nHost: x\r\nX-Request-Id: site-4711\r\n\r\n".encode())
            assert sock.recv(100)

    [line] = [line for line in lines_of(store, "text", "quiet", ask) if "not sent to its end" in line]
    assert line.endswith(f"Z {PACK_PATH} was not sent to its end: the client has gone [site-4711]")


def test_what_clients_get_is_counted(store):
    with running(store, log=LogConfig(requests=False)) as daemon:
        daemon.get(PACK_PATH)
        daemon.request(PACK_PATH, "Range: bytes=0-999")
        daemon.request("/nothing")
        daemon.exchange(b"nonsense\r\n\r\n")
        metrics, status = daemon.metrics(), daemon.status()["requests"]
    assert metrics['pacball_requests_total{kind="packs",status="2xx"}'] == 2
    assert metrics['pacball_requests_total{kind="other",status="4xx"}'] == 2
    assert metrics['pacball_sent_bytes_total{kind="packs",served="held"}'] == len(PACK) + 1000
    assert not [name for name in metrics if 'served="held"' in name and 'kind="packs"' not in name]
    assert metrics['pacball_sent_bytes_total{kind="other",served="other"}'] > 100
    assert metrics["pacball_request_seconds_count"] == metrics['pacball_request_seconds_bucket{le="+Inf"}'] == 4
    assert metrics["pacball_connections"] == 1
    assert (status["answered"], status["failed"], status["connections"]) == (5, 0, 1)
