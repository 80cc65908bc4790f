"""Reading a release's documents, compared with what the catalog signs: from a store, and from a source that nobody trusts."""

from __future__ import annotations

import mmap
from collections import Counter
from contextlib import closing, suppress
from io import UnsupportedOperation
from typing import BinaryIO

from pacstore.digest import Bytes, Digest
from pacstore.durable import wrapped
from pacstore.errors import Corrupt, NotFound, TooLarge
from pacstore.manifest import Manifest
from pacstore.placement import Placement, placement_name
from pacstore.source import Source, blame
from pacstore.storage import (
    DocumentKind,
    DocumentStorage,
    ObjectKind,
    ObjectStorage,
    Storage,
    document_path,
    object_path,
)
from pacstore.trust.targets import CatalogRelease, SignedDocument

FETCH_ATTEMPTS = 2
"""How often a document is asked for while what arrives is not what was signed."""


def read_object(storage: ObjectStorage, kind: ObjectKind, signed: SignedDocument) -> Bytes:
    """A manifest, attributes or provenance document, compared with its signed length and digest; mapped where it is a file.

    Raises Corrupt, NotFound or Unavailable.
    """
    place = object_path(kind, signed.digest)
    with closing(storage.open(kind, signed.digest)) as file, wrapped(place):
        return _matching(_map(file, signed.length), signed, place)


def read_manifest(storage: ObjectStorage, entry: CatalogRelease) -> Manifest:
    """The manifest of a release, verified."""
    place = object_path(ObjectKind.MANIFEST, entry.manifest.digest)
    return Manifest.parse(read_object(storage, ObjectKind.MANIFEST, entry.manifest), place=place)


def read_placement(storage: DocumentStorage, entry: CatalogRelease, manifest: Manifest) -> Placement:
    """The placement of a release, verified."""
    name = placement_name(entry.release, entry.placement_number)
    place = document_path(DocumentKind.PLACEMENT, name)
    data = storage.get(DocumentKind.PLACEMENT, name, limit=entry.placement.length)
    return Placement.parse(_matching(data, entry.placement, place), manifest, place=place)


def read_provenance(storage: ObjectStorage, entry: CatalogRelease) -> bytes | None:
    """The provenance of a release, verified; None if it has none."""
    if entry.provenance is None:
        return None
    return bytes(read_object(storage, ObjectKind.PROVENANCE, entry.provenance))


def fetch_signed(source: Source, path: str, signed: SignedDocument) -> bytes:
    """The public file at `path`, which is the document `signed`. Raises Corrupt, TooLarge and what the source raises.

    A source of several parts is told which of its answers are wrong, and asked again until one part has been wrong twice.
    """
    wrong: Counter[str] = Counter()
    while True:
        data = source.read(path, limit=signed.length)
        if signed.matches(data):
            return data
        error = Corrupt("is not what the catalog signs", place=path)
        giver = blame(source, path, error)
        wrong[giver] += 1
        if wrong[giver] >= FETCH_ATTEMPTS:
            hint = "try another source, and tell its operator"
            raise Corrupt(error.message, place=f"{giver}: {path}", hint=hint)


def is_document_here(storage: Storage, path: str, signed: SignedDocument, *, is_trusted: bool) -> bool:
    """Whether the object or placement at the public `path` is here; unless `is_trusted`, it is read and compared.

    Raises Unavailable if that cannot be told.
    """
    kind, _, name = path.partition("/")
    with suppress(NotFound, TooLarge, Corrupt):
        if kind == DocumentKind.PLACEMENT:
            data = storage.get(DocumentKind.PLACEMENT, name, limit=signed.length)
            return is_trusted or signed.matches(data)
        digest = Digest.parse(name.rpartition("/")[2])
        if is_trusted:
            return storage.size(ObjectKind(kind), digest) >= 0
        return signed.matches(read_object(storage, ObjectKind(kind), signed))
    return False


def keep_document(storage: Storage, path: str, data: bytes) -> None:
    """Store `data`, which were verified, as the object or placement at the public `path`, durably. Raises Unavailable."""
    kind, _, name = path.partition("/")
    if kind == DocumentKind.PLACEMENT:
        storage.put(DocumentKind.PLACEMENT, name, data)
        return
    with storage.stage(ObjectKind(kind)) as staged:
        staged.write(data)
        staged.publish(Digest.parse(name.rpartition("/")[2]))


def _map(file: BinaryIO, length: int) -> Bytes:
    if file.seek(0, 2) != length:
        return b""
    file.seek(0)
    try:
        return memoryview(mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ))
    except UnsupportedOperation:
        return file.read(length)


def _matching(data: Bytes, signed: SignedDocument, place: str) -> Bytes:
    if len(data) != signed.length or Digest.of(data) != signed.digest:
        raise Corrupt("is not what the catalog says", place=place)
    return data
