"""Keys and crashes: after any failing call, and of any who make the same key at once, there is one whole key or none."""

import subprocess
import sys

import pytest

from pacstore.errors import Refused
from pacstore.trust.keyring import KeyRing
from tests.store.signing import works

FAULTS = """
import errno, itertools, os, sys
from pathlib import Path
from pacstore.errors import PacballError
from pacstore.trust.keyring import KeyRing

home, how, passphrase = Path(sys.argv[1]), sys.argv[2], None
CALLS = {"open", "os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename"}

def attempt(n):
    directory, left = home / str(n) / "keys", [n]
    def fault(event, args):
        if event in CALLS and str(args[0]).startswith(str(home)):
            left[0] -= 1
            if left[0] == -1:
                if how == "kill":
                    os._exit(9)
                raise OSError(errno.ENOSPC, "No space left on device")
    sys.addaudithook(fault)
    try:
        KeyRing(directory).create("root")
    except PacballError:
        os._exit(3)
    os._exit(0 if left[0] >= 0 else 4)

for n in itertools.count():
    child = os.fork()
    if child == 0:
        try:
            attempt(n)
        finally:
            os._exit(70)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(n, status, flush=True)
    if status == 0:
        break
"""


@pytest.mark.parametrize("how", ["kill", "full disk"])
def test_whatever_call_fails_there_is_a_whole_key_or_none(tmp_path, how):
    """A real process, killed or refused at its n-th call that changes or opens something, for every n."""
    argv = [sys.executable, "-c", FAULTS, tmp_path, how]
    done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=100)
    results = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert results[-1][1] == 0
    # 4: the call was one whose failure does not matter, such as the removal of a temporary file.
    assert {status for _, status in results[:-1]} <= ({9} if how == "kill" else {3, 4}), results
    outcomes = set()
    for n, _ in results:
        ring = KeyRing(tmp_path / str(n) / "keys")
        found = {path.name for path in ring.directory.glob("root.*")}
        outcomes.add(frozenset(found))
        if found:
            assert "root.pem" in found
            assert ring.names() == ["root"]
            assert works(ring.signer("root"), ring.public("root"))
            with pytest.raises(Refused, match="exists already"):
                ring.create("root")
        else:
            made = ring.create("root")
            assert works(ring.signer("root"), made)
    assert outcomes == {frozenset(), frozenset({"root.pem"}), frozenset({"root.pem", "root.pub"})}


def test_two_who_make_the_same_key_at_once_get_one(tmp_path):
    """Each waits for the other at the start; one makes the key, the others are refused."""
    code = (
        "import sys; from pathlib import Path; from pacstore.trust.keyring import KeyRing; from pacstore.errors import Refused\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "try: print(KeyRing(Path(sys.argv[1])).create('root').keyid)\n"
        "except Refused as error: print(error.message)\n"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, tmp_path / "keys"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    for process in started:
        assert process.stdout.readline() == "ready\n"
    answers = []
    for process in started:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in started:
        answers.append(process.communicate(timeout=60)[0].strip())
        assert process.returncode == 0
    ring = KeyRing(tmp_path / "keys")
    public = ring.public("root")
    assert sorted(answers) == sorted([public.keyid] + ["this key exists already"] * 3)
    assert works(ring.signer("root"), public)
