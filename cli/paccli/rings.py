"""The keys that a user has: where they are, their public parts, their passphrases. No store is needed for any of it."""

from __future__ import annotations

import getpass
import os
import stat
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key
from securesystemslib.signer import Key, SSlibKey

from paccli.places import config_dir
from pacstore.durable import create_file, wrapped
from pacstore.errors import Corrupt, PacballError, Refused
from pacstore.trust import private
from pacstore.trust.key_files import PUBLIC_BYTES
from pacstore.trust.keyring import KeyRing, encode_public, read_public

if TYPE_CHECKING:
    from pacstore.store import Store

ROOT_FILE = "root.json"
"""Beside the keys: the root of the catalog that they are for."""
_PASSPHRASE_BYTES = 4096


def open_ring(directory: Path | None, passphrase_file: Path | None, *, store: Store | None = None) -> KeyRing:
    """The keys in `directory`; else those that the store remembers, as far as this user has them; else the user's own."""
    known = store.keys_dir if store is not None else None
    if directory is None and known is not None and os.access(known, os.R_OK | os.X_OK):
        directory = known
    found = directory or own_directory()
    return KeyRing(found, passphrases(passphrase_file, found))


def keep_public(ring: KeyRing, files: Iterable[Path]) -> None:
    """Put copies of these public keys beside those of `ring`, as far as that can be done: so their names are known here."""
    for path in files:
        with suppress(PacballError):
            if path.stem not in ring.names():
                data = encode_public(public_key(path))
                create_file(ring.public_path(path.stem), data, staging=ring.directory, mode=0o644)


def public_key(path: Path) -> Key:
    """The public key in a FILE.pub that somebody gave. Raises NotFound, Unavailable, Corrupt, TooLarge, Refused, NewerFormat."""
    data = private.read(path, limit=PUBLIC_BYTES)
    if data is not None and b"PRIVATE KEY-----" in data:
        hint = f"give its public part, {path.stem}.pub; who has sent you this has given the key away, and makes another one"
        raise Refused("is a private key", place=str(path), hint=hint)
    try:
        return read_public(path)
    except Corrupt as error:
        hint = "give the NAME.pub that pacball trust keygen has made"
        raise Corrupt(f"is no public key file: it {error.message}", place=str(path), hint=hint) from error


def external_public(path: Path) -> Key:
    """The public key of an external signer: a FILE.pub of ours, or what tokens and services give, PEM or DER.

    Raises what public_key does.
    """
    data = private.read(path, limit=PUBLIC_BYTES)
    if data is None or data.lstrip().startswith(b"{") or b"PRIVATE KEY-----" in data:
        return public_key(path)
    try:
        known = load_pem_public_key(data) if data.lstrip().startswith(b"-----") else load_der_public_key(data)
        return SSlibKey.from_crypto(known)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        hint = "give a NAME.pub, or the public key as PEM or DER (SubjectPublicKeyInfo)"
        raise Corrupt("is not a public key", place=str(path), hint=hint) from None


def own_directory() -> Path:
    """Where a user's keys are unless told otherwise."""
    return config_dir() / "keys" / "own"


def read_passphrase(path: Path) -> str:
    """The first line of the file, which others must not be able to read. Raises Refused, NotFound or Unavailable."""
    with wrapped(path), open(path, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        data = file.read(_PASSPHRASE_BYTES + 1)
    if stat.S_IMODE(mode) & 0o077:
        raise Refused("other users may read this passphrase", place=str(path), hint=f"chmod 600 {path}")
    line = data.split(b"\n", 1)[0].rstrip(b"\r")
    if not line or len(data) > _PASSPHRASE_BYTES:
        raise Refused("holds no passphrase in its first line", place=str(path))
    return os.fsdecode(line)


def new_passphrase(name: str, path: Path | None) -> str:
    """The passphrase of a key to be made: from the file, or asked for twice. Raises Refused where nobody can be asked."""
    if path is not None:
        return read_passphrase(path)
    first = _ask(f"new passphrase for the key {name}: ", name)
    if first != _ask("the same again: ", name):
        raise Refused("these are two different passphrases", place=name, hint="run the same command again")
    return first


def passphrases(path: Path | None, directory: Path) -> Callable[[str], str]:
    """What gives the secret of a key in `directory` by its name: the file, or else whoever is at the terminal."""

    def answer(name: str) -> str:
        # A key without a file of its own is an external signer's.
        kind = "passphrase" if (directory / f"{name}.pem").exists() else "PIN"
        return read_passphrase(path) if path is not None else _ask(f"{kind} of the key {name}: ", name)

    return answer


def _ask(question: str, name: str) -> str:
    if not sys.stdin.isatty():
        raise Refused(
            "its passphrase or PIN is needed, and nobody is there to be asked",
            place=name,
            hint="--passphrase-file FILE",
        )
    return getpass.getpass(question)
