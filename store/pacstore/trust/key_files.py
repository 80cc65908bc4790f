"""What is in the two files of a signing key: NAME.pub says the public key, NAME.pem holds the private one.

NAME.pub is canonical JSON: `{"format":1,"key":{"keyid","keytype","keyval","scheme"},"uri":""}`. `uri` is empty, or says where an
external signer (a token, a cloud service) has the private key. A public key has one spelling here, and so one key id.

NAME.pem without a passphrase is PKCS8. With one it is OpenSSH's private key format: AES-256 in counter mode, its key from
bcrypt_pbkdf with 128 rounds. That is the work of bcrypt with cost 14, 16 times what OWASP asks for: about a second a guess
on a core of 2026. `ssh-keygen -y -f NAME.pem` reads it, `ssh-keygen -p -a 128 -f NAME.pem` changes the passphrase. It is the
strongest that `cryptography` writes: its encrypted PKCS8 has 2,048 rounds of PBKDF2-HMAC-SHA256, a millisecond a guess, where
OWASP asks for 600,000. Both are read, and also what openssl writes, with scrypt for example.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable
from enum import Enum
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
    load_ssh_private_key,
)
from securesystemslib.signer import CryptoSigner, Key, SSlibKey

from pacstore.errors import Corrupt, NotFound, Refused, printable
from pacstore.holdings import check_format, decode_json, encode_json
from pacstore.limits import KIB
from pacstore.trust import private

PUBLIC_BYTES = 16 * KIB
PRIVATE_BYTES = 16 * KIB
URI_CHARACTERS = 1024
FORMAT = 1
KDF_ROUNDS = 128
RSA_BITS = range(2048, 16384 + 1)
_SUPPORTED = "ed25519, ecdsa on P-256 or P-384, or RSA"
_SCHEMES = {
    "ed25519": ("ed25519",),
    "ecdsa": ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384"),
    "rsa": tuple(f"{kind}-sha{bits}" for kind in ("rsassa-pss", "rsa-pkcs1v15") for bits in (256, 384, 512)),
}
_KEY_FIELDS = {"keyid", "keytype", "keyval", "scheme"}
_OPENSSH = b"-----BEGIN OPENSSH PRIVATE KEY-----"

PrivateKey = Ed25519PrivateKey | EllipticCurvePrivateKey | RSAPrivateKey


def encode_public(key: Key, uri: str = "") -> bytes:
    """The bytes of NAME.pub. Raises Refused for a key that parse_public would not take back."""
    try:
        checked = _checked(key.keyid, key.keytype, key.scheme, key.keyval, "the public key")
        _check_uri(uri, "the URI of the signer")
    except Corrupt as error:
        raise Refused(error.message, place=error.place) from None
    return encode_json({"format": FORMAT, "key": {"keyid": checked.keyid, **checked.to_dict()}, "uri": uri})


def parse_public(data: bytes, place: str) -> tuple[SSlibKey, str]:
    """The public key in `data`, and the URI of its external signer or "".

    Its key id is the one that follows from the key, so that no two keys have the same and no key has two.
    Raises Corrupt, TooLarge, NewerFormat, and Refused for a kind of key that is not supported or too weak.
    """
    value = decode_json(data, limit=PUBLIC_BYTES, place=place)
    check_format(value, FORMAT, place)
    key, uri = value.get("key"), value.get("uri")
    if value.keys() != {"format", "key", "uri"} or not isinstance(key, dict) or key.keys() != _KEY_FIELDS:
        raise Corrupt("is not a public key file", place=place)
    return _checked(key["keyid"], key["keytype"], key["scheme"], key["keyval"], place), _check_uri(uri, place)


def read_public(path: Path) -> SSlibKey:
    """The public key in the file `path`. Raises NotFound, Unavailable, and what parse_public raises."""
    data = private.read(path, limit=PUBLIC_BYTES)
    if data is None:
        raise NotFound("does not exist", place=str(path), hint="whoever has the key sends you this file")
    return parse_public(data, str(path))[0]


def _check_uri(uri: object, place: str) -> str:
    if not isinstance(uri, str) or len(uri) > URI_CHARACTERS or not uri.isprintable():
        raise Corrupt("does not say, in printable text, where its signer is", place=place)
    return uri


def _checked(keyid: object, keytype: object, scheme: object, keyval: object, place: str) -> SSlibKey:
    if not (isinstance(keytype, str) and isinstance(scheme, str) and isinstance(keyval, dict)):
        raise Corrupt("is not a public key", place=place)
    if scheme not in _SCHEMES.get(keytype, ()):
        kind = printable(f"{keytype}/{scheme}"[:100])
        raise Refused(f"is a key of the kind {kind}, which is not supported", place=place, hint=f"use {_SUPPORTED}")
    try:
        public = _decode_public(keytype, keyval.get("public"))
        # Not for other keys: their curve says the scheme, and P-384 as P-256 would never verify anything.
        key = SSlibKey.from_crypto(public, scheme=scheme if keytype == "rsa" else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Corrupt("does not hold a public key", place=place) from error
    if (key.keytype, key.scheme, key.keyval) != (keytype, scheme, keyval):
        raise Corrupt("holds another kind of key than it says, or spells it in another way", place=place)
    if isinstance(public, RSAPublicKey) and public.key_size not in RSA_BITS:
        hint = f"use {RSA_BITS.start} to {RSA_BITS.stop - 1} bits"
        raise Refused(f"is an RSA key of {public.key_size} bits", place=place, hint=hint)
    if key.keyid != keyid:
        raise Corrupt("has a key id that does not follow from its key", place=place)
    return key


def _decode_public(keytype: str, text: object) -> PublicKeyTypes:
    if not isinstance(text, str):
        raise TypeError("a key that is no text")
    if keytype == "ed25519":
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(text))
    return load_pem_public_key(text.encode())


def encode_private(key: PrivateKey, passphrase: str | None) -> bytes:
    """The bytes of NAME.pem, encrypted with the passphrase if there is one. Raises Refused for an empty one."""
    if passphrase is None:
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, _encryption(passphrase_bytes(passphrase)))


def _encryption(passphrase: bytes) -> KeySerializationEncryption:
    return PrivateFormat.OpenSSH.encryption_builder().kdf_rounds(KDF_ROUNDS).build(passphrase)


def passphrase_bytes(passphrase: str) -> bytes:
    """The passphrase as UTF-8. Raises Refused for an empty one and for what is not text."""
    if not passphrase:
        raise Refused("an empty passphrase protects nothing", hint="give one of several words, or none at all")
    data = passphrase.encode("utf-8", "replace")
    if data.decode() != passphrase:
        raise Refused("the passphrase is not text in UTF-8")
    return data


class _Failure(Enum):
    LOCKED = "needs a passphrase"
    DAMAGED = "cannot be read"
    UNSUPPORTED = "is of a kind that is not supported"


def decode_private(pem: bytes, ask: Callable[[], str], place: str) -> PrivateKey:
    """The private key in the bytes of NAME.pem; `ask` gives the passphrase, and is called only where one is needed.

    Raises Corrupt, Refused for a wrong passphrase and for a kind of key that is not supported, and whatever `ask` raises.
    """
    key = _load(pem, None)
    if key is _Failure.LOCKED:
        key = _load(pem, passphrase_bytes(ask()))
        if key is _Failure.DAMAGED:
            hint = "try again; if you are sure of the passphrase, take the key from your copy"
            raise Refused("the passphrase is wrong, or the file is damaged", place=place, hint=hint)
    if key is _Failure.UNSUPPORTED:
        raise Refused("is a private key of a kind that is not supported", place=place, hint=f"use {_SUPPORTED}")
    if isinstance(key, _Failure):
        raise Corrupt("is not a private key in PEM", place=place, hint="take the key from your copy")
    return key


def _load(pem: bytes, passphrase: bytes | None) -> PrivateKey | _Failure:
    """The key, or what is the matter. The library's errors end here: they could quote key material."""
    openssh = pem.lstrip().startswith(_OPENSSH)
    try:
        key = load_ssh_private_key(pem, passphrase) if openssh else load_pem_private_key(pem, passphrase)
        if openssh and not _names_itself(pem, key):
            return _Failure.DAMAGED
    except TypeError:
        return _Failure.LOCKED
    except UnsupportedAlgorithm:
        return _Failure.UNSUPPORTED
    except ValueError:
        return _Failure.DAMAGED
    match key:
        case Ed25519PrivateKey():
            return key
        case EllipticCurvePrivateKey() if isinstance(key.curve, SECP256R1 | SECP384R1):
            return key
        case RSAPrivateKey() if key.key_size in RSA_BITS:
            return key
    return _Failure.UNSUPPORTED


def _names_itself(pem: bytes, key: PrivateKeyTypes) -> bool:
    """Whether the public key that OpenSSH's format has unencrypted is this key's: its encryption does not notice changed bits."""
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1]
    body = pem.partition(_OPENSSH)[2].partition(b"-----END")[0]
    return b64decode(public) in b64decode(body)


def signer_of(key: PrivateKey, public: SSlibKey | None, place: str) -> CryptoSigner:
    """The private key as a signer, of `public` where that is known. Raises Corrupt when they do not belong together."""
    try:
        return CryptoSigner(key, public)
    except ValueError:
        raise Corrupt("does not belong to the public key beside it", place=place) from None
