"""The files of a key: one spelling and one id a public key, private keys as others write them, no other errors than ours."""

import base64
import hashlib
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner, GPGKey, Key, SSlibKey

from pacstore.errors import Corrupt, NewerFormat, NotFound, PacballError, Refused, TooLarge
from pacstore.holdings import encode_json
from pacstore.trust.key_files import (
    KDF_ROUNDS,
    decode_private,
    encode_private,
    encode_public,
    parse_public,
    read_public,
    signer_of,
)
from tests.store.samples import BOUNDED
from tests.store.signing import PLAIN, SECRET, assert_silent

# The public file


def pem(public) -> str:
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def public_json(key: Key, uri: object = "", **changes: object) -> bytes:
    return encode_json({"format": 1, "key": {"keyid": key.keyid, **key.to_dict(), **changes}, "uri": uri})


def identified(keytype: str, scheme: str, keyval: dict) -> Key:
    """A key with the id that follows from these fields, whatever they are."""
    text = json.dumps(
        {"keytype": keytype, "keyval": keyval, "scheme": scheme},
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
    )
    return SSlibKey(hashlib.sha256(text.replace("\\n", "\n").encode()).hexdigest(), keytype, scheme, keyval)


ED = CryptoSigner(Ed25519PrivateKey.from_private_bytes(bytes(range(32)))).public_key
P256 = SSlibKey.from_crypto(ec.derive_private_key(7, ec.SECP256R1()).public_key())
P384 = SSlibKey.from_crypto(ec.derive_private_key(7, ec.SECP384R1()).public_key())
P521 = SSlibKey.from_crypto(ec.derive_private_key(7, ec.SECP521R1()).public_key())
RSA_PUBLIC = rsa.generate_private_key(65537, 2048).public_key()
RSA_SCHEMES = [f"{kind}-sha{bits}" for kind in ("rsassa-pss", "rsa-pkcs1v15") for bits in (256, 384, 512)]
GOOD_KEYS = [ED, P256, P384, *(SSlibKey.from_crypto(RSA_PUBLIC, scheme=scheme) for scheme in RSA_SCHEMES)]


@pytest.mark.parametrize("key", GOOD_KEYS, ids=lambda key: key.scheme)
def test_a_public_key_comes_back(key, tmp_path):
    for uri in ("", "hsm:2?label=a b", "x" * 1024):
        data = encode_public(key, uri)
        assert parse_public(data, "here") == (key, uri)
        assert data == encode_json(json.loads(data))
    (tmp_path / "key.pub").write_bytes(data)
    assert read_public(tmp_path / "key.pub") == key


def test_the_public_file_stays_as_it_is():
    assert encode_public(ED, "hsm:") == (
        b'{"format":1,"key":{"keyid":"63d00ee3cf4f5c61ad94efa696c68f13b608fe56ecea13fb144a6fd18e9235b9","keytype":"ed25519",'
        b'"keyval":{"public":"03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"},"scheme":"ed25519"},'
        b'"uri":"hsm:"}\n'
    )


def test_a_missing_public_file_is_not_found(tmp_path):
    with pytest.raises(NotFound):
        read_public(tmp_path / "key.pub")


PUBLIC = ED.keyval["public"]
HOSTILE = {
    "another key's id": (public_json(ED, keyid=P256.keyid), Corrupt),
    "another key with this id": (public_json(ED, keyval={"public": "00" * 32}), Corrupt),
    "no id": (public_json(ED, keyid=""), Corrupt),
    "an id in capitals": (public_json(ED, keyid=ED.keyid.upper()), Corrupt),
    "an id that is a number": (public_json(ED, keyid=1), Corrupt),
    "the same key in capitals": (public_json(identified("ed25519", "ed25519", {"public": PUBLIC.upper()})), Corrupt),
    "the same key with a space": (public_json(identified("ed25519", "ed25519", {"public": PUBLIC + " "})), Corrupt),
    "the same key with a newline": (
        public_json(identified("ecdsa", P256.scheme, {"public": P256.keyval["public"] + "\n"})),
        Corrupt,
    ),
    "the same key in capitals under its id": (public_json(ED, keyval={"public": PUBLIC.upper()}), Corrupt),
    "the same key under its id with more beside it": (public_json(ED, keyval={"public": PUBLIC, "more": ""}), Corrupt),
    "P-384 under its id that says P-256": (public_json(P384, scheme=P256.scheme), Corrupt),
    "ecdsa under its id that says RSA": (public_json(P256, keytype="rsa", scheme=RSA_SCHEMES[0]), Corrupt),
    "the same key with more beside it": (
        public_json(identified("ed25519", "ed25519", {"public": PUBLIC, "more": ""})),
        Corrupt,
    ),
    "the same key of a retired type": (public_json(identified(P256.scheme, P256.scheme, P256.keyval)), Refused),
    "P-384 that says P-256": (public_json(identified("ecdsa", P256.scheme, P384.keyval)), Corrupt),
    "RSA that says ecdsa": (public_json(identified("ecdsa", P256.scheme, {"public": pem(RSA_PUBLIC)})), Corrupt),
    "ecdsa that says RSA": (public_json(identified("rsa", RSA_SCHEMES[0], P256.keyval)), Corrupt),
    "P-521": (public_json(P521), Refused),
    "RSA of 1024 bits": (
        public_json(SSlibKey.from_crypto(rsa.generate_private_key(65537, 1024).public_key())),
        Refused,
    ),
    "RSA with SHA-224": (public_json(SSlibKey.from_crypto(RSA_PUBLIC, scheme="rsassa-pss-sha224")), Refused),
    "OpenPGP": (public_json(GPGKey("a" * 40, "rsa", "pgp+rsa-pkcsv1.5", {"public": {}})), Refused),
    "ed25519 of 31 bytes": (public_json(ED, keyval={"public": "00" * 31}), Corrupt),
    "ed25519 in no hexadecimal digits": (public_json(ED, keyval={"public": "zz" * 32}), Corrupt),
    "a key that is no PEM": (public_json(P256, keyval={"public": "PEM"}), Corrupt),
    "a key that is a surrogate": (public_json(P256, keyval={"public": "?"}).replace(b'"?"', b'"\\ud800"'), Corrupt),
    "a private key": (
        public_json(P256, keyval={"public": CryptoSigner.generate_ecdsa().private_bytes.decode()}),
        Corrupt,
    ),
    "no public part": (public_json(ED, keyval={}), Corrupt),
    "a public part that is a list": (public_json(ED, keyval={"public": []}), Corrupt),
    "no keyval": (encode_json({"format": 1, "key": {"keyid": ED.keyid}, "uri": ""}), Corrupt),
    "a keyval that is a list": (public_json(ED, keyval=[]), Corrupt),
    "a keytype that is a list": (public_json(ED, keytype=[]), Corrupt),
    "a scheme that is null": (public_json(ED, scheme=None), Corrupt),
    "a field that format 1 has not": (public_json(ED, more=""), Corrupt),
    "a field beside the key that format 1 has not": (
        encode_json({"format": 1, "key": {"keyid": ED.keyid, **ED.to_dict()}, "uri": "", "more": ""}),
        Corrupt,
    ),
    "a URI that is null": (public_json(ED, None), Corrupt),
    "a URI with a newline": (public_json(ED, "hsm:\n"), Corrupt),
    "a URI of 1,025 characters": (public_json(ED, "x" * 1025), Corrupt),
    "a key that is a list": (encode_json({"format": 1, "key": [], "uri": ""}), Corrupt),
    "no key": (encode_json({"format": 1, "uri": ""}), Corrupt),
    "no URI": (encode_json({"format": 1, "key": {"keyid": ED.keyid, **ED.to_dict()}}), Corrupt),
    "no format": (encode_json({"key": {"keyid": ED.keyid, **ED.to_dict()}, "uri": ""}), Corrupt),
    "format 2": (encode_json({"format": 2}), NewerFormat),
    "no JSON": (b"ssh-ed25519 AAAA", Corrupt),
    "16 KiB and a byte": (public_json(ED).ljust(16 * 1024 + 1), TooLarge),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_public_files(case):
    data, kind = HOSTILE[case]
    with pytest.raises(PacballError) as caught:
        parse_public(data, "its place")
    assert type(caught.value) is kind
    assert caught.value.place == "its place"


def test_the_ids_of_the_hostile_keys_are_what_securesystemslib_would_compute():
    for key in GOOD_KEYS:
        assert identified(key.keytype, key.scheme, key.keyval) == key


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(["keyid", "keytype", "keyval", "scheme", "public", "format", "key", "uri"])


@given(st.binary(max_size=200))
@BOUNDED
def test_any_bytes_give_our_errors_only(data):
    with pytest.raises(PacballError):
        parse_public(data, "here")


@given(st.sampled_from(GOOD_KEYS), FIELDS, JSON | st.binary().map(lambda data: data.hex()))
@BOUNDED
def test_any_field_of_any_value_gives_our_errors_or_the_same_key(key, field, value):
    document = json.loads(encode_public(key))
    for part in (document, document["key"], document["key"]["keyval"]):
        if field in part:
            part[field] = value
    try:
        found = parse_public(json.dumps(document).encode(), "here")[0]
    except PacballError:
        return
    assert found == key


@given(st.sampled_from(GOOD_KEYS), st.integers(0, 2000), st.binary(min_size=1, max_size=3))
@BOUNDED
def test_any_changed_bytes_give_our_errors_or_the_same_key(key, at, new):
    data = bytearray(encode_public(key))
    at %= len(data)
    data[at : at + len(new)] = new
    try:
        found = parse_public(bytes(data), "here")[0]
    except PacballError:
        return
    assert found == key


# The private file


PRIVATE_KEYS = {
    "ed25519": Ed25519PrivateKey.generate,
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
}
BAD_PRIVATE_KEYS = {
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "short RSA": lambda: rsa.generate_private_key(65537, 1024),
    "DSA": lambda: dsa.generate_private_key(2048),
}


def asked_in_vain() -> str:
    raise AssertionError("asked for a passphrase")


@pytest.mark.parametrize("kind", PRIVATE_KEYS)
def test_private_keys_from_elsewhere_are_read(kind):
    key = PRIVATE_KEYS[kind]()
    assert decode_private(key.private_bytes(*PLAIN), asked_in_vain, "here").public_key() == key.public_key()
    assert signer_of(key, None, "here").public_key in (*GOOD_KEYS, SSlibKey.from_crypto(key.public_key()))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(SECRET.encode()))
    assert decode_private(pem, lambda: SECRET, "here").public_key() == key.public_key()
    with pytest.raises(Refused, match="passphrase is wrong") as caught:
        decode_private(pem, lambda: "not it at all", "here")
    assert_silent(caught.value, "not it at all")


@pytest.mark.parametrize("kind", BAD_PRIVATE_KEYS)
def test_other_kinds_of_private_keys_are_refused(kind):
    pem = BAD_PRIVATE_KEYS[kind]().private_bytes(*PLAIN)
    with pytest.raises(Refused, match="not supported"):
        decode_private(pem, asked_in_vain, "here")


def test_the_format_of_an_encrypted_key():
    key = Ed25519PrivateKey.generate()
    pem = encode_private(key, SECRET)
    lines = pem.decode().splitlines()
    assert lines[0] == "-----BEGIN OPENSSH PRIVATE KEY-----"
    body = base64.b64decode("".join(lines[1:-1]))
    assert body.startswith(b"openssh-key-v1\0\0\0\0\x0aaes256-ctr\0\0\0\x06bcrypt\0\0\0\x18\0\0\0\x10")
    assert int.from_bytes(body[ROUNDS_AT]) == KDF_ROUNDS == 128
    assert decode_private(pem, lambda: SECRET, "here").public_key() == key.public_key()
    assert decode_private(b"\n" + pem, lambda: SECRET, "here").public_key() == key.public_key()


ROUNDS_AT = slice(63, 67)


def test_no_flipped_bit_of_an_encrypted_key_yields_another_key():
    key = Ed25519PrivateKey.generate()
    weak = PrivateFormat.OpenSSH.encryption_builder().kdf_rounds(1).build(SECRET.encode())
    first, *lines, last = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, weak).decode().splitlines()
    body = base64.b64decode("".join(lines))
    refused = 0
    # Not the number of rounds: with its first bit set, it would take a year.
    for at in sorted(set(range(len(body))) - set(range(*ROUNDS_AT.indices(67)))):
        flipped = bytes((*body[:at], body[at] ^ 1 << at % 8, *body[at + 1 :]))
        pem = "\n".join((first, base64.b64encode(flipped).decode(), last)).encode()
        try:
            found = decode_private(pem, lambda: SECRET, "here").public_key()
        except (Corrupt, Refused) as error:
            assert_silent(error, SECRET)
            refused += 1
        else:
            assert found == key.public_key(), at
    assert refused > len(body) * 0.9


def test_an_empty_passphrase_encrypts_nothing():
    with pytest.raises(Refused, match="empty"):
        encode_private(Ed25519PrivateKey.generate(), "")


@given(st.binary(max_size=300))
@BOUNDED
def test_any_private_file_gives_our_errors_only(data):
    for text in (data, b"-----BEGIN OPENSSH PRIVATE KEY-----\n" + data):
        with pytest.raises(PacballError):
            decode_private(text, asked_in_vain, "here")
