"""Who a daemon lets in, with real caches and addresses: what needs a token stays out of caches; one address has its share."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from ipaddress import ip_network

import pytest

from pacmirror.config import AccessConfig
from pacmirror.limits import ServerLimits
from pacmirror.token_file import create_token
from tests.e2e.site import get, wait_until
from tests.mirror.daemons import PACK, PACK_ID, make_store, parse_answer, receive_all, running
from tests.peers.web import example, nginx

pytestmark = [pytest.mark.peers, pytest.mark.root]
PATH = f"/packs/ab/{PACK_ID}"
NETWORK = "192.0.2.0/24"
LOOPBACK = (ip_network("127.0.0.0/8"),)


@contextlib.contextmanager
def cached(daemon, tmp_path):
    changes = {"http://127.0.0.1:8081": daemon.url, "/var/cache/nginx/pacball": str(tmp_path / "cache")}
    with nginx(tmp_path / "nginx", example("pacball-cache.conf"), changes) as server:
        yield server


def test_a_cache_in_front_keeps_nothing_that_needs_a_token(tmp_path):
    _, text = create_token(tmp_path / "tokens", name="site", role="read", now=0, expires=None)
    access = AccessConfig(read="token", token_file=tmp_path / "tokens")
    store = make_store(tmp_path / "store")
    with running(store, access=access) as daemon, cached(daemon, tmp_path) as server:
        for _ in range(2):
            for path in (PATH, "/store.json"):
                status, _, body = get(server.url + path, {"Authorization": f"Bearer {text}"})
                assert (status, body == (store / f"public{path}").read_bytes()) == (200, True)
                assert get(server.url + path)[0] == 401


def test_behind_a_cache_each_request_has_its_own_id(tmp_path):
    store, access = make_store(tmp_path / "store"), AccessConfig(trusted_proxies=LOOPBACK)
    with running(store, access=access) as daemon, cached(daemon, tmp_path) as server:
        answers = [get(server.url + PATH) for _ in range(3)]
        assert [body == PACK for _, _, body in answers] == [True] * 3
        assert len({headers["x-request-id"] for _, headers, _ in answers}) == 3
        assert sorted(line.split()[-1] for line in server.told()) == ["HIT", "HIT", "MISS"]


@pytest.fixture
def address():
    """An address of this machine that is not the loopback's."""
    words = ["ip", "address", "{}", "192.0.2.77/32", "dev", "lo"]
    subprocess.run([word.format("add") for word in words], check=True)
    yield "192.0.2.77"
    subprocess.run([word.format("delete") for word in words], check=True)


def connect(address, port):
    return socket.create_connection((address, port), timeout=20, source_address=(address, 0))


def ask(sock):
    sock.sendall(f"HEAD {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return parse_answer(sock.recv(65536))


def test_one_address_gets_no_more_than_its_share_of_connections(tmp_path, address):
    limits = ServerLimits(connections_per_address=3)
    with running(make_store(tmp_path / "store"), limits, host="0.0.0.0") as daemon:
        port = daemon.address[1]
        with contextlib.ExitStack() as held:
            for _ in range(3):
                assert ask(held.enter_context(connect(address, port)))[0] == 200
            with connect(address, port) as one_more:
                status, headers, _ = parse_answer(receive_all(one_more))
                assert (status, headers["retry-after"]) == (429, "5")
            # Others are served meanwhile.
            assert daemon.request("/healthz")[0] == 200
            assert daemon.metrics()['pacball_connections_refused_total{limit="address"}'] == 1
        wait_until(lambda: daemon.status()["requests"]["connections"] == 1)
        with connect(address, port) as again:
            assert ask(again)[0] == 200


def test_a_proxy_in_front_has_no_share(tmp_path, address):
    limits, access = ServerLimits(connections_per_address=1), AccessConfig(trusted_proxies=(ip_network(NETWORK),))
    store = make_store(tmp_path / "store")
    with running(store, limits, host="0.0.0.0", access=access) as daemon, contextlib.ExitStack() as held:
        for _ in range(5):
            assert ask(held.enter_context(connect(address, daemon.address[1])))[0] == 200
