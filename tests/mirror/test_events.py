"""Who listens is told at once, and who reads badly is sent away; a mirror listens, and is harmed by nothing that it hears."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import socket
import time
from dataclasses import replace

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from pacmirror.answers import answer_errors
from pacmirror.catalog import ServedCatalog
from pacmirror.config import AccessConfig, Config, SyncConfig, UpstreamConfig
from pacmirror.event_stream import EventReader
from pacmirror.events import Events
from pacmirror.files import PublicFiles
from pacmirror.limits import EventLimits, ReplicationLimits, ServerLimits
from pacstore.release import Release
from tests.e2e.attacker import mirroring
from tests.mirror.daemons import eventually, make_store, running
from tests.mirror.scripted import Drip, Pause
from tests.mirror.test_replication import PROMPT, STAMP, mirror_of, serves, told
from tests.store.signed_catalog import SignedCatalog

RELEASE = Release.parse("Demo-1.0-x86_64")
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


@pytest.fixture
def catalog():
    return SignedCatalog("Demo", "Other")


class Listener:
    """Reads /v1/events of a daemon as curl -N does."""

    def __init__(self, daemon, *headers):
        self.sock = socket.create_connection(daemon.address, timeout=20)
        lines = ["GET /v1/events HTTP/1.0", "Host: x", *headers, "", ""]
        self.sock.sendall("\r\n".join(lines).encode())
        self.head = b""
        while not self.head.endswith(b"\r\n\r\n"):
            self.head += self.sock.recv(1)
        self._reader = EventReader(limit=10_000)
        self._events = []

    def next(self):
        while not self._events:
            data = self.sock.recv(1000)
            if not data:
                return None
            self._events += self._reader.feed(data)
        event = self._events.pop(0)
        return event.kind, json.loads(event.data), event.id

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()


def test_listeners_hear_of_each_new_catalog(tmp_path, catalog):
    store = make_store(tmp_path, catalog)
    with running(store, replace(PROMPT, events=EventLimits(look_seconds=0.01))) as daemon:
        with Listener(daemon) as first:
            assert b"200 OK" in first.head
            assert b"text/event-stream" in first.head
            assert b"no-store" in first.head
            kind, data, last = first.next()
            assert (kind, data) == ("catalog", {"version": 1})
            for version in (2, 3):
                catalog.commit("line-Demo")
                catalog.write(store / "public")
                assert first.next()[:2] == ("catalog", {"version": version})
        assert daemon.metrics()["pacball_events_total"] == 3
        # Who comes back is told what was missed, who comes from before a restart what is.
        with Listener(daemon, f"Last-Event-ID: {last}") as again:
            assert [again.next()[1]["version"] for _ in range(2)] == [2, 3]
        with Listener(daemon, "Last-Event-ID: 0badcafe-7") as stranger:
            assert stranger.next()[1] == {"version": 3}
        status, headers, body = daemon.request("/v1/events", method="HEAD")
        assert (status, headers["content-type"].split(";")[0], body) == (200, "text/event-stream", b"")


def test_listeners_do_not_keep_the_daemon_from_stopping(tmp_path, catalog):
    with contextlib.ExitStack() as open_:
        with running(make_store(tmp_path, catalog), replace(PROMPT, drain_seconds=15)) as daemon:
            listeners = [open_.enter_context(Listener(daemon)) for _ in range(5)]
            assert [listener.next()[0] for listener in listeners] == ["catalog"] * 5
            began = time.monotonic()
        assert time.monotonic() - began < 10
        assert [listener.next() for listener in listeners] == [None] * 5


def test_one_listener_too_many_is_told_so(tmp_path, catalog):
    limits = replace(PROMPT, events=EventLimits(listeners=2))
    with running(make_store(tmp_path, catalog), limits) as daemon, Listener(daemon) as one, Listener(daemon) as two:
        assert one.next()[0] == two.next()[0] == "catalog"
        status, headers, body = daemon.request("/v1/events")
        assert (status, headers["retry-after"]) == (503, "5")
        assert "too many" in json.loads(body)["message"]
        assert daemon.status()["events"]["listeners"] == 2


def test_one_address_does_not_take_all_places(tmp_path, catalog):
    limits = replace(PROMPT, events=EventLimits(listeners_per_address=1))
    access = AccessConfig(trusted_proxies=(ipaddress.ip_network("127.0.0.0/8"),))
    with running(make_store(tmp_path, catalog), limits, access=access) as daemon, contextlib.ExitStack() as open_:
        for address in ("192.0.2.7", "192.0.2.8"):
            first = open_.enter_context(Listener(daemon, f"X-Forwarded-For: {address}"))
            assert first.next()[0] == "catalog"
            assert daemon.request("/v1/events", f"X-Forwarded-For: {address}")[0] == 503
        # This machine itself may have any number.
        for _ in range(3):
            assert open_.enter_context(Listener(daemon)).next()[0] == "catalog"


def test_a_quiet_stream_is_kept_alive(tmp_path, catalog):
    limits = replace(PROMPT, events=EventLimits(keep_alive_seconds=0.02))
    with running(make_store(tmp_path, catalog), limits) as daemon, Listener(daemon) as listener:
        listener.next()
        received = b""
        while received.count(b":\n\n") < 3:
            received += listener.sock.recv(100)


def test_releases_are_told_and_who_reads_too_slowly_is_cut(tmp_path, catalog):
    asyncio.run(_tell_and_cut(Config(make_store(tmp_path, catalog), limits=PROMPT)))


async def _tell_and_cut(config):
    events = Events(ServedCatalog(config, PublicFiles(config)), EventLimits(queued=8))
    app = web.Application(middlewares=[answer_errors])
    app.router.add_get("/v1/events", events.answer)
    await events.start()
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        async with session.get(server.make_url("/v1/events")) as response:
            reader, found = EventReader(limit=1000), []
            events.announce_release(RELEASE, complete=True)
            events.announce_release(RELEASE, complete=False)
            while len(found) < 3:
                found += [
                    (event.kind, json.loads(event.data)) for event in reader.feed(await response.content.readany())
                ]
            assert [data for kind, data in found if kind == "release"] == [
                {"release": str(RELEASE), "state": "complete"},
                {"release": str(RELEASE), "state": "dropped"},
            ]
            for _ in range(9):
                events.announce_release(RELEASE, complete=True)
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()
            assert events.status() == {"listeners": 0, "sent": 12, "cut": 1}
        await events.end()


# A mirror listens


def test_a_new_state_of_the_origin_is_served_by_the_mirror_without_polling(tmp_path, catalog):
    origin_store = make_store(tmp_path / "origin", catalog)
    with (
        running(origin_store, replace(PROMPT, events=EventLimits(look_seconds=0.01))) as origin,
        mirror_of(tmp_path / "mirror", origin, poll=3600) as mirror,
        mirror_of(tmp_path / "second", mirror, poll=3600) as second,
    ):
        for _ in range(3):
            eventually(lambda: serves(mirror, catalog) and serves(second, catalog))
            catalog.commit("line-Demo")
            catalog.write(origin_store / "public")
        eventually(lambda: serves(second, catalog))
        found = second.status()["following"]["upstreams"][0]
        assert (found["name"], found["state"]) == (mirror.url, "listening")
        assert found["events"] >= 3
        assert second.metrics()["pacball_followed_upstreams"] == 1


def test_an_upstream_without_events_is_polled(tmp_path, catalog):
    with (
        mirroring(make_store(tmp_path / "origin", catalog) / "public") as nginx,
        mirror_of(tmp_path / "mirror", nginx) as mirror,
    ):
        eventually(lambda: serves(mirror, catalog))
        eventually(lambda: mirror.status()["following"]["upstreams"][0]["state"] == "polling")
        catalog.commit("line-Demo")
        catalog.write(nginx.public)
        eventually(lambda: serves(mirror, catalog))
        assert nginx.asked["v1/events"] == 1
        assert not any("event" in warning for warning in mirror.status()["warnings"])


def test_an_upstream_that_wants_a_token_gets_it_with_the_events_too(tmp_path, catalog):
    token = tmp_path / "token"
    token.write_text("abc123")
    token.chmod(0o600)
    with mirroring(make_store(tmp_path / "origin", catalog) / "public") as upstream:
        config = UpstreamConfig((upstream.url,), tokens={upstream.url: token})
        with running(tmp_path / "mirror", PROMPT, upstream=config, sync=SyncConfig(poll_seconds=0.1)) as mirror:
            eventually(lambda: serves(mirror, catalog) and upstream.asked["v1/events"])
        asked = [request for request in upstream.requests if "v1/events" in request]
        assert "Authorization: Bearer abc123" in asked[0]
        assert "Accept: text/event-stream" in asked[0]
        assert "cookie" not in "".join(upstream.requests).lower()


FLOOD = b'event: catalog\ndata: {"version":99}\n\n' * 50
STREAMS = {
    "silent": [STREAM, Pause(60)],
    "dead at once": [b""],
    "ends": [STREAM],
    "a web page": [b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi"],
    "elsewhere": [b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"],
    "endless line": [STREAM, Drip(b"data" * 1000, 0)],
    "nonsense": [STREAM, b'event: catalog\ndata: {"version":"\x1b[2J"}\n\nevent: catalog\ndata: 7\n\n\xff', Pause(60)],
    "failing": [b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", STREAMS)
def test_bad_streams_do_no_harm_and_are_begun_anew(tmp_path, catalog, name):
    events = EventLimits(silence_seconds=0.3, backoff_seconds=0.01, backoff_max_seconds=0.02, no_events_seconds=0.05)
    limits = replace(PROMPT, events=events)
    with mirroring(make_store(tmp_path / "origin", catalog) / "public") as upstream:
        upstream.says("v1/events", *STREAMS[name])
        with mirror_of(tmp_path / "mirror", upstream, limits=limits) as mirror:
            eventually(lambda: upstream.asked["v1/events"] >= 3)
            eventually(lambda: serves(mirror, catalog))
            catalog.commit("line-Demo")
            catalog.write(upstream.public)
            eventually(lambda: serves(mirror, catalog))
            assert "\x1b" not in json.dumps(mirror.status())


def test_a_flood_of_events_makes_no_flood_of_looks(tmp_path, catalog):
    replication = ReplicationLimits(least_seconds=3600)
    with mirroring(make_store(tmp_path / "origin", catalog) / "public") as upstream:
        upstream.says("v1/events", STREAM, Drip(FLOOD, 0))
        limits = replace(PROMPT, replication=replication)
        with mirror_of(tmp_path / "mirror", upstream, limits=limits) as mirror:
            eventually(lambda: "more than events" in mirror.status()["following"]["upstreams"][0]["error"])
            assert mirror.status()["following"]["upstreams"][0]["events"] > 500
            assert upstream.asked[STAMP[1:]] <= 2  # one look; a request may be sent again
            assert told(mirror)["upstream_version"] in (1, None)


def test_no_more_than_the_limits_say():
    assert ServerLimits().events.silence_seconds > 3 * ServerLimits().events.keep_alive_seconds
