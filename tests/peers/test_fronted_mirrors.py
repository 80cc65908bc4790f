"""nginx as it is documented, with mirrors: a cache in front of one that pulls through, and alone the upstream of another."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess

import pytest

from pacmirror.config import SyncConfig, UpstreamConfig
from pacstore.subscription import Subscription
from tests.e2e import trees
from tests.e2e.site import free_port, get
from tests.mirror import daemons
from tests.peers.conftest import NEW, OLD
from tests.peers.programs import program
from tests.peers.web import example, nginx
from tests.store.releases import shared_directory

pytestmark = [pytest.mark.peers, pytest.mark.timeout(240)]


@contextlib.contextmanager
def fronted(where, upstream, *, limits=None):
    """A cold mirror of `upstream`, and nginx as a cache in front of it."""
    with daemons.running(where / "mirror", limits, upstream=UpstreamConfig(urls=(upstream,))) as mirror:
        changes = {"http://127.0.0.1:8081": mirror.url, "/var/cache/nginx/pacball": str(where / "cache")}
        with nginx(where / "nginx", example("pacball-cache.conf"), changes) as front:
            yield mirror, front


def largest_pack(origin):
    packs = (path for path in (origin.store / "public/packs").glob("*/*"))
    return max(packs, key=lambda path: path.stat().st_size).relative_to(origin.store / "public")


def test_a_cache_in_front_of_a_cold_mirror_costs_its_upstream_one_copy(origin, site, tmp_path):
    with daemons.running(origin.store) as upstream, fronted(tmp_path, upstream.url) as (mirror, front):
        words = ("--from", front.url, "--root-keys", origin.root_keys)
        both = [site.start("install", NEW, *words, "--root", tmp_path / name) for name in ("one", "two")]
        for process in both:
            process.communicate(timeout=120)
            assert process.returncode == 0
        site.ok("install", NEW, *words, "--root", tmp_path / "three")
        for name in ("one", "two", "three"):
            trees.assert_same(tmp_path / name / "releases" / NEW, origin.new)
        received = mirror.status()["upstreams"]["sources"][0]["bytes_received"]
        told = front.told()
    whole = sum(path.stat().st_size for path in (origin.store / "public/packs").glob("*/*"))
    documents = sum(path.stat().st_size for path in (tmp_path / "mirror/public").rglob("*")
                    if path.is_file() and "packs" not in path.parts)  # fmt: skip
    assert received < 1.02 * whole + 2 * documents
    assert any(line.endswith("HIT") for line in told if "/packs/" in line)
    assert not [line for line in told if line.startswith("5")]


def test_pieces_and_the_rest_of_a_file_come_through_both(origin, tmp_path):
    path = largest_pack(origin)
    right = (origin.store / "public" / path).read_bytes()
    with daemons.running(origin.store) as upstream, fronted(tmp_path, upstream.url) as (_, front):
        half = tmp_path / "half"
        half.write_bytes(right[: len(right) // 3])
        curl = subprocess.Popen([program("curl"), "-sSf", "-C", "-", "-o", half, f"{front.url}/{path}"])
        pieces = [program("aria2c"), "-q", "-x8", "-s8", "-k1M", "-d", tmp_path / "out", "-o", "pack"]
        subprocess.run([*pieces, f"{front.url}/{path}"], check=True, timeout=60)
        assert curl.wait(60) == 0
    for file in (half, tmp_path / "out/pack"):
        assert hashlib.sha256(file.read_bytes()).digest() == hashlib.sha256(right).digest()


def test_that_an_upstream_is_away_is_told_through_the_cache_and_not_kept_there(origin, tmp_path):
    port, path = free_port(), largest_pack(origin)
    with fronted(tmp_path, f"http://127.0.0.1:{port}") as (mirror, front):
        for _ in range(2):
            status, headers, body = get(f"{front.url}/{path}", {"Range": "bytes=0-99"})
            assert (status, headers["cache-control"]) == (504, "no-store")
            assert json.loads(body)["error"] == "Unavailable"
        with daemons.running(origin.store, port=port):
            daemons.eventually(lambda: get(f"{front.url}/{path}", {"Range": "bytes=0-99"})[0] == 206)
            status, _, body = get(f"{front.url}/{path}", {"Range": "bytes=1000-1999"})
        assert (status, body) == (206, (origin.store / "public" / path).read_bytes()[1000:2000])
        assert mirror.status()["upstreams"]["sources"][0]["failures"]


def test_nginx_alone_is_the_upstream_of_a_mirror_that_holds_everything(origin, site, tmp_path):
    with (
        shared_directory() as home,
        nginx(home / "nginx", example("pacball.conf"), {"/srv/store/public": str(origin.store / "public")}) as upstream,
        daemons.running(
            tmp_path / "mirror",
            upstream=UpstreamConfig(urls=(upstream.url,)),
            sync=SyncConfig(subscriptions=(Subscription("*"),)),
        ) as mirror,
    ):
        daemons.eventually(lambda: mirror.status()["held"]["releases"]["complete"] == 2)
        site.ok("install", OLD, "--from", mirror.url, "--root-keys", origin.root_keys, "--root", tmp_path / "root")
        trees.assert_same(tmp_path / "root/releases" / OLD, origin.old)
        status = mirror.status()
    whole = sum(path.stat().st_size for path in (origin.store / "public").rglob("*") if path.is_file())
    assert status["upstreams"]["sources"][0]["bytes_received"] < 1.02 * whole
    # It has no events: it is polled.
    assert status["following"]["upstreams"][0]["state"] != "listening"
