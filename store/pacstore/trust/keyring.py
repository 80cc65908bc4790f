"""The keys that sign a catalog: a directory that only its owner can read, never inside a store.

Each key has a name, and up to two files: NAME.pub and NAME.pem (key_files.py). A key that an external signer holds has no
NAME.pem. Which role a key signs is said by the catalog, by key id; a name is for people. A private key is durable before its
NAME.pub appears, so no crash leaves a public key whose private key is lost; NAME.pub is made again where it is missing.

Passphrases and PINs are asked for once, and appear in no message. Every signature of an external signer is verified.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.exceptions import KeyMismatchError, UnsupportedLibraryError, UnverifiedSignatureError
from securesystemslib.signer import SIGNER_FOR_URI_SCHEME, CryptoSigner, Key, Signature, Signer, SSlibKey

from pacstore.durable import create_file, unavailable, wrapped
from pacstore.errors import NotFound, PacballError, Refused, TooLarge, Unavailable, printable
from pacstore.trust import private
from pacstore.trust.key_files import (
    PRIVATE_BYTES,
    PUBLIC_BYTES,
    decode_private,
    encode_private,
    encode_public,
    parse_public,
    read_public,
    signer_of,
)

__all__ = ["ExternalSigner", "KeyRing", "Secrets", "encode_public", "parse_public", "read_public"]

Secrets = Callable[[str], str]
"""Given the name of a key, its passphrase or PIN."""

_NAME = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._@-]{0,99}\Z")
_NEEDS_SECRET = "give its passphrase or PIN: --passphrase-file FILE, or run this in a terminal, which asks for it"  # noqa: S105


class KeyRing:
    """The keys in one directory. Every method raises Refused for a name that is no key name.

    Reading raises Refused where others than the owner may read a private key, or change a public one.
    """

    def __init__(self, directory: Path, secrets: Secrets | None = None) -> None:
        self._directory = directory
        self._secrets = secrets
        self._signers: dict[str, Signer] = {}

    @property
    def directory(self) -> Path:
        """Where the keys are."""
        return self._directory

    def path(self, name: str) -> Path:
        """The file that holds, or would hold, the private key."""
        return self._directory / f"{_valid(name)}.pem"

    def public_path(self, name: str) -> Path:
        """The file that says, or would say, the public key."""
        return self._directory / f"{_valid(name)}.pub"

    def names(self) -> list[str]:
        """The names of the keys that are here, sorted. Raises Unavailable when that cannot be found out."""
        try:
            files = os.listdir(self._directory)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise unavailable(error, self._directory) from error
        stems = {file[:-4] for file in files if file.endswith((".pem", ".pub"))}
        return sorted(name for name in stems if _NAME.match(name))

    def public(self, name: str) -> Key:
        """The public key; from the private one where NAME.pub is missing, which may ask for its passphrase.

        Raises NotFound, Corrupt, Refused, NewerFormat.
        """
        stored = self._stored(name)
        return stored[0] if stored else self._local(name, None).public_key

    def find(self, keyid: str) -> str | None:
        """The name of the key with this id: of several one that can sign, if there is one. Raises like signers()."""
        return self._named({keyid}, signing=False).get(keyid)

    def has(self, keyid: str) -> bool:
        """Whether signer() can be asked for the key with this id. Raises like signers()."""
        return keyid in self._named({keyid}, signing=True)

    def signers(self, keyids: Iterable[str]) -> list[Signer]:
        """The signers of those of these keys that are here, sorted by key id.

        Where one is missing and another key cannot be read, it may be that one: the reason is raised, as signer() would.
        """
        return [self.signer(name) for _, name in sorted(self._named(set(keyids), signing=True).items())]

    def create(self, name: str, passphrase: str | None = None) -> Key:
        """Make a new ed25519 key, durably, encrypted if there is a passphrase; its signer will not ask for it again.

        Raises Refused if there is such a key, or the passphrase is empty; Unavailable when the disk fails: then there is
        either no key of this name, or a whole one.
        """
        self._prepare(name)
        key = Ed25519PrivateKey.generate()
        signer = CryptoSigner(key)
        self._write(self.path(name), encode_private(key, passphrase), mode=0o600)
        self._write(self.public_path(name), encode_public(signer.public_key), mode=0o644)
        self._signers[name] = signer
        return signer.public_key

    def adopt(self, name: str, public: Key, uri: str) -> None:
        """Note a key which the external signer at `uri` holds, a URI of securesystemslib such as `hsm:2?label=token`.

        The signer itself is not asked. Raises Refused for a URI or a kind of key that is not supported, or if there is a
        key of this name.
        """
        scheme = uri.partition(":")[0]
        if ":" not in uri or scheme not in SIGNER_FOR_URI_SCHEME:
            hint = f"known are {', '.join(f'{known}:' for known in sorted(SIGNER_FOR_URI_SCHEME))}"
            raise Refused("is not the URI of a signer that is known here", place=printable(uri[:200]), hint=hint)
        data = encode_public(public, uri)
        self._prepare(name)
        self._write(self.public_path(name), data, mode=0o644)

    def signer(self, name: str) -> Signer:
        """The key as a signer, the same each time; asks for a passphrase if it needs one.

        Raises NotFound where the private key is not here, Refused, Corrupt, and Unavailable.
        """
        if name not in self._signers:
            stored = self._stored(name)
            public, uri = stored or (None, "")
            if public is None or not uri:
                return self._local(name, public)
            if self._exists(self.path(name)):
                hint = f"remove {shlex.quote(str(self.public_path(name)))}, or move the other file away"
                raise Refused("this key has an external signer, too", place=str(self.path(name)), hint=hint)
            self._signers[name] = ExternalSigner(name, public, uri, self._secrets, place=str(self.public_path(name)))
        return self._signers[name]

    def _local(self, name: str, public: SSlibKey | None) -> Signer:
        path = self.path(name)
        if name not in self._signers:
            pem = self._read(path, PRIVATE_BYTES, forbidden=0o077)
            if pem is None:
                hint = f"this needs the file {shlex.quote(str(path))}: copy it from where the key {name} is kept"
                raise NotFound(f"the key {name} is not here", place=str(self._directory), hint=hint)
            key = decode_private(pem, lambda: _ask(self._secrets, name, str(path)), str(path))
            signer = signer_of(key, public, str(path))
            if public is None:
                # It may be a read-only copy; what matters is that a passphrase is not asked for the next time.
                with suppress(PacballError):
                    self._write(self.public_path(name), encode_public(signer.public_key), mode=0o644)
            self._signers[name] = signer
        return self._signers[name]

    def _stored(self, name: str) -> tuple[SSlibKey, str] | None:
        """What NAME.pub says, if there is one."""
        path = self.public_path(name)
        data = self._read(path, PUBLIC_BYTES, forbidden=0o022)
        return None if data is None else parse_public(data, str(path))

    def _named(self, keyids: set[str], *, signing: bool) -> dict[str, str]:
        """The names of those of these keys that are here; with `signing` only of those that can sign, which else come first."""
        found: dict[str, str] = {}
        doubt: PacballError | None = None
        names = self.names()
        silent = [name for name in names if self._exists(self.public_path(name))]
        for name in [*silent, *(name for name in names if name not in silent)]:
            if name not in silent and len(found) == len(keyids):
                break  # the others may ask for a passphrase
            try:
                public, uri = self._stored(name) or (self._local(name, None).public_key, "")
                able = bool(uri) or self._exists(self.path(name))
            except PacballError as error:
                doubt = doubt or error
                continue
            if public.keyid in keyids and (able or (not signing and public.keyid not in found)):
                found[public.keyid] = name
        if doubt is not None and len(found) < len(keyids):
            raise doubt
        return found

    def _exists(self, path: Path) -> bool:
        try:
            os.stat(path)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise unavailable(error, path) from error
        return True

    def _read(self, path: Path, limit: int, *, forbidden: int) -> bytes | None:
        """The file's bytes, or None if there is none; refused where its mode has one of the bits `forbidden`."""
        try:
            _check_mode(os.stat(self._directory), self._directory, 0o077)
            with open(path, "rb") as file:
                # The open file is what is checked, so nobody can swap it in between.
                _check_mode(os.fstat(file.fileno()), path, forbidden)
                data = file.read(limit + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise unavailable(error, path) from error
        if len(data) > limit:
            raise TooLarge(f"has more than {limit} bytes", place=str(path))
        return data

    def _prepare(self, name: str) -> None:
        """Make the directory, and raise Refused if the name is taken."""
        paths = self.path(name), self.public_path(name)
        private.make_directory(self._directory)
        with wrapped(self._directory):
            _check_mode(os.stat(self._directory), self._directory, 0o077)
        for path in paths:
            if self._exists(path):
                raise _taken(path)

    def _write(self, path: Path, data: bytes, *, mode: int) -> None:
        try:
            create_file(path, data, staging=self._directory, mode=mode)
        except Refused:
            # Somebody else may have made the same NAME.pub from the NAME.pem that is here since a moment ago.
            if self._read(path, PUBLIC_BYTES, forbidden=0) != data:
                raise _taken(path) from None


def _valid(name: str) -> str:
    if not _NAME.match(name):
        hint = "up to 100 letters, digits and . _ @ -, first a letter or digit, no two dots together"
        raise Refused("is not the name of a key", place=printable(name[:200]), hint=hint)
    return name


def _taken(path: Path) -> Refused:
    return Refused("this key exists already", place=str(path), hint="keys are never overwritten; take another name")


def _check_mode(status: os.stat_result, path: Path, forbidden: int) -> None:
    if status.st_mode & forbidden:
        mode = 700 if stat.S_ISDIR(status.st_mode) else 600 if forbidden & 0o044 else 644
        what = "read or change this private key" if mode != 644 else "change this public key"
        raise Refused(f"other users may {what}", place=str(path), hint=f"chmod {mode} {shlex.quote(str(path))}")


def _ask(secrets: Secrets | None, name: str, place: str) -> str:
    if secrets is None:
        raise Refused(f"the key {name} needs a passphrase or PIN", place=place, hint=_NEEDS_SECRET)
    secret = secrets(name)
    if not secret:
        raise Refused(f"the passphrase or PIN of the key {name} is empty", place=place, hint=_NEEDS_SECRET)
    return secret


_Result = TypeVar("_Result")
_HINTS = {
    "file2": "it must be a PKCS8 file without passphrase; one with a passphrase belongs beside its NAME.pub, as NAME.pem",
    "gnupg": "OpenPGP keys are not supported",
    "hsm": "is the token there, and does the environment variable PYKCS11LIB name its PKCS#11 library?",
}
_EXTRAS = {"awskms": "awskms", "azurekms": "azurekms", "gcpkms": "gcpkms", "hsm": "hsm", "hv": "vault", "tkey": "tkey"}
_PIN_ERRORS = {
    "PinIncorrect": "the PIN is wrong",
    "PinInvalid": "the PIN is wrong",
    "PinLenRange": "the PIN is wrong",
    "PinLocked": "the PIN is locked after too many wrong ones",
    "PinExpired": "the PIN has expired",
}


class ExternalSigner(Signer):
    """A key that a token, a service or a file elsewhere holds, by the URI in its NAME.pub.

    Making one, and signing, raises Refused where asking again will not help, and Unavailable where it may, with the name of
    the key and what the signer said, but never a secret. After a wrong PIN it is not tried again: tokens count, and lock.
    """

    def __init__(self, name: str, public: SSlibKey, uri: str, secrets: Secrets | None, *, place: str) -> None:
        self._name = name
        self._public = public
        self._scheme = uri.partition(":")[0]
        self._uri = uri
        self._secrets = secrets
        self._place = place
        self._given: dict[str, str] = {}
        self._wrong_pin: Refused | None = None
        self._inner = self._guarded(lambda: Signer.from_priv_key_uri(uri, public, self._ask), bad_value=Refused)
        if self._inner.public_key != public:
            raise self._other_key()

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: Callable[[str], str] | None = None
    ) -> Signer:
        """Demanded by the base class; KeyRing.signer makes these."""
        raise NotImplementedError

    @property
    def public_key(self) -> SSlibKey:
        """The public key that is known for it."""
        return self._public

    def sign(self, payload: bytes) -> Signature:
        """The verified signature of `payload`. Raises Refused, Unavailable."""
        if self._wrong_pin is not None:
            raise self._wrong_pin
        signature = self._guarded(lambda: self._inner.sign(payload), bad_value=Unavailable)
        try:
            self._public.verify_signature(signature, payload)
        except UnverifiedSignatureError:
            raise self._other_key() from None
        return signature

    def _ask(self, what: str) -> str:
        if what not in self._given:
            self._given[what] = _ask(self._secrets, self._name, self._place)
        return self._given[what]

    def _guarded(self, work: Callable[[], _Result], *, bad_value: type[PacballError]) -> _Result:
        try:
            return work()
        except PacballError:
            raise
        except UnsupportedLibraryError as error:
            wanted = f"pip install 'securesystemslib[{_EXTRAS[self._scheme]}]'" if self._scheme in _EXTRAS else ""
            failure = self._error(Refused, error, wanted)
        except KeyMismatchError:
            failure = self._other_key()
        except (ValueError, TypeError) as error:
            failure = self._error(bad_value, error, _HINTS.get(self._scheme, ""))
        except Exception as error:  # noqa: BLE001 - each signer has errors of its own, and of its libraries
            failure = self._pin_error(error) or self._error(Unavailable, error, _HINTS.get(self._scheme, ""))
        # Outside the handlers, so that nothing of theirs, which may know a secret, stays attached.
        raise failure

    def _error(self, kind: type[PacballError], error: Exception, hint: str) -> PacballError:
        said = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        if not said or any(secret in said for secret in self._given.values()):
            said = type(error).__name__
        message = f"the signer {self._uri} of the key {self._name} does not work: {printable(said[:300])}"
        return kind(message, place=self._place, hint=hint)

    def _pin_error(self, error: Exception) -> Refused | None:
        # By name, since python-pkcs11, which is optional, has them.
        what = _PIN_ERRORS.get(type(error).__name__)
        if what is None:
            return None
        hint = "run the same command again with the right one; a token locks itself after a few wrong ones"
        self._wrong_pin = Refused(f"{what} for the key {self._name}", place=self._place, hint=hint)
        return self._wrong_pin

    def _other_key(self) -> Refused:
        message = f"the signer {self._uri} of the key {self._name} has another private key than this public key's"
        return Refused(message, place=self._place, hint="correct its URI: remove this file, and adopt the key again")
