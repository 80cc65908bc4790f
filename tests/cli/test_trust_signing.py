"""`pacball trust sign`, `submit` and `export`: who signs what, and what is refused."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys

from tests.cli.ceremonies import Trust, label, other_files
from tests.store.releases import as_nobody

# Signing


def test_what_is_to_be_signed_must_be_said_once(waiting):
    for words in ([], [waiting.file, "--store", waiting.store]):
        assert "not both" in waiting.pacball.json("trust", "sign", *words, "--yes", code=7)["hint"]
    renewed = waiting.pacball.json("trust", "sign", waiting.file, "--renew", "--yes", code=7)
    assert "--role ROLE --store DIR" in renewed["hint"]
    rooted = waiting.json("trust", "sign", "--root-keys", waiting.top / "root.json", "--yes", code=7)
    assert rooted["place"] == "--root-keys"


def test_files_that_cannot_be_signed_or_submitted(waiting):
    for name, (path, code, text) in other_files(waiting).items():
        for words in (("sign", path, "--yes"), ("submit", path, "--store", waiting.store)):
            found = waiting.pacball.json("trust", *words, "--keys", waiting.top / "alice", code=code)
            assert text in f"{found['place']} {found['message']} {found['hint']}", (name, words)


def test_nobody_agrees_without_being_there(waiting):
    before = waiting.file.read_bytes()
    found = waiting.pacball.json("trust", "sign", waiting.file, "--keys", waiting.top / "alice", code=7)
    assert "--yes" in found["hint"]
    text = waiting.pacball.text("trust", "sign", waiting.file, "--keys", waiting.top / "alice", code=7)
    # It was shown before.
    assert "line-Demo: 1 of the keys" in text
    assert waiting.file.read_bytes() == before


def at_a_terminal(answer: str, *words: object) -> tuple[int, str]:
    """How a command ends, and what it says, whose user answers all questions so."""
    terminal, theirs = pty.openpty()
    code = "import sys; sys.argv[0] = 'pacball'; from paccli.main import run; run()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    os.close(theirs)
    os.write(terminal, f"{answer}\n".encode())
    out = process.communicate(timeout=60)[0]
    os.close(terminal)
    return process.returncode, out


def test_who_says_no_signs_nothing(waiting):
    before = waiting.file.read_bytes()
    for answer in ("n", "", "maybe"):
        code, out = at_a_terminal(answer, "trust", "sign", waiting.file, "--keys", waiting.top / "alice")
        assert (code, "sign this? [y/N]" in out, "not signed" in out) == (7, True, True)
    assert waiting.file.read_bytes() == before
    code, out = at_a_terminal("yes", "trust", "sign", waiting.file, "--keys", waiting.top / "alice")
    assert (code, "targets: signed with alice (" in out) == (0, True)


def test_keys_that_do_not_sign_here(waiting):
    waiting.key("stranger")
    found = waiting.pacball.json("trust", "sign", waiting.file, "--yes", "--keys", waiting.top / "stranger", code=7)
    assert ("no key here may sign" in found["message"], "--keys DIR" in found["hint"]) == (True, True)
    none = waiting.pacball.json("trust", "sign", waiting.file, "--yes", "--keys", waiting.top / "nowhere", code=7)
    assert "no key here may sign" in none["message"]
    role = ("--role", "line-Other")
    other = waiting.pacball.json("trust", "sign", waiting.file, *role, "--yes", "--keys", waiting.top / "alice", code=7)
    assert (other["place"], "line-Demo, targets" in other["hint"]) == ("line-Other", True)
    only = ("--role", "line-Demo")
    waiting.pacball.json("trust", "sign", waiting.file, *only, "--yes", "--keys", waiting.top / "alice", code=7)


def test_keys_that_others_can_read_are_not_used(waiting):
    keys = waiting.top / "alice"
    for path, mode in ((keys, 0o755), (keys / "alice.pem", 0o640), (keys / "alice.pub", 0o666)):
        before = path.stat().st_mode
        path.chmod(mode)
        found = waiting.pacball.json("trust", "sign", waiting.file, "--yes", "--keys", keys, code=7)
        assert f"chmod {'700' if path == keys else '600' if path.suffix == '.pem' else '644'}" in found["hint"]
        path.chmod(before)
    waiting.pacball.json("trust", "sign", waiting.file, "--yes", "--keys", keys)


def test_keys_that_cannot_be_read_are_said(shared_path, waiting):
    keys = shared_path / "keys"
    shutil.copytree(waiting.top / "alice", keys)
    file = shutil.copy(waiting.file, shared_path / "change.json")

    def sign() -> tuple[int, str]:
        (keys / "alice.pem").chmod(0)
        done = waiting.pacball.run("trust", "sign", file, "--yes", "--keys", keys)
        return done.exit_code, done.stderr

    code, error = as_nobody(sign, owner_of=shared_path)
    assert (code, str(keys / "alice.pem") in error) == (6, True), error


def test_signing_again_is_no_error(waiting):
    words = ("trust", "sign", waiting.file, "--yes", "--keys", waiting.top / "alice")
    assert waiting.pacball.json(*words)["signed"].keys() == {"targets"}
    before = waiting.file.read_bytes()
    again = waiting.pacball.json(*words)
    assert (again["signed"], again["missing"]) == ({}, {"line-Demo": 1, "targets": 0})
    assert waiting.file.read_bytes() == before
    assert "the keys here have signed it already" in waiting.pacball.text(*words)


def test_copies_that_are_signed_apart_come_together(waiting):
    for name in ("alice", "mia"):
        copy = shutil.copy(waiting.file, waiting.top / f"{name}.json")
        waiting.pacball.json("trust", "sign", copy, "--yes", "--keys", waiting.top / name)
    assert waiting.json("trust", "submit", waiting.top / "alice.json")["committed"] == []
    assert waiting.json("trust", "submit", waiting.top / "mia.json")["committed"] == ["line-Demo", "targets"]
    assert waiting.json("trust", "submit", waiting.top / "mia.json")["changed"] is False


def test_a_signature_in_a_store_needs_its_keys_alone(waiting):
    first = waiting.json("trust", "sign", "--yes", "--keys", waiting.top / "alice")
    assert [one["missing"] for one in first["waiting"]] == [1, 0]
    second = waiting.json("trust", "sign", "--yes", "--keys", waiting.top / "mia")
    assert (second["committed"], [one["missing"] for one in second["waiting"]]) == ([], [0, 0])
    assert "pacball trust refresh" in second["next"][0]
    assert waiting.json("trust", "refresh")["committed"] == ["line-Demo", "targets"]
    assert "nothing waits" in waiting.json("trust", "sign", "--yes", code=3)["message"]


def test_the_users_own_keys_are_found_where_the_stores_are_of_no_use(waiting, tmp_path):
    own = tmp_path / "config/pacball/keys/own"
    own.parent.mkdir(parents=True)
    shutil.copytree(waiting.top / "alice", own)
    text = waiting.pacball.text("trust", "sign", "--yes", "--store", waiting.store)
    assert "targets: signed with alice (" in text


# Pinned roots, for signers


def test_a_change_to_another_catalog_is_not_signed(waiting, tmp_path):
    other = Trust(waiting.pacball, tmp_path / "other")
    other.begin()
    other.json("trust", "export", "--root", "-o", waiting.top / "alice/root.json")
    words = (waiting.file, "--keys", waiting.top / "alice")
    for command in (("sign", *words, "--yes"), ("status", *words)):
        assert "does not verify" in waiting.pacball.json("trust", *command, code=8)["message"]
    waiting.json("trust", "export", "--root", "-o", waiting.top / "root.json")
    waiting.pacball.json("trust", "sign", *words, "--yes", "--root-keys", waiting.top / "root.json")
    found = waiting.pacball.json("trust", "sign", *words, "--yes", "--root-keys", waiting.top / "no", code=3)
    assert "does not exist" in found["message"]
    wrong = ("--root-keys", waiting.top / "mia/mia.pub")
    assert "is not a TUF root" in waiting.pacball.json("trust", "sign", *words, "--yes", *wrong, code=7)["message"]


def test_without_a_pin_the_fingerprint_is_to_be_compared(waiting):
    root = waiting.json("trust", "export", "--root", "-o", waiting.top / "root.json")
    words = ("trust", "sign", waiting.file, "--yes", "--keys", waiting.top / "alice")
    assert root["fingerprint"] in waiting.pacball.run(*words).stderr
    shutil.copy(waiting.top / "root.json", waiting.top / "alice/root.json")
    assert waiting.pacball.run(*words).stderr == ""


def test_a_beginning_is_to_be_compared_key_by_key(trust):
    key = trust.key("alice")
    trust.json("trust", "init", "--root-key", key, "--targets-key", key, "--keys", trust.top / "origin")
    trust.json("trust", "export", "-o", trust.file)
    done = trust.pacball.run("trust", "sign", trust.file, "--yes", "--keys", trust.top / "alice")
    assert "compare every key" in done.stderr
    shown = ["a new catalog:", "root version 1:", f"  root: 1 of the keys {label(trust, 'alice')}"]
    assert done.stdout.splitlines()[:3] == shown
