from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from pacstore.errors import Unavailable
from pacstore.locks import Leases, locked

HOLDER = """
import sys
from pathlib import Path
from pacstore.locks import Leases
with Leases(Path(sys.argv[1])).hold() as name:
    print(name, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def leases(tmp_path):
    return Leases(tmp_path / "leases")


def holder(leases, tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "leases")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def end(process):
    process.stdin.close()
    process.stdout.close()
    process.wait(timeout=30)


def test_a_lease_lives_as_long_as_it_is_held(leases):
    assert leases.live() == frozenset()
    with leases.hold() as one, leases.hold() as two:
        assert one != two
        assert leases.live() == {one, two}
    assert leases.live() == frozenset()


def test_the_lease_of_a_killed_process_ends_at_once_whatever_the_clock_says(leases, tmp_path):
    process, name = holder(leases, tmp_path)
    assert leases.live() == {name}
    assert os.listdir(tmp_path / "leases") == [name]
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    end(process)
    assert leases.live() == frozenset()
    assert os.listdir(tmp_path / "leases") == []


def test_no_lease_is_named_for_a_host_or_process(leases):
    with leases.hold() as name:
        assert len(name) == 32
        assert set(name) <= set("0123456789abcdef")


def test_leases_that_are_begun_while_others_look_are_seen(leases):
    """Who looks takes for dead what is not locked, so a lease must never be seen before it is."""
    done = threading.Event()

    def look():
        while not done.is_set():
            leases.live()

    looking = [threading.Thread(target=look) for _ in range(2)]
    for thread in looking:
        thread.start()
    try:
        for _ in range(200):
            with leases.hold() as name:
                assert name in leases.live()
    finally:
        done.set()
        for thread in looking:
            thread.join()


def test_a_lock_that_others_hold_is_waited_for_and_then_reported(tmp_path):
    path = tmp_path / "x.lock"
    with locked(path, shared=True, wait_seconds=0, busy="busy"):
        with locked(path, shared=True, wait_seconds=0, busy="busy"):
            pass
        with (
            pytest.raises(Unavailable, match="somebody deletes"),
            locked(path, shared=False, wait_seconds=0, busy="somebody deletes"),
        ):
            pass
    with (
        locked(path, shared=False, wait_seconds=0, busy="busy"),
        pytest.raises(Unavailable, match="busy"),
        locked(path, shared=True, wait_seconds=0, busy="busy"),
    ):
        pass
