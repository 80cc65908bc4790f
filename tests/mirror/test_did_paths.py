"""Files by their names in Rucio: the same answers as by their own paths, and nothing else."""

from __future__ import annotations

import pytest

from pacmirror.config import UpstreamConfig
from pacmirror.did_paths import public_path
from pacstore.errors import NotFound
from tests.e2e.site import wait_until
from tests.mirror.daemons import MANIFEST_ID, PACK, PACK_ID, running
from tests.mirror.mirrors import files_of
from tests.mirror.mischief import serving
from tests.store.packs import noise_pack

PACBALL = f"Demo-1.0-x86_64.b3-{PACK_ID}.sh"


def of_object(headers):
    return {
        name: headers.get(name)
        for name in ("etag", "cache-control", "content-length", "content-range", "accept-ranges")
    }


@pytest.mark.parametrize("directories", ["sw", "sw/12/34", "group/sw/x/y", "1-2_3.b"])
def test_a_file_is_found_by_scope_and_name_and_the_directories_between_do_not_count(daemon, directories):
    for name, path in (
        (f"{PACK_ID}.pack", f"packs/ab/{PACK_ID}"),
        (f"{MANIFEST_ID}.manifest", f"manifests/cd/{MANIFEST_ID}"),
    ):
        for method, headers in (
            ("GET", ()),
            ("HEAD", ()),
            ("GET", ("Range: bytes=3-6",)),
            ("GET", ("Range: bytes=1-",)),
        ):
            as_replica = daemon.request(f"/rucio/{directories}/{name}", *headers, method=method)
            as_path = daemon.request(f"/{path}", *headers, method=method)
            assert as_replica[0] == as_path[0]
            assert of_object(as_replica[1]) == of_object(as_path[1])
            assert as_replica[2] == as_path[2]
    assert daemon.get(f"/rucio/{directories}/{PACK_ID}.pack") == PACK


def test_what_is_not_here_is_not_here_by_that_name_either(daemon):
    for name in (f"{MANIFEST_ID}.pack", f"{PACK_ID}.manifest", f"{PACK_ID}.bundle", PACBALL):
        assert daemon.request(f"/rucio/sw/{name}")[0] == 404


def test_a_mirror_fetches_a_pack_that_is_asked_for_by_that_name(tmp_path):
    pack = noise_pack(2, 30_000)
    with (
        serving(files_of(pack)) as origin,
        running(tmp_path / "mirror", upstream=UpstreamConfig(urls=(origin.url,))) as mirror,
    ):
        assert mirror.get(f"/rucio/sw/{pack.id}.pack") == pack.data
        counted = 'pacball_sent_bytes_total{kind="rucio"'
        wait_until(
            lambda: len(pack.data) in [sent for name, sent in mirror.metrics().items() if name.startswith(counted)]
        )


def test_the_prefix_is_there_as_a_webdav_client_asks_first(daemon):
    status, _, body = daemon.request("/rucio/", method="HEAD")
    assert (status, body) == (200, b"")
    assert b"Rucio" in daemon.get("/rucio/")


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        (f"{PACK_ID}.pack", f"packs/ab/{PACK_ID}"),
        (f"{PACK_ID}.manifest", f"manifests/ab/{PACK_ID}"),
        (f"{PACK_ID}.bundle", f"bundles/ab/{PACK_ID}"),
        (PACBALL, f"pacballs/{PACBALL}"),
    ],
)
def test_what_names_mean(kind, path):
    assert public_path(f"/rucio/sw/{kind}") == path


@pytest.mark.parametrize(
    "path",
    [
        f"{PACK_ID}.pack",
        f"/{PACK_ID}.pack",
        f"sw//{PACK_ID}.pack",
        f"../{PACK_ID}.pack",
        f"sw/../{PACK_ID}.pack",
        f"sw/.{PACK_ID}.pack",
        f"s%77/{PACK_ID}.pack",
        f"a/b/c/d/e/f/g/h/{PACK_ID}.pack",
        f"sw/{PACK_ID}",
        f"sw/{PACK_ID}.packs",
        f"sw/{PACK_ID}.gz",
        f"sw/{PACK_ID}.pack/",
        f"sw/{PACK_ID}.pack\n",
        f"sw/{PACK_ID[1:]}.pack",
        f"sw/{PACK_ID.upper()}.pack",
        f"sw/0{PACK_ID}.pack",
        "sw/.sh",
        "sw/%2e%2e.sh",
        "sw",
        "sw/",
        "store.json",
        "sw/store.json",
        "sw/" + "x" * 5000,
    ],
)
def test_what_is_no_name(daemon, path):
    with pytest.raises(NotFound):
        public_path(f"/rucio/{path}")
    if "\n" not in path:
        assert daemon.request(f"/rucio/{path}")[0] == 404
