"""`pacball trust keygen` and `init`: what they refuse, what they say, and their JSON."""

from __future__ import annotations

import json
import os

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pacstore.trust.keyring import KeyRing
from tests.cli.ceremonies import OUTCOME, PASSPHRASE
from tests.store.releases import write

# Keys


def test_a_key_is_made_and_said(pacball, tmp_path):
    found = pacball.json("trust", "keygen", "alice", "--plain", "--keys", tmp_path / "keys")
    public = tmp_path / "keys/alice.pub"
    assert found == {"name": "alice", "keyid": KeyRing(tmp_path / "keys").public("alice").keyid, "public": str(public)}
    text = pacball.text("trust", "keygen", "bob", "--plain", "--keys", tmp_path / "keys")
    assert text.splitlines()[1:] == [
        f"its public part, to give away: {tmp_path / 'keys/bob.pub'}",
        f"keep a copy of {tmp_path / 'keys/bob.pem'} in a safe place",
    ]
    own = pacball.json("trust", "keygen", "carol", "--plain")["public"]
    assert own == str(tmp_path / "config/pacball/keys/own/carol.pub")


def test_a_key_with_a_passphrase_needs_it(trust, pacball, tmp_path):
    secret = write(tmp_path / "secret", f"{PASSPHRASE}\nand a note\n".encode())
    secret.chmod(0o600)
    wrong = write(tmp_path / "wrong", b"another\n")
    wrong.chmod(0o600)
    pacball.json("trust", "keygen", "alice", "--passphrase-file", secret, "--keys", tmp_path / "alice")
    assert (tmp_path / "alice/alice.pem").read_bytes().startswith(b"-----BEGIN OPENSSH PRIVATE KEY")
    public = tmp_path / "alice/alice.pub"
    trust.json("trust", "init", "--root-key", public, "--targets-key", public, "--keys", tmp_path / "origin")
    trust.json("trust", "export", "-o", trust.file)
    words = ("trust", "sign", trust.file, "--yes", "--keys", tmp_path / "alice")
    before = trust.file.read_bytes()
    asked = pacball.json(*words, code=7)
    assert "nobody is there to be asked" in asked["message"]
    assert "--passphrase-file" in asked["hint"]
    assert "the passphrase is wrong" in pacball.json(*words, "--passphrase-file", wrong, code=7)["message"]
    assert trust.file.read_bytes() == before
    assert pacball.json(*words, "--passphrase-file", secret)["missing"] == {"root": 0, "targets": 0}


@pytest.mark.parametrize(
    ("data", "mode", "code", "text"),
    [
        (b"words\n", 0o644, 7, "chmod 600"),
        (b"words\n", 0o660, 7, "chmod 600"),
        (b"", 0o600, 7, "no passphrase"),
        (b"\nwords\n", 0o600, 7, "no passphrase"),
        (b"x" * 5000, 0o600, 7, "no passphrase"),
        (None, 0, 3, "does not exist"),
    ],
)
def test_files_that_hold_no_passphrase(pacball, tmp_path, data, mode, code, text):
    path = tmp_path / "secret"
    if data is not None:
        write(path, data).chmod(mode)
    found = pacball.json("trust", "keygen", "a", "--passphrase-file", path, "--keys", tmp_path / "keys", code=code)
    assert text in found["message"] + found["hint"]
    assert not list((tmp_path / "keys").glob("*"))


def test_a_passphrase_is_asked_for_at_a_terminal_only(pacball, tmp_path):
    found = pacball.json("trust", "keygen", "a", "--keys", tmp_path / "keys", code=7)
    assert "nobody is there" in found["message"]


def test_keys_are_never_overwritten(trust, pacball):
    public = trust.key("alice")
    before = public.read_bytes()
    found = pacball.json("trust", "keygen", "alice", "--keys", trust.top / "alice", code=7)
    assert "already" in found["message"]
    assert "another name" in found["hint"]
    assert public.read_bytes() == before
    for name in ("../alice", "", "a/b", "a b"):
        pacball.json("trust", "keygen", name, "--plain", "--keys", trust.top / "alice", code=7)


@pytest.mark.parametrize("kind", ["PEM", "DER", "pub"])
def test_a_key_kept_elsewhere_is_taken_up(pacball, tmp_path, kind):
    key = generate_private_key(SECP256R1()).public_key()
    data = key.public_bytes(Encoding.DER if kind == "DER" else Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    path = write(tmp_path / "public", data)
    if kind == "pub":
        pacball.json("trust", "keygen", "x", "--uri", "hsm:2", "--public", path, "--keys", tmp_path / "other")
        path = tmp_path / "other/x.pub"
    found = pacball.json(
        "trust", "keygen", "token", "--uri", "hsm:2?label=a", "--public", path, "--keys", tmp_path / "k"
    )
    stored = json.loads((tmp_path / "k/token.pub").read_bytes())
    assert (stored["uri"], stored["key"]["keyid"]) == ("hsm:2?label=a", found["keyid"])
    assert os.listdir(tmp_path / "k") == ["token.pub"]


def bad_external(top):
    public = write(top / "public", generate_private_key(SECP256R1()).public_key().public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))  # fmt: skip
    return {
        "no public key": (["--uri", "hsm:2"], 7, "--uri URI --public FILE"),
        "no URI": (["--public", public], 7, "--uri URI --public FILE"),
        "plain": (["--uri", "hsm:2", "--public", public, "--plain"], 7, "leave out --plain"),
        "an unknown signer": (["--uri", "ham:2", "--public", public], 7, "known are"),
        "missing": (["--uri", "hsm:2", "--public", top / "missing"], 3, "does not exist"),
        "no key": (["--uri", "hsm:2", "--public", write(top / "noise", b"\0\1\2")], 4, "SubjectPublicKeyInfo"),
        "no PEM": (["--uri", "hsm:2", "--public", write(top / "pem", b"-----BEGIN X-----")], 4, "not a public key"),
        "other JSON": (["--uri", "hsm:2", "--public", write(top / "json", b"{}")], 4, "pacball trust keygen"),
        "private": (
            ["--uri", "hsm:2", "--public", write(top / "x", b"-----BEGIN PRIVATE KEY-----")],
            7,
            "is a private key",
        ),
    }


def test_keys_kept_elsewhere_that_are_none(pacball, tmp_path):
    for name, (words, code, text) in bad_external(tmp_path).items():
        found = pacball.json("trust", "keygen", "token", *words, "--keys", tmp_path / "k", code=code)
        assert text in found["place"] + found["message"] + found["hint"], name
    assert not (tmp_path / "k").exists()


# The first ceremony


def test_the_first_ceremony_in_json(trust):
    keys = [trust.key(name) for name in ("alice", "bob")]
    words = ("--root-key", keys[0], "--root-key", keys[1], "--root-threshold", 2, "--targets-key", keys[0])
    found = trust.json("trust", "init", *words, "--keys", trust.top / "origin")
    assert set(found) >= OUTCOME
    assert (found["version"], found["committed"]) == (0, [])
    assert [(one["role"], one["missing"]) for one in found["waiting"]] == [("root", 2), ("targets", 1)]
    assert f"pacball trust export --store {trust.store}" in found["next"][0]
    assert set(trust.json("trust", "export", "-o", trust.file)) == {"file", "fingerprint"}
    done = trust.pacball.json("trust", "sign", trust.file, "--yes", "--keys", trust.top / "alice")
    assert set(done) == {"file", "signed", "missing", "next"}
    assert done["missing"] == {"root": 1, "targets": 0}
    trust.pacball.json("trust", "sign", trust.file, "--yes", "--keys", trust.top / "bob")
    submitted = trust.json("trust", "submit", trust.file)
    assert (submitted["version"], submitted["committed"], submitted["waiting"]) == (1, ["root", "targets"], [])
    assert "--root" in submitted["next"][0]
    root = trust.json("trust", "export", "--root", "-o", trust.top / "root.json")
    verified = trust.pacball.json("trust", "status", "--from", trust.store, "--root-keys", trust.top / "root.json")
    assert verified["root"] == root["fingerprint"]
    assert set(trust.pacball.json("trust", "verify", "--from", trust.store)) == {"version", "releases", "expires"}


def test_without_named_keys_all_are_made_here(trust):
    text = trust.pacball.text("trust", "init", "--store", trust.store, "--keys", trust.top / "keys")
    assert [line.split(",")[0] for line in text.splitlines() if line.startswith("made")] == [
        "made the key root", "made the key targets", "made the key online"
    ]  # fmt: skip
    assert f"its root, which sites pin: {trust.top / 'keys/root.json'}" in text
    assert "root: in force" in text


def test_an_interrupted_or_second_beginning(trust, begun):
    found = begun.json("trust", "init", code=7)
    assert "there is a catalog already" in found["message"]


def wrong_public_keys(trust):
    begun = trust.top
    return {
        "missing": (begun / "nobody.pub", 3, "whoever has the key sends you this file"),
        "private": (begun / "alice/alice.pem", 7, "give its public part, alice.pub"),
        "a root": (begun / "root.json", 4, "is no public key file"),
        "a directory": (begun / "alice", 6, "directory"),
        "nothing": (write(begun / "empty.pub", b""), 4, "empty.pub"),
        "too much": (write(begun / "large.pub", b"{" * 20_000), 5, "more than"),
    }


def test_files_that_are_no_public_keys(begun):
    begun.json("trust", "export", "--root", "-o", begun.top / "root.json")
    for name, (path, code, text) in wrong_public_keys(begun).items():
        for words in (
            ["trust", "add-line", "Demo", "--key", path],
            ["trust", "rotate", "root", "--add", path],
            ["trust", "revoke", "alice", "--replace-with", path],
        ):
            found = begun.json(*words, code=code)
            assert text in f"{found['place']} {found['message']} {found['hint']}", (name, words)
    assert begun.json("trust", "status")["waiting"] == []


def test_thresholds_that_cannot_be(trust, begun):
    words = ("--root-key", begun.top / "alice/alice.pub", "--root-threshold", 2)
    other = begun.pacball.json("trust", "init", *words, "--store", begun.top / "other", code=7)
    assert "2 of 1 keys" in other["message"]
    for words in (
        ("rotate", "root", "--threshold", 3),
        ("rotate", "targets", "--remove", "alice", "--threshold", 2),
        ("add-line", "Demo", "--key", begun.top / "alice/alice.pub", "--threshold", 2),
    ):
        assert "cannot be asked for" in begun.json("trust", *words, code=7)["message"], words
