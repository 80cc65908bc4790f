"""The private keys that sign a catalog: one ed25519 key a role, each in a file that only its owner can read.

Keys are named `root`, `targets`, `online` and `line-PROJECT`, and stored as `NAME.pem` (PKCS8) in one directory, which
is never inside a store.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner

from pacstore.durable import unavailable
from pacstore.errors import Corrupt, NotFound, Refused, printable
from pacstore.trust import private

if TYPE_CHECKING:
    from pathlib import Path

    from securesystemslib.signer import Signer

ROOT_KEY = "root"
TARGETS_KEY = "targets"
ONLINE_KEY = "online"
KEY_FILE_BYTES = 4096
_NAME = re.compile(r"(root|targets|online|line-[A-Za-z][A-Za-z0-9_]*)\Z")


class KeyRing:
    """The keys in one directory. Every method raises Refused for a name that is no key name."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @property
    def directory(self) -> Path:
        """Where the keys are."""
        return self._directory

    def path(self, role: str) -> Path:
        """The file that holds, or would hold, the key `role`."""
        if not _NAME.match(role):
            raise Refused(
                "is not the name of a key", place=printable(role[:200]), hint="root, targets, online, line-PROJECT"
            )
        return self._directory / f"{role}.pem"

    def has(self, role: str) -> bool:
        """Whether the key is here, without reading it. Raises Unavailable when that cannot be found out."""
        path = self.path(role)
        try:
            os.stat(path)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise unavailable(error, path) from error
        return True

    def create(self, role: str) -> Signer:
        """Make a new key, durably. Raises Refused if there is one already, Unavailable when the disk fails."""
        path = self.path(role)
        private.make_directory(self._directory)
        _check_private(os.stat(self._directory), self._directory)
        signer = CryptoSigner.generate_ed25519()
        try:
            private.create(path, signer.private_bytes)
        except Refused:
            raise Refused("this key exists already", place=str(path), hint="keys are never overwritten") from None
        return signer

    def signer(self, role: str) -> Signer:
        """The key as a signer. Raises NotFound, Refused when others can read it, Corrupt when it is no such key."""
        path = self.path(role)
        pem = self._read(path, role)
        try:
            key = load_pem_private_key(pem, None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            # The cause could quote key material; it is dropped.
            raise Corrupt("is not an unencrypted PKCS8 PEM key", place=str(path)) from None
        if not isinstance(key, Ed25519PrivateKey):
            raise Corrupt("is not an ed25519 key", place=str(path))
        return CryptoSigner(key)

    def _read(self, path: Path, role: str) -> bytes:
        try:
            _check_private(os.stat(self._directory), self._directory)
            with open(path, "rb") as file:
                # The open file is what is checked, so nobody can swap it in between.
                _check_private(os.fstat(file.fileno()), path)
                return file.read(KEY_FILE_BYTES)
        except FileNotFoundError:
            hint = f"this needs the file {shlex.quote(str(path))}: copy it from where the key {role} is kept"
            raise NotFound(f"the key {role} is not here", place=str(self._directory), hint=hint) from None
        except OSError as error:
            raise unavailable(error, path) from error


def _check_private(status: os.stat_result, path: Path) -> None:
    if status.st_mode & 0o077:
        mode = 700 if stat.S_ISDIR(status.st_mode) else 600
        hint = f"chmod {mode} {shlex.quote(str(path))}"
        raise Refused("other users may read or change this private key", place=str(path), hint=hint)
