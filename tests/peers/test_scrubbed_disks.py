"""Scrub and repair on disks that fail: sectors that cannot be read, power loss, kills, and readers all the while."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pacstore.store import Store
from tests.e2e.site import get, wait_until
from tests.peers.injection import injecting
from tests.peers.programs import call, program
from tests.peers.volumes import volume
from tests.store.damaged_stores import copy_store, damage, frames, heal, largest, packs, publish_two
from tests.store.releases import flip, leftovers

pytestmark = [pytest.mark.peers, pytest.mark.root, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return publish_two(tmp_path_factory.mktemp("disks")).store.path


def block_on_disk(path: Path, offset: int) -> int:
    """Where in its file system's image the byte of a file is."""
    blocks = call("filefrag", "-e", "-b4096", path).stdout.splitlines()
    for line in blocks:
        parts = line.replace("..", " ").replace(":", " ").split()
        if len(parts) > 5 and parts[0].isdigit():
            logical, end, physical = int(parts[1]), int(parts[2]), int(parts[3])
            if logical <= offset // 4096 <= end:
                return (physical + offset // 4096 - logical) * 4096
    raise AssertionError(blocks)


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_rot_on_the_disk_is_found_though_the_page_cache_still_has_the_right_bytes(tmp_path, sound, kind):
    """Bytes change below the file system: who reads through the cache sees nothing of it."""
    with (
        volume(kind, tmp_path, mib=400) as disk,
        Store.open(copy_store(sound, disk.path / "store"), writable=True) as store,
    ):
        path = largest(store)
        before = (store.public / path).read_bytes()
        os.sync()
        begin, end = frames(store, path)[1]
        at = block_on_disk(store.public / path, begin + 5000)
        with disk.image.open("r+b") as image:
            image.seek(at)
            image.write(b"rotten" * 10)
            image.flush()
            os.fsync(image.fileno())
        assert (store.public / path).read_bytes() == before
        (part,) = damage(store)
        assert (part.path, part.offset, part.length) == (path, begin, end - begin)
        (healed,) = heal(store, sources=[sound])
        assert healed.whole
        assert damage(store) == []
        assert (store.public / path).read_bytes() == before


SCRUB = """
import sys
from pathlib import Path
from pacstore.store import Store
from tests.store.damaged_stores import damage
with Store.open(Path(sys.argv[1]), writable=True) as store:
    for part in damage(store):
        print(part.path, part.offset, part.fault, sep="|")
"""


def test_a_sector_that_cannot_be_read_damages_its_frame_alone(tmp_path, sound):
    """cvmfs#2887: one bad chunk ended the whole run. The table is read with 3 calls, then all frames at once, then each."""
    with Store.open(copy_store(sound, tmp_path / "store"), writable=True) as store:
        path = largest(store)
        begin, _ = frames(store, path)[0]
        strace = [program("strace"), "-f", "-qq", "-o", "/dev/null", "-P", str(store.public / path)]
        strace += ["-e", "trace=preadv,preadv2", "-e", "inject=preadv,preadv2:error=EIO:when=4..5"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        argv = [*strace, sys.executable, "-c", SCRUB, str(store.path)]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines() == [f"{path}|{begin}|the frame cannot be read: input/output error"]


@pytest.mark.parametrize("seed", range(2))
def test_repair_killed_anywhere_leaves_a_store_that_a_repair_heals(site, tmp_path, sound, seed):
    rng = random.Random(seed)
    with Store.open(copy_store(sound, tmp_path / "store"), writable=True) as store:
        before = {path: (store.public / path).read_bytes() for path in packs(store)}
        for _ in range(3):
            for path in packs(store):
                flip(store.public / path, rng.randrange(len(before[path])))
            words = ("store", "check", "--store", store.path, "--repair", "--from", sound)
            calls = rng.choice(("fsync", "rename", "unlink", "fdatasync", "pwrite64"))
            done = site.run(*words, before=injecting(calls, "signal=KILL", rng.randrange(1, 9)))
            assert done.code in (0, -signal.SIGKILL, 137), done.err
            for path, data in before.items():
                # Whatever is public is whole, or as damaged as it was: never a mixture under way.
                if (store.public / path).exists():
                    assert len((store.public / path).read_bytes()) == len(data)
        told = site.ok(*words)
        assert told["intact"]
        assert {path: (store.public / path).read_bytes() for path in packs(store)} == before
        store.drop_stale_staging(time.time() + 10 * 86_400)
        assert leftovers(store) == []


def test_readers_get_no_wrong_byte_once_it_is_repaired(site, tmp_path, sound):
    """Repair by hand beside a daemon that serves: what readers get is the old file, or the new one, never a mixture."""
    with Store.open(copy_store(sound, tmp_path / "store"), writable=True) as store:
        path = largest(store)
        good = (store.public / path).read_bytes()
        flip(store.public / path, 5000)
        bad = (store.public / path).read_bytes()
        stop, seen, repaired = threading.Event(), [], threading.Event()
        # Who takes the digests of pacballs would find the damage, say so, and have it repaired.
        site.environment["PACBALL_SERVE_PACBALLS_AHEAD"] = "false"

        def read(url):
            while not stop.is_set():
                after = repaired.is_set()
                status, _, body = get(f"{url}/{path}")
                seen.append((after, status, body == good, body == bad))

        with site.serving(store.path) as url:
            readers = [threading.Thread(target=read, args=(url,)) for _ in range(4)]
            for reader in readers:
                reader.start()
            wait_until(lambda: len(seen) > 8)
            assert site.ok("store", "check", "--store", store.path, "--repair", "--from", sound)["intact"]
            repaired.set()
            count = len(seen)
            wait_until(lambda: len(seen) > count + 12)
            stop.set()
            for reader in readers:
                reader.join()
    assert all(status == 200 and (is_good or is_bad) for _, status, is_good, is_bad in seen)
    assert all(is_good for after, _, is_good, _ in seen if after)
    assert any(is_bad for *_, is_bad in seen)
