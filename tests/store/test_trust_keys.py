import os
import stat

import pytest

from pacstore.errors import Corrupt, NotFound, Refused
from pacstore.trust.keys import KeyRing


@pytest.fixture
def keys(tmp_path):
    return KeyRing(tmp_path / "a" / "keys")


def test_a_key_is_made_once_and_read_back(keys):
    assert not keys.has("root")
    made = keys.create("root")
    assert keys.has("root")
    assert keys.signer("root").public_key == made.public_key
    made.public_key.verify_signature(keys.signer("root").sign(b"data"), b"data")
    assert [path.name for path in keys.directory.iterdir()] == ["root.pem"]


def test_keys_are_readable_by_their_owner_only(keys):
    keys.create("line-AtlasOffline")
    assert stat.S_IMODE(os.stat(keys.directory).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(keys.path("line-AtlasOffline")).st_mode) == 0o600


def test_a_key_is_never_overwritten(keys):
    made = keys.create("online")
    with pytest.raises(Refused, match="exists already"):
        keys.create("online")
    assert keys.signer("online").public_key == made.public_key


def test_a_missing_key_names_its_file(keys):
    with pytest.raises(NotFound) as caught:
        keys.signer("targets")
    assert str(keys.path("targets")) in caught.value.hint


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_can_read_is_refused(keys, mode):
    keys.create("root")
    keys.path("root").chmod(mode)
    with pytest.raises(Refused) as caught:
        keys.signer("root")
    assert caught.value.hint == f"chmod 600 {keys.path('root')}"


def test_a_directory_that_others_can_read_is_refused(keys):
    keys.create("root")
    keys.directory.chmod(0o750)
    for use in (lambda: keys.signer("root"), lambda: keys.create("online")):
        with pytest.raises(Refused) as caught:
            use()
        assert caught.value.hint == f"chmod 700 {keys.directory}"


@pytest.mark.parametrize(
    "content", [b"", b"secret nonsense", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_damaged_key_is_corrupt_and_not_quoted(keys, content):
    keys.create("root")
    keys.path("root").write_bytes(content)
    with pytest.raises(Corrupt) as caught:
        keys.signer("root")
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("name", ["", "../root", "line-", "line-9", "line-A-B", "root\n", "snapshot", "line-A/B"])
def test_names_that_are_no_key_names_are_refused(keys, name):
    for use in (keys.path, keys.has, keys.create, keys.signer):
        with pytest.raises(Refused):
            use(name)
