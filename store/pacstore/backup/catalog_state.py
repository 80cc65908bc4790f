"""One committed state of a store's catalog, as a whole: which files it consists of, and all releases in it; verified."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from pacstore.backends.directory import DirectoryStorage
from pacstore.backup.record import Listed
from pacstore.digest import Digest
from pacstore.errors import NotFound, PacballError
from pacstore.storage import DocumentKind, DocumentStorage
from pacstore.trust import chain
from pacstore.trust.chain import Head
from pacstore.trust.metadata import FIRST_ROOT_NAME, METADATA_LIMITS, TIMESTAMP_NAME
from pacstore.trust.targets import CatalogRelease

_VERSIONED = re.compile(r"([0-9]+)\.(.+\.json)\Z")
_ROOT_NAME = FIRST_ROOT_NAME.partition(".")[2]


@dataclass
class CatalogState:
    """A state as it was read: `timestamp` is the file that commits it, `files` are all others that it consists of, by name.

    `faults` is what does not verify: then the rest is incomplete. Without any catalog, `version` is 0. `catalog` is the digest of
    the first root.
    """

    version: int = 0
    root_version: int = 0
    timestamp: bytes = b""
    catalog: Digest | None = None
    files: dict[str, Listed] = field(default_factory=dict)
    releases: list[CatalogRelease] = field(default_factory=list)
    faults: list[PacballError] = field(default_factory=list)

    def includes(self, name: str) -> bool:
        """Whether a file of the catalog belongs to this state, an earlier one, or a change that was not committed by then.

        Not the state's timestamp itself; later timestamps and roots do not: they would be in force.
        """
        match = _VERSIONED.match(name)
        if match is None:
            return False
        if match[2] == TIMESTAMP_NAME:
            return int(match[1]) < self.version
        return match[2] != _ROOT_NAME or not self.root_version or int(match[1]) <= self.root_version

    def has_passed(self, documents: DocumentStorage) -> bool:
        """Whether there is a newer state by now."""
        try:
            return chain.newest_timestamp(documents) != (self.timestamp or None)
        except PacballError:
            return False


def read_state(public: Path, *, timestamp: bytes | None = None) -> CatalogState:
    """The newest committed state of the catalog below the docroot `public`; what is damaged is in its `faults`.

    With `timestamp`, the state that this timestamp commits.
    """
    documents = _Remembering(public, timestamp)
    state = CatalogState()
    try:
        newest = chain.newest_timestamp(documents)
        if newest is None:
            state.catalog = _first_root(documents)
            return state
        state.timestamp = newest
        head = chain.load_head(documents)
    except PacballError as error:
        state.faults.append(error)
        return state
    state.version, state.root_version = head.timestamp.version, head.root.version
    numbered = f"{state.version}.{TIMESTAMP_NAME}"
    state.timestamp = documents.timestamps.get(numbered) or documents.timestamps[TIMESTAMP_NAME]
    _read_lines(head, state)
    state.files = documents.files
    state.catalog = documents.files[FIRST_ROOT_NAME].digest
    return state


def _read_lines(head: Head, state: CatalogState) -> None:
    for role in head.roles():
        try:
            head.delegated(role)
        except PacballError as error:
            state.faults.append(error)
    for project in [] if state.faults else head.projects():
        try:
            state.releases += head.releases(project)
        except PacballError as error:
            state.faults.append(error)


def _first_root(documents: DocumentStorage) -> Digest | None:
    """Of a catalog whose making was interrupted."""
    data = chain.read_document(documents, FIRST_ROOT_NAME, METADATA_LIMITS.root_bytes)
    return Digest.of(data) if data is not None else None


class _Remembering(DirectoryStorage):
    """A docroot that remembers what was read from its catalog."""

    def __init__(self, public: Path, timestamp: bytes | None) -> None:
        super().__init__(public, public)
        self._pinned = timestamp
        self.files: dict[str, Listed] = {}
        self.timestamps: dict[str, bytes] = {}

    def get(self, kind: DocumentKind, name: str, *, limit: int) -> bytes:
        match = _VERSIONED.match(name)
        if match is not None and match[2] != TIMESTAMP_NAME:
            data = super().get(kind, name, limit=limit)
            self.files[name] = Listed.of(data)
            return data
        if self._pinned is None:
            data = super().get(kind, name, limit=limit)
        elif name == TIMESTAMP_NAME:
            data = self._pinned
        else:
            raise NotFound("is not looked at", place=name)
        self.timestamps[name] = data
        return data
