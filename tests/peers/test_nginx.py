"""nginx: alone over a store's public part, and as a cache in front of the daemon. And a server that knows no ranges."""

from __future__ import annotations

import sys

import pytest

from tests.e2e import trees
from tests.e2e.site import free_port, get, running
from tests.peers.conftest import NEW, OLD
from tests.peers.web import PLAIN, example, nginx

pytestmark = pytest.mark.peers


@pytest.mark.parametrize("config", [example("pacball.conf"), PLAIN], ids=["documented", "plain"])
def test_nginx_alone_is_a_complete_source(origin, site, root, tmp_path, config):
    with nginx(tmp_path / "nginx", config, {"/srv/store/public": str(origin.store / "public")}) as server:
        source = ("--from", server.url, "--root-keys", origin.root_keys)
        assert [one["release"] for one in site.ok("list", *source)["releases"]] == [OLD, NEW]
        first = site.ok("install", OLD, *source, "--root", root)
        second = site.ok("install", NEW, *source, "--root", root)
    trees.assert_same(root / "releases" / OLD, origin.old)
    trees.assert_same(root / "releases" / NEW, origin.new)
    assert second["bytes_downloaded"] < 0.5 * first["bytes_downloaded"]
    for release in (OLD, NEW):
        assert site.ok("verify", release, "--root", root)["intact"] is True


def test_the_documented_headers(origin, tmp_path):
    public = origin.store / "public"
    with nginx(tmp_path / "nginx", example("pacball.conf"), {"/srv/store/public": str(public)}) as server:
        for path in sorted(p.relative_to(public) for p in public.rglob("*") if p.is_file()):
            status, headers, body = get(f"{server.url}/{path}", {"Accept-Encoding": "gzip"})
            assert (status, body == (public / path).read_bytes()) == (200, True), path
            assert "content-encoding" not in headers
            assert headers["accept-ranges"] == "bytes"
            changing = str(path) in ("store.json", "catalog/timestamp.json") or path.parts[0] == "holdings"
            lifetime = "max-age=61, no-transform" if changing else "public, max-age=31536000, immutable, no-transform"
            assert headers["cache-control"] == lifetime, path
            assert get(f"{server.url}/{path}", {"If-None-Match": headers["etag"]})[0] == 304
            status, headers, part = get(f"{server.url}/{path}", {"Range": "bytes=1-9"})
            assert (status, part) == (206, body[1:10])
        for path in (path for kind in ("packs", "manifests") for path in (public / kind).glob("*/*")):
            kind = path.parts[-3].removesuffix("s")
            status, headers, body = get(f"{server.url}/rucio/sw/{path.name}.{kind}")
            assert (status, body == path.read_bytes()) == (200, True), path
            assert headers["cache-control"] == "public, max-age=31536000, immutable, no-transform", path
        assert get(f"{server.url}/rucio/")[0] == 200
        for missing in (
            "",
            "packs/",
            "rucio/sw/",
            f"rucio/sw/{path.name}",
            f"rucio/{path.name}.{kind}",
            "holdings/No-1-x",
            "packs/ab/../../store.json.bak",
            ".hidden",
            "catalog/",
        ):
            status, headers, _ = get(f"{server.url}/{missing}")
            assert (status, "cache-control" in headers) == (404, False)


def test_what_was_withdrawn_or_never_was_is_told_apart_from_failures(origin, site, root, tmp_path):
    config = "server { listen 8080; location / { return 503; } }"
    with nginx(tmp_path / "nginx", config, {}) as server:
        source = ("--from", server.url, "--root-keys", origin.root_keys)
        assert "503" in site.fails(6, "install", OLD, *source, "--root", root).err


def test_nginx_as_a_cache_before_the_daemon(origin, tmp_path, site, root):
    with origin.site.serving(origin.store) as upstream:
        changes = {"http://127.0.0.1:8081": upstream, "/var/cache/nginx/pacball": str(tmp_path / "cache")}
        with nginx(tmp_path / "nginx", example("pacball-cache.conf"), changes) as server:
            source = ("--from", server.url, "--root-keys", origin.root_keys)
            site.ok("install", OLD, *source, "--root", root)
            before = len(server.told())
            site.ok("install", OLD, *source, "--root", tmp_path / "second")
            later = server.told()[before:]
            pack = min((origin.store / "public/packs").glob("*/*"), key=lambda path: path.stat().st_size)
            # By its name in Rucio it is the same file, also for the cache.
            assert get(f"{server.url}/rucio/sw/{pack.name}.pack")[2] == pack.read_bytes()
            assert (
                get(f"{server.url}/rucio/sw/12/34/{pack.name}.pack", {"Range": "bytes=1-9"})[2]
                == pack.read_bytes()[1:10]
            )
            assert get(f"{server.url}/rucio/")[0] == 200
            fresh = [line for line in later if "/catalog/timestamp.json" in line or "/store.json" in line]
    trees.assert_same(root / "releases" / OLD, origin.old)
    trees.assert_same(tmp_path / "second/releases" / OLD, origin.old)
    packs = [line.split()[-1] for line in later if " /packs/" in line]
    assert packs
    assert set(packs) == {"HIT"}
    # What changes was asked for anew, although the cache had it.
    assert fresh
    assert all(line.endswith("BYPASS") for line in fresh)


def test_a_server_without_ranges_is_told_apart(origin, site, root, tmp_path):
    port = free_port()
    argv = [sys.executable, "-m", "http.server", port, "--bind", "127.0.0.1", "--directory", origin.store / "public"]
    with running(argv, port=port, log=tmp_path / "log") as url:
        done = site.fails(4, "install", OLD, "--from", url, "--root-keys", origin.root_keys, "--root", root)
    assert "ignores ranges" in done.err
    assert "serve the store with a server that knows them" in done.json["hint"]
    assert not (root / "releases" / OLD).exists()
