"""Superseded metadata: versions of a replicated catalog that nothing names any more, removed after a grace time.

Who has just read the timestamp before still fetches them. Since when each is not named is kept in a small file beside the store's
private state; where that is lost, the grace time begins anew.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from tuf.api.metadata import Root, Timestamp

from pacstore.backends.directory import read_bounded
from pacstore.durable import replace_file
from pacstore.errors import PacballError
from pacstore.limits import MIB
from pacstore.storage import DocumentKind

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from pacstore.storage import DocumentStorage

RECORD_NAME = "superseded.json"
_RECORD_BYTES = 16 * MIB
_VERSIONED = re.compile(r"[1-9][0-9]*\.([A-Za-z0-9_.-]+)\.json\Z")
# Clients follow all roots from the first one on; numbered timestamps are the writer's record of what was committed.
_KEPT = (Root.type, Timestamp.type)


class Superseded:
    """Removes what was superseded from the catalog in `documents`; `record` is where it remembers since when."""

    def __init__(self, documents: DocumentStorage, record: Path, *, grace_seconds: float) -> None:
        self._documents = documents
        self._record = record
        self._grace_seconds = grace_seconds

    def sweep(self, named: Collection[str], *, now: float) -> list[str]:
        """Remove each version that is not in `named`, and was not for the grace time before `now`; the names removed.

        `now` in seconds since 1970. Raises Unavailable; what is left then is removed the next time.
        """
        before = self._read()
        since: dict[str, float] = {}
        removed = []
        for name in list(self._documents.names(DocumentKind.CATALOG)):
            match = _VERSIONED.match(name)
            if match is None or match[1] in _KEPT or name in named:
                continue
            # A clock that was set back must not keep it for ever.
            began = min(before.get(name, now), now)
            if now - began >= self._grace_seconds:
                self._documents.remove(DocumentKind.CATALOG, name)
                removed.append(name)
            else:
                since[name] = began
        if since != before:
            data = json.dumps({"format": 1, "since": since}, sort_keys=True, separators=(",", ":")).encode()
            replace_file(self._record, data, staging=self._record.parent, mode=0o600)
        return removed

    def _read(self) -> dict[str, float]:
        try:
            record = json.loads(read_bounded(self._record, _RECORD_BYTES))
            return {str(name): float(began) for name, began in record["since"].items()}
        except (PacballError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {}
