"""A mirror whose disk loses its power, is full, or fails, beside clients that pull packs through it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.site import Outcome, get, wait_until
from tests.peers.programs import program
from tests.peers.test_full_disks import fill_up
from tests.peers.volumes import volume
from tests.seeds import seeded

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

CUTS = 4
CLIENTS = 8


@pytest.fixture(scope="module")
def packs(origin):
    """The origin's packs, by their paths."""
    public = origin.store / "public"
    return {str(path.relative_to(public)): path.read_bytes() for path in sorted(public.glob("packs/*/*"))}


@pytest.fixture
def upstream(origin):
    with origin.site.serving_process(origin.store) as (url, _):
        yield url


def pull(url, packs, number, stop):
    """Read packs as a client would, until told; every body that ends as announced must be right. How many did."""
    order, whole = list(packs), 0
    while not stop.is_set():
        path = order[(number + whole) % len(order)]
        try:
            status, _, body = get(f"{url}/{path}")
        except (OSError, http.client.HTTPException):
            continue
        assert status in (200, 502, 503, 504), status
        if status == 200:
            assert body == packs[path], path
            whole += 1
    return whole


def public_packs(store):
    return {str(path.relative_to(store / "public")): path for path in (store / "public/packs").glob("*/*")}


def check(store, packs):
    """What is public is whole."""
    for path, file in public_packs(store).items():
        assert file.read_bytes() == packs[path], path


def leftovers(store):
    return [
        path for path in (store / "private").rglob("*") if path.is_file() and path.parts[-3] in ("partial", "staging")
    ]


def read_all(url, packs):
    for path, data in packs.items():
        assert get(f"{url}/{path}")[::2] == (200, data)


def cache_status(url):
    return json.loads(get(f"{url}/v1/status")[2])["cache"]


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_after_power_loss_all_that_is_public_is_whole_and_the_rest_goes_on(tmp_path, site, packs, upstream, kind):
    moments = seeded(kind)
    with volume(kind, tmp_path, mib=600) as disk:
        store = disk.path / "mirror"
        for _ in range(CUTS):
            before = set(public_packs(store))
            with site.serving_process(store, "--upstream", upstream) as (url, process):
                stop = threading.Event()
                with ThreadPoolExecutor() as pool:
                    clients = [pool.submit(pull, url, packs, number, stop) for number in range(CLIENTS)]
                    time.sleep(moments.uniform(0.02, 0.6))
                    acknowledged = len(before) + cache_status(url)["packs_completed"]
                    disk.cut_power()
                    process.kill()
                    process.communicate()
                    stop.set()
                    for client in clients:
                        client.result()
            disk.power_on()
            check(store, packs)
            assert before <= set(public_packs(store))
            assert len(public_packs(store)) >= acknowledged
        with site.mirroring(store, upstream) as url:
            read_all(url, packs)
            wait_until(lambda: set(public_packs(store)) == set(packs))
            check(store, packs)
        assert leftovers(store) == []


def test_a_full_disk_makes_it_pass_on_and_room_makes_it_keep(tmp_path, site, packs, upstream):
    with volume("ext4", tmp_path, mib=600) as disk:
        store = disk.path / "mirror"
        with site.serving_process(store, "--upstream", upstream) as (url, process):
            first = next(iter(packs))
            assert get(f"{url}/{first}")[::2] == (200, packs[first])
            wait_until(lambda: first in public_packs(store))
            ballast = fill_up(disk.path, leave_mib=1)
            with ThreadPoolExecutor() as pool:
                list(pool.map(lambda _: read_all(url, packs), range(3)))
            assert "no space left" in cache_status(url)["disk"]
            check(store, packs)
            ballast.unlink()
            wait_until(lambda: read_all(url, packs) or set(public_packs(store)) == set(packs), seconds=60)
            assert cache_status(url)["disk"] == ""
            process.send_signal(signal.SIGTERM)
            done = Outcome.of(process, timeout=30)
        check(store, packs)
        assert done.err.count("packs are not kept but passed on") == 1
        assert done.err.count("packs can be written to the disk again") == 1
        assert leftovers(store) == []


def test_on_a_full_disk_what_was_pulled_through_makes_room_for_what_is_asked_for(tmp_path, site, packs, upstream):
    with volume("ext4", tmp_path, mib=600) as disk:
        store = disk.path / "mirror"
        with site.serving_process(store, "--upstream", upstream) as (url, _):
            first, second = list(packs)[:2]
            assert get(f"{url}/{first}")[::2] == (200, packs[first])
            wait_until(lambda: json.loads(get(f"{url}/v1/status")[2])["sweep"]["held_bytes"] == len(packs[first]))
            fill_up(disk.path, leave_mib=0)
            wait_until(
                lambda: get(f"{url}/{second}")[::2] == (200, packs[second]) and second in public_packs(store),
                seconds=60,
            )
            assert first not in public_packs(store)
            assert json.loads(get(f"{url}/v1/status")[2])["sweep"]["evicted_packs"] >= 1
            check(store, packs)


def test_a_pack_whose_sync_fails_is_served_and_never_taken_for_kept(tmp_path, site, packs, upstream):
    store, path = tmp_path / "mirror", max(packs, key=lambda name: len(packs[name]))
    file = store / "private/partial" / path.removeprefix("packs/")
    with site.mirroring(store, upstream):
        pass
    failing = (program("strace"), "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-P", file)
    failing += ("-e", "trace=fsync", "-e", "inject=fsync:error=EIO")
    argv = ("serve", "--store", store, "--listen", "127.0.0.1:0", "--upstream", upstream)
    with site.start(*argv, before=failing) as process:
        url = json.loads(process.stdout.readline())["url"]
        assert get(f"{url}/{path}")[::2] == (200, packs[path])
        wait_until(lambda: "input/output error" in cache_status(url)["disk"])
        assert path not in public_packs(store)
        assert not file.exists()
        os.kill(child_of(process.pid), signal.SIGTERM)
        Outcome.of(process, timeout=30)
    assert path not in public_packs(store)
    with site.mirroring(store, upstream) as url:
        assert get(f"{url}/{path}")[::2] == (200, packs[path])
        wait_until(lambda: path in public_packs(store))
        check(store, packs)


def child_of(pid):
    """The program that strace runs."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return int(file.read().split()[0])
