"""Requests that no honest client sends: refused, bounded in time, and never answered with a byte too many."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from dataclasses import replace

import pytest

from pacmirror.limits import ServerLimits
from tests.mirror.daemons import PACK, PACK_ID, parse_answer, receive_all, running

FAST = ServerLimits(header_seconds=0.4, body_seconds=0.3, write_seconds=0.5, write_bytes=65536, drain_seconds=0.5)
GET = b"GET /store.json HTTP/1.1\r\nHost: x\r\n"

REFUSED = {
    "two lengths": GET + b"Content-Length: 0\r\nContent-Length: 5\r\n\r\n",
    "length and chunks": GET + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "negative length": GET + b"Content-Length: -1\r\n\r\n",
    "length with a sign": GET + b"Content-Length: +1\r\n\r\nx",
    "huge header": GET + b"A: " + b"x" * 9_000 + b"\r\n\r\n",
    "many headers": GET + b"".join(b"A%d: x\r\n" % n for n in range(200)) + b"\r\n",
    "huge path": b"GET /" + b"x" * 9_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "space before the colon": GET + b"A : x\r\n\r\n",
    "folded header": GET + b"A: x\r\n y\r\n\r\n",
    "NUL in a header": GET + b"A: x\x00y\r\n\r\n",
    "bare line feed in a name": GET + b"A\nB: x\r\n\r\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "another version": b"GET /store.json HTTP/9.9\r\nHost: x\r\n\r\n",
    "another encoding": GET + b"Transfer-Encoding: gzip\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", REFUSED.values(), ids=REFUSED.keys())
def test_malformed_requests_are_refused_and_the_connection_closed(daemon, request_bytes):
    answer = daemon.exchange(request_bytes + GET + b"\r\n", end=True)
    assert answer[:10] in (b"HTTP/1.1 4", b"HTTP/1.0 4", b""), answer[:200]
    assert b"pacball store" not in answer


@pytest.mark.parametrize("target", ["http://evil.example/../../private/secret", "//private/secret", "*", "evil:443"])
def test_strange_targets_find_nothing(daemon, target):
    status, _, body = daemon.request(target)
    assert 400 <= status < 500
    assert b"secret" not in body.replace(target.encode(), b"")


def test_an_absolute_target_names_the_same_file(daemon):
    assert daemon.request(f"http://mirror.example/packs/ab/{PACK_ID}")[2] == PACK


@pytest.mark.parametrize("start", [b"", b"GET /sto", GET, GET + b"A: x"])
def test_a_connection_without_a_whole_header_is_closed(store, start):
    with running(store, FAST) as daemon:
        began = time.monotonic()
        assert daemon.exchange(start, timeout=30) == b""
        assert time.monotonic() - began < 60


def test_a_second_half_header_is_closed_too(store):
    with running(store, FAST) as daemon:
        began = time.monotonic()
        assert daemon.exchange(GET + b"\r\n" + b"GET /st", timeout=30).count(b"HTTP/1.1 ") == 1
        assert time.monotonic() - began < 60


def test_a_dripping_header_is_closed(store):
    with running(store, FAST) as daemon, socket.create_connection(daemon.address, timeout=30) as sock:
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - began < 60:
                sock.sendall(b"A")
                time.sleep(0.05)
        assert time.monotonic() - began < 60


def test_an_unfinished_body_is_not_waited_for(store):
    with running(store, FAST) as daemon:
        began = time.monotonic()
        answer = daemon.exchange(GET + b"Content-Length: 1000\r\n\r\nabc", timeout=30)
        assert parse_answer(answer)[0] == 200
        assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    "header", [b"Content-Length: 65537", b"Content-Length: 99999999999", b"Transfer-Encoding: chunked"]
)
def test_a_body_that_nobody_asked_for_is_refused_and_not_read(store, header):
    with running(store, FAST) as daemon:
        began = time.monotonic()
        answer = daemon.exchange(GET + header + b"\r\n\r\n5\r\nabcde\r\n", timeout=30)
        assert parse_answer(answer)[0] == 413
        assert answer.count(b"HTTP/1.1") == 1
        assert time.monotonic() - began < 60


def test_connections_are_counted_off_again(store):
    with running(store, FAST) as daemon:
        for _ in range(3):
            assert b" 400 " in daemon.exchange(b"junk\r\n\r\n")
        deadline = time.monotonic() + 20
        while daemon.status()["requests"]["connections"] != 1:
            assert time.monotonic() < deadline


def test_a_reader_that_stops_is_cut_off(store):
    (store / f"public/packs/ab/{PACK_ID}").write_bytes(bytes(32 << 20))
    with running(store, FAST) as daemon, socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(30)
        sock.connect(daemon.address)
        sock.sendall(f"GET /packs/ab/{PACK_ID} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        time.sleep(1.3)
        began = time.monotonic()
        assert len(receive_all(sock)) < 32 << 20
        assert time.monotonic() - began < 60


def test_too_many_connections_are_told_so(store):
    with running(store, replace(ServerLimits(drain_seconds=0.5), connections=2)) as daemon:
        held = [socket.create_connection(daemon.address, timeout=30) for _ in range(2)]
        for sock in held:
            sock.sendall(GET + b"\r\n")
            assert sock.recv(12) == b"HTTP/1.1 200"
        assert parse_answer(daemon.exchange(b""))[0] == 503
        # Also who has asked already gets the answer, and no reset.
        assert parse_answer(daemon.exchange(GET + b"\r\n" + bytes(100_000)))[0] == 503
        for sock in held:
            sock.close()
        deadline = time.monotonic() + 2
        while daemon.request("/store.json")[0] != 200:
            assert time.monotonic() < deadline


def test_pipelined_requests_are_answered_in_order(daemon):
    answer = daemon.exchange(GET + b"\r\n" + GET.replace(b"store.json", b"nothing") + b"Connection: close\r\n\r\n")
    assert answer.index(b"HTTP/1.1 200") < answer.index(b"HTTP/1.1 404")


def test_a_file_that_shrinks_while_it_is_sent_cuts_the_connection(store):
    pack = store / f"public/packs/ab/{PACK_ID}"
    pack.write_bytes(bytes(32 << 20))
    with running(store) as daemon, socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(30)
        sock.connect(daemon.address)
        sock.sendall(f"GET /packs/ab/{PACK_ID} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        sock.recv(100)
        os.truncate(pack, 100)
        rest = receive_all(sock)
        assert len(rest) < 32 << 20
        assert b"error" not in rest
