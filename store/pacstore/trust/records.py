"""Records: facts that a client must not forget, in small files that are durable and only ever gain knowledge.

Each record is one JSON object in a file that is named by its digest and never changed. What holds is what all records of a
directory say together, and a client adds its own before it removes those that it has read and that say less. So clients
that run at once, on file systems without locks too, lose nothing, and a damaged record is noticed.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from pacstore.digest import Digest
from pacstore.durable import wrapped
from pacstore.errors import Corrupt, TooLarge, Unavailable
from pacstore.limits import MIB
from pacstore.trust import private

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

RECORD_BYTES = 16 * MIB
READ_ATTEMPTS = 100
SUFFIX = ".json"


class Records:
    """The records in `directory`, which is made if it is missing, as they were when this object was made.

    Raises Corrupt for a damaged record, Unavailable.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        private.make_directory(directory)
        self._found = self._read()

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(self._found.values())

    def add(self, record: Mapping[str, object], *, superseded: Iterable[Mapping[str, Any]]) -> None:
        """Add `record` durably, unless it is there; then remove those of `superseded`, which this object gave.

        Raises TooLarge, before anything is written, for one that nobody could read again; Unavailable.
        """
        data = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
        if len(data) > RECORD_BYTES:
            message = f"there is too much to remember of this catalog: {len(data)} bytes, more than {RECORD_BYTES}"
            raise TooLarge(
                message, place=str(self._directory), hint="use another source, and tell the catalog's operator"
            )
        path = self._directory / _name(data)
        if not path.exists():
            private.replace(path, data)
        gone = {id(old) for old in superseded}
        with wrapped(self._directory):
            for other, old in self._found.items():
                if id(old) in gone and other != path:
                    other.unlink(missing_ok=True)

    def _read(self) -> dict[Path, Mapping[str, Any]]:
        for _ in range(READ_ATTEMPTS):
            with wrapped(self._directory):
                names = sorted(name for name in os.listdir(self._directory) if name.endswith(SUFFIX))
            found = {name: _read(self._directory / name) for name in names}
            records = {
                self._directory / name: _decode(data, self._directory / name)
                for name, data in found.items()
                if data is not None
            }
            # One that is gone by now was replaced by one that says more, which may be too new to be among these.
            if len(records) == len(found):
                return records
        raise Unavailable("is changed by others all the time", place=str(self._directory), hint="try again")


def _read(path: Path) -> bytes | None:
    try:
        return private.read(path, limit=RECORD_BYTES)
    except TooLarge:
        # As damaged as any other that this class has not written.
        return b""


def _decode(data: bytes, path: Path) -> Mapping[str, Any]:
    if _name(data) != path.name:
        hint = (
            "if you are sure that your source is honest, remove this file; the protection against rollback starts anew"
        )
        raise Corrupt("this record of the newest catalog seen is damaged", place=str(path), hint=hint)
    # These are bytes that this class has written.
    record: Mapping[str, Any] = json.loads(data)
    return record


def _name(data: bytes) -> str:
    return f"{Digest.of(data).hex[:32]}{SUFFIX}"
