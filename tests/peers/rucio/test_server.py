"""The Rucio of the tests itself: it comes back after a stop, hangs when told to, and nothing is left of a run that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from tests.e2e.site import wait_until

pytestmark = pytest.mark.peers
TOP = Path(__file__).parents[3]
PROGRAM = """
from tests.peers.rucio.server import running_rucio
with running_rucio() as rucio:
    rucio.freeze()
    print(rucio.home, flush=True)
    input()
"""


def alive_in(home: str) -> list[bytes]:
    """The commands of the processes that were started for `home`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if home.encode() in words:
            found.append(words)
    return found


def test_what_it_knew_is_there_after_a_restart(rucio):
    client = rucio.client()
    client.add_scope("root", "before")
    rucio.stop()
    try:
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{rucio.url}/ping", timeout=10)
    finally:
        rucio.start()
    assert "before" in rucio.client().list_scopes()


def test_it_hangs_and_goes_on(rucio):
    rucio.freeze()
    try:
        with pytest.raises(requests.ReadTimeout):
            requests.get(f"{rucio.url}/ping", timeout=0.5)
    finally:
        rucio.thaw()
    assert requests.get(f"{rucio.url}/ping", timeout=30).ok


def test_nothing_is_left_when_a_run_is_killed(rucio):
    run = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], cwd=TOP, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with run:
        home = run.stdout.readline().strip()
        assert any(b"postgres" in words for words in alive_in(home))
        assert any(b"gunicorn" in words for words in alive_in(home))
        os.kill(run.pid, signal.SIGKILL)
    wait_until(lambda: not alive_in(home))
