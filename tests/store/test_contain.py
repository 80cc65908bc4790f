"""Running a stranger's command: its bounds, its end, and what the kernel keeps it from. What releases see is in test_actions."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pacstore.contain import landlock
from pacstore.contain.running import Ended, Order, run
from pacstore.errors import Unavailable
from tests.store.install.acting import us
from tests.store.install.test_actions import alive, gone

VERSION = landlock.version()
VERSIONS = range(1, VERSION + 1)


FLOOD = """
import os, time
for _ in range(6):
    os.fork()
while True:  # MARKER
    os.fork() or os._exit(0)
    time.sleep(0.001)
"""
KILL = """
import os, sys, time
warden, marker = int(sys.argv[1]), sys.argv[2].encode()
while True:
    with open(f"/proc/{warden}/task/{warden}/children") as file:
        children = file.read().split()
    if any(open(f"/proc/{child}/cmdline", "rb").read().endswith(marker + b"\\0") for child in children):
        break
    time.sleep(0.02)
os.kill(warden, 9)
"""


@pytest.fixture
def place(tmp_path):
    for name in ("tree/open", "tree/closed", "scratch"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


@pytest.fixture
def go(place):
    def go(script, *, timeout=30.0, version=VERSION, grace=0.3, **more):
        log = os.open(place / "log", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        order = Order(
            argv=("/bin/sh", "-c", script),
            directory=str(place / "tree"),
            environment={"PATH": os.environ["PATH"], "TMPDIR": str(place / "scratch")},
            timeout_seconds=timeout,
            user=us(),
            writable=("open", "no/such/place"),
            scratch=str(place / "scratch"),
            landlock=version,
            grace_seconds=grace,
            **more,
        )
        try:
            return run(order, log), (place / "log").read_bytes()
        finally:
            os.close(log)

    return go


def test_output_and_exit_code(go):
    ended, output = go("echo out; echo err >&2; exit 7")
    assert (ended.status, ended.passed, ended.timed_out, ended.left, ended.stuck) == (7, False, False, 0, 0)
    assert output == b"out\nerr\n"
    assert str(ended) == "ended with exit code 7"


@pytest.mark.parametrize("version", VERSIONS)
def test_each_version_of_landlock(go, place, version):
    """Whatever the kernel knows is used; less of it refuses less, but never lets one write elsewhere."""
    script = (
        "echo x > open/file && mkdir open/dir && ln -s x open/link && rm open/link && echo y > $TMPDIR/file && "
        "mkfifo $TMPDIR/fifo && echo z > /dev/null && : > open/file; "
        "echo x > closed/file; mkdir closed/dir; ln -s x closed/link; mkfifo open/fifo; rm -r ../precious; mv open/dir closed/; "
        "ln open/file closed/file; ls ..; cat /etc/hostname > /dev/null"
    )
    (place / "precious").mkdir()
    ended, output = go(script, version=version)
    assert ended.passed, output
    assert sorted(path.name for path in (place / "tree/open").iterdir()) == ["dir", "file"]
    assert list((place / "tree/closed").iterdir()) == []
    assert (place / "precious").is_dir()
    assert b"precious" in output


def test_no_device_and_no_socket_in_the_tree(go, place):
    ended, _ = go("python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"open/socket\")'")
    assert not ended.passed
    assert list((place / "tree/open").iterdir()) == []


def test_a_place_that_was_replaced_by_a_link_is_not_opened(go, place):
    """Also not if an earlier command did that."""
    outside = place / "outside"
    outside.mkdir()
    (place / "tree/open").rmdir()
    (place / "tree/open").symlink_to(outside)
    ended, _ = go("echo x > open/file")
    assert not ended.passed
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("version", sorted({0, VERSION}))
@pytest.mark.parametrize("what", ["directory", "scratch"])
def test_what_stands_in_the_place_of_a_directory_is_not_used(go, place, what, version):
    """Who owns a directory above it may exchange it: neither is a program of theirs run, nor may anything be written there."""
    path = place / {"directory": "tree", "scratch": "scratch"}[what]
    meant = (path.stat().st_dev, path.stat().st_ino)
    assert go("true", version=version, **{f"{what}_is": meant})[0].passed
    path.rename(place / "moved")
    path.symlink_to(place / "other")
    (place / "other/open").mkdir(parents=True)
    ended, _ = go("touch open/ran $TMPDIR/ran", version=version, **{f"{what}_is": meant})
    assert (ended.passed, ended.not_started) == (False, f"it was replaced: {path}")
    assert not list(place.rglob("ran"))


def test_limits(go):
    ended, output = go("ulimit -c; ulimit -n; ulimit -f")
    assert ended.passed
    cores, files, _ = output.split()
    assert cores == b"0"
    assert int(files) <= 4096


def test_a_file_that_grows_without_end(go, monkeypatch, place):
    monkeypatch.setattr("pacstore.contain.running._LIMITS", {"RLIMIT_FSIZE": 100_000})
    ended, _ = go("exec head -c 1000000 /dev/zero > open/file")
    assert ended.status == -signal.SIGXFSZ
    assert (place / "tree/open/file").stat().st_size == 100_000


def test_it_gets_time_to_end(go):
    ended, output = go("trap 'echo ending; exit 0' TERM; while :; do sleep 0.05; done", timeout=0.5, grace=20.0)
    assert (ended.timed_out, ended.passed) == (True, False)
    assert output.endswith(b"ending\n")


def test_output_that_is_closed_is_not_its_end(go):
    ended, _ = go("exec >&- 2>&-; sleep 0.4; exit 5")
    assert (ended.status, ended.seconds >= 0.4) == (5, True)


def test_a_flood_of_processes(go, place):
    """They are stopped before they are killed, so none gets away by starting another."""
    marker = f"35{os.getpid()}.{place.stat().st_ino}"
    child = FLOOD.replace("MARKER", marker)
    ended, _ = go(f"python3 -c '{child}' >/dev/null 2>&1 & sleep 1; exit 0", timeout=20.0)
    assert ended.passed
    assert ended.left > 10
    assert ended.stuck == 0
    assert gone(marker)


def test_the_log_cannot_be_written(place):
    """A full disk costs output, not the command."""
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        order = Order(
            ("/bin/sh", "-c", "echo hello; exit 3"), str(place / "tree"), {}, 10.0, us(), (), str(place / "scratch")
        )
        ended = run(order, full)
    finally:
        os.close(full)
    assert (ended.status, ended.dropped_bytes) == (3, 6)


def test_the_warden_is_killed(place):
    """Then the command is killed with it, and that is an error of its own."""
    marker = f"36{os.getpid()}.{place.stat().st_ino}"
    log = os.open(place / "log", os.O_RDWR | os.O_CREAT)
    order = Order(("/bin/sleep", marker), str(place / "tree"), {}, 60.0, us(), (), str(place / "scratch"))

    def kill(pid):
        killers.append(subprocess.Popen([sys.executable, "-c", KILL, str(pid), marker]))

    killers: list[subprocess.Popen] = []
    try:
        with pytest.raises(Unavailable, match="watches over the command ended before"):
            run(order, log, started=kill)
    finally:
        os.close(log)
        for killer in killers:
            killer.wait()
    assert gone(f"sleep\0{marker}")


def test_words_for_people():
    good = Ended(0, timed_out=False, seconds=1.0, dropped_bytes=0, left=0, stuck=0, not_started="")
    assert (str(good), good.passed) == ("ended with exit code 0", True)
    assert str(Ended(-9, False, 1.0, 0, 0, 0, "")) == "was killed by SIGKILL"
    assert str(Ended(-99, False, 1.0, 0, 0, 0, "")) == "was killed by signal 99"
    assert str(Ended(0, True, 61.4, 0, 0, 0, "")) == "had not ended after 61 s, and was killed"
    assert not Ended(0, True, 61.4, 0, 0, 0, "").passed


def test_nothing_is_inherited(go, place):
    held = os.open("/etc", os.O_RDONLY)
    os.set_inheritable(held, True)
    try:
        ended, output = go("readlink /proc/self/fd/*")
    finally:
        os.close(held)
    assert b"/etc\n" not in output
    assert str(place).encode() not in output
    assert ended.seconds < 60


def test_our_own_limits_and_processes_are_left_alone(go):
    before = resource.getrlimit(resource.RLIMIT_NOFILE), len(os.listdir("/proc/self/fd")), len(alive(sys.executable))
    go("true")
    deadline = time.monotonic() + 10
    while len(alive(sys.executable)) > before[2] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (resource.getrlimit(resource.RLIMIT_NOFILE), len(os.listdir("/proc/self/fd"))) == before[:2]
    assert Path("/proc/self").exists()
