"""SQLite databases on local disk: a write-ahead log with synchronous=FULL, so that what was acknowledged survives power loss.

Any number of processes may share one. Who writes takes the lock first (BEGIN IMMEDIATE) and waits for the others; readers see
one state for as long as they look, and are never kept waiting by writers.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa

from pacstore.durable import sync_directory, unavailable, wrapped
from pacstore.errors import Corrupt, NewerFormat, Unavailable
from pacstore.limits import KIB

BUSY_SECONDS = 60.0
"""How long somebody waits for another writer before it is Unavailable."""
_SHARED_MEMORY_BYTES = 32 * KIB
"""What SQLite needs beside a database in WAL mode at least."""
_DAMAGE = (
    "malformed",
    "not a database",
    "no such table",
    "no such column",
    "unsupported file format",
    "constraint failed",
)


@dataclass(frozen=True)
class Schema:
    """What a database is to hold. `title` is its name in messages, `version` that of its tables.

    `mend`: what to do about a damaged one; `newer`: what else helps where a newer pacball has written it. The tables that a
    database of an older version lacks, or one of this version, are made when it is opened: so far, versions only ever added some.
    A version counts up when who does not know the new tables would do harm.
    """

    title: str
    version: int
    tables: sa.MetaData
    mend: str
    newer: str = ""


class Database:
    """The database at `path`. It is made if it is missing, unless `make` is false or it is to be read only: then that is Corrupt.

    `fill` writes what one begins with that is made. Raises NewerFormat for one that a newer pacball made, Unavailable where it
    cannot be used.
    """

    def __init__(
        self,
        path: Path,
        schema: Schema,
        *,
        read_only: bool = False,
        make: bool = True,
        fill: Callable[[sa.Connection], None] = lambda _: None,
    ) -> None:
        self.path = path
        self._schema = schema
        if not path.exists():
            if read_only or not make:
                raise self.corrupt("it is missing")
            self._make(fill)
        self._engine = _engine(path, read_only=read_only)
        try:
            version = self._version()
            if not read_only:
                self._add_tables(version)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close it. May be repeated."""
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection that sees one state of the database."""
        with self._begun(self._engine, "BEGIN") as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A connection that alone writes; what was done is durable when the context is left, and undone by any error."""
        with self._begun(self._engine, "BEGIN IMMEDIATE") as connection:
            yield connection

    def check(self) -> None:
        """Raise Corrupt if the database is damaged as such."""
        with self.reading() as connection:
            result = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar_one()
        if result != "ok":
            raise self.corrupt(str(result))

    def corrupt(self, fault: str) -> Corrupt:
        """The error that it is damaged."""
        return Corrupt(f"{self._schema.title} is damaged: {fault}", place=str(self.path), hint=self._schema.mend)

    def _version(self) -> int:
        with self.reading() as connection:
            version = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
        if version > self._schema.version:
            hint = f"install a newer pacball{f', or {self._schema.newer}' if self._schema.newer else ''}"
            message = f"has version {version}; this pacball knows {self._schema.version}"
            raise NewerFormat(message, place=str(self.path), hint=hint)
        if version < 1:
            raise self.corrupt("it is empty")
        return version

    def _add_tables(self, version: int) -> None:
        """Several processes may do this at once."""
        with self.reading() as connection:
            found = set(connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'").scalars())
        if version < self._schema.version or not self._schema.tables.tables.keys() <= found:
            with self.writing() as connection:
                self._schema.tables.create_all(connection)
                connection.exec_driver_sql(f"PRAGMA user_version = {self._schema.version}")

    def _make(self, fill: Callable[[sa.Connection], None]) -> None:
        """Make a database, which appears at its path whole; of several that make it at once, the first one's stays.

        SQLite waits for nobody when it changes a database to a write-ahead log: so that happens where nobody else is.
        """
        path = self.path
        with wrapped(path), tempfile.TemporaryDirectory(prefix=f"{path.stem}-", dir=path.parent) as directory:
            engine = _engine(Path(directory) / path.name, read_only=False)
            try:
                with self._begun(engine, "BEGIN IMMEDIATE") as connection:
                    self._schema.tables.create_all(connection)
                    connection.exec_driver_sql(f"PRAGMA user_version = {self._schema.version}")
                    fill(connection)
            finally:
                engine.dispose()  # which ends the log and removes it
            with suppress(FileExistsError):
                os.link(Path(directory) / path.name, path)
            sync_directory(path.parent)

    @contextmanager
    def _begun(self, engine: sa.Engine, begin: str) -> Iterator[sa.Connection]:
        try:
            with engine.begin() as connection:
                connection.exec_driver_sql(begin)
                yield connection
        except UnicodeDecodeError as error:
            # From Python's sqlite3, which shows messages that quote damaged names.
            raise self.corrupt("its schema is no text") from error
        except sa.exc.TimeoutError as error:
            raise Unavailable(f"{self._schema.title} is in use too much", place=str(self.path)) from error
        except sa.exc.DatabaseError as error:
            text = str(error.orig)
            if any(word in text for word in _DAMAGE):
                raise self.corrupt(text) from error
            if _is_full(self.path, error.orig):
                raise unavailable(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), self.path) from error
            busy = _sqlite_code(error.orig) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            hint = "see which other process holds it" if busy else "check the disk that it is on"
            message = f"{self._schema.title} cannot be used: {text}"
            raise Unavailable(message, place=str(self.path), hint=hint) from error


def put_aside(path: Path) -> Path:
    """Move the database at `path`, which nobody has open here, to another name for a look at it; that name. May be repeated.

    Raises Unavailable. Its log goes first: beside a new database it would be taken for that one's.
    """
    aside = path.with_name(f"{path.name}.damaged")
    for suffix in ("-wal", "-shm", ""):
        with wrapped(path), suppress(FileNotFoundError):
            os.replace(f"{path}{suffix}", f"{aside}{suffix}")
    with wrapped(path):
        sync_directory(path.parent)
    return aside


def _sqlite_code(error: BaseException | None) -> int:
    """The primary result code, without the details in its upper bits."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def _is_full(path: Path, error: BaseException | None) -> bool:
    """Whether the disk is full. SQLite says so only of the database; of the files beside it, it says I/O error or less."""
    code = _sqlite_code(error)
    if code not in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
        return code == sqlite3.SQLITE_FULL
    try:
        found = os.statvfs(path.parent)
    except OSError:
        return False
    free_bytes = found.f_bavail * found.f_frsize
    return free_bytes < _SHARED_MEMORY_BYTES or (found.f_files > 0 and found.f_favail == 0)


def _url(path: Path, read_only: bool) -> str:
    quoted = quote(path.absolute().as_posix())
    if not read_only:
        return f"sqlite+pysqlite:///file:{quoted}?mode=rwc&uri=true"
    # A database in WAL mode can be read in a place that cannot be written only if it is declared immutable.
    writable = os.access(path.parent, os.W_OK)
    return f"sqlite+pysqlite:///file:{quoted}?mode=ro&uri=true{'' if writable else '&immutable=1'}"


def _engine(path: Path, *, read_only: bool) -> sa.Engine:
    engine = sa.create_engine(_url(path, read_only), connect_args={"timeout": BUSY_SECONDS, "uri": True})
    sa.event.listen(engine, "connect", _prepare(read_only))
    return engine


def _prepare(read_only: bool) -> Callable[[sqlite3.Connection, object], None]:
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        # Transactions begin where we say: Python's sqlite3 would begin them late, and then nobody waits for the lock.
        connection.isolation_level = None
        cursor = connection.cursor()
        if not read_only:
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA cache_size = -16384")
        cursor.close()

    return prepare
