"""Public files over real sockets: headers, ranges, conditions, and what is not served."""

from __future__ import annotations

import json
import os

import pytest
from blake3 import blake3

from tests.mirror.daemons import MANIFEST_ID, PACK, PACK_ID, RELEASE, running

PACK_PATH = f"/packs/ab/{PACK_ID}"
PACK_ETAG = f'"b3-{PACK_ID}"'
IMMUTABLE = "public, max-age=31536000, immutable, no-transform"
KINDS = [
    (PACK_PATH, PACK_ID, "application/octet-stream", True),
    (f"/manifests/cd/{MANIFEST_ID}", MANIFEST_ID, "application/octet-stream", True),
    (f"/attributes/cd/{MANIFEST_ID}", MANIFEST_ID, "application/octet-stream", True),
    (f"/provenance/cd/{MANIFEST_ID}", MANIFEST_ID, "application/octet-stream", True),
    (f"/bundles/cd/{MANIFEST_ID}", MANIFEST_ID, "application/octet-stream", True),
    (f"/releases/Demo/{RELEASE}/{MANIFEST_ID}.manifest", "", "application/octet-stream", True),
    (f"/placements/{RELEASE}.1", blake3(b"placement").hexdigest(), "application/octet-stream", True),
    ("/catalog/1.root.json", "", "application/json", True),
    ("/catalog/1.line-Demo.json", "", "application/json", True),
    ("/catalog/1.timestamp.json", "", "application/json", True),
    ("/catalog/timestamp.json", "", "application/json", False),
    (f"/holdings/{RELEASE}", blake3(b'{"format":1}\n').hexdigest(), "application/json", False),
]


@pytest.mark.parametrize(("path", "etag_id", "content_type", "immutable"), KINDS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_every_kind_has_its_headers(daemon, path, etag_id, content_type, immutable, method):
    status, headers, body = daemon.request(path, "Accept-Encoding: gzip, br", method=method)
    stored = (daemon.store / "public" / path[1:]).read_bytes()
    assert (status, body) == (200, stored if method == "GET" else b"")
    assert headers.pop("date")
    assert headers.pop("x-request-id")
    assert headers == {
        "etag": f'"b3-{etag_id or blake3(stored).hexdigest()}"',
        "cache-control": IMMUTABLE if immutable else "max-age=61, no-transform",
        "accept-ranges": "bytes",
        "content-type": content_type,
        "content-length": str(len(stored)),
        "x-content-type-options": "nosniff",
        "server": "pacball",
        "connection": "close",
    }


def test_a_file_system_without_sendfile_serves_the_same_bytes(daemon, monkeypatch):
    def refuse(*_):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "sendfile", refuse)
    for path, *_ in KINDS:
        assert daemon.get(path) == (daemon.store / "public" / path[1:]).read_bytes()
    assert daemon.request(PACK_PATH, "Range: bytes=5-9")[2] == PACK[5:10]


@pytest.mark.parametrize(
    ("asked", "first", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-1048675", 100, 1048676),
        ("bytes=5-", 5, len(PACK)),
        ("bytes=-7", len(PACK) - 7, len(PACK)),
        (f"bytes=0-{10**17}", 0, len(PACK)),
        (f"bytes=-{10**17}", 0, len(PACK)),
        ("BYTES = 1-2", 1, 3),
    ],
)
def test_a_range_is_sent_exactly(daemon, asked, first, end):
    status, headers, body = daemon.request(PACK_PATH, f"Range: {asked}")
    assert (status, headers["content-range"]) == (206, f"bytes {first}-{end - 1}/{len(PACK)}")
    assert (headers["etag"], headers["cache-control"]) == (PACK_ETAG, IMMUTABLE)
    assert body == PACK[first:end]


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "bytes=5-4", "bytes=-", "frames=1-2", "bytes=٣-٤", "bytes=x", ""])
def test_ranges_that_are_not_one_range_of_bytes_are_ignored(daemon, asked):
    lines = f"GET {PACK_PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nRange: {asked}\r\n\r\n".encode()
    head, _, body = daemon.exchange(lines).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert body == PACK


@pytest.mark.parametrize("asked", [f"bytes={len(PACK)}-", "bytes=-0", f"bytes={10**17}-{10**17}"])
def test_a_range_beyond_the_end_is_not_satisfiable(daemon, asked):
    status, headers, body = daemon.request(PACK_PATH, f"Range: {asked}")
    assert (status, headers["content-range"]) == (416, f"bytes */{len(PACK)}")
    assert headers["cache-control"] == "no-store"
    assert json.loads(body)["error"] == "Refused"


def test_a_range_of_an_empty_file_and_of_a_head(daemon):
    assert daemon.request(f"/attributes/cd/{MANIFEST_ID}", "Range: bytes=0-")[0] == 416
    status, headers, body = daemon.request(PACK_PATH, "Range: bytes=0-1", method="HEAD")
    assert (status, headers["content-length"], body) == (200, str(len(PACK)), b"")


@pytest.mark.parametrize("value", [PACK_ETAG, f"W/{PACK_ETAG}", f'"other", {PACK_ETAG}', "*"])
def test_if_none_match_answers_304(daemon, value):
    status, headers, body = daemon.request(PACK_PATH, f"If-None-Match: {value}", "Range: bytes=0-1")
    assert (status, headers["etag"], headers["cache-control"], body) == (304, PACK_ETAG, IMMUTABLE, b"")
    assert "content-length" not in headers


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ('If-None-Match: "other"', 206),
        (f"If-Range: {PACK_ETAG}", 206),
        (f"If-Range: W/{PACK_ETAG}", 200),
        ('If-Range: "other"', 200),
        ("If-Range: Sun, 22 Nov 2026 10:00:00 GMT", 200),
        (f"If-Match: {PACK_ETAG}", 206),
        ('If-Match: "other"', 412),
        (f"If-Match: W/{PACK_ETAG}", 412),
        ("If-Modified-Since: Sun, 22 Nov 2099 10:00:00 GMT", 206),
    ],
)
def test_conditions(daemon, header, status):
    assert daemon.request(PACK_PATH, "Range: bytes=0-1", header)[0] == status


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/packs",
        "/packs/",
        "/packs/ab/",
        "/packs/stray",
        f"{PACK_PATH}.gz",
        f"{PACK_PATH}/",
        f"/{PACK_PATH}",
        f"/packs/cd/{PACK_ID}",
        f"/packs/AB/{PACK_ID.upper()}",
        f"/packs/ab/{PACK_ID[:-1]}",
        f"/packs/ab/%61b{PACK_ID[2:]}",
        f"/packs%2Fab/{PACK_ID}",
        f"/packs/ab/{PACK_ID}%00",
        f"/placements/{RELEASE}.01",
        f"/placements/{RELEASE}",
        f"/releases/Demo/{RELEASE}/{MANIFEST_ID}.secret",
        f"/releases/Other/{RELEASE}/{MANIFEST_ID}.manifest",
        f"/releases/Demo/{RELEASE}/{MANIFEST_ID[1:]}.manifest",
        f"/releases/Demo/Demo/{MANIFEST_ID}.manifest",
        f"/releases/Demo/{RELEASE}",
        "/holdings/.hidden",
        "/holdings/..%2Fstore.json",
        "/catalog/..%2F..%2Fprivate%2Fsecret",
        "/catalog/1..root.json",
        "/catalog/%74imestamp.json",
        "/private/secret",
        "/../private/secret",
        "/packs/../../private/secret",
        "/packs/%2e%2e/%2e%2e/private/secret",
        "/..%5cprivate%5csecret",
    ],
)
def test_any_other_path_does_not_exist(daemon, path):
    status, headers, body = daemon.request(path)
    assert (status, headers["cache-control"]) == (404, "no-store")
    assert set(json.loads(body)) == {"error", "message", "hint", "request_id"}
    assert json.loads(body)["request_id"] == headers["x-request-id"]
    assert json.loads(body)["error"] == "NotFound"
    assert "etag" not in headers


def test_a_query_changes_nothing(daemon):
    assert daemon.request("/store.json?now=1")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
def test_other_methods_are_refused(daemon, method):
    status, headers, body = daemon.request(PACK_PATH, method=method)
    assert (status, headers["allow"], headers["cache-control"]) == (405, "GET,HEAD", "no-store")
    assert json.loads(body)["error"] == "Refused"


def test_absent_files_are_404_but_unreadable_ones_503(store):
    public = store / "public"
    (public / "packs/aa").mkdir()
    (public / f"packs/aa/aa{'0' * 62}").symlink_to(store / "private/secret")
    (public / "holdings/Link-1-x").symlink_to(f"{RELEASE}")
    (public / "holdings/Directory-1-x").mkdir()
    os.mkfifo(public / "holdings/Pipe-1-x")
    (public / "packs/bb").symlink_to("ab")
    with running(store) as daemon:
        assert daemon.request(f"/packs/ab/ab{'0' * 62}")[0] == 404
        assert daemon.request(f"/packs/ff/ff{'0' * 62}")[0] == 404
        assert daemon.request("/holdings/Absent-1-x")[0] == 404
        for path in ("holdings/Link-1-x", "holdings/Directory-1-x", "holdings/Pipe-1-x", f"packs/aa/aa{'0' * 62}"):
            status, headers, body = daemon.request(f"/{path}")
            assert (status, headers["cache-control"], json.loads(body)["error"]) == (503, "no-store", "Unavailable")
            assert "retry-after" in headers
            assert b"secret" not in body
        assert daemon.request(f"/packs/bb/bb{'1' * 62}")[0] == 503


def test_an_unmounted_store_says_503_never_404(store):
    with running(store) as daemon:
        assert daemon.request("/healthz")[::2] == (200, b'{"status": "ok"}')
        (store / "public").rename(store / "elsewhere")
        assert daemon.request(PACK_PATH)[0] == 503
        (store / "public").mkdir()
        assert daemon.request(PACK_PATH)[0] == 503
        assert daemon.request("/store.json")[0] == 503
        assert daemon.request("/healthz")[0] == 503


@pytest.mark.parametrize(
    "marker", [b"", b"[]", b'{"format":2}', b'{"format":true}', b"[" * 4000, b" " * 5000 + b'{"format":1}']
)
def test_health_knows_the_format(store, marker):
    with running(store) as daemon:
        (store / "public/store.json").write_bytes(marker)
        status, headers, body = daemon.request("/healthz")
        assert (status, headers["cache-control"]) == (503, "no-store")
        assert json.loads(body)["message"].startswith("store.json: ")


def test_a_replaced_file_gets_a_new_etag_at_once(store):
    with running(store) as daemon:
        before = daemon.request(f"/holdings/{RELEASE}")[1]["etag"]
        (store / "new").write_bytes(b'{"format":2}\n')
        (store / "new").replace(store / f"public/holdings/{RELEASE}")
        _, headers, body = daemon.request(f"/holdings/{RELEASE}")
        assert headers["etag"] == f'"b3-{blake3(body).hexdigest()}"' != before


def test_a_large_placement_is_hashed_too(store):
    data = os.urandom(300_000)
    (store / f"public/placements/{RELEASE}.2").write_bytes(data)
    with running(store) as daemon:
        for _ in range(2):
            _, headers, body = daemon.request(f"/placements/{RELEASE}.2")
            assert (headers["etag"], body) == (f'"b3-{blake3(data).hexdigest()}"', data)
