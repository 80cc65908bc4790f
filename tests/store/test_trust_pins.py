import stat

import pytest

from pacstore.errors import NotFound, Refused, Untrusted
from pacstore.trust.pins import Pins, check_root, fetch_root, fingerprint
from tests.store.trust_world import MemorySource, World


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "world")


def test_a_root_is_trusted_on_first_use_and_remembered(world, tmp_path):
    pins = Pins(tmp_path / "pins")
    assert pins.recall("https://mirror") is None
    root = fetch_root(world.source)
    pins.remember("https://mirror", root)
    pins.remember("https://mirror", root)
    assert Pins(tmp_path / "pins").recall("https://mirror") == root == world.catalog.root_bytes
    assert pins.recall("https://other") is None
    assert world.open(root=root).projects() == ["AtlasOffline"]
    (file,) = (tmp_path / "pins").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_another_root_never_replaces_a_pinned_one(world, tmp_path):
    pins = Pins(tmp_path / "pins")
    pins.remember("m", world.catalog.root_bytes)
    stranger = World(tmp_path / "stranger")
    with pytest.raises(Untrusted, match="another root"):
        pins.remember("m", stranger.catalog.root_bytes)
    assert pins.recall("m") == world.catalog.root_bytes


def test_only_a_root_that_signs_itself_is_a_root(world):
    root = world.catalog.root_bytes
    assert check_root(root, place="keys") == root
    others = [b"", b"{}", b"[1]", b"\xff", root[:-1], root.replace(b'"version":1', b'"version":2')]
    others += [data for path, data in world.storage.files.items() if "root" not in path]
    for data in others:
        with pytest.raises(Refused, match="not a TUF root") as caught:
            check_root(data, place="keys")
        assert caught.value.hint


def test_a_damaged_pin_is_refused(world, tmp_path):
    pins = Pins(tmp_path / "pins")
    pins.remember("m", world.catalog.root_bytes)
    (file,) = (tmp_path / "pins").iterdir()
    file.write_bytes(b"")
    with pytest.raises(Refused, match="not a TUF root"):
        pins.recall("m")


def test_a_source_without_a_root(world):
    with pytest.raises(NotFound):
        fetch_root(MemorySource({}))


def test_fingerprints_tell_roots_apart(world, tmp_path):
    assert len(fingerprint(world.catalog.root_bytes)) == 64
    assert fingerprint(world.catalog.root_bytes)[:16] == world.catalog.catalog_id
    assert fingerprint(World(tmp_path / "b").catalog.root_bytes) != fingerprint(world.catalog.root_bytes)
