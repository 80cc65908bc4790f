"""HttpSource against our own daemon: the protocol's promises."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest
from yarl import URL

from pacmirror.limits import ClientLimits
from pacmirror.source import HttpSource, parse_base_url
from pacstore.digest import Digest
from pacstore.errors import NotFound, Refused, TooLarge, Unavailable
from pacstore.source import PackRange, Source
from tests.mirror.daemons import PACK, PACK_ID, RELEASE
from tests.mirror.scripted import Pause, part, playing

if TYPE_CHECKING:
    CONFORMS: type[Source] = HttpSource

PACK_DIGEST = Digest.parse(PACK_ID)


def cut(count: int, length: int) -> list[PackRange]:
    return [PackRange(PACK_DIGEST, n * length, length) for n in range(count)]


@pytest.fixture
def source(daemon):
    with HttpSource(daemon.url) as one:
        yield one


def test_read_gives_whole_files(source):
    assert source.read(f"holdings/{RELEASE}", limit=100) == b'{"format":1}\n'
    assert source.read(f"packs/ab/{PACK_ID}", limit=len(PACK)) == PACK
    assert source.traffic.bytes_downloaded == len(PACK) + 13
    assert (source.traffic.requests, source.traffic.retries) == (2, 0)


def test_read_is_limited_and_absence_definite(source):
    with pytest.raises(TooLarge):
        source.read(f"packs/ab/{PACK_ID}", limit=len(PACK) - 1)
    with pytest.raises(NotFound):
        source.read("holdings/Absent-1-x", limit=100)
    assert source.traffic.retries == 0


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/store.json",
        "../store.json",
        "a//b",
        "a/../b",
        "a/%2e",
        "a?b?c",
        "a?b/c",
        "?a",
        "a?b#c",
        "a#b",
        "a b",
        "http://x/y",
    ],
)
def test_strange_paths_are_never_asked_for(source, path):
    with pytest.raises(Refused):
        source.read(path, limit=100)
    assert source.traffic.requests == 0


@pytest.mark.parametrize(("count", "length"), [(0, 1), (1, len(PACK)), (48, 65536), (300, 1)])
def test_ranges_come_complete_in_any_order(source, count, length):
    wanted = cut(count, length)
    got = list(source.ranges(wanted))
    assert sorted(one.offset for one, _ in got) == [one.offset for one in wanted]
    assert all(data == PACK[one.offset : one.offset + length] for one, data in got)
    assert source.traffic.bytes_downloaded == count * length


def test_an_empty_range_needs_no_request(source):
    assert list(source.ranges([PackRange(PACK_DIGEST, 5, 0)])) == [(PackRange(PACK_DIGEST, 5, 0), b"")]
    assert source.traffic.requests == 0


def test_a_missing_pack_ends_the_iterator(source):
    absent = PackRange(Digest(bytes(32)), 0, 10)
    with pytest.raises(NotFound, match="0000"):
        list(source.ranges([*cut(2, 100), absent, *cut(2, 100)]))


def test_ranges_that_nobody_could_hold_are_refused(source):
    with pytest.raises(Refused):
        list(source.ranges([PackRange(PACK_DIGEST, 0, 1 << 40)]))


def test_no_more_than_parallel_ranges_wait_for_the_caller(daemon):
    with HttpSource(daemon.url, limits=ClientLimits(parallel=3)) as source:
        iterator = source.ranges(cut(48, 65536))
        next(iterator)
        time.sleep(0.3)
        assert source.traffic.requests <= 4
        iterator.close()


def test_an_iterator_may_be_left_early_or_forgotten(source):
    for _ in range(20):
        next(source.ranges(cut(48, 65536)))
    gc.collect()
    assert len(list(source.ranges(cut(4, 65536)))) == 4


def test_threads_share_a_source(source):
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(len(list(source.ranges(cut(20, 1000)))))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [20] * 6


def test_close_wakes_those_who_wait():
    with playing([Pause(30)]) as script:
        source = HttpSource(script.url)
        errors = []

        def wait(ask):
            try:
                ask()
            except Unavailable as error:
                errors.append(str(error))

        asks = [lambda: source.read("store.json", limit=10), lambda: list(source.ranges(cut(4, 10)))]
        threads = [threading.Thread(target=wait, args=(ask,)) for ask in asks]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        source.close()
        for thread in threads:
            thread.join(5)
        assert len(errors) == 2
        assert all("closed" in error for error in errors)


def test_a_closed_source_says_so(daemon):
    source = HttpSource(daemon.url)
    iterator = source.ranges(cut(48, 65536))
    next(iterator)
    source.close()
    source.close()
    with pytest.raises(Unavailable, match="closed"):
        list(iterator)
    with pytest.raises(Unavailable, match="closed"):
        source.read("store.json", limit=100)


@pytest.mark.parametrize("ask", [lambda s: s.read("store.json", limit=10), lambda s: next(s.ranges(cut(4, 10)))])
def test_an_interrupt_is_not_swallowed(ask):
    with playing([Pause(30)]) as script, HttpSource(script.url) as source:
        began = time.monotonic()
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            ask(source)
        timer.join()
        assert time.monotonic() - began < 60


def test_what_is_sent():
    with playing([part(b"abc", 7)]) as script, HttpSource(f"{script.url}/base/", user_agent="test/1") as source:
        assert [bytes(data) for _, data in source.ranges([PackRange(PACK_DIGEST, 7, 3)])] == [b"abc"]
    request = script.requests[0].lower()
    assert request.startswith(f"get /base/packs/ab/{PACK_ID} http/1.1\r\n")
    assert "\r\nrange: bytes=7-9\r\n" in request
    assert "\r\naccept-encoding: identity\r\n" in request
    assert "\r\nuser-agent: test/1\r\n" in request
    assert "if-range" not in request
    assert "cache-control" not in request


@pytest.mark.parametrize(
    ("path", "fresh"),
    [
        ("store.json", True),
        (f"holdings/{RELEASE}", True),
        ("catalog/timestamp.json", True),
        ("catalog/3.root.json", False),
    ],
)
def test_changing_files_are_asked_for_afresh(path, fresh):
    said = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nSet-Cookie: a=b\r\nConnection: close\r\n\r\n"
    with playing([said]) as script, HttpSource(script.url) as source:
        assert source.read(path, limit=10) == source.read(path, limit=10) == b""
    assert [("cache-control: no-cache" in request.lower()) for request in script.requests] == [fresh, fresh]
    assert not any("cookie" in request.lower() for request in script.requests)


def test_base_urls():
    assert parse_base_url("https://mirror.example:8443/pacball/") == "https://mirror.example:8443/pacball"
    assert parse_base_url("http://[::1]:80") == "http://[::1]"


@pytest.mark.parametrize(
    "text",
    [
        "ftp://me:secret@mirror.example/x",
        "https://me:secret@mirror.example/x",
        "https://me:secret/@mirror.example:0/x",
        "https://mirror.example/x?token=secret",
        "https://mirror.example/x#secret",
        "https://me:secret@mirror.example/\n",
    ],
)
def test_a_wrong_base_url_is_named_without_its_secrets(text):
    with pytest.raises(Refused) as caught:
        parse_base_url(text)
    assert "mirror.example" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mirror.example",
        "ftp://x/",
        "file:///etc",
        "http://",
        "http://u:p@x/",
        "http://u@x/",
        "http://x/?a",
        "http://x/#a",
        "http://x:99999/",
        "http://x/\n",
    ],
)
def test_no_base_urls(text):
    with pytest.raises(Refused, match=r"write for example https://") as caught:
        HttpSource(text)
    assert "u:p" not in str(caught.value)


def test_files_may_be_elsewhere_than_in_a_store(daemon):
    """Storage of others has layouts of its own."""
    pack = URL(f"{daemon.url}/packs/ab/{PACK_ID}")

    def locate(path):
        if path.endswith(PACK_ID):
            return pack
        raise NotFound("has no replica of it", place=path)

    with HttpSource(daemon.url, name="SITE-A", locate=locate) as source:
        assert source.name == "SITE-A"
        assert [bytes(data) for _, data in source.ranges(cut(1, 100))] == [PACK[:100]]
        assert source.start_tail(PACK_DIGEST, length=10).result.result(10).data == PACK[-10:]
        with pytest.raises(NotFound, match="no replica"):
            list(source.ranges([PackRange(Digest(bytes(32)), 0, 1)]))
        assert not source.states()[0].is_bad
        with pytest.raises(NotFound):
            source.read("store.json", limit=100)


@pytest.mark.parametrize("elsewhere", ["http://127.0.0.2:1/x", "https://127.0.0.1/x", "http://127.0.0.1:1/x"])
def test_nothing_is_asked_of_another_server_than_the_one_that_it_is_for(daemon, elsewhere):
    """Its token, and its proxy, are for none other."""
    with HttpSource(daemon.url, locate=lambda _: URL(elsewhere)) as source:
        with pytest.raises(Refused, match="is not below"):
            source.read("store.json", limit=100)
        assert source.traffic.requests == 0
