"""What a mirror does not hold comes from its upstreams once, verified; what nobody has is absent, and errors are no absence."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from pacmirror.catalog import ServedCatalog
from pacmirror.config import Config, UpstreamConfig
from pacmirror.documents import Documents
from pacmirror.files import PublicFiles, parse_public
from pacmirror.limits import DocumentLimits
from pacmirror.replication import Replication
from pacmirror.threads import start_thread
from pacmirror.upstream import Upstream
from pacmirror.verdict import NotReached
from pacstore.documents import keep_document
from pacstore.holding import holdings_of
from pacstore.links import links_of
from pacstore.storage import ObjectKind, object_path
from pacstore.store import Store
from pacstore.trust import entries
from tests.e2e.attacker import mirroring
from tests.mirror.daemons import eventually, make_store, parse_answer
from tests.mirror.scripted import Pause, answer
from tests.mirror.test_replication import PROMPT, mirror_of, serves, told
from tests.store.signed_catalog import SignedCatalog
from tests.store.trust_world import document, entry

NAME = "Demo-1.0-any"
ONE = replace(entry(NAME), provenance=document("provenance"))
TEXTS = {
    f"manifests/{ONE.manifest.digest.hex[:2]}/{ONE.manifest.digest.hex}": f"manifest {NAME} ",
    f"attributes/{ONE.attributes.digest.hex[:2]}/{ONE.attributes.digest.hex}": f"attributes {NAME}",
    f"provenance/{ONE.provenance.digest.hex[:2]}/{ONE.provenance.digest.hex}": "provenance",
    f"placements/{NAME}.1": f"placement {NAME} 1",
}
MANIFEST, ATTRIBUTES, PROVENANCE, PLACEMENT = TEXTS
HOLDINGS = f"holdings/{NAME}"
IMPATIENT = replace(PROMPT, documents=DocumentLimits(failed_seconds=0, refresh_pause_seconds=0, holdings_seconds=0))


def add(catalog, one):
    for target in entries.encode_line(one):
        catalog.signed["line-Demo"].targets[target.path] = target
    target = entries.encode_placement(one)
    catalog.signed["placement-Demo"].targets[target.path] = target
    return catalog.commit("line-Demo", "placement-Demo")


@pytest.fixture
def catalog():
    made = SignedCatalog("Demo")
    add(made, ONE)
    return made


@pytest.fixture
def upstream(tmp_path, catalog):
    public = make_store(tmp_path / "origin", catalog) / "public"
    for path, text in TEXTS.items():
        (public / path).parent.mkdir(parents=True, exist_ok=True)
        (public / path).write_text(text)
    (public / HOLDINGS).write_bytes(holdings_of(ONE).encode())
    with mirroring(public) as made:
        yield made


@pytest.fixture
def mirror(tmp_path, catalog, upstream):
    with mirror_of(tmp_path / "mirror", upstream, limits=IMPATIENT) as daemon:
        eventually(lambda: serves(daemon, catalog))
        upstream.forget()
        yield daemon


@pytest.mark.parametrize("path", TEXTS)
def test_each_document_is_fetched_once_and_kept(mirror, upstream, path):
    for _ in range(3):
        assert mirror.get(f"/{path}") == TEXTS[path].encode()
    assert upstream.asked[path] == 1
    assert (mirror.store / "public" / path).read_text() == TEXTS[path]
    status, headers, body = mirror.request(f"/{path}", "Range: bytes=2-4")
    assert (status, body) == (206, TEXTS[path].encode()[2:5])
    assert "immutable" in headers["cache-control"]


def test_links_for_other_clients_of_tuf_lead_to_the_same_documents(mirror, upstream):
    for link in links_of(ONE):
        assert mirror.get(f"/{link.path}") == TEXTS[link.file].encode()
        assert os.path.samefile(mirror.store / "public" / link.path, mirror.store / "public" / link.file)
        assert (upstream.asked[link.file], upstream.asked[link.path]) == (1, 0)


def test_what_no_catalog_names_is_absent_and_nobody_is_asked(mirror, upstream):
    digest = "ab" * 32
    for path in (
        f"manifests/ab/{digest}",
        f"attributes/ab/{digest}",
        f"provenance/ab/{digest}",
        f"bundles/ab/{digest}",
        "placements/Demo-9-any.1",
        "holdings/Demo-9-any",
        f"releases/Demo/Demo-9-any/{digest}.manifest",
        f"releases/Demo/{NAME}/{digest}.manifest",
        "catalog/7.line-Demo.json",
        "catalog/7.root.json",
    ):
        status, headers, body = mirror.request(f"/{path}")
        assert (status, headers["cache-control"]) == (404, "no-store"), body
        assert upstream.asked[path] == 0


def test_a_stampede_is_one_fetch_distribution_3969(mirror, upstream):
    """distribution#3969: N clients were N pulls."""
    clients = 20
    upstream.says(MANIFEST, Pause(0.5), answer("200 OK", TEXTS[MANIFEST].encode()))
    with ThreadPoolExecutor(clients) as pool:
        found = list(pool.map(lambda _: mirror.get(f"/{MANIFEST}"), range(clients)))
    assert found == [TEXTS[MANIFEST].encode()] * clients
    assert upstream.asked[MANIFEST] == 1
    assert mirror.status()["documents"]["fetched"] == 1


def test_whoever_leaves_stops_nothing_zot_3359(mirror, upstream):
    """zot#3359: clients timed out, and their leaving cancelled the fetch, so that it never came to an end."""
    upstream.says(MANIFEST, Pause(0.3), answer("200 OK", TEXTS[MANIFEST].encode()))
    with socket.create_connection(mirror.address) as sock:
        sock.sendall(f"GET /{MANIFEST} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        eventually(lambda: upstream.asked[MANIFEST])
    eventually((mirror.store / "public" / MANIFEST).exists)
    assert mirror.get(f"/{MANIFEST}") == TEXTS[MANIFEST].encode()
    assert upstream.asked[MANIFEST] == 1


WRONG = {
    "absent": (answer("404 Not Found"), 404),
    "failing": (answer("500 Oops"), 504),
    "denied": (answer("403 Forbidden"), 504),
    "elsewhere": (answer("302 Found", b"", "Location: http://127.0.0.1:1/"), 504),
    "wrong": (answer("200 OK", b"x" * ONE.manifest.length), 502),
    "too long": (answer("200 OK", TEXTS[MANIFEST].encode() + b"x"), 502),
    "cut": (answer("200 OK", TEXTS[MANIFEST].encode()[:-1], length=ONE.manifest.length), 504),
    "short": (answer("200 OK", TEXTS[MANIFEST].encode()[:-1]), 502),
    "a web page": (answer("200 OK", b"<html>", "Content-Type: text/html"), 502),
}


@pytest.mark.parametrize("name", WRONG)
def test_only_a_definite_absence_is_told_as_one_ncps_1299(mirror, upstream, name):
    said, status = WRONG[name]
    upstream.says(MANIFEST, said)
    found, headers, body = mirror.request(f"/{MANIFEST}")
    assert (found, headers["cache-control"]) == (status, "no-store"), body
    assert json.loads(body)["message"]
    assert not (mirror.store / "public" / MANIFEST).exists()
    # It costs time, never correctness: when the upstream is good again, so is the mirror.
    upstream.is_honest()
    eventually(lambda: mirror.request(f"/{MANIFEST}")[::2] == (200, TEXTS[MANIFEST].encode()))


def test_what_is_held_is_served_whatever_the_upstream_does(tmp_path, catalog, mirror, upstream):
    assert mirror.get(f"/{MANIFEST}") == TEXTS[MANIFEST].encode()
    for path in (MANIFEST, PLACEMENT, "catalog/timestamp.json"):
        upstream.says(path, answer("500 Oops"))
    assert mirror.get(f"/{MANIFEST}") == TEXTS[MANIFEST].encode()
    assert mirror.request("/catalog/timestamp.json", "Cache-Control: no-cache")[::2] == (200, catalog.stamp)
    answered = mirror.exchange(
        f"GET /{PLACEMENT} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode(), timeout=60
    )
    assert parse_answer(answered)[0] == 504


def test_before_there_is_a_catalog_nothing_is_absent(tmp_path, upstream):
    upstream.says("catalog/timestamp.json", answer("500 Oops"))
    with mirror_of(tmp_path / "mirror", upstream) as mirror:
        for path in (MANIFEST, PLACEMENT, HOLDINGS, "catalog/1.root.json", "catalog/timestamp.json"):
            status, headers, _ = mirror.request(f"/{path}")
            assert (status, headers["cache-control"]) == (504, "no-store")


def test_a_newer_placement_makes_the_mirror_look_at_once(tmp_path, catalog, upstream):
    newer = replace(ONE, placement=document(f"placement {NAME} 2"), placement_number=2)
    path = f"placements/{NAME}.2"
    with mirror_of(tmp_path / "mirror", upstream, poll=3600, limits=IMPATIENT) as mirror:
        eventually(lambda: serves(mirror, catalog) and told(mirror)["releases"] == 1)
        assert mirror.request(f"/{path}")[0] == 404
        add(catalog, newer)
        catalog.write(upstream.public)
        (upstream.public / path).write_text(f"placement {NAME} 2")
        assert mirror.get(f"/{path}") == f"placement {NAME} 2".encode()
        assert serves(mirror, catalog)


def test_a_release_that_is_new_at_the_upstream_is_found_by_its_placement(tmp_path, catalog, upstream):
    other = entry("Demo-2.0-any")
    with mirror_of(tmp_path / "mirror", upstream, poll=3600, limits=IMPATIENT) as mirror:
        eventually(lambda: serves(mirror, catalog) and told(mirror)["releases"] == 1)
        add(catalog, other)
        catalog.write(upstream.public)
        path = object_path(ObjectKind.MANIFEST, other.manifest.digest)
        (upstream.public / path).parent.mkdir(parents=True, exist_ok=True)
        (upstream.public / path).write_text("manifest Demo-2.0-any ")
        (upstream.public / "placements/Demo-2.0-any.1").write_text("placement Demo-2.0-any 1")
        assert mirror.get("/placements/Demo-2.0-any.1") == b"placement Demo-2.0-any 1"
        assert mirror.get(f"/{path}") == b"manifest Demo-2.0-any "


def test_what_a_newer_catalog_may_name_is_not_called_absent_while_no_upstream_can_be_asked(tmp_path, catalog, upstream):
    limits = replace(PROMPT, documents=DocumentLimits(refresh_pause_seconds=0, refresh_seconds=1))
    with mirror_of(tmp_path / "mirror", upstream, limits=limits) as mirror:
        eventually(lambda: serves(mirror, catalog) and told(mirror)["releases"] == 1)
        eventually(lambda: mirror.request(f"/placements/{NAME}.2")[0] == 404)
        upstream.says("catalog/timestamp.json", answer("500 Oops"))
        eventually(lambda: mirror.request(f"/placements/{NAME}.2")[0] == 504)
        upstream.is_honest()
        eventually(lambda: mirror.request(f"/placements/{NAME}.2")[0] == 404)


def test_a_withdrawn_release_is_told_of_zot_3102(mirror, catalog, upstream):
    """zot#3102: deletions did not propagate."""
    catalog.signed["line-Demo"].targets[f"releases/Demo/{NAME}/manifest"].unrecognized_fields["custom"]["withdrawn"] = {
        "at": "2026-01-02T00:00:00Z",
        "reason": "wrong results",
    }
    catalog.commit("line-Demo")
    catalog.write(upstream.public)
    eventually(lambda: serves(mirror, catalog))
    assert b"wrong results" in mirror.get(f"/{catalog.path('line-Demo')}")
    # Its documents stay, for those who look at what they have; that it can be had here is not said any more.
    eventually(lambda: mirror.request(f"/{HOLDINGS}")[0] == 404)
    assert mirror.get(f"/{MANIFEST}") == TEXTS[MANIFEST].encode()


# Holdings


def test_what_an_upstream_says_of_a_release_is_passed_on_and_never_kept(mirror, upstream):
    for _ in range(2):
        status, headers, body = mirror.request(f"/{HOLDINGS}")
        assert (status, body) == (200, holdings_of(ONE).encode())
        assert "max-age=61" in headers["cache-control"]
    assert not (mirror.store / "public" / HOLDINGS).exists()
    (upstream.public / HOLDINGS).unlink()
    assert mirror.request(f"/{HOLDINGS}")[0] == 404


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"{}", 502),
        (holdings_of(replace(ONE, placement_number=2)).encode(), 504),
        (holdings_of(entry("Demo-2.0-any")).encode(), 504),
        (b"x" * 70_000, 502),
    ],
)
def test_a_statement_that_is_not_the_catalogs_is_not_passed_on(mirror, upstream, said, status):
    upstream.gives(HOLDINGS, said)
    assert mirror.request(f"/{HOLDINGS}")[0] == status


# The disk


def test_a_file_of_the_catalog_that_is_gone_comes_again(mirror, catalog):
    for path in ("catalog/1.root.json", catalog.path("line-Demo"), catalog.path("targets")):
        (mirror.store / "public" / path).unlink()
        assert mirror.get(f"/{path}") == catalog.files[path]
        assert (mirror.store / "public" / path).read_bytes() == catalog.files[path]


def test_what_cannot_be_kept_is_passed_on(mirror, upstream):
    staging = mirror.store / "private/staging"
    staging.rename(staging.with_name("gone"))
    staging.write_bytes(b"")
    link = next(link for link in links_of(ONE) if link.file == MANIFEST)
    for path in (MANIFEST, PLACEMENT, link.path):
        assert mirror.get(f"/{path}") == TEXTS[link.file if path == link.path else path].encode()
    assert any("cannot be kept" in warning for warning in mirror.status()["warnings"])
    staging.unlink()
    staging.with_name("gone").rename(staging)
    assert mirror.get(f"/{MANIFEST}") == TEXTS[MANIFEST].encode()
    assert (mirror.store / "public" / MANIFEST).read_text() == TEXTS[MANIFEST]
    assert not any("cannot be kept" in warning for warning in mirror.status()["warnings"])


def test_what_cannot_be_kept_takes_bounded_memory_however_many_read_it_slowly(tmp_path, upstream):
    asyncio.run(_pass_on(tmp_path / "mirror", upstream))


async def _pass_on(where, upstream):
    most = len(TEXTS[MANIFEST]) + len(TEXTS[PLACEMENT])
    limits = replace(IMPATIENT, documents=replace(IMPATIENT.documents, unkept_bytes=most))
    config = Config(where, limits=limits, upstream=UpstreamConfig(urls=(upstream.url,)))
    Store.create(where)
    files = PublicFiles(config)
    sources = Upstream(config.upstream)
    replication = Replication(config, ServedCatalog(config, files), sources.catalog_sources())
    documents = Documents(config, files, replication, sources)
    await replication.start()
    try:
        await replication.refresh()
        (where / "private/staging").rename(where / "private/gone")
        (where / "private/staging").write_bytes(b"")
        readers = [(await documents.open(parse_public(path))).file for path in (MANIFEST, PLACEMENT, *[MANIFEST] * 5)]
        with pytest.raises(NotReached, match="too many clients"):
            await documents.open(parse_public(PROVENANCE))
        for reader in readers:
            assert reader.read()
            reader.close()
        with (await documents.open(parse_public(PROVENANCE))).file as reader:
            assert reader.read() == TEXTS[PROVENANCE].encode()
    finally:
        await replication.end()
        await documents.end()
        await start_thread(sources.mirrors.close, name="close")


def test_stopping_does_not_wait_for_an_upstream_that_is_stuck(tmp_path, catalog, upstream):
    upstream.says(MANIFEST, Pause(60))
    found = []
    with mirror_of(tmp_path / "mirror", upstream) as mirror:
        eventually(lambda: serves(mirror, catalog) and told(mirror)["releases"] == 1)
        client = threading.Thread(target=lambda: found.append(mirror.request(f"/{MANIFEST}")[0]))
        client.start()
        eventually(lambda: upstream.asked[MANIFEST])
    client.join(20)
    assert found == [504]


def test_a_sync_compares_what_is_here_and_makes_the_links_cvmfs_3878(tmp_path, upstream):
    """cvmfs#3878: a replica trusted an object because its name existed."""
    asyncio.run(_fetch_over_damage(tmp_path / "mirror", upstream))


async def _fetch_over_damage(where, upstream):
    config = Config(where, limits=IMPATIENT, upstream=UpstreamConfig(urls=(upstream.url,)))
    store = Store.create(where)
    for path in (MANIFEST, PLACEMENT):
        keep_document(store.storage, path, TEXTS[path].upper().encode())
    files = PublicFiles(config)
    sources = Upstream(config.upstream)
    replication = Replication(config, ServedCatalog(config, files), sources.catalog_sources())
    documents = Documents(config, files, replication, sources)
    try:
        for _ in range(2):
            await documents.fetch(ONE)
            for link in links_of(ONE):
                assert (store.public / link.path).read_text() == TEXTS[link.file]
                assert upstream.asked[link.file] == 1
    finally:
        await documents.end()
        await start_thread(sources.mirrors.close, name="close")
