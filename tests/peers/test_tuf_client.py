"""python-tuf's own client, unmodified, against every kind of server that we document."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from tests.peers.conftest import NEW, OLD
from tests.peers.web import PLAIN, example, nginx
from tests.tuf_client import DOCUMENTS, download

pytestmark = pytest.mark.peers


@contextmanager
def served(origin, home, how):
    public = {"/srv/store/public": str(origin.store / "public")}
    if how == "nginx as documented":
        with nginx(home, example("pacball.conf"), public) as server:
            yield server.url
    elif how == "plain nginx":
        with nginx(home, PLAIN, public) as server:
            yield server.url
    else:
        with origin.site.serving(origin.store) as url:
            if how == "the daemon":
                yield url
                return
            changes = {"http://127.0.0.1:8081": url, "/var/cache/nginx/pacball": str(home.with_name("cache"))}
            with nginx(home, example("pacball-cache.conf"), changes) as server:
                yield server.url


@pytest.mark.parametrize("how", ["nginx as documented", "plain nginx", "the daemon", "nginx before the daemon"])
def test_python_tuf_gets_every_document(origin, tmp_path, how):
    root = origin.root_keys.read_bytes()
    with served(origin, tmp_path / "nginx", how) as url:
        for release in (OLD, NEW):
            found = download(url, root, tmp_path / release, release, DOCUMENTS[:3])
            placed = (origin.store / f"public/placements/{release}.1").read_bytes()
            assert found["placement"] == placed
            assert found["manifest"][:8] == b"PBMANI01"
            assert found["attributes"][:8] == b"PBATTR01"
