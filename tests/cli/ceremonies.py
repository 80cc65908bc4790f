"""A store whose origin has the online key, people with keys of their own, and what their files may hold instead."""

from __future__ import annotations

import json
from pathlib import Path

from pacstore.trust.keyring import KeyRing
from tests.store.releases import write

DEMO = "Demo-1.0-x86_64"
OUTCOME = {"changed", "version", "committed", "waiting", "next"}
PASSPHRASE = "several words of mine"


class Trust:
    """A store whose origin has the online key, and people with a directory of keys each; nothing has a passphrase."""

    def __init__(self, pacball, top: Path) -> None:
        self.pacball = pacball
        self.top = top
        self.store = top / "store"
        self.file = top / "change.json"

    def key(self, name: str) -> Path:
        """The public key of a new key, in that person's directory."""
        self.pacball.json("trust", "keygen", name, "--plain", "--keys", self.top / name)
        return self.top / name / f"{name}.pub"

    def json(self, *words: object, code: int = 0) -> dict:
        """What a command for this store says."""
        return self.pacball.json(*words, "--store", self.store, code=code)

    def begin(self) -> None:
        """Root and targets of alice and bob, of whom two make a root."""
        keys = [self.key(name) for name in ("alice", "bob")]
        roles = [word for key in keys for role in ("root", "targets") for word in (f"--{role}-key", key)]
        self.json("trust", "init", *roles, "--root-threshold", 2, "--keys", self.top / "origin")
        self.sign("alice", "bob")

    def sign(self, *people: str) -> dict:
        """Those sign what waits, in a file, and it is submitted."""
        self.json("trust", "export", "-o", self.file)
        for name in people:
            self.pacball.json("trust", "sign", self.file, "--yes", "--keys", self.top / name)
        return self.json("trust", "submit", self.file)


def label(trust, name):
    return f"{name} ({KeyRing(trust.top / name).public(name).keyid[:16]})"


def other_files(trust):
    trust.json("trust", "export", "--root", "-o", trust.top / "root.json")
    whole = json.loads(trust.file.read_bytes())
    changed = json.loads(trust.file.read_bytes())
    changed["roles"]["targets"]["metadata"]["signed"]["version"] = "1"
    return {
        "missing": (trust.top / "none.json", 3, "does not exist"),
        "a directory": (trust.top, 6, "directory"),
        "empty": (write(trust.top / "empty.json", b""), 4, "empty.json"),
        "noise": (write(trust.top / "noise", b"\x80\xff"), 4, "noise"),
        "a root": (trust.top / "root.json", 4, "is not a change file"),
        "a public key": (trust.top / "alice/alice.pub", 4, "is not a change file"),
        "half": (write(trust.top / "half", trust.file.read_bytes()[:500]), 4, "half"),
        "changed": (write(trust.top / "changed", json.dumps(changed).encode()), 4, "is not a valid change file"),
        "newer": (write(trust.top / "newer", json.dumps({**whole, "format": 2}).encode()), 9, "newer"),
    }
