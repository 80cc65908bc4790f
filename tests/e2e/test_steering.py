"""Words that a line's manager, or a thief of keys, puts into a catalog cannot steer the terminal on which they are shown."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import subprocess

import pytest
from tuf.api.metadata import DelegatedRole, MetaFile

from pacstore.storage import ObjectKind
from tests.e2e.attacker import mirroring
from tests.e2e.forger import Forger, new_key, put, target_of
from tests.e2e.site import PACBALL
from tests.e2e.victims import NEW, OLD, check_printable, copied, world_below
from tests.store.statements import dsse, slsa_1

pytestmark = pytest.mark.slow

STEERING = "\x1b[2J\x1b]0;owned\x07\x9b1m\r\b"
"""Clears a terminal, names its window, hides what was there."""
TURNING = "\u202e\u2066\u200b\ufeff\u2028\ue000"
"""Turns text around, or cannot be seen."""


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    return world_below(tmp_path_factory.getbasetemp())


@pytest.fixture
def mirror(world, tmp_path):
    """A mirror whose files may be forged."""
    with mirroring(copied(world.second, tmp_path / "public")) as made:
        yield made


@pytest.fixture
def thief(world, mirror):
    """Who has stolen the online key, and the mirror."""
    return Forger(mirror.public, world.keys.signer("online"))


def withdraw(reason):
    def change(signed):
        signed.targets[f"releases/Demo/{NEW}/manifest"].custom["withdrawn"] = {
            "at": "2026-01-01T00:00:00Z",
            "reason": reason,
            "replaced_by": OLD,
        }

    return change


def test_the_reason_of_a_withdrawal_cannot_steer_a_terminal(world, mirror, thief, tmp_path):
    victim = world.early(tmp_path / "victim")
    manager = world.keys.signer("line-Demo")
    thief.sign("line-Demo", withdraw(f"bad{TURNING}"), manager)
    victim.refuses(mirror, 7, r"bad\u202e\u2066\u200b\ufeff\u2028\ue000", "--allow-withdrawn")
    for words in (("list",), ("show", NEW), ("install", NEW, "--root", victim.root, "--allow-withdrawn")):
        assert r"bad\u202e" in victim.prints(*words, *victim.source(mirror))
    thief.sign("line-Demo", withdraw(f"bad{STEERING}"), manager)
    victim.refuses(mirror, 4, "without control characters")
    assert "without control characters" in victim.prints("list", *victim.source(mirror))


def test_names_in_the_catalog_cannot_steer_a_terminal(world, mirror, thief, tmp_path):
    victim = world.early(tmp_path / "victim")
    name = f"line-Bad{STEERING}{TURNING}"

    def delegate(signed):
        signed.delegations.roles[name] = DelegatedRole(name, [], 1, True, paths=["releases/Bad/*/*"])
        signed.add_key(new_key().public_key, name)

    thief.sign("targets", delegate, world.keys.signer("targets"))
    for words in (("list",), ("show", "Bad-1-any"), ("trust", "status")):
        assert "Bad" in victim.prints(*words, *victim.source(mirror))
    # As a thief of the online key can list any role: at first, and then no more.
    thief.snapshot(lambda signed: signed.meta.update({f"{name}.json": MetaFile(7)}))
    victim.prints("list", *victim.source(mirror))
    thief.snapshot(lambda signed: signed.meta.pop(f"{name}.json"))
    victim.refuses(mirror, 8, r"Bad\x1b[2J", "use another source")
    shutil.rmtree(victim.state / "metadata")
    victim.refuses(mirror, 8, r"Bad\x1b[2J", "is gone", "use another source")


def test_a_provenance_cannot_steer_a_terminal(world, mirror, thief, tmp_path):
    victim = world.early(tmp_path / "victim")
    subject = {"name": f"{NEW}{STEERING}", "digest": {f"a{TURNING}": STEERING}}
    signed = dsse(slsa_1(subject, predicateType=f"x{STEERING}"), keys=(STEERING, TURNING))
    assert "signed by" in shown(victim, mirror, thief, json.dumps(signed).encode())
    assert "cannot be read" in shown(victim, mirror, thief, f"no JSON {STEERING}".encode())
    # Where a person looks, and not a program.
    data = on_terminal(victim, "show", NEW, *victim.source(mirror), "--provenance")
    assert b"no JSON" in data
    check_printable(data.decode().replace("\r\n", "\n"))


def shown(victim, mirror, manager, data):
    """What `show` prints of a release with this provenance, which its line has signed."""
    document = put(mirror.public, ObjectKind.PROVENANCE, data)
    target = target_of(f"releases/Demo/{NEW}/provenance", document)
    key = victim.world.keys.signer("line-Demo")
    manager.sign("line-Demo", lambda signed: signed.targets.update({target.path: target}), key)
    return victim.prints("show", NEW, *victim.source(mirror))


def on_terminal(victim, *words):
    """What a command writes to a terminal."""
    ours, theirs = pty.openpty()
    argv = [str(PACBALL), *map(str, words)]
    with subprocess.Popen(argv, env=victim.site.environment, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        data = b""
        with contextlib.suppress(OSError):  # the other end was closed
            while piece := os.read(ours, 65536):
                data += piece
        assert process.wait(30) == 0
    os.close(ours)
    return data
