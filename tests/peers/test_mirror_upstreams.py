"""Other people's web servers as the upstreams of a mirror, and other people's clients in front of it."""

from __future__ import annotations

import hashlib
import json
import subprocess

import pytest

from tests.e2e import trees
from tests.e2e.site import get
from tests.peers.conftest import NEW
from tests.peers.programs import program
from tests.peers.web import PLAIN, nginx
from tests.store.releases import shared_directory

pytestmark = [pytest.mark.peers, pytest.mark.timeout(240)]


@pytest.fixture
def upstream(origin):
    """nginx alone over the origin's store, with a configuration of one line."""
    with (
        shared_directory() as home,
        nginx(home / "nginx", PLAIN, {"/srv/store/public": str(origin.store / "public")}) as one,
    ):
        yield one


def packs_of(store):
    return sorted(str(path.relative_to(store / "public")) for path in (store / "public/packs").glob("*/*"))


def test_nginx_alone_is_an_upstream_and_each_byte_comes_once(tmp_path, site, origin, upstream):
    with site.mirroring(tmp_path / "mirror", upstream.url) as url:
        installers = [
            site.start("install", NEW, "--from", url, "--root", tmp_path / f"root{n}", "--root-keys", origin.root_keys)
            for n in range(3)
        ]
        for process in installers:
            process.communicate(timeout=120)
            assert process.returncode == 0
        for number in range(3):
            trees.assert_same(tmp_path / f"root{number}" / "releases" / NEW, origin.new)
        for path in packs_of(origin.store):
            assert get(f"{url}/{path}")[2] == (origin.store / "public" / path).read_bytes()
        received = json.loads(get(f"{url}/v1/status")[2])["upstreams"]["sources"][0]["bytes_received"]
    whole = sum((origin.store / "public" / path).stat().st_size for path in packs_of(origin.store))
    documents = sum(path.stat().st_size for path in (tmp_path / "mirror/public").rglob("*")
                    if path.is_file() and "packs" not in path.parts)  # fmt: skip
    assert received < 1.02 * whole + 2 * documents
    assert packs_of(tmp_path / "mirror") == packs_of(origin.store)


def test_curl_and_aria2_continue_and_split_what_is_still_being_fetched(tmp_path, site, origin, upstream):
    path = max(packs_of(origin.store), key=lambda one: (origin.store / "public" / one).stat().st_size)
    right = (origin.store / "public" / path).read_bytes()
    with site.mirroring(tmp_path / "mirror", upstream.url) as url:
        half, out = tmp_path / "half", tmp_path / "out"
        half.write_bytes(right[: len(right) // 2 + 7])
        curl = subprocess.Popen([program("curl"), "-sSf", "-C", "-", "-o", half, f"{url}/{path}"])
        split = [program("aria2c"), "-q", "-x8", "-s8", "-k1M", "--allow-overwrite=true", "-d", out, "-o", "pack"]
        subprocess.run([*split, f"{url}/{path}"], check=True, timeout=60)
        assert curl.wait(60) == 0
    for file in (half, out / "pack"):
        assert hashlib.sha256(file.read_bytes()).digest() == hashlib.sha256(right).digest()
