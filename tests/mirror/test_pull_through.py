"""A mirror that fetches what is asked for, seen by its clients over HTTP."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
import threading

import pytest

from pacmirror.config import AccessConfig, UpstreamConfig
from pacmirror.limits import CacheLimits, ServerLimits
from pacstore.ledger import packs
from pacstore.ledger.packs import PackState
from pacstore.store import Store
from tests.e2e.site import free_port
from tests.mirror import mischief
from tests.mirror.daemons import Daemon, eventually, parse_answer, receive_all, running
from tests.mirror.mirrors import files_of
from tests.mirror.mischief import serving, waiting_for
from tests.store.packs import noise_pack

PACK = noise_pack(40, 30_000)
FILES = files_of(PACK)
ETAG = f'"b3-{PACK.id}"'
PATH = f"/{PACK.path}"
SIZE = len(PACK.data)


@contextlib.contextmanager
def mirroring(where, *upstreams, limits=None):
    """A mirror's daemon."""
    urls = tuple(one if isinstance(one, str) else one.url for one in upstreams)
    with running(where / "mirror", limits, upstream=UpstreamConfig(urls=urls)) as daemon:
        yield daemon


def is_public(daemon):
    return (daemon.store / "public" / PACK.path).exists()


def wait_for_public(daemon):
    pause = threading.Event()
    while not is_public(daemon):
        pause.wait(0.02)


def test_a_pack_comes_whole_and_stays(tmp_path):
    with serving(FILES) as origin, mirroring(tmp_path, origin) as mirror:
        status, headers, body = mirror.request(PATH)
        assert (status, headers["etag"], body) == (200, ETAG, PACK.data)
        assert headers["cache-control"] == "public, max-age=31536000, immutable, no-transform"
        wait_for_public(mirror)
        asked = len(origin.packs_asked())
        assert mirror.get(PATH) == PACK.data
        assert len(origin.packs_asked()) == asked
        # Counted once it is durable, which is a little after others can see it.
        while (counted := mirror.status()["cache"])["packs_completed"] != 1:
            assert counted["packs_completed"] == 0
        assert (counted["misses"], counted["hits"]) == (1, 1)
        assert counted["disk_bytes"] == 2 * SIZE
        metrics = mirror.metrics()
        assert metrics['pacball_cache_bytes_total{source="upstream"}'] > 0.9 * SIZE
        assert metrics["pacball_cache_hits_total"] == 1
        assert mirror.status()["upstreams"]["sources"][0]["state"] == "good"


RANGES = [
    (0, 1), (0, 8), (4, 100), (8, 30_000), (29_999, 30_020), (100_000, 500_000), (SIZE - 1, SIZE), (SIZE - 16, SIZE),
    (SIZE - 20_000, SIZE), (PACK.frames.begin(40), PACK.frames.begin(40) + 5), (PACK.frames.begin(40) - 1, SIZE - 3),
]  # fmt: skip


@pytest.mark.parametrize("order", [1, -1])
def test_ranges_are_cut_from_what_is_fetched_and_what_is_held(tmp_path, order):
    with serving(FILES) as origin, mirroring(tmp_path, origin) as mirror:
        for first, end in RANGES[::order]:
            status, headers, body = mirror.request(PATH, f"Range: bytes={first}-{end - 1}")
            assert (status, body) == (206, PACK.data[first:end])
            assert headers["content-range"] == f"bytes {first}-{end - 1}/{SIZE}"
        assert not is_public(mirror)
        assert origin.bytes_sent < 0.9 * SIZE
        status, _, body = mirror.request(PATH, "Range: bytes=-100")
        assert (status, body) == (206, PACK.data[-100:])


def test_it_is_told_how_each_byte_was_served(tmp_path):
    with serving(FILES) as origin, mirroring(tmp_path, origin) as mirror:
        for _ in range(2):
            mirror.request(PATH, "Range: bytes=8-1007")
        metrics = mirror.metrics()
        mirror.get(PATH)
        wait_for_public(mirror)
        mirror.get(PATH)
        later = mirror.metrics()
    sent = 'pacball_sent_bytes_total{{kind="packs",served="{}"}}'
    assert (metrics[sent.format("fetched")], metrics[sent.format("partial")]) == (1000, 1000)
    assert (later[sent.format("fetched")], later[sent.format("held")]) == (1000 + SIZE, SIZE)


def test_heads_and_conditions_are_those_of_any_file(tmp_path):
    with serving(FILES) as origin, mirroring(tmp_path, origin) as mirror:
        status, headers, body = mirror.request(PATH, method="HEAD")
        assert (status, headers["content-length"], headers["etag"], body) == (200, str(SIZE), ETAG, b"")
        assert mirror.request(PATH, f"If-None-Match: {ETAG}")[0] == 304
        assert mirror.request(PATH, 'If-Match: "other"')[0] == 412
        status, headers, _ = mirror.request(PATH, f"Range: bytes={SIZE}-")
        assert (status, headers["content-range"]) == (416, f"bytes */{SIZE}")
        status, _, body = mirror.request(PATH, "Range: bytes=8-9", 'If-Range: "other"')
        assert (status, body) == (200, PACK.data)
        status, _, body = mirror.request(PATH, "Range: bytes=8-9", f"If-Range: {ETAG}")
        assert (status, body) == (206, PACK.data[8:10])
        assert mirror.request(PATH, "Range: bytes=0-1,5-6")[2] == PACK.data


def test_a_head_fetches_no_frames(tmp_path):
    with serving(FILES) as origin, mirroring(tmp_path, origin) as mirror:
        assert mirror.request(PATH, method="HEAD")[0] == 200
        assert mirror.request(PATH, method="HEAD")[0] == 200
        assert len(origin.packs_asked()) == 1


def test_the_first_byte_comes_before_the_pack_zot_2416(tmp_path):
    """zot#2416: a client got nothing before its mirror had everything."""
    with serving(FILES, bytes_per_second=1e6) as origin, mirroring(tmp_path, origin) as mirror:
        with socket.create_connection(mirror.address, timeout=30) as sock:
            sock.sendall(f"GET {PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            received = b""
            while received.find(b"\r\n\r\n") < 0 or len(received.partition(b"\r\n\r\n")[2]) < 10_000:
                received += sock.recv(1000)
            sent = origin.bytes_sent
            received += receive_all(sock)
        assert parse_answer(received)[2] == PACK.data
    assert sent < 64 * 1024 + 8 * 30_000


def test_who_leaves_stops_nothing_and_who_comes_late_joins_zot_3359(tmp_path):
    with serving(FILES, bytes_per_second=2e6) as origin, mirroring(tmp_path, origin) as mirror:
        with socket.create_connection(mirror.address, timeout=30) as sock:
            sock.sendall(f"GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert sock.recv(100)
        assert mirror.get(PATH) == PACK.data
        assert mirror.status()["cache"]["joins"] == 1
        wait_for_public(mirror)
    assert origin.bytes_sent < 1.06 * SIZE


def test_a_hundred_clients_are_one_pull_distribution_3969(tmp_path):
    """distribution#3969: N clients, N pulls."""
    bodies = []
    with serving(FILES, bytes_per_second=4e6) as origin, mirroring(tmp_path, origin) as mirror:
        threads = [threading.Thread(target=lambda: bodies.append(mirror.get(PATH) == PACK.data)) for _ in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert bodies == [True] * 100
    assert origin.bytes_sent < 1.06 * SIZE


def test_what_is_absent_is_404_and_what_is_not_known_never_cvmfs_4270(tmp_path):
    """cvmfs#4270: an error was taken for absence."""
    with serving(files_of(noise_pack(2))) as empty, mirroring(tmp_path, empty) as mirror:
        status, headers, body = mirror.request(PATH)
        assert (status, headers["cache-control"]) == (404, "no-store")
        assert b'"NotFound"' in body
        empty_url = empty.url
    with mirroring(tmp_path, empty_url) as mirror:  # nothing listens there now
        status, headers, body = mirror.request(PATH)
        assert (status, headers["cache-control"]) == (504, "no-store")
        assert b"cannot be connected to" in body
        assert json.loads(body)["error"] == "Unavailable"  # one of the kinds that openapi.json lists


def test_wrong_bytes_are_502_and_none_of_them_passes(tmp_path):
    with serving(FILES, mischief.of_packs(mischief.flip, first=1)) as liar, mirroring(tmp_path, liar) as mirror:
        status, headers, body = mirror.request(PATH)
        assert (status, headers["cache-control"]) == (502, "no-store")
        assert b"gives wrong bytes" in body
        assert mirror.status()["upstreams"]["sources"][0]["state"] == "wrong"
        assert any("in quarantine" in warning for warning in mirror.status()["warnings"])


def test_what_is_held_is_served_while_the_upstream_is_down(tmp_path):
    with serving(FILES) as origin, mirroring(tmp_path, origin) as mirror:
        url = origin.url
        assert mirror.request(PATH, "Range: bytes=30008-60007")[0] == 206
    with mirroring(tmp_path, url) as mirror:
        status, _, body = mirror.request(PATH, "Range: bytes=30008-60007")
        assert (status, body) == (206, PACK.data[30008:60008])
        assert mirror.request(PATH, "Range: bytes=60008-60010")[0] == 504
        assert mirror.request(PATH, method="HEAD")[0] == 200


def test_an_upstream_that_fails_in_the_middle_cuts_the_body_ncps_1155(tmp_path):
    """ncps#1155: what ended early was taken for complete."""

    def fault(request):
        late = request.path == PACK.path and request.offset > SIZE // 2 and request.status == 206
        return (lambda handler, _: handler.header(500, {"Content-Length": 0})) if late and request.number > 3 else None

    with serving(FILES, fault) as origin, mirroring(tmp_path, origin) as mirror:
        with contextlib.suppress(ConnectionError):
            status, headers, body = mirror.request(PATH)
            assert status in (200, 504)
            if status == 200:
                assert headers["content-length"] == str(SIZE)
                assert len(body) < SIZE
                assert body == PACK.data[: len(body)]
        assert not is_public(mirror)


def test_a_damaged_partial_pack_is_not_served_and_healed(tmp_path):
    with serving(FILES) as origin:
        with mirroring(tmp_path, origin) as mirror:
            mirror.request(PATH, "Range: bytes=8-300000")
        file = tmp_path / "mirror/private/partial" / PACK.id.hex[:2] / PACK.id.hex
        with file.open("r+b") as opened:
            opened.seek(100_000)
            opened.write(b"flipped")
        with mirroring(tmp_path, origin) as mirror:
            assert mirror.get(PATH) == PACK.data
            wait_for_public(mirror)


def test_a_daemon_without_upstreams_fetches_nothing(daemon):
    assert daemon.request(PATH)[0] == 404
    assert "cache" not in daemon.status()


def test_the_ledger_learns_what_is_here_and_when_it_was_used(tmp_path):
    small = noise_pack(3, 100_000, seed="small")
    limits = ServerLimits(cache=CacheLimits(record_seconds=0.05))
    with serving(files_of(PACK, small)) as origin, mirroring(tmp_path, origin, limits=limits) as mirror:
        mirror.get(f"/{small.path}")
        mirror.request(PATH, "Range: bytes=100000-200000")
        with Store.open(mirror.store, writable=True) as store:
            whole = wait_for_row(store, small, PackState.WHOLE)
            part = wait_for_row(store, PACK, PackState.PARTIAL)
            assert (whole.length, whole.held_bytes) == (len(small.data), len(small.data))
            assert part.length == SIZE
            assert 100_000 < part.held_bytes < 0.7 * SIZE
            mirror.get(f"/{small.path}")
            while row(store, small).last_used <= whole.last_used:
                threading.Event().wait(0.02)
            mirror.get(PATH)
            wait_for_row(store, PACK, PackState.WHOLE)


def row(store, pack):
    with store.ledger.reading() as connection:
        return packs.find(connection, pack.id)


def wait_for_row(store, pack, state):
    while True:
        found = row(store, pack)
        if found is not None and found.state is state:
            return found
        threading.Event().wait(0.02)


def test_two_mirrors_that_are_each_others_peers_do_not_wait_for_each_other(tmp_path):
    """Neither has the pack; the upstream of one of them is gone, so that it has only its peer."""
    ports = free_port(), free_port()
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    with serving(files_of(noise_pack(2))) as empty, serving(FILES) as origin:
        first = UpstreamConfig(urls=(empty.url,), peers=(urls[1],))
        second = UpstreamConfig(urls=(origin.url,), peers=(urls[0],))
        with (
            running(tmp_path / "one", upstream=first, port=ports[0]) as one,
            running(tmp_path / "two", upstream=second, port=ports[1]) as two,
        ):
            assert one.request(PATH)[0] == 404
            assert two.request(PATH, "Pacball-Held-Only: 1")[0] == 404
            assert two.get(PATH) == PACK.data
            wait_for_public(Daemon(two.url, tmp_path / "two"))
            assert two.request(PATH, "Pacball-Held-Only: 1")[0] == 200
            threading.Event().wait(CacheLimits().absent_seconds)
            assert one.get(PATH) == PACK.data
    assert sum(request.length for request in origin.packs_asked()) < 1.1 * SIZE


@pytest.mark.slow
def test_what_is_perhaps_absent_says_nothing_of_other_packs(tmp_path):
    """One upstream is gone, the other has no such pack: strangers may ask for any id, and others are served meanwhile."""
    with serving(FILES) as gone:
        gone_url = gone.url
    with serving(FILES) as good, mirroring(tmp_path, gone_url, good) as mirror:
        for number in range(3):
            assert mirror.request(f"/packs/00/{number:064x}", timeout=60)[0] == 504
            assert (
                mirror.request(PATH, f"Range: bytes={60_000 * number + 8}-{60_000 * number + 9}", timeout=60)[0] == 206
            )


def test_an_address_may_ask_for_so_many_packs_at_once(tmp_path):
    others = [noise_pack(1, 1000, seed=str(number)) for number in range(3)]
    go_on = threading.Event()
    limits = ServerLimits(cache=CacheLimits(openings_per_address=2))
    access = AccessConfig(trusted_proxies=(ipaddress.ip_network("127.0.0.1"),))
    answers = []
    with serving(files_of(PACK, *others), waiting_for(go_on)) as origin:
        upstream = UpstreamConfig(urls=(origin.url,))
        with running(tmp_path / "mirror", limits, upstream=upstream, access=access) as mirror:

            def ask(pack):
                answers.append(mirror.request(f"/{pack.path}", "X-Forwarded-For: 192.0.2.1", timeout=60))

            threads = [threading.Thread(target=ask, args=(pack,)) for pack in others]
            for thread in threads:
                thread.start()
            eventually(lambda: answers)
            go_on.set()
            for thread in threads:
                thread.join()
    assert [status for status, _, _ in answers] == [503, 200, 200]
    assert answers[0][1]["retry-after"] == "5"


@contextlib.contextmanager
def circle_of(where, count, *origins):
    """So many mirrors, each of which has the next one as its upstream, and the last one the first; the first also `origins`."""
    ports = [free_port() for _ in range(count)]
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    with contextlib.ExitStack() as stack:
        daemons = []
        for number, port in enumerate(ports):
            others = tuple(origin.url for origin in origins) if number == 0 else ()
            upstream = UpstreamConfig(urls=(*others, urls[(number + 1) % count]))
            daemons.append(stack.enter_context(running(where / str(number), upstream=upstream, port=port)))
        yield daemons


@pytest.mark.parametrize("count", [1, 2, 3])
def test_mirrors_that_are_each_others_upstreams_say_so_and_do_not_wait_for_each_other(tmp_path, count):
    with circle_of(tmp_path, count) as mirrors:
        for mirror in mirrors:
            status, headers, body = mirror.request(PATH, timeout=60)
            assert (status, headers["cache-control"]) == (508, "no-store")
            assert "name each other as peers" in json.loads(body)["hint"]


def test_a_circle_of_mirrors_passes_on_what_one_of_them_can_have(tmp_path):
    with serving(FILES) as origin, circle_of(tmp_path, 3, origin) as mirrors:
        assert mirrors[0].request(f"/packs/00/{1:064x}", timeout=60)[0] == 508
        # As if the second asked the first: only its own way counts, now and later.
        alias = "pacball-" + "0" * 16
        assert mirrors[1].request(PATH, "Range: bytes=8-9", f"Via: 1.1 {', '.join([alias] * 16)}", timeout=60)[0] == 508
        assert mirrors[2].request(PATH, "Range: bytes=8-1007", timeout=60)[0] == 206
        assert mirrors[1].get(PATH) == PACK.data


def test_errors_name_no_upstreams_to_strangers(tmp_path):
    """Who may read the status is told of them there."""
    with serving(FILES) as gone:
        gone_url = gone.url
    with serving(FILES, mischief.of_packs(mischief.flip, first=1)) as liar:
        with mirroring(tmp_path / "lies", liar) as mirror:
            body = json.loads(mirror.request(PATH, timeout=60)[2])
            assert body["message"].startswith("packs/")
            assert "an upstream gives wrong bytes" in body["message"]
        with mirroring(tmp_path / "two", gone_url, f"{gone_url}/other/") as mirror:
            body = mirror.request(PATH, timeout=60)[2]
            assert b"none of 2 sources gives it: an upstream: " in body
            assert b"127.0.0.1" not in body
            assert gone_url in json.dumps(mirror.status()["upstreams"])


@pytest.mark.slow
def test_what_an_upstream_holds_comes_though_it_cannot_reach_its_own(tmp_path):
    """Of what it does not hold it says 504, which says nothing of the rest."""
    with serving(FILES) as origin, mirroring(tmp_path / "country", origin) as country:
        country.get(PATH)
        wait_for_public(country)
        gone = origin.url
    with mirroring(tmp_path / "country", gone) as country, mirroring(tmp_path / "site", country) as site:
        for number in range(2):
            assert site.request(f"/packs/00/{number:064x}", timeout=60)[0] == 504
            assert site.request(PATH, f"Range: bytes={60_000 * number + 8}-{60_000 * number + 9}", timeout=60)[0] == 206
