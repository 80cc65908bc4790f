"""curl, wget and aria2 fetch a pack from the daemon: interrupted, resumed, in pieces, and only if it changed."""

from __future__ import annotations

import hashlib
import subprocess

import pytest

from tests.e2e.site import wait_until
from tests.e2e.slow import slowed
from tests.peers.programs import call, program

pytestmark = pytest.mark.peers


@pytest.fixture
def pack(origin):
    """A pack of some 50 MB."""
    return max((origin.store / "public/packs").rglob("??*/*"), key=lambda path: path.stat().st_size)


@pytest.fixture
def url(origin):
    with origin.site.serving(origin.store) as base:
        yield base


@pytest.fixture
def pack_url(url, origin, pack):
    return f"{url}/{pack.relative_to(origin.store / 'public')}"


def _sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


PIECES = ("-q", "--file-allocation=none", "-x4", "-s4", "-k1M", "-o", "got")


@pytest.mark.parametrize(
    ("name", "words", "resume"),
    [
        ("curl", ("-sSf", "-o", "got"), ("-sSf", "-C", "-", "-o", "got")),
        ("wget", ("-q", "-O", "got"), ("-q", "-c", "-O", "got")),
        ("aria2c", PIECES, ("-c", *PIECES)),
    ],
    ids=["curl", "wget", "aria2"],
)
def test_interrupted_and_resumed(url, pack, pack_url, tmp_path, name, words, resume):
    got = tmp_path / "got"
    with slowed(url, bytes_per_second=8 << 20) as slow:
        argv = [program(name), *words, pack_url.replace(url, slow)]
        with subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
            wait_until(lambda: got.exists() and got.stat().st_blocks * 512 > 2 << 20)
            process.terminate()
    assert not got.exists() or _sha256(got) != _sha256(pack)
    call(name, *resume, pack_url, cwd=tmp_path)
    assert _sha256(got) == _sha256(pack)


def test_aria2_takes_it_in_four_pieces(pack, pack_url, tmp_path):
    call("aria2c", "-q", "-x4", "-s4", "-k1M", "-d", tmp_path, "-o", "got", pack_url)
    assert _sha256(tmp_path / "got") == _sha256(pack)


def test_curl_asks_whether_it_changed(url, tmp_path):
    for path in ("catalog/timestamp.json", "catalog/1.root.json", "store.json"):
        etag, body = tmp_path / "etag", tmp_path / "body"
        etag.unlink(missing_ok=True)
        ask = ("-sS", "-w", "%{http_code} %{size_download}", "-o", body, "--etag-save", etag)
        status, size = call("curl", *ask, f"{url}/{path}").stdout.split()
        assert (status, int(size)) == ("200", body.stat().st_size)
        assert call("curl", *ask, "--etag-compare", etag, f"{url}/{path}").stdout == "304 0"


def test_curl_gets_the_range_that_it_asks_for(pack, pack_url, tmp_path):
    got = tmp_path / "got"
    call("curl", "-sSf", "-r", "1000-1999", "-o", got, pack_url)
    assert got.read_bytes() == pack.read_bytes()[1000:2000]
    call("curl", "-sSf", "-r", "-500", "-o", got, pack_url)
    assert got.read_bytes() == pack.read_bytes()[-500:]
    assert call("curl", "-s", "-o", got, "-w", "%{http_code}", "-r", "99999999999-", pack_url).stdout == "416"
    assert call("curl", "-s", "-o", got, "-w", "%{http_code}", "-X", "PUT", "-d", "x", pack_url).stdout == "405"
