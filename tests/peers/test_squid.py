"""Squid between two mirrors, as it is documented: objects are kept, ranges survive it, and events pass through at once."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import socket
import subprocess
from pathlib import Path

import pytest

from pacmirror.config import SyncConfig, UpstreamConfig
from pacstore.subscription import Subscription
from tests.e2e import trees
from tests.e2e.site import free_port, get, running, wait_until
from tests.mirror import daemons
from tests.peers.conftest import NEW
from tests.peers.programs import call, program
from tests.store.releases import shared_directory

pytestmark = [pytest.mark.peers, pytest.mark.root]
EXAMPLE = (Path(__file__).parents[2] / "deploy/squid/pacball.conf").read_text()
MORE = """
pid_filename none
access_log stdio:{home}/access.log
cache_log {home}/cache.log
coredump_dir {home}
shutdown_lifetime 0 seconds
pinger_enable off
"""


@contextlib.contextmanager
def squid(upstream: str):
    """Squid with the documented configuration in front of `upstream`: its base URL, and a function for its log."""
    with shared_directory() as home:
        owner = pwd.getpwnam("proxy")
        os.chown(home, owner.pw_uid, owner.pw_gid)
        port, config = free_port(), EXAMPLE
        for before, after in {
            "http_port 8080": f"http_port 127.0.0.1:{port}",
            "cache_peer origin.example.org parent 8080": f"cache_peer 127.0.0.1 parent {upstream.rpartition(':')[2]}",
            "/var/spool/squid 100000": f"{home}/spool 2000",
        }.items():
            assert before in config
            config = config.replace(before, after)
        (home / "squid.conf").write_text(config + MORE.format(home=home))
        words = [program("squid"), "-N", "-f", str(home / "squid.conf")]
        subprocess.run([*words, "-z"], check=True, capture_output=True)
        with running(words, port=port, log=home / "out") as url:
            yield url, lambda: (home / "access.log").read_text().splitlines()


def mirroring(where: Path, url: str):
    where.mkdir()
    subscriptions = (Subscription("*"),)
    return daemons.running(where, upstream=UpstreamConfig(urls=(url,)), sync=SyncConfig(subscriptions=subscriptions))


def holds_all(daemon) -> bool:
    return daemon.status()["held"]["releases"]["complete"] == 2


@pytest.fixture(scope="module")
def between(origin):
    """The origin's daemon, Squid in front of it, and Squid's log."""
    with daemons.running(origin.store) as served, squid(served.url) as (proxy, log):
        yield served, proxy, log


def test_two_mirrors_behind_it_cost_the_origin_one_copy(origin, site, between, tmp_path):
    served, proxy, log = between
    for name in ("first", "second"):
        with mirroring(tmp_path / name, proxy) as mirror:
            wait_until(lambda mirror=mirror: holds_all(mirror), seconds=60)
            following = mirror.status()["following"]["upstreams"]
            words = ("--from", mirror.url, "--root-keys", origin.root_keys, "--root", tmp_path / f"root-{name}")
            site.ok("install", NEW, *words)
        # The stream of events passes through.
        assert [one["state"] for one in following] == ["listening"], json.dumps(following)
    trees.assert_same(tmp_path / "root-first/releases" / NEW, origin.new)
    assert any("HIT" in line for line in log() if "/packs/" in line)
    size = sum(path.stat().st_size for path in (origin.store / "public/packs").rglob("*") if path.is_file())
    metrics = served.metrics()
    sent = sum(value for name, value in metrics.items() if name.startswith('pacball_sent_bytes_total{kind="packs"'))
    assert size * 0.9 < sent <= 1.02 * size


def test_between_two_that_pull_through_pieces_and_the_rest_of_a_file_come_right(origin, site, tmp_path):
    with (
        daemons.running(origin.store) as served,
        daemons.running(tmp_path / "first", upstream=UpstreamConfig(urls=(served.url,))) as first,
        squid(first.url) as (proxy, _),
        daemons.running(tmp_path / "second", upstream=UpstreamConfig(urls=(proxy,))) as second,
    ):
        words = ("--from", second.url, "--root-keys", origin.root_keys, "--root", tmp_path / "root")
        installer = site.start("install", NEW, *words)
        pack = max((origin.store / "public/packs").glob("*/*"), key=lambda path: path.stat().st_size)
        right, half = pack.read_bytes(), tmp_path / "half"
        half.write_bytes(right[: len(right) // 3])
        url = f"{second.url}/{pack.relative_to(origin.store / 'public')}"
        call("curl", "-sSf", "-C", "-", "-o", half, url)
        call("aria2c", "-q", "-x8", "-s8", "-k1M", "-d", tmp_path, "-o", "pieces", url)
        installer.communicate(timeout=120)
        assert installer.returncode == 0
        received = first.status()["upstreams"]["sources"][0]["bytes_received"]
    trees.assert_same(tmp_path / "root/releases" / NEW, origin.new)
    assert half.read_bytes() == right
    assert (tmp_path / "pieces").read_bytes() == right
    size = sum(path.stat().st_size for path in (origin.store / "public/packs").rglob("*") if path.is_file())
    documents = sum(path.stat().st_size for path in (tmp_path / "first/public").rglob("*")
                    if path.is_file() and "packs" not in path.parts)  # fmt: skip
    assert received <= 1.02 * size + 2 * documents


def test_ranges_survive_it(origin, between):
    _, proxy, _ = between
    pack = next(path for path in (origin.store / "public/packs").rglob("*") if path.is_file())
    path, data = str(pack.relative_to(origin.store / "public")), pack.read_bytes()
    for first, end in [(1000, 2000), (0, 10), (len(data) - 5, len(data))]:
        status, headers, body = get(f"{proxy}/{path}", {"Range": f"bytes={first}-{end - 1}"})
        assert (status, body) == (206, data[first:end])
        assert headers["etag"] == f'"b3-{pack.name}"'


def test_nothing_but_reading_passes(between):
    _, proxy, _ = between
    address = proxy.removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1])), timeout=20) as sock:
        sock.sendall(b"DELETE /store.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert sock.recv(12) == b"HTTP/1.1 403"
