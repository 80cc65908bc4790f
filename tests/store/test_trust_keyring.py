"""A directory of keys: readable by its owner only, found by key id, passphrases asked once and told to nobody."""

import os
import shutil
import stat
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner

from pacstore.errors import Corrupt, NotFound, Refused, TooLarge
from pacstore.trust.keyring import KeyRing, encode_public
from tests.store.signing import SECRET, Secrets, assert_silent, works


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    """A directory with one encrypted key, `root`; its encryption takes a second."""
    ring = KeyRing(tmp_path_factory.mktemp("locked") / "keys")
    ring.create("root", SECRET)
    return ring.directory


@pytest.fixture
def encrypted(locked, tmp_path):
    return Path(shutil.copytree(locked, tmp_path / "encrypted"))


@pytest.fixture
def ring(tmp_path):
    return KeyRing(tmp_path / "a" / "keys")


@pytest.fixture
def outside(tmp_path):
    """A private key that is not in the directory: its signer, and the URI where securesystemslib finds it."""
    signer = CryptoSigner.generate_ecdsa()
    path = tmp_path / "outside.pem"
    path.write_bytes(signer.private_bytes)
    return signer, f"file2:{path}"


# One key in a directory


def test_a_key_is_made_once_and_read_back(ring):
    assert ring.names() == []
    made = ring.create("root")
    again = KeyRing(ring.directory)
    assert again.public("root") == made
    assert again.signer("root").public_key == made
    assert works(again.signer("root"), made)
    assert again.names() == ["root"]
    assert sorted(path.name for path in ring.directory.iterdir()) == ["root.pem", "root.pub"]


def test_private_keys_are_readable_by_their_owner_only(ring):
    ring.create("line-AtlasOffline")
    assert stat.S_IMODE(os.stat(ring.directory).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(ring.path("line-AtlasOffline")).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(ring.public_path("line-AtlasOffline")).st_mode) == 0o644


def test_a_key_is_never_overwritten(ring, outside):
    made = ring.create("online")
    for attempt in (ring, KeyRing(ring.directory)):
        with pytest.raises(Refused, match="exists already"):
            attempt.create("online")
        with pytest.raises(Refused, match="exists already"):
            attempt.adopt("online", outside[0].public_key, outside[1])
    for missing in (ring.public_path("online"), ring.path("online")):
        missing.rename(ring.directory / "away")
        left = sorted(os.listdir(ring.directory))
        with pytest.raises(Refused, match="exists already"):
            ring.create("online")
        with pytest.raises(Refused, match="exists already"):
            ring.adopt("online", outside[0].public_key, outside[1])
        assert sorted(os.listdir(ring.directory)) == left
        (ring.directory / "away").rename(missing)
    assert works(KeyRing(ring.directory).signer("online"), made)


def test_a_missing_key_names_its_file(ring):
    for directory in ("missing", "there"):
        with pytest.raises(NotFound) as caught:
            ring.signer("targets")
        assert str(ring.path("targets")) in caught.value.hint, directory
        with pytest.raises(NotFound):
            ring.public("targets")
        ring.directory.mkdir(parents=True, exist_ok=True, mode=0o700)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_can_read_is_refused(ring, mode):
    ring.create("root")
    ring.path("root").chmod(mode)
    with pytest.raises(Refused) as caught:
        KeyRing(ring.directory).signer("root")
    assert caught.value.hint == f"chmod 600 {ring.path('root')}"


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_public_key_that_others_can_change_is_refused(ring, mode):
    ring.create("root")
    ring.public_path("root").chmod(mode)
    for use in (ring.public, KeyRing(ring.directory).signer):
        with pytest.raises(Refused) as caught:
            use("root")
        assert caught.value.hint == f"chmod 644 {ring.public_path('root')}"


def test_a_directory_that_others_can_read_is_refused(ring):
    made = ring.create("root")
    ring.directory.chmod(0o750)
    fresh = KeyRing(ring.directory)
    for use in (
        lambda: fresh.signer("root"),
        lambda: fresh.public("root"),
        lambda: fresh.find(made.keyid),
        lambda: fresh.create("online"),
        lambda: fresh.adopt("other", made, "hsm:"),
    ):
        with pytest.raises(Refused) as caught:
            use()
        assert caught.value.hint == f"chmod 700 {ring.directory}"


@pytest.mark.parametrize(
    "content", [b"", b"secret nonsense", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_damaged_key_is_corrupt_and_not_quoted(ring, content):
    ring.create("root")
    ring.path("root").write_bytes(content)
    with pytest.raises(Corrupt) as caught:
        KeyRing(ring.directory).signer("root")
    assert_silent(caught.value, "secret")
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_files_beyond_all_keys_are_too_large(ring):
    ring.create("root")
    for path in (ring.path("root"), ring.public_path("root")):
        good = path.read_bytes()
        path.write_bytes(good + b"\n" * (16 * 1024))
        with pytest.raises(TooLarge):
            KeyRing(ring.directory).signer("root")
        path.write_bytes(good)


GOOD_NAMES = ["root", "1", "alice@example.org", "line-A_b.pem", "a.pub", "x" * 100]
BAD_NAMES = ["", "../root", ".root", "-root", "_x", "@", "a..b", "a/b", "root\n", "a b", "é", "x" * 101, "a\0"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_are_no_key_names_are_refused(ring, outside, name):
    ring.create("root")
    uses = (ring.path, ring.public_path, ring.public, ring.create, ring.signer)
    for use in (*uses, lambda name: ring.adopt(name, outside[0].public_key, outside[1])):
        with pytest.raises(Refused, match="is not the name of a key"):
            use(name)
    assert ring.names() == ["root"]


def test_names_come_from_files_with_key_names_alone(ring):
    for name in GOOD_NAMES:
        ring.create(name)
    for other in ("root.json", "0123.tmp", ".pem", "a..b.pem", "a b.pub", "-x.pub"):
        (ring.directory / other).write_bytes(b"")
    assert ring.names() == sorted(GOOD_NAMES)
    assert all(works(KeyRing(ring.directory).signer(name)) for name in GOOD_NAMES)


# Files that do not fit together, or of which one is missing


def test_without_its_public_file_the_private_key_yields_it_and_makes_it_again(ring):
    made = ring.create("root")
    written = ring.public_path("root").read_bytes()
    ring.public_path("root").unlink()
    assert KeyRing(ring.directory).public("root") == made
    assert ring.public_path("root").read_bytes() == written
    assert stat.S_IMODE(os.stat(ring.public_path("root")).st_mode) == 0o644


def test_a_private_key_of_another_public_key_is_corrupt(ring):
    ring.create("root")
    ring.create("other")
    shutil.copy(ring.path("other"), ring.path("root"))
    with pytest.raises(Corrupt, match="does not belong to the public key") as caught:
        KeyRing(ring.directory).signer("root")
    assert caught.value.place == str(ring.path("root"))


def test_an_external_signer_beside_a_private_key_is_refused(ring, outside):
    ring.adopt("root", outside[0].public_key, outside[1])
    ring.path("root").write_bytes(outside[0].private_bytes)
    ring.path("root").chmod(0o600)
    with pytest.raises(Refused, match="external signer, too"):
        ring.signer("root")


def test_somebody_elses_public_key_is_known_but_signs_nothing(ring, outside):
    ring.create("root")
    other = outside[0].public_key
    ring.public_path("alice").write_bytes(encode_public(other))
    ring.public_path("alice").chmod(0o644)
    assert ring.public("alice") == other
    assert ring.find(other.keyid) == "alice"
    assert not ring.has(other.keyid)
    assert ring.signers([other.keyid]) == []
    with pytest.raises(NotFound):
        ring.signer("alice")


# Looking for keys by id


def test_keys_are_found_by_id_whatever_their_names(ring, outside):
    made = {name: ring.create(name).keyid for name in ("b", "a", "c")}
    ring.adopt("d", outside[0].public_key, outside[1])
    made["d"] = outside[0].public_key.keyid
    fresh = KeyRing(ring.directory)
    for name, keyid in made.items():
        assert fresh.find(keyid) == name
        assert fresh.has(keyid)
    assert fresh.find("0" * 64) is None
    assert not fresh.has("0" * 64)
    some = [made["c"], made["d"], "0" * 64, made["a"], made["c"]]
    signers = fresh.signers(some)
    assert [signer.public_key.keyid for signer in signers] == sorted({made["a"], made["c"], made["d"]})
    assert all(works(signer) for signer in signers)
    assert fresh.signers([]) == []


def test_of_several_names_one_that_can_sign_is_found(ring, outside):
    public, uri = outside[0].public_key, outside[1]
    for name in ("alice", "zoe"):
        ring.adopt("middle", public, uri)
        ring.public_path(name).write_bytes(encode_public(public))
        ring.public_path(name).chmod(0o644)
        assert ring.find(public.keyid) == "middle"
        assert ring.has(public.keyid)
        ring.public_path(name).unlink()
        ring.public_path("middle").unlink()


def test_an_unreadable_key_is_no_matter_until_the_wanted_one_is_missing(ring):
    good = ring.create("z").keyid
    lost = ring.create("a").keyid
    ring.public_path("a").write_bytes(b"nonsense")
    fresh = KeyRing(ring.directory)
    assert fresh.find(good) == "z"
    assert fresh.has(good)
    assert [signer.public_key.keyid for signer in fresh.signers([good])] == [good]
    for use in (lambda: fresh.find(lost), lambda: fresh.has(lost), lambda: fresh.signers([good, lost])):
        with pytest.raises(Corrupt) as caught:
            use()
        assert caught.value.place == str(ring.public_path("a"))


# Passphrases


def test_an_encrypted_key_asks_once(encrypted):
    secrets = Secrets()
    ring = KeyRing(encrypted, secrets)
    public = ring.public("root")
    assert ring.find(public.keyid) == "root"
    assert ring.has(public.keyid)
    assert secrets.asked == []
    assert works(ring.signer("root"), public)
    assert works(ring.signers([public.keyid])[0], public)
    assert secrets.asked == ["root"]


def test_who_makes_an_encrypted_key_is_not_asked_for_its_passphrase(ring):
    made = ring.create("root", SECRET)
    assert works(ring.signer("root"), made)
    assert SECRET.encode() not in ring.path("root").read_bytes()
    with pytest.raises(Refused, match="passphrase"):
        KeyRing(ring.directory).signer("root")


def test_without_anybody_to_ask_the_hint_says_how_to_give_a_passphrase(encrypted):
    with pytest.raises(Refused, match="root needs a passphrase") as caught:
        KeyRing(encrypted).signer("root")
    assert "--passphrase-file" in caught.value.hint


def test_a_wrong_passphrase_is_refused_and_the_right_one_works_after_it(encrypted):
    secrets = Secrets("wrong but secret")
    ring = KeyRing(encrypted, secrets)
    with pytest.raises(Refused, match="passphrase is wrong") as caught:
        ring.signer("root")
    assert caught.value.place == str(encrypted / "root.pem")
    assert caught.value.hint
    assert_silent(caught.value, secrets.answer)
    secrets.answer = SECRET
    assert works(ring.signer("root"))


@pytest.mark.parametrize(("passphrase", "match"), [("", "empty"), ("caf\udce9", "not text")])
def test_bad_passphrases_are_refused(ring, encrypted, passphrase, match):
    with pytest.raises(Refused, match=match):
        ring.create("root", passphrase)
    assert ring.names() == []
    with pytest.raises(Refused, match=match):
        KeyRing(encrypted, Secrets(passphrase)).signer("root")


def test_what_the_asking_raises_comes_through(encrypted):
    def interrupted(_name):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        KeyRing(encrypted, interrupted).signer("root")


def test_an_encrypted_key_without_its_public_file_asks_once_and_for_ever(encrypted):
    public = KeyRing(encrypted).public("root")
    (encrypted / "root.pub").unlink()
    with pytest.raises(Refused, match="passphrase"):
        KeyRing(encrypted).has(public.keyid)
    secrets = Secrets()
    ring = KeyRing(encrypted, secrets)
    assert ring.public("root") == public
    assert ring.has(public.keyid)
    assert works(ring.signer("root"), public)
    assert secrets.asked == ["root"]
    assert KeyRing(encrypted).public("root") == public


def test_looking_for_a_key_that_is_known_asks_for_no_other_passphrase(encrypted):
    (encrypted / "root.pub").unlink()
    secrets = Secrets()
    ring = KeyRing(encrypted, secrets)
    online = ring.create("zz-online")
    assert ring.has(online.keyid)
    assert ring.find(online.keyid) == "zz-online"
    assert len(ring.signers([online.keyid])) == 1
    assert secrets.asked == []


def test_an_encrypted_key_of_another_public_key_is_corrupt(encrypted):
    ring = KeyRing(encrypted, Secrets())
    ring.create("other")
    shutil.copy(ring.public_path("other"), ring.public_path("root"))
    with pytest.raises(Corrupt, match="does not belong"):
        ring.signer("root")
