"""The docroot of a store that the command made: everything that a reader needs is in it, and nothing else can be reached."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests import independent_reader
from tests.store.releases import originals, snapshot

OLD, NEW = "Demo-1.0-x86_64", "Demo-1.1-x86_64"


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Quiet."""


@contextmanager
def serving(directory: Path):
    """The port of Python's own web server over a directory."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=os.fspath(directory))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.putrequest("GET", path, skip_accept_encoding=True)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_static_server_serves_all_that_is_public_and_nothing_that_is_not(store):
    public = snapshot(store / "public")
    private = snapshot(store / "private")
    assert {path.split("/")[0] for path in public} == {
        "packs", "manifests", "attributes", "placements", "holdings", "catalog", "releases", "store.json",
    }  # fmt: skip
    assert "index.sqlite" in private
    with serving(store / "public") as port:
        assert {path: get(port, f"/{path}") for path in public} == {path: (200, data) for path, data in public.items()}
        for path in private:
            for start in ("/", "/../", "/../private/", "/private/", "/%2e%2e/private/", "/packs/../../private/", "//"):
                status, data = get(port, start + path)
                assert status == 404
                assert data not in private.values()


@pytest.mark.parametrize("number", [0, 1])
def test_an_independent_reader_gets_the_tree_back(store, trees, tmp_path, number):
    release = (OLD, NEW)[number]
    command = [sys.executable, independent_reader.__file__, store / "public", release, tmp_path / "out"]
    subprocess.run(command, check=True, capture_output=True)
    assert originals(tmp_path / "out") == originals(trees[number])
    assert links(tmp_path / "out") == links(trees[number])
    assert {p: m for p, m in executables(tmp_path / "out").items() if m} == {"bin/run": True}
    times = [path for path in trees[number].rglob("*") if path.is_file()]
    assert all(
        int((tmp_path / "out" / p.relative_to(trees[number])).stat().st_mtime) == int(p.stat().st_mtime) for p in times
    )
    assert os.path.samefile(tmp_path / "out/lib/text", tmp_path / "out/lib/text-again")


def test_an_independent_reader_finds_every_pack_whole(store):
    packs = [path for path in (store / "public/packs").rglob("*") if path.is_file()]
    assert [independent_reader.check_pack(path).hex() for path in packs] == [path.name for path in packs]


def links(top: Path) -> dict[str, str]:
    return {str(p.relative_to(top)): os.readlink(p) for p in sorted(top.rglob("*")) if p.is_symlink()}


def executables(top: Path) -> dict[str, bool]:
    files = [p for p in sorted(top.rglob("*")) if p.is_file() and not p.is_symlink()]
    return {str(p.relative_to(top)): bool(p.stat().st_mode & 0o100) for p in files}
