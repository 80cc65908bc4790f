"""The chapter of docs/trust.md on keys in hardware, with SoftHSM for a token."""

from __future__ import annotations

import pytest

from tests.e2e import guide
from tests.e2e.test_trust_guide import CHAPTERS, HARDWARE
from tests.peers.test_signers import SoftToken

pytestmark = pytest.mark.peers


def test_a_token_as_the_guide_has_it(tmp_path, monkeypatch):
    token = SoftToken(tmp_path, "erin")
    monkeypatch.setenv("SOFTHSM2_CONF", str(token.config))
    token.initialize()
    world = guide.World(tmp_path, {"SOFTHSM2_CONF": str(token.config), "PYKCS11LIB": str(token.library)})
    for chapter in CHAPTERS:
        for block in chapter.blocks if chapter.number in HARDWARE else ():
            world.run(block)
    keys = world.path("erin", "~/.config/pacball/keys/own")
    assert sorted(path.name for path in keys.iterdir()) == ["erin.pub", "online.pem", "online.pub", "root.json"]
