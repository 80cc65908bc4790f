"""A mirror whose upstream is nginx: over files it is polled; in front of a daemon it passes events on at once."""

from __future__ import annotations

import pytest

from tests.mirror.daemons import eventually, make_store, running
from tests.mirror.test_replication import PROMPT, mirror_of, serves
from tests.peers.web import example, nginx
from tests.store.signed_catalog import SignedCatalog

pytestmark = pytest.mark.peers


@pytest.fixture
def catalog():
    return SignedCatalog("Demo", "Other")


def state(mirror):
    return mirror.status()["following"]["upstreams"][0]["state"]


def test_nginx_over_files_is_polled(tmp_path, catalog):
    public = make_store(tmp_path / "origin", catalog) / "public"
    with (
        nginx(tmp_path / "nginx", example("pacball.conf"), {"/srv/store/public": str(public)}) as upstream,
        mirror_of(tmp_path / "mirror", upstream) as mirror,
    ):
        eventually(lambda: serves(mirror, catalog) and state(mirror) == "polling")
        catalog.commit("line-Demo")
        catalog.write(public)
        eventually(lambda: serves(mirror, catalog))


def test_nginx_as_a_cache_passes_events_on_to_all_who_listen(tmp_path, catalog):
    store = make_store(tmp_path / "origin", catalog)
    with running(store, PROMPT) as origin:
        changes = {"http://127.0.0.1:8081": origin.url, "/var/cache/nginx/pacball": str(tmp_path / "cache")}
        with (
            nginx(tmp_path / "nginx", example("pacball-cache.conf"), changes) as upstream,
            mirror_of(tmp_path / "first", upstream, poll=3600) as first,
            mirror_of(tmp_path / "second", upstream, poll=3600) as second,
        ):
            for _ in range(3):
                for mirror in (first, second):
                    eventually(lambda one=mirror: serves(one, catalog) and state(one) == "listening")
                catalog.commit("line-Demo")
                catalog.write(store / "public")
            eventually(lambda: serves(first, catalog) and serves(second, catalog))
