"""Who has stolen keys, or holds a line's, and signs with them whatever they like, into the public files of a store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner, Signer
from tuf.api.metadata import Metadata, MetaFile, TargetFile

from pacstore.storage import ObjectKind, object_path
from pacstore.trust.metadata import SIGNED_AT, TIME, at, expiry_date
from pacstore.trust.targets import SignedDocument
from tests.e2e.victims import path_of

Change = Callable[[Any], object]


class Forger:
    """Signs metadata below `public` anew; `online` is the key that is good for snapshot, timestamp and placements.

    What python-tuf would refuse to serialize, nobody can forge.
    """

    def __init__(self, public: Path, online: Signer) -> None:
        self.public = public
        self._online = online

    def read(self, role: str) -> Metadata[Any]:
        """The newest metadata of a role."""
        return Metadata.from_bytes((self.public / path_of(self.public, role)).read_bytes())

    def sign(self, role: str, change: Change, *signers: Signer, version: int | None = None) -> None:
        """A next version of a delegated role or of targets, signed by `signers`, and what lists it."""
        metadata = self.read(role)
        metadata.signed.version = version or metadata.signed.version + 1
        change(metadata.signed)
        listed = self.write(role, metadata, *signers)
        self.snapshot(lambda signed: signed.meta.update({f"{role}.json": listed}))

    def snapshot(self, change: Change, version: int | None = None) -> None:
        """A next version of the snapshot, and a timestamp that lists it."""
        metadata = self.read("snapshot")
        metadata.signed.version = version or metadata.signed.version + 1
        change(metadata.signed)
        listed = self.write("snapshot", metadata, self._online)
        self.timestamp(lambda signed: setattr(signed, "snapshot_meta", listed))

    def timestamp(self, change: Change, version: int | None = None) -> None:
        """A next version of the timestamp."""
        metadata = self.read("timestamp")
        metadata.signed.version = version or metadata.signed.version + 1
        change(metadata.signed)
        self.write("timestamp", metadata, self._online)

    def root(self, change: Change, *signers: Signer, name: int | None = None) -> None:
        """A next version of the root, under that version's name or as `name`."""
        metadata = self.read("root")
        metadata.signed.version += 1
        change(metadata.signed)
        self.write("root", metadata, *signers, name=name)

    def write(self, role: str, metadata: Metadata[Any], *signers: Signer, name: int | None = None) -> MetaFile:
        """Sign and write the file of a role; what a snapshot or timestamp says of it."""
        metadata.signatures.clear()
        for signer in signers:
            metadata.sign(signer, append=True)
        # Not escaped, as other writers do it: three times as many names are as long.
        data = json.dumps(metadata.to_dict(), ensure_ascii=False, separators=(",", ":")).encode()
        number = "" if role == "timestamp" else f"{name or metadata.signed.version}."
        (self.public / f"catalog/{number}{role}.json").write_bytes(data)
        return MetaFile.from_data(metadata.signed.version, data, ["sha256"])


def new_key() -> Signer:
    """A key that nobody trusts."""
    return CryptoSigner.generate_ed25519()


def date(signed: Any, when: float, *, days: float) -> None:
    """As if metadata had been signed at `when`, in seconds since 1970, for so many days."""
    signed.expires = expiry_date(when, days)
    if SIGNED_AT in signed.unrecognized_fields:
        signed.unrecognized_fields[SIGNED_AT] = at(when).strftime(TIME)


def put(public: Path, kind: ObjectKind, data: bytes) -> SignedDocument:
    """Store a document under its digest; what a catalog says of it."""
    document = SignedDocument.of_all([data])
    path = public / object_path(kind, document.digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return document


def target_of(path: str, document: SignedDocument, **custom: object) -> TargetFile:
    """A document as the target `path` of a role."""
    fields = {"custom": {"digest": document.digest.hex, **custom}}
    return TargetFile(document.length, {"sha256": document.sha256.hex()}, path, fields)
