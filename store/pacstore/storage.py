"""Storage: where finished objects and documents are. Two small protocols, and the layout that all of them share.

An *object* is immutable and named by its digest; a *document* has a name, and some documents may be replaced.
Backends are in `pacstore.backends`; `tests/contract/storage.py` is the suite that each of them passes.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO, Protocol

from pacstore.errors import Refused, printable

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from pacstore.digest import Digest


class ObjectKind(enum.StrEnum):
    """Kinds of immutable objects; the value is the directory under the docroot."""

    PACK = "packs"
    MANIFEST = "manifests"
    ATTRIBUTES = "attributes"


class DocumentKind(enum.StrEnum):
    """Kinds of named documents; the value is the directory under the docroot."""

    PLACEMENT = "placements"
    HOLDINGS = "holdings"
    CATALOG = "catalog"


STORE_MARKER = "store.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z")


def object_path(kind: ObjectKind, digest: Digest) -> str:
    """The path of an object below the docroot or a base URL, for example `packs/ab/ab12...`."""
    return f"{kind.value}/{digest.hex[:2]}/{digest.hex}"


def document_path(kind: DocumentKind, name: str) -> str:
    """The path of a document below the docroot or a base URL. Raises Refused for a name that is no plain file name."""
    if not _NAME.match(name) or ".." in name:
        raise Refused("is not a document name", place=printable(name[:200]))
    return f"{kind.value}/{name}"


class Staged(Protocol):
    """An object being written. It is nowhere visible until `publish` returns, and gone if that is never called."""

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`. Raises Unavailable when the disk is full or fails."""

    def publish(self, digest: Digest) -> None:
        """Make the bytes durable, then visible under `digest`, and return when both have happened.

        The caller has verified that these bytes belong to that digest. If the object exists already, the existing one
        or this one remains: they are the same. May be called once.
        """


class ObjectStorage(Protocol):
    """Immutable objects by kind and digest.

    What a method has returned is durable, and survives kill -9 and power loss. Any number of processes may use one
    storage at once. NotFound means that the object is definitely absent; every other failure is Unavailable.
    """

    def stage(self, kind: ObjectKind) -> AbstractContextManager[Staged]:
        """Begin to write an object. Leaving the context without `publish` drops it."""

    def open(self, kind: ObjectKind, digest: Digest) -> BinaryIO:
        """The object as a seekable, unbuffered file, with its own position; the caller closes it."""

    def size(self, kind: ObjectKind, digest: Digest) -> int:
        """The object's length in bytes."""

    def digests(self, kind: ObjectKind) -> Iterator[Digest]:
        """Every object of this kind, ascending."""

    def delete(self, kind: ObjectKind, digest: Digest) -> None:
        """Remove the object; to remove an absent one is no error."""


class DocumentStorage(Protocol):
    """Named documents. Durability and NotFound as in ObjectStorage; readers see a document whole, old or new."""

    def put(self, kind: DocumentKind, name: str, data: bytes) -> None:
        """Write or replace the document atomically and durably."""

    def create(self, kind: DocumentKind, name: str, data: bytes) -> None:
        """Write the document, which must not exist yet: of several concurrent callers one succeeds. Raises Refused."""

    def get(self, kind: DocumentKind, name: str, *, limit: int) -> bytes:
        """The document's bytes. Raises TooLarge if there are more than `limit`."""

    def names(self, kind: DocumentKind) -> Iterator[str]:
        """The names of all documents of this kind, ascending."""

    def remove(self, kind: DocumentKind, name: str) -> None:
        """Remove the document durably; to remove an absent one is no error."""


class Storage(ObjectStorage, DocumentStorage, Protocol):
    """Both, as a store has them."""


Clock = Callable[[], float]
"""Seconds since 1970, UTC; a parameter wherever time matters."""
