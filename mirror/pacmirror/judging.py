"""Judges which state of the store's catalog may be served, and remembers what was.

What was served last is in `STORE/private/served.json`, written before it is served, so that a restart does not forget it;
where that cannot be written, it is remembered as long as the daemon runs. Several daemons over one store may share the file: each
compares with what both remember. Everything here blocks.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuf.api.metadata import Root

from pacstore.backends.directory import read_bounded
from pacstore.durable import replace_file
from pacstore.errors import Corrupt, NotFound, PacballError, Unavailable
from pacstore.storage import DocumentKind, document_path
from pacstore.trust.metadata import METADATA_LIMITS, TIMESTAMP_NAME, file_name
from pacstore.trust.served import RECORD_BYTES, RECORD_NAME, VerifiedRoles, Verifier, decode_record, encode_record

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pacmirror.config import Config
    from pacmirror.files import PublicFiles
    from pacstore.trust.served import ServedState

TIMESTAMP_PATH = document_path(DocumentKind.CATALOG, TIMESTAMP_NAME)
_RECORD = f"private/{RECORD_NAME}"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verdict:
    """What one look at the store came to. `seen` is what `Judge.look` gave just before.

    `served` is what may be served, if anything; `fault` says why that is not what lies in the store, which is a refusal
    unless it could not be read; `note` what is the matter with the record.
    """

    seen: object
    served: ServedState | None = None
    fault: str = ""
    is_refusal: bool = False
    note: str = ""


class Judge:
    """Judges the catalog of one store; `judge` is called by one thread at a time, `look` by any.

    `known`: what it has verified, which others may share who verify the same catalog.
    """

    def __init__(self, config: Config, files: PublicFiles) -> None:
        self._files = files
        self._record = config.served_record
        self.known = VerifiedRoles()
        self._verifier = Verifier(_Documents(files), known=self.known)
        self._last: ServedState | None = None
        self._damage = ""

    def look(self) -> object:
        """What differs as soon as there may be something new to judge. Raises nothing."""
        try:
            # A new root is in force as soon as it is there, without a new timestamp.
            return self._files.look(TIMESTAMP_PATH), self._newest_root()
        except PacballError as error:
            return str(error)

    def judge(self) -> Verdict:
        """The verdict on what lies in the store now. Raises nothing: whatever is wrong is part of it."""
        seen = self.look()
        recorded = self._read_record()
        floors = [state for state in (self._last, recorded) if state is not None]
        try:
            data = self._read_timestamp(floors)
            if data is None:
                return Verdict(seen, note=self._damage)
            self._last = self._verifier.verify(data, floors=floors)
        except PacballError as error:
            return self._fall_back(seen, floors, error)
        except Exception as error:  # noqa: BLE001 - whatever a hostile file makes of the libraries, the daemon goes on
            _log.debug("the catalog could not be verified", exc_info=True)
            return self._fall_back(seen, floors, Corrupt(f"could not be verified: {error!r}", place=TIMESTAMP_PATH))
        unwritten = self._write_record(self._last) if self._last != recorded else ""
        return Verdict(seen, self._last, note=unwritten or self._damage)

    def _newest_root(self) -> int:
        version = self._last.root_version if self._last else 0
        with suppress(NotFound):
            while version <= METADATA_LIMITS.root_rotations:
                self._files.look(document_path(DocumentKind.CATALOG, file_name(Root.type, version + 1)))
                version += 1
        return version

    def _read_timestamp(self, floors: Sequence[ServedState]) -> bytes | None:
        """Its bytes, or None if there never was one."""
        try:
            return self._files.read(TIMESTAMP_PATH, limit=METADATA_LIMITS.timestamp_bytes)
        except NotFound as error:
            if not floors:
                return None
            raise Corrupt("is gone, and was served before", place=error.place, hint="restore it") from error

    def _fall_back(self, seen: object, floors: Sequence[ServedState], error: PacballError) -> Verdict:
        last = max(floors, key=lambda state: (state.root_version, state.version), default=None)
        fault = str(error)
        if last is not None and not self._verifier.is_there(last):
            fault += f"; and of version {last.version}, which was served before, the files are not there either"
            last = None
        return Verdict(seen, last, fault, not isinstance(error, Unavailable), self._damage)

    def _read_record(self) -> ServedState | None:
        try:
            return read_record(self._record)
        except Unavailable:
            return None  # then it cannot be written either, and that is noted
        except PacballError as error:
            if not self._damage:
                self._damage = f"{error}: what was served before this daemon started is not known"
                _log.warning("%s", self._damage)
            return None

    def _write_record(self, state: ServedState) -> str:
        """Remember `state` durably; if that fails, why."""
        try:
            replace_file(self._record, encode_record(state), staging=self._record.parent, mode=0o600)
        except PacballError as error:
            return f"{_RECORD}: {error.message}: what is served is remembered only until the daemon ends"
        return ""


def read_record(path: Path) -> ServedState | None:
    """What was served last; None if that is not known. Raises Corrupt, TooLarge or Unavailable."""
    try:
        return decode_record(read_bounded(path, RECORD_BYTES), _RECORD)
    except NotFound:
        return None


class _Documents:
    """The store's documents by the way on which they are served: what clients cannot fetch is not there."""

    def __init__(self, files: PublicFiles) -> None:
        self._files = files

    def get(self, kind: DocumentKind, name: str, *, limit: int) -> bytes:
        """As `pacstore.trust.served.DocumentReader`."""
        return self._files.read(document_path(kind, name), limit=limit)
