"""What a pacball does when somebody runs it: installs, verifies, lists, refuses, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import time
from importlib.resources import files
from pathlib import Path

import pytest

from pacstore.pacball.building import build
from pacstore.pacball.stub import STUB_BYTES
from pacstore.progress import Silent
from pacstore.release import Release
from tests.store.install.world import NAME, make_tree
from tests.store.pacball.shells import Machine, tools


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return make_tree(tmp_path_factory.mktemp("pacballs") / "a tree")


@pytest.fixture(scope="module")
def pacball(tree):
    where = tree.parent / "it's $HOME"
    where.mkdir()
    return build(tree, Release.parse(NAME), where, progress=Silent()).path


@pytest.fixture(params=["sh", pytest.param("bash", marks=pytest.mark.slow)])
def machine(request, tmp_path):
    return Machine((request.param,), tmp_path / "tmp")


@pytest.fixture
def target(tmp_path):
    where = tmp_path / "fresh directory"
    where.mkdir()
    return where


def image(top):
    """Everything of a tree, times included."""
    found = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(top))] = (stat.filemode(status.st_mode), int(status.st_mtime), content)
    return found


def test_the_text_of_stub_1_never_changes():
    """Pacballs are built again from releases years later: whoever wants to change it adds another number."""
    text = files("pacstore.pacball").joinpath("stub-1.sh").read_bytes()
    assert hashlib.sha256(text).hexdigest() == "819a7e850d4d9728ba2159eb4e9a777d4d4062a678e85564bbc5a6491b382e0c"


def test_a_fresh_directory(machine, pacball, tree, target):
    done = machine.ok(pacball, cwd=target, umask=0o077)
    assert f"{NAME} is in" in done.err
    assert image(target) == image(tree)
    assert (target / "lib/deep/same").stat().st_ino == (target / "bin/same-too").stat().st_ino
    verified = machine.ok(pacball, "--verify", cwd=target)
    assert verified.out == ""
    assert "is as" in verified.err


def test_the_file_itself_may_lie_in_it(machine, pacball, tree, target):
    shutil.copy(pacball, target / "-odd name.sh")
    machine.ok("./-odd name.sh", cwd=target)
    machine.ok("./-odd name.sh", "--verify", cwd=target)
    (target / "-odd name.sh").unlink()
    assert image(target) == image(tree)


def test_a_directory_that_is_named(machine, pacball, tree, target):
    for words in (["--prefix", "new/one"], [f"--prefix={target}/other"]):
        machine.ok(pacball, *words, cwd=target)
        assert machine.ok(pacball, "--verify", *words, cwd=target).out == ""
    assert image(target / "new/one") == image(target / "other") == image(tree)


def test_settings_of_the_user_lead_nothing_elsewhere(machine, pacball, tree, target, tmp_path, monkeypatch):
    (tmp_path / "decoy/new").mkdir(parents=True)
    environment = machine.environment
    odd = {"CDPATH": str(tmp_path / "decoy"), "TAR_OPTIONS": "--exclude=*", "TAPE": "/nonexistent"}
    monkeypatch.setattr(machine, "environment", lambda: environment() | odd)
    machine.ok(pacball, "--prefix", "new", cwd=target)
    assert image(target / "new") == image(tree)
    assert list((tmp_path / "decoy/new").iterdir()) == []


def test_names_with_backslashes_are_told_as_they_are(machine, tmp_path, target):
    odd = tmp_path / "odd"
    odd.mkdir()
    (odd / r"a\nb\c").write_text("x")
    (tmp_path / "made").mkdir()
    file = build(odd, Release.parse(NAME), tmp_path / "made", progress=Silent()).path
    machine.ok(file, cwd=target)
    (target / r"a\nb\c").rename(target / r"x\ty")
    done = machine.run(file, "--verify", cwd=target)
    assert sorted(done.out.splitlines()) == ["extra: x\\ty", "missing: a\\nb\\c"]


def test_parts(machine, pacball, target):
    done = machine.ok(pacball, "--prefix", "p", "./bin/", "lib/deep/f0*", cwd=target)
    found = sorted(str(path.relative_to(target / "p")) for path in (target / "p").rglob("*") if path.is_file())
    assert found == ["bin/run", "bin/same-too", *(f"lib/deep/f0{n}" for n in range(10))]
    assert done.code == 0


def test_parts_that_are_not_there(machine, pacball, target):
    done = machine.run(pacball, "--prefix", "p", "bin", "no/such*", cwd=target)
    assert done.code == 3
    assert "nothing in" in done.err
    assert "no/such*" in done.err
    assert list((target / "p").iterdir()) == []


def test_a_part_with_a_hard_link_to_another(machine, pacball, target):
    done = machine.run(pacball, "--prefix", "p", "lib/deep/same", cwd=target)
    assert done.code == 6
    assert "hard link" in done.err
    assert list((target / "p").iterdir()) == []


def test_what_is_inside(machine, pacball, tree, target):
    every = sorted(os.fsencode(path.relative_to(tree)) for path in tree.rglob("*"))
    assert machine.ok(pacball, "--list", cwd=target).out.splitlines() == [os.fsdecode(name) for name in every]
    assert machine.ok(pacball, "--list", "bin", cwd=target).out.splitlines() == ["bin", "bin/run", "bin/same-too"]
    info = machine.ok(pacball, "--info", cwd=target).out
    assert f"release: {NAME}\n" in info
    payload = hashlib.sha256(pacball.read_bytes()[STUB_BYTES:]).hexdigest()
    assert payload in info
    assert "usage: sh FILE" in machine.ok(pacball, "--help", cwd=target).out
    assert "is undamaged" in machine.ok(pacball, "--check", cwd=target).err
    assert list(target.iterdir()) == []


def test_verify_names_every_difference_once(machine, pacball, target):
    machine.ok(pacball, cwd=target)
    (target / "none").unlink()
    (target / "lib/big.so").write_bytes((target / "lib/big.so").read_bytes()[:-1] + b"?")
    (target / "lib/zeros").write_bytes(b"short")
    (target / "bin/run").chmod(0o644)
    (target / "up").unlink()
    (target / "up").symlink_to("elsewhere")
    (target / "empty").rmdir()
    (target / "empty").write_text("a file")
    (target / "lib/extra file").write_text("extra")
    shutil.rmtree(target / "lib/deep/er")
    done = machine.run(pacball, "--verify", cwd=target)
    assert done.code == 1
    assert sorted(done.out.splitlines()) == [
        "damaged: lib/big.so",
        "damaged: lib/zeros",
        "extra: lib/extra file",
        "missing: lib/deep/er",
        "missing: lib/deep/er/same-again",
        "missing: lib/deep/er/still",
        "missing: lib/deep/er/still/text",
        "missing: none",
        "of another type: empty",
        "wrong link target: up",
        "wrong mode: bin/run",
    ]
    assert machine.ok(pacball, "--verify", "lib/deep/f*", cwd=target).out == ""
    assert machine.run(pacball, "--verify", "--prefix", "nowhere", cwd=target).code == 3


@pytest.mark.parametrize("name", ["file", ".hidden", "..odd", "dangling"])
def test_a_directory_that_is_not_empty(machine, pacball, target, name):
    if name == "dangling":
        (target / name).symlink_to("nowhere")
    else:
        (target / name).write_text("precious")
    done = machine.run(pacball, cwd=target)
    assert done.code == 7
    assert "is not empty" in done.err
    assert [path.name for path in target.iterdir()] == [name]


@pytest.mark.parametrize("at", [STUB_BYTES, STUB_BYTES + 130, STUB_BYTES + 40_000, 5_000_000, -2000, -1])
def test_an_altered_file(machine, pacball, target, at):
    data = bytearray(pacball.read_bytes())
    data[at] ^= 1
    (target.parent / "bad.sh").write_bytes(data)
    for words in ([], ["--check"], ["--list"], ["--verify"]):
        done = machine.run(target.parent / "bad.sh", *words, cwd=target)
        assert done.code == 4, (words, done)
        assert "is damaged" in done.err
        assert list(target.iterdir()) == []


@pytest.mark.parametrize("length", [STUB_BYTES, STUB_BYTES + 1, 3_000_000, -512, -1, 1])
def test_a_file_that_is_too_short_or_too_long(machine, pacball, target, length):
    data = pacball.read_bytes()
    (target.parent / "bad.sh").write_bytes(data + b"\0" if length == 1 else data[:length])
    done = machine.run(target.parent / "bad.sh", cwd=target)
    assert done.code == 4
    assert f"must have {len(data)} bytes" in done.err
    assert list(target.iterdir()) == []


def test_a_stub_that_was_cut_does_nothing(machine, pacball, target):
    data = pacball.read_bytes()
    script = data[: data.index(b'\nmain "$@"')]
    for length in range(0, len(script), 997):
        (target.parent / "cut.sh").write_bytes(script[:length])
        machine.run(target.parent / "cut.sh", cwd=target)
        assert list(target.iterdir()) == []


def test_a_script_that_comes_through_a_pipe_says_what_to_do(machine, pacball, target):
    with pacball.open("rb") as file:
        argv, environment = machine.shell, machine.environment()
        done = subprocess.run(
            argv, stdin=file, cwd=target, env=environment, capture_output=True, timeout=60, check=False
        )
    assert done.returncode == 7
    assert b"save it" in done.stderr
    assert list(target.iterdir()) == []


@pytest.mark.parametrize("words", [["--what"], ["--prefix"], ["--prefix="], ["--list", "-x"]])
def test_options_that_are_none(machine, pacball, target, words):
    done = machine.run(pacball, *words, cwd=target)
    assert done.code == 2
    assert done.err.startswith("pacball: ")
    assert list(target.iterdir()) == []


def test_too_little_disk(machine, pacball, target, tmp_path):
    machine.path = tools(tmp_path / "tools", df="echo Filesystem; echo /dev/x 100000 99000 1000 99% /")
    done = machine.run(pacball, cwd=target)
    assert done.code == 6
    assert "not enough disk" in done.err
    assert "1 MB are free" in done.err
    assert list(target.iterdir()) == []


def test_a_tar_that_fails(machine, pacball, target, tmp_path):
    machine.path = tools(tmp_path / "tools", tar="head -c 100000 >/dev/null; echo tar: no space >&2; exit 2")
    done = machine.run(pacball, cwd=target)
    assert done.code == 6
    assert "tar: no space" in done.err
    assert "is the disk full" in done.err or "a full disk" in done.err
    assert list(target.iterdir()) == []


@pytest.mark.parametrize("without", [("sha256sum",), ("openssl",)])
def test_either_tool_for_digests_will_do(machine, pacball, tree, target, tmp_path, without):
    machine.path = tools(tmp_path / "tools", without=without)
    machine.ok(pacball, cwd=target)
    assert image(target) == image(tree)


@pytest.mark.parametrize("without", [("sha256sum", "openssl"), ("tar",), ("mkfifo",)])
def test_a_tool_that_is_missing_is_named(machine, pacball, target, tmp_path, without):
    machine.path = tools(tmp_path / "tools", without=without)
    machine.shell = (shutil.which(machine.shell[0]),)
    done = machine.run(pacball, cwd=target)
    assert done.code == 6
    assert without[0] in done.err
    assert list(target.iterdir()) == []


SLOW_TAR = "case $1 in --version) exec /bin/tar --version;; esac; : >'{flag}'; head -c 1000000 >/dev/null; sleep 60"


@pytest.mark.parametrize("how", ["^C", "TERM", "HUP", "TERM to all"])
def test_an_interruption_leaves_nothing(machine, pacball, target, tmp_path, how):
    flag = tmp_path / "flag"
    machine.path = tools(tmp_path / "tools", tar=SLOW_TAR.format(flag=flag))
    with machine.start(pacball, cwd=target, start_new_session=True, preexec_fn=hear_hangups) as process:
        try:
            wait_for(flag.exists)
            assert [path.name.rpartition(".")[0] for path in target.iterdir()] != []
            number = {"^C": signal.SIGINT, "HUP": signal.SIGHUP}.get(how, signal.SIGTERM)
            if how in ("^C", "TERM to all"):
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)
            # The tar of this test does not end by itself when nothing more comes.
            time.sleep(0.2)
            kill_slow_tars(process.pid)
            process.communicate(timeout=30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 128 + number
    assert list(target.iterdir()) == []
    assert list(machine.temporary.iterdir()) == []


def hear_hangups():
    """No shell can trap what was ignored when it began, as by nohup around these tests."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def kill_slow_tars(session):
    for path in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError):
            line = Path(f"/proc/{int(path)}/cmdline").read_bytes()
            if os.getsid(int(path)) == session and line.startswith(b"sleep"):
                os.kill(int(path), signal.SIGTERM)


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_a_killed_one_left_is_taken_over_and_what_another_does_is_not(machine, pacball, tree, target, tmp_path):
    flag = tmp_path / "flag"
    slow = Machine(machine.shell, tmp_path / "slow", tools(tmp_path / "tools", tar=SLOW_TAR.format(flag=flag)))
    with slow.start(pacball, cwd=target, start_new_session=True) as process:
        wait_for(flag.exists)
        done = machine.run(pacball, cwd=target)
        assert done.code == 7
        assert f"by process {process.pid}" in done.err
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)
    assert len(list(target.iterdir())) == 1
    machine.ok(pacball, cwd=target)
    assert image(target) == image(tree)
