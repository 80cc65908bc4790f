"""Incoming: the files of a source's catalog on their way into a store; what is here already is not fetched.

Files are taken from the store where they are what they must be, otherwise from the source. Those of delegated roles are written
as soon as they are verified, since nothing names them yet; the others by `show`.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import MetaFile, Snapshot, Targets

from pacstore.errors import NotFound, PacballError, TooLarge, Unavailable, Untrusted
from pacstore.storage import Clock, DocumentKind, DocumentStorage, document_path
from pacstore.trust.metadata import TIMESTAMP_NAME, file_name
from pacstore.trust.served import metadata_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pacstore.source import Source

_CATALOG = DocumentKind.CATALOG
_OTHER = "use another source, or try again later"


class StoreFailed(Unavailable):
    """Our own disk could not be written: no source is to blame, and no other one would help."""


class Incoming:
    """A `pacstore.trust.served.ChoosingReader` over `documents` and `source`.

    `roots`: the sha256 of each root that is known already, by its version: another one is refused. No more than `limit_bytes` are
    fetched in all, and nothing after `deadline`, in seconds since 1970 by `clock`.
    """

    def __init__(
        self,
        documents: DocumentStorage,
        source: Source,
        roots: Mapping[int, str],
        *,
        clock: Clock,
        deadline: float,
        limit_bytes: int,
    ) -> None:
        self._documents = documents
        self._source = source
        self._known_roots = roots
        self._clock = clock
        self._deadline = deadline
        self._left_bytes = limit_bytes
        self._roots: dict[str, bytes | None] = {}
        self._top: dict[str, bytes] = {}
        self._fetched: set[str] = set()

    def has_new_roots(self) -> bool:
        """Whether a root was fetched; it is known once all were asked for."""
        return any(name in self._fetched for name in self._roots)

    def get(self, kind: DocumentKind, name: str, *, limit: int) -> bytes:
        """The bytes of a root. Raises NotFound if there is none of that name, and as `Source.read`."""
        if name not in self._roots:
            self._roots[name] = self._root(name, limit)
        data = self._roots[name]
        if data is None:
            raise NotFound("is not there", place=document_path(kind, name))
        return data

    def choose(self, role: str, meta: MetaFile) -> bytes:
        """The file of a role, from here if it is what `meta` says."""
        name = file_name(role, meta.version)
        with suppress(PacballError, RepositoryError):
            data = self._documents.get(_CATALOG, name, limit=metadata_bytes(meta))
            meta.verify_length_and_hashes(data)
            return data
        try:
            return self._fetch(name, metadata_bytes(meta))
        except NotFound as error:
            # A signed file promises it: that it is missing says nothing about the catalog.
            message = "the catalog names this file, but it is missing there"
            raise Unavailable(message, place=self._place(name), hint=_OTHER) from error

    def accept(self, role: str, meta: MetaFile, data: bytes) -> None:
        """Write what is verified and was not here. Raises StoreFailed."""
        name = file_name(role, meta.version)
        if name not in self._fetched:
            return
        if role in (Snapshot.type, Targets.type):
            self._top[name] = data
        else:
            self._put(name, data)

    def show(self, timestamp: bytes) -> None:
        """Write what else belongs to the state of `timestamp`, which was verified, and that last. Raises StoreFailed."""
        # Of snapshot and targets the one that names the other comes last: they were accepted in the other order.
        for name, data in reversed(self._top.items()):
            self._put(name, data)
        for name, root in self._roots.items():
            if root is not None and name in self._fetched:
                self._put(name, root)
        self._put(TIMESTAMP_NAME, timestamp)

    def _root(self, name: str, limit: int) -> bytes | None:
        known = self._known_roots.get(int(name.partition(".")[0]))
        if known is not None:
            with suppress(PacballError):
                data = self._documents.get(_CATALOG, name, limit=limit)
                if hashlib.sha256(data).hexdigest() == known:
                    return data
        with suppress(NotFound):
            data = self._fetch(name, limit)
            if known is not None and hashlib.sha256(data).hexdigest() != known:
                message = "it has another root than the one that is trusted here"
                raise Untrusted(message, place=self._place(name), hint="is it the same catalog? use another source")
            return data
        return None

    def _fetch(self, name: str, limit: int) -> bytes:
        if self._clock() > self._deadline:
            message = "the catalog takes too long to come; what has come is kept, and the next attempt goes on there"
            raise Unavailable(message, place=self._place(name), hint=_OTHER)
        data = self._source.read(document_path(_CATALOG, name), limit=limit)
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            raise TooLarge("the catalog is larger than any that is copied", place=self._place(name), hint=_OTHER)
        self._fetched.add(name)
        return data

    def _place(self, name: str) -> str:
        return f"{self._source.name}/{document_path(_CATALOG, name)}"

    def _put(self, name: str, data: bytes) -> None:
        with storing():
            self._documents.put(_CATALOG, name, data)


@contextmanager
def storing() -> Iterator[None]:
    """Errors inside are those of our own store."""
    try:
        yield
    except StoreFailed:
        raise
    except PacballError as error:
        hint = "what was here before still is, and it is tried again"
        raise StoreFailed(error.message, place=error.place, hint=hint) from error
