"""Who may read: tokens, hashed at rest; addresses; what a proxy in front says; and what is open always."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from ipaddress import ip_network

import pytest

from pacmirror.access import OPEN_PATHS, STATUS_PATHS
from pacmirror.config import AccessConfig, UpstreamConfig
from pacmirror.routes import ROUTES
from pacmirror.token_file import create_token, find_token, read_tokens, revoke_token
from pacstore.errors import Corrupt, NotFound, PacballError, Refused
from tests.e2e.site import wait_until
from tests.mirror.daemons import PACK_ID, RELEASE, running

PACK_PATH = f"/packs/ab/{PACK_ID}"
LOOPBACK = (ip_network("127.0.0.0/8"),)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "tokens.json"


def make(file, name="site", *, now=1000.0, expires=None):
    return create_token(file, name=name, role="read", now=now, expires=expires)


def bearer(text):
    return f"Authorization: Bearer {text}"


def test_a_token_is_found_again_and_nowhere_kept(file):
    token, text = make(file)
    assert find_token(read_tokens(file), text, now=2000) == token
    assert text not in file.read_text()
    assert text.rpartition("_")[2] not in file.read_text()
    assert token.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("change", ["", " ", "x", "\u00e4", "0" * 64])
def test_what_is_no_token_is_not_found(file, change):
    _, text = make(file)
    tokens = read_tokens(file)
    assert find_token(tokens, text + change if len(change) < 64 else text[: -len(change)] + change, now=0) == (
        None if change else tokens[0]
    )
    assert find_token(tokens, change, now=0) is None
    assert find_token([], text, now=0) is None


def test_a_token_expires(file):
    _, text = make(file, expires=1500)
    assert find_token(read_tokens(file), text, now=1499) is not None
    assert find_token(read_tokens(file), text, now=1500) is None


def test_a_revoked_token_is_gone_and_others_stay(file):
    make(file)
    other, text = make(file, "other")
    assert revoke_token(file, "site").name == "site"
    assert find_token(read_tokens(file), text, now=0) == other
    assert revoke_token(file, other.id) == other
    with pytest.raises(NotFound, match="no such token"):
        revoke_token(file, "site")


def test_names_are_given_once_and_are_plain(file):
    make(file)
    with pytest.raises(Refused, match="of this name already"):
        make(file)
    for name in ["", "a b", "\x1b[31m", "x" * 65]:
        with pytest.raises(Refused, match="is no name"):
            make(file, name)
    with pytest.raises(Refused, match="not a role"):
        create_token(file, name="x", role="root", now=0, expires=None)


def test_many_at_once_lose_none(file):
    threads = [threading.Thread(target=make, args=(file, f"site{number}")) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {token.name for token in read_tokens(file)} == {f"site{number}" for number in range(8)}
    assert os.listdir(file.parent) == [file.name]


def document(**fields):
    entry = {"id": "1", "name": "x", "role": "read", "sha256": "0" * 64, "created": 0, **fields}
    return json.dumps({"format": 1, "kind": "pacball tokens", "tokens": [entry]}).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"format":2,"kind":"pacball tokens","tokens":[]}',
        b'{"format":1,"kind":"pacball tokens","tokens":[1]}',
        b'{"format":1,"kind":"pacball tokens","tokens":[{}]}',
        document(id=1),
        document(role="root"),
        document(sha256="0"),
        document(name="\x1b[31m"),
        document(created=True),
        document(more=1),
    ],
)
def test_what_is_no_file_of_tokens_is_refused(file, data):
    file.write_bytes(data)
    file.chmod(0o600)
    with pytest.raises(Corrupt, match=r"tokens\.json"):
        read_tokens(file)


def test_a_file_that_others_may_read_is_refused(file):
    make(file)
    file.chmod(0o640)
    with pytest.raises(Refused, match="chmod 600"):
        read_tokens(file)


def test_who_has_a_token_may_read_and_nobody_else(store, file):
    _, text = make(file)
    with running(store, access=AccessConfig(read="token", token_file=file)) as daemon:
        for method, path, _ in ROUTES:
            target = path.replace("{path:.*}", "x").format(
                ab="ab",
                id=PACK_ID,
                name="timestamp.json",
                release=RELEASE,
                project="Demo",
                kind="packs",
                digest=PACK_ID,
                store="x",
                prefix="abcd",
                chunk="x",
            )
            status, headers, body = daemon.request(target, method=method)
            assert (status == 401) == (path not in OPEN_PATHS | STATUS_PATHS), (path, status)
            if status == 401:
                assert headers["www-authenticate"].startswith("Bearer")
                assert method == "HEAD" or json.loads(body)["hint"]
        for header in [bearer("x"), bearer(text + "0"), f"Authorization: Basic {text}", "Authorization:"]:
            assert daemon.request(PACK_PATH, header)[0] == 401
        assert daemon.request(PACK_PATH, bearer(text), bearer(text))[0] == 401
        status, headers, _ = daemon.request(PACK_PATH, bearer(text))
        assert (status, headers["cache-control"]) == (200, "private, max-age=31536000, immutable, no-transform")
        assert daemon.request("/healthz")[0] == 200
        assert daemon.status()["access"]["denied"] > 10


def test_the_status_may_be_for_some_addresses_or_a_token(store, file):
    _, text = make(file)
    closed = AccessConfig(status="token", token_file=file, status_networks=(ip_network("192.0.2.0/24"),))
    with running(store, access=closed) as daemon:
        for path in STATUS_PATHS:
            assert daemon.request(path)[0] == 401
            assert daemon.request(path, "X-Forwarded-For: 192.0.2.1")[0] == 401
            assert daemon.request(path, bearer(text))[0] == 200
        assert daemon.request(PACK_PATH)[1]["cache-control"].startswith("public")
    with running(store, access=AccessConfig(status="token", token_file=file, status_networks=LOOPBACK)) as daemon:
        assert daemon.request("/metrics")[0] == 200


def test_a_proxy_in_front_is_believed_and_strangers_in_its_list_are_not(store, file):
    make(file)
    network = (ip_network("192.0.2.0/24"),)
    access = AccessConfig(status="token", token_file=file, status_networks=network, trusted_proxies=LOOPBACK)
    with running(store, access=access) as daemon:
        assert daemon.request("/metrics", "X-Forwarded-For: 192.0.2.1")[0] == 200
        assert daemon.request("/metrics", "X-Forwarded-For: 10.0.0.1, 192.0.2.1, 127.0.0.1")[0] == 200
        assert daemon.request("/metrics", "X-Forwarded-For: 192.0.2.1, 10.0.0.1")[0] == 401
        assert daemon.request("/metrics", "X-Forwarded-For: 192.0.2.1, junk")[0] == 401
        assert daemon.request("/metrics")[0] == 401


@pytest.mark.parametrize("said", ["198.51.100.7:4711", "unknown", "192.0.2.1, junk", ""])
def test_a_client_of_whom_the_proxy_says_no_address_is_not_taken_for_the_proxy(store, file, said):
    make(file)
    access = AccessConfig(status="token", token_file=file, status_networks=LOOPBACK, trusted_proxies=LOOPBACK)
    with running(store, access=access) as daemon:
        assert daemon.request("/metrics", f"X-Forwarded-For: {said}")[0] == 401
        assert daemon.request("/metrics")[0] == 200


def test_a_token_that_came_in_the_open_is_refused_with_the_reason(store, file):
    _, text = make(file)
    with running(store, access=AccessConfig(read="token", token_file=file, trusted_proxies=LOOPBACK)) as daemon:
        status, _, body = daemon.request(PACK_PATH, bearer(text), "X-Forwarded-Proto: http")
        assert (status, json.loads(body)["message"]) == (403, "a token must not come over plain http")
        assert daemon.request(PACK_PATH, bearer(text), "X-Forwarded-Proto: https")[0] == 200


def test_what_is_revoked_or_unreadable_closes_while_it_runs(store, file, monkeypatch):
    monkeypatch.setattr("pacmirror.access.TOKENS_SECONDS", 0.0)
    _, text = make(file)
    with running(store, access=AccessConfig(read="token", token_file=file)) as daemon:
        assert daemon.request(PACK_PATH, bearer(text))[0] == 200
        file.chmod(0o644)
        assert daemon.request(PACK_PATH, bearer(text))[0] == 503
        assert "tokens cannot be read" in daemon.status()["warnings"][0]
        file.chmod(0o600)
        assert daemon.request(PACK_PATH, bearer(text))[0] == 200
        revoke_token(file, "site")
        assert daemon.request(PACK_PATH, bearer(text))[0] == 401


def test_a_daemon_whose_tokens_cannot_be_read_does_not_start(store, file):
    with (
        pytest.raises(PacballError, match=r"tokens\.json"),
        running(store, access=AccessConfig("token", token_file=file)),
    ):
        pass


def test_a_mirror_shows_its_token_to_its_upstream(store, file, tmp_path):
    _, text = make(file)
    (tmp_path / "own").write_text(text + "\n")
    (tmp_path / "own").chmod(0o600)
    with running(store, access=AccessConfig(read="token", token_file=file)) as origin:
        upstream = UpstreamConfig(urls=(origin.url,), tokens={origin.url: tmp_path / "own"})
        with running(tmp_path / "with", upstream=upstream) as mirror:
            wait_until(lambda: mirror.status()["catalog"]["state"] == "good")
        with running(tmp_path / "without", upstream=UpstreamConfig(urls=(origin.url,))) as mirror:
            wait_until(lambda: mirror.status()["replication"]["upstreams"][0]["error"])
            assert "401" in mirror.status()["replication"]["upstreams"][0]["error"]
            assert mirror.request("/readyz")[0] == 503
