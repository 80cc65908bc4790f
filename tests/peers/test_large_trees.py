"""What is large: two hundred thousand files, and a file of five gigabytes; whole, in bounded memory, resumed in the middle."""

from __future__ import annotations

import os
import re
import shutil
import threading
from pathlib import Path

import pytest
from blake3 import blake3

from tests.e2e import trees
from tests.e2e.line import line_to
from tests.e2e.site import Outcome, Site

pytestmark = [pytest.mark.large, pytest.mark.timeout(1800)]

MANY, HUGE = "Many-1.0-any", "Huge-1.0-any"
FILES, FILES_A_DIRECTORY = 200_000, 400
HUGE_BYTES, PERIOD_BYTES = 5 * 10**9, 61 * 10**6
MEMORY_BYTES = 256 * trees.MIB


@pytest.fixture
def home(tmp_path_factory):
    made = tmp_path_factory.mktemp("large")
    yield made
    shutil.rmtree(made)


class Peak:
    """The most memory that a process took, looked at until it ends."""

    def __init__(self, process):
        self.bytes = 0
        self._process = process
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self):
        while self._process.poll() is None:
            try:
                found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{self._process.pid}/status").read_text())
            except OSError:
                return
            self.bytes = max(self.bytes, int(found[1]) * 1024 if found else 0)
            self._ended.wait(0.05)


def measured(site, *words):
    """The result of a command that must succeed in little memory."""
    process = site.start(*words)
    peak = Peak(process)
    done = Outcome.of(process, timeout=1500)
    assert done.code == 0, done.err
    assert 0 < peak.bytes < MEMORY_BYTES
    return done.json


def test_two_hundred_thousand_files(home):
    site, tree, root = Site(home / "home"), home / "tree", home / "root"
    for directory in range(FILES // FILES_A_DIRECTORY):
        path = tree / f"p{directory % 20}" / f"d{directory}"
        path.mkdir(parents=True)
        for number in range(FILES_A_DIRECTORY):
            with open(path / f"module_{number}.py", "wb") as file:
                file.write(b"%d of %d\n" % (number, directory) * 3)
    measured(site, "publish", tree, MANY, "--to", home / "store")
    measured(site, "install", MANY, "--from", home / "store", "--root", root)
    assert measured(site, "verify", MANY, "--root", root)["intact"] is True
    for path in tree.rglob("*.py"):
        assert (root / "releases" / MANY / path.relative_to(tree)).read_bytes() == path.read_bytes()
    assert sum(1 for _ in (root / "releases" / MANY).rglob("*.py")) == FILES


def test_a_file_of_five_gigabytes(home):
    """Its content repeats, so that the store stays small; it is killed in the middle, where it is larger than 4 GiB."""
    site, root = Site(home / "home"), home / "root"
    (home / "tree").mkdir()
    period, digest = trees.content(1, PERIOD_BYTES, bits=8), blake3()
    with open(home / "tree/huge.bin", "wb") as file:
        for _ in range(HUGE_BYTES // PERIOD_BYTES):
            file.write(period)
            digest.update(period)
    size = (home / "tree/huge.bin").stat().st_size
    measured(site, "publish", home / "tree", HUGE, "--to", home / "store")
    (home / "tree/huge.bin").unlink()
    with site.serving(home / "store") as url, line_to(url) as line:
        words = ("install", HUGE, "--from", line.url, "--root-keys", site.root_keys(home / "store"), "--root", root)
        process = site.start(*words)
        assert line.wait_for(PERIOD_BYTES // 2, lambda: process.poll() is not None)
        process.kill()
        process.communicate()
        done = measured(site, *words)
    assert done["bytes_total"] == size
    assert done["bytes_reused"] > 0
    found = blake3()
    with open(root / "releases" / HUGE / "huge.bin", "rb") as file:
        while piece := file.read(8 * trees.MIB):
            found.update(piece)
    assert found.digest() == digest.digest()
    assert os.listdir(root / ".pacball/staging") == []
