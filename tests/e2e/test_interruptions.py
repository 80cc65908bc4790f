"""What is stopped in the middle: installs by ^C and kill -9, the daemon by SIGTERM, and many publishers at once."""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e import trees
from tests.e2e.site import Outcome, wait_until
from tests.e2e.slow import slowed
from tests.seeds import seeded

RELEASE = "Large-1.0-any"
LINE_BYTES_PER_SECOND = 3 * trees.MIB


@pytest.fixture(scope="module")
def large(tmp_path_factory, origin):
    """A store with one release that takes more than a second on a slow line; its tree."""
    home = tmp_path_factory.mktemp("large")
    tree = trees.fill(home / "tree", seed=7, files=60, file_bytes=150 * trees.KIB, bits=8)
    origin.site.publish(tree, RELEASE, home / "store")
    return home / "store", tree


@pytest.fixture
def command(origin, large, root):
    """The installation of that release over a slow line."""
    store, _ = large
    with (
        origin.site.serving(store) as url,
        slowed(url, bytes_per_second=LINE_BYTES_PER_SECOND) as slow,
    ):
        yield ("install", RELEASE, "--from", slow, "--root-keys", origin.site.root_keys(store), "--root", root)


def _staged_bytes(root):
    found = 0
    for directory, _, names in os.walk(root / ".pacball/staging"):
        for name in names:
            try:
                found += os.stat(os.path.join(directory, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return found


def test_an_interrupted_install_says_how_to_go_on_and_does(site, large, root, command):
    process = site.start(*command)
    wait_until(lambda: _staged_bytes(root) > trees.MIB)  # the first of two ranges is written
    process.send_signal(signal.SIGINT)
    done = Outcome.of(process, timeout=20)
    assert (done.code, done.json["error"]) == (130, "interrupted")
    assert "run the same command again" in done.err
    assert not (root / "releases" / RELEASE).exists()
    second = site.ok(*command)
    assert second["bytes_reused"] > trees.MIB
    assert second["bytes_downloaded"] < 0.9 * second["bytes_total"]
    trees.assert_same(root / "releases" / RELEASE, large[1])
    assert os.listdir(root / ".pacball/staging") == []


@pytest.mark.slow
def test_an_install_that_is_killed_again_and_again_completes(site, large, root, command):
    moments = seeded("install")
    for _ in range(10):
        process = site.start(*command)
        time.sleep(moments.uniform(0.3, 1.8))
        process.kill()
        process.communicate()
        if (root / "releases" / RELEASE).exists():
            trees.assert_same(root / "releases" / RELEASE, large[1])
    site.ok(*command)
    trees.assert_same(root / "releases" / RELEASE, large[1])
    assert site.ok("verify", RELEASE, "--root", root)["intact"] is True
    assert os.listdir(root / ".pacball/staging") == []


def test_two_installs_of_the_same_at_once(site, large, root, command):
    both = [site.start(*command) for _ in range(2)]
    assert [Outcome.of(process, timeout=60).code for process in both] == [0, 0]
    trees.assert_same(root / "releases" / RELEASE, large[1])
    assert os.listdir(root / ".pacball/staging") == []


@pytest.mark.slow
def test_a_publish_that_is_killed_again_and_again_completes(site, large, tmp_path):
    moments = random.Random(2)
    store = tmp_path / "store"
    for _ in range(6):
        process = site.start("publish", large[1], RELEASE, "--to", store)
        time.sleep(moments.uniform(0.25, 0.9))
        process.kill()
        process.communicate()
    done = site.publish(large[1], RELEASE, store)
    assert done["existed"] or done["bytes_total"] > 0
    assert [one["release"] for one in site.ok("list", "--from", store)["releases"]] == [RELEASE]
    assert site.ok("store", "check", "--store", store)["intact"] is True


def test_the_daemon_ends_what_it_began(site, large):
    store, _ = large
    pack = max((store / "public/packs").rglob("??*/*"), key=lambda path: path.stat().st_size)
    with site.serving_process(store) as (url, process):
        host, port = url.removeprefix("http://").split(":")
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
            client.connect((host, int(port)))
            path = pack.relative_to(store / "public")
            client.sendall(f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            received = bytearray(client.recv(1000))
            process.send_signal(signal.SIGTERM)
            wait_until(lambda: not _accepts(host, int(port)))
            assert process.poll() is None
            while piece := client.recv(1 << 20):
                received += piece
        assert bytes(received).endswith(pack.read_bytes())
        done = Outcome.of(process, timeout=20)
        assert (done.code, done.err) == (0, "")


def _accepts(host, port):
    try:
        with socket.create_connection((host, port), timeout=1) as sock:
            sock.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            return sock.recv(1) != b""
    except OSError:
        return False


@pytest.mark.parametrize(
    "names",
    [["A-1-x", "B-1-x", "C-1-x", "D-1-x"], pytest.param(["A-1-x", "A-2-x", "A-3-x", "A-4-x"], marks=pytest.mark.slow)],
)
def test_four_publishers_at_once_into_a_new_store(site, tmp_path, names):
    made = [trees.fill(tmp_path / name, seed=n, files=20, file_bytes=100_000) for n, name in enumerate(names)]
    store = tmp_path / "store"
    with ThreadPoolExecutor(len(names)) as pool:
        done = list(pool.map(lambda tree, name: site.run("publish", tree, name, "--to", store), made, names))
    assert [(one.code, one.err) for one in done if one.code] == []
    assert sorted(one["release"] for one in site.ok("list", "--from", store)["releases"]) == names
    assert site.ok("store", "check", "--store", store)["intact"] is True
    assert site.publish(made[0], names[0], store)["existed"] is True


def test_publishers_of_the_same_release_at_once(site, tmp_path, origin):
    store = tmp_path / "store"
    with ThreadPoolExecutor(3) as pool:
        tasks = [pool.submit(site.publish, origin.old, RELEASE, store) for _ in range(3)]
        assert len({task.result()["tree_digest"] for task in tasks}) == 1
    assert len(site.ok("list", "--from", store)["releases"]) == 1
    assert site.ok("store", "check", "--store", store)["intact"] is True
