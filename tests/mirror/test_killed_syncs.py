"""A mirror that is killed while it fetches releases: it goes on where it was, and never says to hold what it does not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import closing

import pytest

from pacstore.check import catalog_releases
from pacstore.holding import is_held, verify_whole
from pacstore.ledger import releases, subscriptions
from pacstore.ledger.releases import ReleaseState
from pacstore.limits import KIB
from pacstore.progress import Silent
from pacstore.readback import Report, read_back
from pacstore.storage import DocumentKind, ObjectKind
from pacstore.store import Store
from pacstore.subscription import Subscription
from tests.e2e.attacker import mirroring
from tests.store.releases import NOW, Origin, noise, write

pytestmark = pytest.mark.slow
NAMES = [f"Demo-1.{number}-x" for number in range(4)]


@pytest.fixture
def origin(tmp_path):
    origin = Origin.make(tmp_path / "origin")
    with closing(origin.store):
        for name in NAMES:
            write(tmp_path / name / "data", noise(name, 6000 * KIB))
            origin.publish(tmp_path / name, name)
        yield origin


def start(where, url):
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": paths, "PACBALL_SERVE_LOG_LEVEL": "warning"}
    command = [sys.executable, "-c", "from paccli.main import run; run()", "serve", "--store", os.fspath(where)]
    command += ["--upstream", url, "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    assert "serving" in process.stdout.readline()
    return process


def kill(process):
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def held(where):
    """The releases that the store says to hold, each of which is whole and known to be; packs are read back to the last byte."""
    with Store.open(where, writable=True) as store:
        names = list(store.storage.names(DocumentKind.HOLDINGS))
        for entry in catalog_releases(store):
            if str(entry.release) in names:
                assert is_held(store.storage, entry)
                verify_whole(store.storage, entry)
        report = Report()
        for pack in store.storage.digests(ObjectKind.PACK):
            read_back(store.storage, pack, report, progress=Silent())
        assert report.damage == []
        return names


def test_a_sync_that_is_killed_again_and_again_goes_on_where_it_was(tmp_path, origin):
    """huggingface_hub#4196: whatever was interrupted began anew."""
    where = tmp_path / "mirror"
    with Store.create(where) as store, store.ledger.writing() as connection:
        subscriptions.add(connection, Subscription("*"), now=NOW)
    with mirroring(origin.store.public) as upstream:
        for round_ in range(60):
            process = start(where, upstream.url)
            time.sleep(0.05 + 0.1 * (round_ % 5))
            kill(process)
            if sorted(held(where)) == NAMES:
                break
        assert sorted(held(where)) == NAMES
        # Frames that were on their way are asked for again, and hardly more.
        packs = sum(path.stat().st_size for path in (where / "public/packs").rglob("*") if path.is_file())
        process = start(where, upstream.url)
        try:
            with Store.open(where, writable=True) as store:
                deadline = time.monotonic() + 60
                while not all_complete(store):
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
                assert list((where / "public").rglob("*.tmp")) == []
        finally:
            process.terminate()
            process.communicate(timeout=60)
        assert process.returncode == 0
        assert upstream.sent < 3 * packs


def all_complete(store):
    with store.ledger.reading() as connection:
        found = releases.every(connection).values()
        return len(found) == len(NAMES) and all(row.state is ReleaseState.COMPLETE for row in found)
