"""A token signs TUF metadata, and ssh-keygen and openssl read our private keys and write such as we read."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from securesystemslib.signer import HSMSigner, SSlibKey
from tuf.api.metadata import Metadata, Root, Timestamp

from pacstore.errors import NotFound, PacballError, Refused, Unavailable
from pacstore.trust.keyring import KeyRing
from tests.peers.programs import call, program
from tests.store.signing import SECRET, Secrets, assert_silent, works

pytestmark = pytest.mark.peers

PIN = "48151623"
LIBRARIES = [*Path("/usr/lib").glob("softhsm/libsofthsm2.so"), *Path("/usr/lib").glob("*/softhsm/libsofthsm2.so")]


class SoftToken:
    """Debian's SoftHSM with one token; keys are made in it with OpenSC's pkcs11-tool, as with a token of hardware."""

    def __init__(self, home: Path, label: str) -> None:
        assert LIBRARIES, "softhsm2 is not installed: run make test-peers, which installs it"
        self.library = LIBRARIES[0]
        self.label = label
        (home / "tokens").mkdir()
        self.config = home / "softhsm2.conf"
        self.config.write_text(f"directories.tokendir = {home / 'tokens'}\nobjectstore.backend = file\n")

    def initialize(self) -> None:
        call("softhsm2-util", "--init-token", "--free", "--label", self.label, "--so-pin", "9" * 8, "--pin", PIN)

    def make_key(self, number: int, curve: str) -> None:
        words = ("--module", self.library, "--token-label", self.label, "--login", "--pin", PIN, "--keypairgen")
        call("pkcs11-tool", *words, "--key-type", f"EC:{curve}", "--id", f"{number:02x}", "--label", f"key{number}")


@pytest.fixture(scope="module")
def token(tmp_path_factory):
    """One for all tests: PKCS#11 libraries are loaded once a process, and read the environment then."""
    made = SoftToken(tmp_path_factory.mktemp("softhsm"), "Root Token #1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(made.config))
        patch.setenv("PYKCS11LIB", str(made.library))
        made.initialize()
        made.make_key(1, "prime256v1")
        made.make_key(2, "secp384r1")
        yield made


@pytest.fixture
def directory(tmp_path, token):
    """A directory of keys that knows the token's two by their URIs."""
    ring = KeyRing(tmp_path / "keys")
    for number in (1, 2):
        uri, public = HSMSigner.import_(number, token.label)
        ring.adopt(f"token-{number}", public, uri)
    return ring.directory


def verified(metadata: Metadata) -> list[str]:
    """The ids of the keys whose signatures verify, after a journey as bytes."""
    again = Metadata.from_bytes(metadata.to_bytes())
    root = again.signed
    assert isinstance(root, Root)
    return sorted(root.get_root_verification_result(None, again.signed_bytes, again.signatures).signed)


def test_a_token_signs_metadata_that_verifies(directory):
    secrets = Secrets(PIN)
    ring = KeyRing(directory, secrets)
    local = ring.create("local")
    keys = [ring.public("token-1"), ring.public("token-2"), local]
    root = Metadata(Root(expires=datetime(2040, 1, 1, tzinfo=UTC)))
    for key in keys:
        root.signed.add_key(key, "root")
    root.signed.roles["root"].threshold = 3
    for signer in ring.signers(key.keyid for key in keys):
        root.sign(signer, append=True)
    assert [key.scheme for key in keys] == ["ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ed25519"]
    assert verified(root) == sorted(key.keyid for key in keys)
    root.signed.verify_delegate("root", root.signed_bytes, root.signatures)
    assert sorted(secrets.asked) == ["token-1", "token-2"]
    timestamp = Metadata(Timestamp(expires=datetime(2040, 1, 1, tzinfo=UTC)))
    timestamp.sign(ring.signer("token-1"))
    timestamp.sign(ring.signer("token-1"))
    assert sorted(secrets.asked) == ["token-1", "token-2"]


def test_a_wrong_pin_is_refused_and_not_tried_again(directory):
    secrets = Secrets("00000000")
    ring = KeyRing(directory, secrets)
    for _ in range(2):
        with pytest.raises(Refused, match="the PIN is wrong for the key token-1") as caught:
            ring.signer("token-1").sign(b"data")
        assert caught.value.hint
        assert_silent(caught.value, secrets.answer)
    assert secrets.asked == ["token-1"]
    assert works(KeyRing(directory, Secrets(PIN)).signer("token-1"))


@pytest.mark.parametrize(
    ("uri", "kind", "match"),
    [
        ("hsm:1?label=another", Unavailable, "No PKCS#11 token found for label another"),
        ("hsm:7", Unavailable, "could not find ECDSA private key"),
        ("hsm:2?label=Root+Token+%231", Refused, "another private key"),
        ("hsm:one", Refused, "invalid literal"),
    ],
)
def test_what_is_wrong_with_a_token_is_said(directory, uri, kind, match):
    ring = KeyRing(directory, Secrets(PIN))
    ring.adopt("wrong", ring.public("token-1"), uri)
    with pytest.raises(kind, match=match) as caught:
        ring.signer("wrong").sign(b"data")
    assert "the key wrong" in caught.value.message
    assert caught.value.hint


def test_a_token_without_its_library_is_unavailable(directory, monkeypatch):
    ring = KeyRing(directory, Secrets(PIN))
    for library in ("/nonexistent/library.so", ""):
        monkeypatch.setenv("PYKCS11LIB", library)
        with pytest.raises(Unavailable, match="the key token-1 does not work") as caught:
            ring.signer("token-1").sign(b"data")
        assert "PYKCS11LIB" in caught.value.hint


# Private key files


def public_by_ssh(path: Path, passphrase: str) -> SSlibKey:
    line = call("ssh-keygen", "-y", "-P", passphrase, "-f", path).stdout
    return SSlibKey.from_crypto(load_ssh_public_key(line.encode()))


def test_ssh_keygen_reads_an_encrypted_key_and_changes_its_passphrase(tmp_path):
    ring = KeyRing(tmp_path / "keys")
    made, path = ring.create("root", SECRET), ring.path("root")
    assert public_by_ssh(path, SECRET) == made
    call("ssh-keygen", "-p", "-a", "32", "-P", SECRET, "-N", "another one", "-f", path)
    assert works(KeyRing(ring.directory, Secrets("another one")).signer("root"), made)
    with pytest.raises(Refused, match="passphrase is wrong"):
        KeyRing(ring.directory, Secrets(SECRET)).signer("root")
    call("ssh-keygen", "-p", "-P", "another one", "-N", "", "-f", path)
    assert works(KeyRing(ring.directory).signer("root"), made)


@pytest.mark.parametrize("words", [("-t", "ed25519"), ("-t", "ecdsa", "-b", "384"), ("-t", "rsa", "-b", "2048")])
def test_keys_of_ssh_keygen_are_read(tmp_path, words):
    ring = KeyRing(tmp_path / "keys", Secrets())
    ring.create("other")
    call("ssh-keygen", "-q", *words, "-N", SECRET, "-C", "a comment", "-f", tmp_path / "key")
    (tmp_path / "key").rename(ring.path("own"))
    assert works(ring.signer("own"), public_by_ssh(ring.path("own"), SECRET))


def test_openssl_reads_a_plain_key_and_keys_that_it_encrypts_are_read(tmp_path):
    ring = KeyRing(tmp_path / "keys", Secrets())
    made = ring.create("root")
    assert "ED25519" in call("openssl", "pkey", "-in", ring.path("root"), "-noout", "-text").stdout
    for name, words in {"scrypt": ("-scrypt",), "pbkdf2": ("-v2", "aes-256-cbc", "-iter", "600000")}.items():
        out = ("-out", ring.path(name), "-passout", "stdin")
        argv = [program("openssl"), "pkcs8", "-topk8", "-in", ring.path("root"), *words, *out]
        subprocess.run(argv, input=SECRET.encode(), check=True, capture_output=True, timeout=60)
        ring.path(name).chmod(0o600)
        assert b"ENCRYPTED" in ring.path(name).read_bytes()
        assert works(ring.signer(name), made)


def test_gnupg_is_refused_with_the_reason(tmp_path):
    ring = KeyRing(tmp_path / "keys")
    ring.adopt("gpg", KeyRing(tmp_path / "others").create("x"), "gnupg:")
    with pytest.raises(PacballError, match="gnupg: of the key gpg") as caught:
        ring.signer("gpg")
    assert caught.value.hint == "OpenPGP keys are not supported"
    assert not isinstance(caught.value, NotFound)
