"""Storage: where finished objects and documents are. Small protocols, and the layout that all of them share.

An *object* is immutable and named by its digest; a *document* has a name, and some documents may be replaced; a *link* is a
second name of either, at which clients of TUF other than ours look for it.
Backends are in `pacstore.backends`; `tests/contract/storage.py` is the suite that each of them passes.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

from pacstore.errors import Refused, printable
from pacstore.release import Release

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from pacstore.digest import Digest


class ObjectKind(enum.StrEnum):
    """Kinds of immutable objects; the value is the directory under the docroot."""

    PACK = "packs"
    MANIFEST = "manifests"
    ATTRIBUTES = "attributes"
    PROVENANCE = "provenance"
    BUNDLE = "bundles"


class DocumentKind(enum.StrEnum):
    """Kinds of named documents; the value is the directory under the docroot."""

    PLACEMENT = "placements"
    HOLDINGS = "holdings"
    CATALOG = "catalog"


STORE_MARKER = "store.json"
TARGETS_TOP = "releases"
"""The directory under the docroot that has the links."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z")
_TARGET = re.compile(
    rf"{TARGETS_TOP}/([^/]+)/([^/]+)/[0-9a-f]{{64}}\.(?:manifest|attributes|placement|provenance)\Z", re.ASCII
)
_LINKED = re.compile(
    r"(?:manifests|attributes|provenance)/([0-9a-f]{2})/\1[0-9a-f]{62}\Z|placements/[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z"
)


def object_path(kind: ObjectKind, digest: Digest) -> str:
    """The path of an object below the docroot or a base URL, for example `packs/ab/ab12...`."""
    return f"{kind.value}/{digest.hex[:2]}/{digest.hex}"


def document_path(kind: DocumentKind, name: str) -> str:
    """The path of a document below the docroot or a base URL. Raises Refused for a name that is no plain file name."""
    if not _NAME.match(name) or ".." in name:
        raise Refused("is not a document name", place=printable(name[:200]))
    return f"{kind.value}/{name}"


def target_path(target: str, sha256: bytes) -> str:
    """Where clients of TUF look for the bytes of `target` with that SHA-256, below the docroot or a base URL.

    For example `releases/P/P-1-x/HEX.manifest` for the target `releases/P/P-1-x/manifest`: the hash stands before the name
    (TUF specification 1.0.31, sections 6.2 and 5.7).
    """
    directory, _, name = target.rpartition("/")
    return f"{directory}/{sha256.hex()}.{name}"


def is_target_path(path: str) -> bool:
    """Whether `path` is one that `target_path` gives for a target of a release."""
    match = _TARGET.match(path)
    try:
        return match is not None and Release.parse(match[2]).project == match[1]
    except Refused:
        return False


def named_sha256(path: str) -> str:
    """The SHA-256 that a path made by `target_path` names, in hexadecimal digits."""
    return path.rpartition("/")[2].partition(".")[0]


@dataclass(frozen=True, slots=True, order=True)
class TargetLink:
    """A second public name `path` (see `target_path`) of the object or placement at the public path `file`.

    Raises Refused for what can be neither.
    """

    path: str
    file: str

    def __post_init__(self) -> None:
        if not is_target_path(self.path):
            raise Refused("is not the path of a target", place=printable(self.path[:300]))
        if not _LINKED.match(self.file) or ".." in self.file:
            raise Refused("is not the path of a document of a release", place=printable(self.file[:300]))


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


class TargetLinks(Protocol):
    """Second names of objects and placements. Durability, NotFound and Unavailable as in ObjectStorage.

    A link takes no room where the storage can give a file two names. It stays when the file that it was made of is replaced or
    deleted.
    """

    def link(self, links: Sequence[TargetLink]) -> None:
        """Let each `path` be the bytes that are now at its `file`; all are durable when this returns. May be repeated.

        Raises NotFound if there is no such file; links before it in the sequence may have been made.
        """

    def links(self) -> Iterator[str]:
        """The paths of all links, ascending."""

    def open_link(self, path: str) -> BinaryIO:
        """The bytes at the link `path`, as `ObjectStorage.open` gives those of an object. Raises Refused for no such path."""

    def unlink(self, path: str) -> None:
        """Remove the link durably; to remove an absent one is no error. What it was made of stays. Raises Refused."""


Clock = Callable[[], float]
"""Seconds since 1970, UTC; a parameter wherever time matters."""
