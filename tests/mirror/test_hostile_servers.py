"""HttpSource against servers that fail or lie: a clear error of the right kind, within bounded time, bytes and attempts."""

from __future__ import annotations

import contextlib
import random
import socket
import time
import tracemalloc
from dataclasses import replace

import pytest

from pacmirror.limits import ClientLimits
from pacmirror.source import HttpSource
from pacstore.digest import Digest
from pacstore.errors import Corrupt, NotFound, PacballError, Refused, TooLarge, Unavailable
from pacstore.source import PackRange
from tests.mirror.scripted import Drip, Pause, answer, part, playing

FAST = ClientLimits(
    connect_seconds=0.5,
    stall_seconds=0.3,
    answer_seconds=0.6,
    min_bytes_per_second=100_000,
    attempts=3,
    backoff_seconds=0.01,
    retry_after_seconds=0.05,
)
BODY = b"0123456789"
WANTED = PackRange(Digest(bytes(32)), 100, 10)
GOOD = part(BODY, 100)


def fetch(url: str) -> tuple[bytes, HttpSource]:
    with HttpSource(url, limits=FAST) as source:
        (_, data), *_ = list(source.ranges([WANTED]))
        return bytes(data), source


def read(url: str, limit: int = 100) -> bytes:
    with HttpSource(url, limits=FAST) as source:
        return source.read("store.json", limit=limit)


LIES = {
    "whole file instead": (answer("200 OK", BODY * 100), Corrupt, "ignores ranges"),
    "whole file of the same length": (answer("200 OK", BODY), Corrupt, "ignores ranges"),
    "another offset": (part(BODY, 101), Corrupt, "another range"),
    "another end": (part(BODY + b"x", 100), Corrupt, "another range"),
    "shorter range": (part(BODY[:5], 100), Corrupt, "another range"),
    "no content range": (answer("206 Partial Content", BODY), Corrupt, "another range"),
    "two parts": (answer("206 OK", BODY, "Content-Type: multipart/byteranges; boundary=x"), Corrupt, "another range"),
    "another length": (part(BODY, 100, length=11), Corrupt, "announces 11"),
    "absurd content range": (
        answer("206 OK", BODY, f"Content-Range: bytes {'9' * 5000}-1/2"),
        Corrupt,
        "another range",
    ),
    "compressed": (part(BODY, 100, "Content-Encoding: gzip"), Corrupt, "Content-Encoding gzip"),
    "web page": (answer("200 OK", b"<html>", "Content-Type: text/html"), Corrupt, "base URL"),
    "web page, 206": (part(BODY, 100, "Content-Type: Text/HTML; charset=x"), Corrupt, "base URL"),
    "nothing to say": (answer("204 No Content", length=-1), Corrupt, "another range"),
    "beyond the end": (answer("416 Range Not Satisfiable"), Corrupt, "shorter"),
    "redirect": (answer("302 Found", b"", "Location: http://evil.example/\x1b[2J"), Refused, "evil.example"),
    "permanent redirect": (answer("308 Permanent Redirect", b"", "Location: /x"), Refused, "not followed"),
    "not there": (answer("404 Not Found", b"<html>", "Content-Type: text/html"), NotFound, "404"),
    "gone": (answer("410 Gone"), NotFound, "410"),
    "unauthorized": (answer("401 Unauthorized"), Refused, "denies"),
    "forbidden": (answer("403 Forbidden"), Refused, "denies"),
    "teapot": (answer("418 I'm a teapot"), Refused, "418"),
}


@pytest.mark.parametrize(("said", "kind", "words"), LIES.values(), ids=LIES.keys())
def test_definite_answers_are_not_asked_again(said, kind, words):
    with playing([said]) as script, pytest.raises(kind, match=words) as caught:
        fetch(script.url)
    assert type(caught.value) is kind
    assert len(script.requests) == 1
    assert script.url in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_endless_chunks_are_too_large():
    chunked = b"HTTP/1.1 206 OK\r\nContent-Range: bytes 100-109/1000\r\nTransfer-Encoding: chunked\r\n\r\n"
    with playing([chunked, Drip(b"1000\r\n" + b"x" * 4096 + b"\r\n", 0)]) as script, pytest.raises(TooLarge):
        fetch(script.url)
    whole = chunked.replace(b"206", b"200")
    with playing([whole, Drip(b"1000\r\n" + b"x" * 4096 + b"\r\n", 0)]) as script, pytest.raises(TooLarge):
        read(script.url)


def test_the_end_of_the_stream_is_not_the_end_of_the_file():
    with playing([answer("200 OK", BODY, length=-1)]) as script, pytest.raises(Corrupt, match="how long"):
        read(script.url)
    with (
        playing([answer("200 OK", BODY, length=11)]) as script,
        pytest.raises(Unavailable, match="before the body did"),
    ):
        read(script.url)


def test_chunks_have_an_end():
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n"
    with playing([chunked]) as script:
        assert read(script.url) == BODY


def test_a_huge_announcement_costs_no_memory():
    with playing([answer("200 OK", b"", length=1 << 50), Drip(b"x" * 65536, 0)]) as script:
        tracemalloc.start()
        try:
            with pytest.raises(TooLarge):
                read(script.url, limit=1 << 20)
            assert tracemalloc.get_traced_memory()[1] < 16 << 20
        finally:
            tracemalloc.stop()


PASSING = {
    "closed at once": [b""],
    "closed in the header": [GOOD[:30]],
    "closed in the body": [GOOD[:-1]],
    "silent": [Pause(30)],
    "silent in the header": [GOOD[:30], Pause(30)],
    "silent in the body": [GOOD[:-1], Pause(30)],
    "no HTTP": [b"SSH-2.0-OpenSSH_9.2\r\n\r\n"],
    "half a status": [b"HTTP/1.1 2\r\n\r\n"],
    "huge header": [b"HTTP/1.1 206 OK\r\nA: " + b"x" * 100_000 + b"\r\n\r\n"],
    "endless header": [b"HTTP/1.1 206 OK\r\n", Drip(b"A: b\r\n", 0)],
    "two lengths": [part(BODY, 100, "Content-Length: 9")],
    "failing": [answer("500 Oops", b"<html>", "Content-Type: text/html")],
    "busy": [answer("503 Busy", b"", "Retry-After: 86400")],
    "too many": [answer("429 Too Many", b"", "Retry-After: Sun, 22 Nov 2026 10:00:00 GMT")],
    "broken chunks": [
        b"HTTP/1.1 206 OK\r\nContent-Range: bytes 100-109/1000\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"
    ],
}

CLOSED_WITHOUT_ANSWER = (PASSING["closed at once"], PASSING["closed in the header"])
"""aiohttp itself asks once more, as for a kept-alive connection that has just ended."""


@pytest.mark.parametrize("steps", PASSING.values(), ids=PASSING.keys())
def test_what_may_pass_is_asked_again(steps):
    with playing(steps, steps, [GOOD]) as script:
        data, source = fetch(script.url)
    assert data == BODY
    assert len(script.requests) == 3
    assert source.traffic.retries == (1 if steps in CLOSED_WITHOUT_ANSWER else 2)


@pytest.mark.parametrize("steps", PASSING.values(), ids=PASSING.keys())
def test_what_does_not_pass_ends_after_all_attempts(steps):
    began = time.monotonic()
    with playing(steps) as script, pytest.raises(Unavailable, match=r"3 times .*another source") as caught:
        fetch(script.url)
    assert type(caught.value) is Unavailable
    assert len(script.requests) == (6 if steps in CLOSED_WITHOUT_ANSWER else 3)
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("steps", [[GOOD[:-10], Drip(b"0", 0.2)], [GOOD[:20], Drip(b"x", 0.2)]], ids=["body", "header"])
def test_a_drip_meets_the_total_deadline(steps):
    began = time.monotonic()
    with playing(steps) as script, pytest.raises(Unavailable, match="too slowly"):
        fetch(script.url)
    assert time.monotonic() - began < 60


def test_nobody_there():
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(Unavailable, match="cannot be connected to: connection refused"):
        fetch(url)


def test_plain_http_where_tls_is_expected():
    with playing([b"HTTP/1.1 400 Bad Request\r\n\r\n"]) as script, pytest.raises(Unavailable):
        fetch(script.url.replace("http:", "https:"))


def test_one_bad_range_stops_the_others():
    wanted = [WANTED] * 40
    with (
        playing([GOOD], [answer("404 Not Found")], [Pause(30)]) as script,
        HttpSource(script.url, limits=FAST) as source,
        pytest.raises(NotFound),
    ):
        list(source.ranges(wanted))
    assert len(script.requests) <= 8


def mutate(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(changed))
        changed[at : at + chance.randint(0, 1)] = chance.choice([b"", b"\r", b"\n", b"\0", b" ", b":", b"\xff", b"9"])
    return bytes(changed)


def test_garbled_answers_give_our_errors_or_bytes_of_the_right_length():
    chance = random.Random(1)
    once = replace(FAST, attempts=1)
    with playing(*[[mutate(GOOD, chance)] for _ in range(300)]) as script:
        for _ in range(200):
            with HttpSource(script.url, limits=once) as source, contextlib.suppress(PacballError):
                assert [len(data) for _, data in source.ranges([WANTED])] == [10]
