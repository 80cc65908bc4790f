"""Sources that are none, that fail, or that lie: clear sentences, and nothing half installed."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.e2e import trees
from tests.e2e.conftest import NEW, OLD
from tests.e2e.site import free_port

PAGE = b"<!doctype html><title>Sign in</title>"


@contextlib.contextmanager
def answering(status, headers, body=b""):
    """The URL of a server that answers the same to everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "headers", "body", "code", "words"),
    [
        (200, {"Content-Type": "text/html"}, PAGE, 4, "is this the base URL of a pacball store?"),
        (200, {"Content-Type": "application/json"}, b"{}", 4, "not the marker of a pacball store"),
        (200, {"Content-Type": "application/json"}, b"not json", 4, "is not a pacball store"),
        (200, {"Content-Type": "application/json"}, b'{"format":2,"kind":"pacball store"}', 9, "newer"),
        (404, {"Content-Type": "text/html"}, PAGE, 3, "is not a pacball store"),
        (403, {"Content-Type": "text/html"}, PAGE, 7, "denies access"),
        (302, {"Location": "http://127.0.0.1:1/elsewhere"}, b"", 7, "http://127.0.0.1:1/elsewhere"),
        (301, {"Location": "/moved/"}, b"", 7, "give the final URL"),
    ],
)
def test_a_url_that_is_no_store(origin, site, root, status, headers, body, code, words):
    with answering(status, headers, body) as url:
        trusted = ("--from", url, "--root-keys", origin.root_keys)
        done = site.fails(code, "install", OLD, *trusted, "--root", root)
    assert words in done.err
    assert url in done.err
    assert not root.exists()


def test_nobody_listens(origin, site, root):
    url = f"http://127.0.0.1:{free_port()}"
    done = site.fails(6, "install", OLD, "--from", url, "--root-keys", origin.root_keys, "--root", root)
    assert "refused" in done.err
    assert url in done.err


def test_what_is_no_source_at_all(origin, site, tmp_path):
    assert "no directory" in site.fails(3, "list", "--from", tmp_path / "missing").err
    assert "not a pacball store" in site.fails(3, "list", "--from", tmp_path).err
    site.fails(7, "list", "--from", "ftp://example.org/store")
    site.fails(7, "list")


@pytest.fixture
def damaged(origin, tmp_path, monkeypatch):
    """A copy of the store, and the pack of its first release; its daemon reads nothing by itself, and so finds no damage."""
    monkeypatch.setitem(origin.site.environment, "PACBALL_SERVE_PACBALLS_AHEAD", "false")
    store = tmp_path / "store"
    shutil.copytree(origin.store, store)
    packs = sorted((store / "public/packs").rglob("??*/*"), key=lambda path: path.stat().st_size)
    return store, packs[-1]


def test_a_damaged_pack_is_named_and_repaired_where_it_was(origin, site, root, damaged):
    store, pack = damaged
    good = pack.read_bytes()
    _write(pack, good[: len(good) // 2] + bytes([good[len(good) // 2] ^ 1]) + good[len(good) // 2 + 1 :])
    with origin.site.serving(store) as url:
        command = ("install", OLD, "--from", url, "--root-keys", origin.root_keys, "--root", root)
        done = site.fails(4, *command)
        assert pack.name in done.err
        assert not (root / "releases" / OLD).exists()
        assert not (root / "current/Demo").exists()
        assert site.run("store", "check", "--store", store).code == 1
        _write(pack, good)
        second = site.ok(*command)
    trees.assert_same(root / "releases" / OLD, origin.old)
    assert second["bytes_downloaded"] < len(good)
    assert os.listdir(root / ".pacball/staging") == []


def test_a_pack_that_ends_early_or_is_gone(origin, site, root, damaged):
    store, pack = damaged
    good = pack.read_bytes()
    with origin.site.serving(store) as url:
        command = ("install", OLD, "--from", url, "--root-keys", origin.root_keys, "--root", root)
        _write(pack, good[: len(good) // 2])
        assert pack.name in site.fails(4, *command).err
        pack.unlink()
        assert pack.name in site.fails(3, *command).err
        assert not (root / "releases" / OLD).exists()
        _write(pack, good)
        site.ok(*command)
    trees.assert_same(root / "releases" / OLD, origin.old)


@pytest.mark.parametrize(
    "kind",
    [
        "manifests",
        pytest.param("attributes", marks=pytest.mark.slow),
        pytest.param("placements", marks=pytest.mark.slow),
    ],
)
def test_a_damaged_document_is_never_used(origin, site, root, damaged, kind):
    store, _ = damaged
    shown = site.ok("show", NEW, "--from", origin.store)
    names = {"manifests": shown["manifest_digest"], "attributes": shown["attributes_digest"], "placements": f"{NEW}.1"}
    (document,) = (store / "public" / kind).rglob(names[kind])
    data = bytearray(document.read_bytes())
    data[-1] ^= 1
    _write(document, data)
    with origin.site.serving(store) as url:
        done = site.fails(4, "install", NEW, "--from", url, "--root-keys", origin.root_keys, "--root", root)
        assert names[kind] in done.err
        site.ok("install", OLD, "--from", url, "--root-keys", origin.root_keys, "--root", root)


def _write(path, data):
    """Replace the file, which may be read-only."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)
