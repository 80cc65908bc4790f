"""Signers elsewhere: every signature is verified, every error is ours and tells no secret, a wrong PIN is tried once."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from securesystemslib.signer import SIGNER_FOR_URI_SCHEME, CryptoSigner, GPGKey, Signature, Signer, SSlibKey

from pacstore.errors import Refused, Unavailable
from pacstore.trust.keyring import KeyRing, encode_public
from tests.store.signing import DATA, Secrets, assert_silent, works

P256 = SSlibKey.from_crypto(ec.generate_private_key(ec.SECP256R1()).public_key())
P521 = SSlibKey.from_crypto(ec.generate_private_key(ec.SECP521R1()).public_key())


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


# External signers


def test_a_key_elsewhere_signs_by_its_uri(ring, outside):
    signer, uri = outside
    ring.adopt("token", signer.public_key, uri)
    assert [path.name for path in ring.directory.iterdir()] == ["token.pub"]
    fresh = KeyRing(ring.directory)
    assert fresh.public("token") == signer.public_key
    assert fresh.find(signer.public_key.keyid) == "token"
    assert fresh.has(signer.public_key.keyid)
    assert works(fresh.signer("token"), signer.public_key)
    assert fresh.signer("token") is fresh.signer("token")


def test_a_key_that_others_would_not_know_is_not_adopted(ring, outside):
    public = outside[0].public_key
    forged = SSlibKey("0" * 64, public.keytype, public.scheme, public.keyval)
    for key in (forged, P521, GPGKey("a" * 40, "rsa", "pgp+rsa-pkcsv1.5", {"public": {}})):
        with pytest.raises(Refused):
            ring.adopt("token", key, outside[1])
    assert ring.names() == []


@pytest.mark.parametrize(
    "uri", ["", "hsm", "envvar:SECRET", "file:x", "https://x", "HSM:", " hsm:", "\x1b[2J:", "hsm:\n"]
)
def test_unknown_uris_are_not_adopted(ring, outside, uri):
    with pytest.raises(Refused) as caught:
        ring.adopt("token", outside[0].public_key, uri)
    assert str(caught.value).isprintable()
    assert ring.names() == []


def test_no_signer_takes_its_key_from_the_environment():
    assert "envvar" not in SIGNER_FOR_URI_SCHEME
    assert {"file2", "hsm"} <= set(SIGNER_FOR_URI_SCHEME)


def external(ring, uri, public=P256):
    """The signer of a public file that says this URI, as another version, or hand, may have written it."""
    ring.create("root")
    ring.public_path("token").write_bytes(encode_public(public, uri))
    ring.public_path("token").chmod(0o644)
    return KeyRing(ring.directory, Secrets("123456")).signer("token")


@pytest.mark.parametrize(
    ("uri", "kind", "match"),
    [
        ("file2:/nonexistent/key.pem", Unavailable, "no such file"),
        ("file2:/dev/null", Refused, "Unable to load PEM"),
        ("file2:{locked}", Refused, "encrypted"),
        ("envvar:HOME", Refused, "Unsupported private key scheme"),
        ("gnupg:", Refused, "GPGKey"),
        ("hsm:two", Refused, "(invalid literal|required)"),
        ("awskms:alias/x", Refused, "requires"),
    ],
)
def test_what_is_wrong_with_an_external_signer_is_said(ring, tmp_path, uri, kind, match):
    locked = tmp_path / "locked.pem"
    key = Ed25519PrivateKey.generate()
    locked.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")))
    with pytest.raises(kind, match=match) as caught:
        external(ring, uri.format(locked=locked))
    assert type(caught.value) is kind
    assert "the key token" in caught.value.message
    assert caught.value.place == str(ring.public_path("token"))
    assert caught.value.__context__ is None


def test_an_external_signer_with_another_key_is_refused(ring, outside):
    with pytest.raises(Refused, match="another private key") as caught:
        external(ring, outside[1])
    assert caught.value.hint


class PinIncorrect(RuntimeError):
    """Named as python-pkcs11 names it."""


class Token(Signer):
    """A token in memory, at `token-of-tests:`; `behaviour` is what it does when it is asked to sign."""

    key = CryptoSigner.generate_ed25519()
    shown = key.public_key

    def __init__(self, secrets) -> None:
        self.secrets = secrets

    @classmethod
    def from_priv_key_uri(cls, priv_key_uri, public_key, secrets_handler=None):
        return cls(secrets_handler)

    @property
    def public_key(self):
        return self.shown

    @staticmethod
    def behaviour(_token, payload) -> Signature:
        return Token.key.sign(payload)

    def sign(self, payload):
        return type(self).behaviour(self, payload)


@pytest.fixture
def token(monkeypatch, ring):
    """A kind of token, and a function that makes the ring that has one."""

    class Mine(Token):
        pass

    monkeypatch.setitem(SIGNER_FOR_URI_SCHEME, "token-of-tests", Mine)
    ring.adopt("token", Token.key.public_key, "token-of-tests:")
    return Mine


def test_a_token_whose_key_is_another_is_refused(ring, token):
    token.shown = P256
    with pytest.raises(Refused, match="another private key"):
        ring.signer("token")


def test_signatures_that_do_not_verify_are_refused(ring, token):
    other = CryptoSigner.generate_ed25519()
    for signature in (
        other.sign(DATA),
        Signature(Token.key.public_key.keyid, other.sign(DATA).signature),
        Signature(Token.key.public_key.keyid, "no hexadecimal digits"),
        Token.key.sign(DATA + b"."),
    ):
        token.behaviour = staticmethod(lambda _token, _payload, signature=signature: signature)
        with pytest.raises(Refused, match="another private key"):
            ring.signer("token").sign(DATA)
    token.behaviour = Token.behaviour
    assert works(ring.signer("token"), Token.key.public_key)


def test_a_pin_is_asked_for_once_and_only_when_it_signs(ring, token):
    def sign(self, payload):
        assert self.secrets("pin") == "123456"
        return Token.key.sign(payload)

    token.behaviour = sign
    secrets = Secrets("123456")
    signer = KeyRing(ring.directory, secrets).signer("token")
    assert secrets.asked == []
    assert works(signer)
    assert works(signer)
    assert secrets.asked == ["token"]
    with pytest.raises(Refused, match="needs a passphrase or PIN"):
        ring.signer("token").sign(DATA)
    with pytest.raises(Refused, match="is empty"):
        KeyRing(ring.directory, Secrets("")).signer("token").sign(DATA)


def test_a_wrong_pin_is_tried_once_since_tokens_count(ring, token):
    tried = []

    def sign(self, _payload):
        tried.append(self.secrets("pin"))
        raise PinIncorrect

    token.behaviour = sign
    mine = KeyRing(ring.directory, Secrets("654321"))
    for _ in range(3):
        with pytest.raises(Refused, match="the PIN is wrong for the key token") as caught:
            mine.signer("token").sign(DATA)
        assert_silent(caught.value, "654321")
    assert tried == ["654321"]


@pytest.mark.parametrize("kind", [ValueError, TypeError, RuntimeError, OSError, ZeroDivisionError])
def test_errors_of_signers_become_ours_without_their_secrets(ring, token, kind, caplog):
    def fail(self, _payload):
        raise kind(f"the token refused {self.secrets('pin')}")

    def fail_plainly(self, _payload):
        raise kind("no token\x1b[2J")

    mine = KeyRing(ring.directory, Secrets("654321"))
    token.behaviour = fail
    with pytest.raises(Unavailable, match=kind.__name__) as caught:
        mine.signer("token").sign(DATA)
    assert_silent(caught.value, "654321")
    assert "654321" not in caplog.text
    token.behaviour = fail_plainly
    with pytest.raises(Unavailable, match="no token") as caught:
        mine.signer("token").sign(DATA)
    assert str(caught.value).isprintable()
