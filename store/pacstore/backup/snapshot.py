"""Snapshots of SQLite databases: consistent while others write to them, and one closed file each, without a log beside it."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from pacstore.durable import unavailable
from pacstore.errors import Corrupt, Unavailable
from pacstore.transfer import Fault

_BUSY_S = 60.0
_DAMAGE = frozenset((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB))


def snapshot(database: Path, target: Path) -> None:
    """Write the state of `database` at some moment of this call into the empty file `target`, of any file system.

    Writers of the database are not kept waiting. The bytes are not durable yet. Raises Fault where the database is damaged or
    cannot be read, Unavailable where there is no room for the copy.
    """
    with (
        _errors(database, target),
        closing(sqlite3.connect(_url(database), uri=True, timeout=_BUSY_S)) as source,
        closing(sqlite3.connect(_private_url(target), uri=True, isolation_level=None)) as copy,
    ):
        # Nobody else knows the new file: so it needs no locks and no shared memory, which network file systems lack.
        for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = OFF", "synchronous = OFF"):
            copy.execute(f"PRAGMA {pragma}")
        source.backup(copy)
        # The copy says of itself that it has a write-ahead log, as the database does.
        copy.execute("PRAGMA journal_mode = DELETE")
        result = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
    if result != "ok":
        raise Fault(Corrupt(f"the database is damaged: {result}", place=str(database)))


def _url(database: Path) -> str:
    # A database in WAL mode can be read in a place that cannot be written only if it is declared immutable.
    immutable = "" if os.access(database.parent, os.W_OK) else "&immutable=1"
    return f"file:{quote(database.absolute().as_posix())}?mode=ro{immutable}"


def _private_url(target: Path) -> str:
    return f"file:{quote(target.absolute().as_posix())}?mode=rw&vfs=unix-none"


@contextmanager
def _errors(database: Path, target: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            raise unavailable(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), target) from error
        if code in _DAMAGE:
            raise Fault(Corrupt(f"the database is damaged: {error}", place=str(database))) from error
        raise Fault(Unavailable(f"the database cannot be copied: {error}", place=str(database))) from error
