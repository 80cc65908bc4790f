"""A store on disk: its directories, its format version, and the parts that work on it (FORMAT.md section 2)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pacstore.backends.directory import DirectoryStorage, read_bounded
from pacstore.durable import make_directory, replace_file, sync_directory, wrapped
from pacstore.errors import Corrupt, NewerFormat, NotFound, Refused, Unavailable
from pacstore.holdings import decode_json, encode_json
from pacstore.limits import LIMITS
from pacstore.locks import Leases, locked
from pacstore.marker import MARKER, check_marker
from pacstore.mounts import NETWORK_FILE_SYSTEMS, file_system, mounts
from pacstore.storage import STORE_MARKER, DocumentKind, ObjectKind

if TYPE_CHECKING:
    from pacstore.index import ChunkIndex
    from pacstore.ledger import Ledger

_SETTINGS = "settings.json"
_SETTINGS_BYTES = 64 * 1024
_STALE_STAGING_S = 24 * 3600.0
_LOCK_WAIT_S = 120.0
_SWEEP_WAIT_S = 60.0
_SWEEP_LOCK = "sweep.lock"


_MAY_BE_THERE = ("public", "private", "lost+found")
"""In the directory of a store that is to be made: what an interrupted making left, and what new file systems have."""


class Store:
    """The store in directory `path`. Make one with `Store.create` or `Store.open`."""

    def __init__(self, path: Path, *, writable: bool) -> None:
        self.path = path
        self.public = path / "public"
        self.private = path / "private"
        self.staging = self.private / "staging"
        self.writable = writable
        self.storage = DirectoryStorage(self.public, self.staging)
        self.pause: Callable[[float], None] = time.sleep
        """What is done for so many seconds between two looks at a lock that others hold."""

    @classmethod
    def create(cls, path: Path, *, state_dir: Path | None = None) -> Store:
        """The store at `path`, made if there is none. Raises Refused where something else is there.

        `state_dir` is where its databases go: on local disk; STORE/private unless told otherwise.
        """
        store = cls(path, writable=True)
        if not (store.public / STORE_MARKER).exists():
            store._make(state_dir)
        store = cls.open(path, writable=True)
        if state_dir is not None and state_dir.resolve() != store.state_dir.resolve():
            raise Refused(f"keeps its databases in {store.state_dir}, not in {state_dir}", place=str(path),
                          hint="leave out --state-dir")  # fmt: skip
        return store

    @classmethod
    def open(cls, path: Path, *, writable: bool) -> Store:
        """The store at `path`. Raises NotFound where there is none, NewerFormat where it is of a newer version."""
        store = cls(path, writable=writable)
        try:
            data = read_bounded(store.public / STORE_MARKER, LIMITS.store_marker_bytes)
        except NotFound:
            raise NotFound("is not a pacball store", place=str(path), hint="publish to it first") from None
        check_marker(data, str(store.public / STORE_MARKER))
        if writable:
            store._check_writable()
        return store

    @cached_property
    def index(self) -> ChunkIndex:
        """The chunk index, opened when it is first needed. Raises Corrupt where it is damaged, or missing beside packs."""
        # In this order: whoever stores the first pack has made the index before.
        has_packs = any(True for _ in self.storage.digests(ObjectKind.PACK))
        return self._open_index(make=not has_packs)

    @property
    def index_path(self) -> Path:
        """Where the chunk index is, or would be."""
        return self.state_dir / "index.sqlite"

    def _open_index(self, *, make: bool) -> ChunkIndex:
        # Only here: SQLAlchemy takes longer to import than most commands to run, which need no index.
        from pacstore.index import ChunkIndex  # noqa: PLC0415

        with wrapped(self.state_dir):
            return ChunkIndex(self.index_path, read_only=not self.writable, make=make)

    @cached_property
    def ledger(self) -> Ledger:
        """What the store knows of its packs and releases, opened when it is first needed, made if it is missing.

        Raises what `pacstore.database.Database` raises.
        """
        from pacstore.ledger import Ledger  # noqa: PLC0415 - as above
        from pacstore.ledger.database import LEDGER_NAME  # noqa: PLC0415

        with wrapped(self.state_dir):
            return Ledger(self.state_dir / LEDGER_NAME, read_only=not self.writable)

    def mend_ledger(self) -> Path | None:
        """Put the ledger aside if it is damaged, and begin another; where the damaged one is now. Raises as `ledger` otherwise.

        The new one knows what people had said by command, and nothing of what is here (`pacstore.ledger.reconciling`).
        """
        from pacstore.database import put_aside  # noqa: PLC0415 - as above
        from pacstore.ledger.database import LEDGER_NAME  # noqa: PLC0415

        try:
            self.ledger.check()
        except Corrupt:
            self.close()
            self.__dict__.pop("ledger", None)
            aside = put_aside(self.state_dir / LEDGER_NAME)
            self.ledger.check()
            return aside
        return None

    @property
    def has_ledger(self) -> bool:
        """Whether there is a ledger; whoever may write makes one by looking at `ledger`."""
        from pacstore.ledger.database import LEDGER_NAME  # noqa: PLC0415 - as above

        return (self.state_dir / LEDGER_NAME).exists()

    @cached_property
    def state_dir(self) -> Path:
        """The directory of the databases. Raises Refused where it lies on a network file system."""
        directory = Path(str(self._settings().get("state_dir") or self.private))
        check_local(directory, mounts())
        return directory

    @property
    def keys_dir(self) -> Path | None:
        """Where the catalog's keys are, as far as this store was told."""
        value = self._settings().get("keys_dir")
        return Path(str(value)) if value else None

    @property
    def is_mirror(self) -> bool:
        """Whether it is filled from upstreams, and need not hold everything that its catalog names."""
        return bool(self._settings().get("mirror"))

    def remember_mirror(self) -> None:
        """Remember that it is filled from upstreams."""
        if not self.is_mirror:
            self._set({"mirror": True})

    def remember_keys(self, directory: Path) -> None:
        """Remember where the catalog's keys are. The keys themselves never come into the store."""
        self._set({"keys_dir": str(directory)})

    def _settings(self) -> dict[str, object]:
        path = self.private / _SETTINGS
        try:
            return decode_json(read_bounded(path, _SETTINGS_BYTES), limit=_SETTINGS_BYTES, place=str(path))
        except NotFound:
            return {}

    def _set(self, values: dict[str, object]) -> None:
        data = encode_json({**self._settings(), **values})
        replace_file(self.private / _SETTINGS, data, staging=self.staging, mode=0o600)

    @cached_property
    def drafts(self) -> DirectoryStorage:
        """Where changes of the catalog wait for signatures: documents beside the public ones, which nobody is served."""
        if self.writable:
            with wrapped(self.private):
                make_directory(self.private / DocumentKind.CATALOG.value, mode=0o700)
        return DirectoryStorage(self.private, self.staging)

    def empty_index(self) -> ChunkIndex:
        """The index, emptied; a damaged or newer database is put aside, for a look at it, and a new one begun."""
        from pacstore.database import put_aside  # noqa: PLC0415 - as above

        path = self.index_path
        try:
            self.index.check()
            self.index.clear()
        except (Corrupt, NewerFormat):
            self.close()
            self.__dict__.pop("index", None)
            put_aside(path)
            self.index = self._open_index(make=True)
        return self.index

    def close(self) -> None:
        """Close the databases. May be repeated."""
        if "index" in self.__dict__:
            self.index.close()
        if "ledger" in self.__dict__:
            self.ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def catalog_lock(self) -> AbstractContextManager[None]:
        """One publisher at a time may change the catalog. Raises Unavailable if that takes too long."""
        return self._locked("catalog.lock", _LOCK_WAIT_S, busy="another publisher holds the catalog")

    def lease(self) -> AbstractContextManager[str]:
        """Inside, no pack is deleted whose chunks the index found since it began. For who will refer to what is found."""
        return self.leases.hold()

    @property
    def leases(self) -> Leases:
        """The leases of those who are at work here."""
        return Leases(self.state_dir / "leases")

    def unswept(self) -> AbstractContextManager[None]:
        """Inside, nothing is collected: for looking whether all is there, and committing what refers to it; seconds.

        Any number may be inside at once. Raises Unavailable if a collection takes too long.
        """
        return self._locked(_SWEEP_LOCK, _LOCK_WAIT_S, shared=True, busy="a collection is deleting files")

    def sweeping(self) -> AbstractContextManager[None]:
        """Inside, nobody is in `unswept`: for looking whether something is referred to, and deleting it; seconds.

        Raises Unavailable if somebody is there for too long.
        """
        return self._locked(_SWEEP_LOCK, _SWEEP_WAIT_S, busy="publishers are committing all the time")

    def _locked(
        self, name: str, wait_seconds: float, *, busy: str, shared: bool = False
    ) -> AbstractContextManager[None]:
        path = self.state_dir / name
        return locked(path, shared=shared, wait_seconds=wait_seconds, busy=busy, pause=self.pause)

    def _make(self, state_dir: Path | None) -> None:
        with wrapped(self.path):
            check_free(self.path)
            check_local(state_dir or self.path, mounts())
            self.path.mkdir(parents=True, exist_ok=True)
            make_directory(self.public)
            make_directory(self.private, mode=0o700)
            make_directory(self.staging, mode=0o700)
            for kind in (*ObjectKind, *DocumentKind):
                make_directory(self.public / kind.value)
            sync_directory(self.path)
            sync_directory(self.path.absolute().parent)
            if state_dir is not None:
                state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._set({"state_dir": str(state_dir.absolute())})
        replace_file(self.public / STORE_MARKER, MARKER, staging=self.staging)

    def _check_writable(self) -> None:
        if not self.staging.is_dir():
            raise Refused("has no private part, so that nothing can be published to it", place=str(self.path))
        if not os.access(self.staging, os.W_OK):
            raise Unavailable("cannot be written", place=str(self.staging), hint="check permissions and mount options")
        if self.public.stat().st_dev != self.staging.stat().st_dev:
            raise Refused("public and private lie on different file systems", place=str(self.path))

    def drop_stale_staging(self, now: float) -> None:
        """Remove what killed publishers left more than a day before `now`; a live one's file is written to all the time."""
        for entry in os.scandir(self.staging):
            with suppress(OSError):
                if now - entry.stat().st_mtime > _STALE_STAGING_S:
                    os.unlink(entry.path)


def check_free(path: Path) -> None:
    """Raise Refused if something is at `path`, which is no store, that keeps one from being made there. Raises OSError."""
    if path.exists() and any(name not in _MAY_BE_THERE for name in os.listdir(path)):
        raise Refused("is neither empty nor a pacball store", place=str(path), hint="name another directory")


def check_local(directory: Path, mounts: str) -> None:
    """Raise Refused if `directory` lies on a network file system; `mounts` is the text of /proc/self/mounts.

    SQLite's write-ahead log needs shared memory between the processes that use it, which such file systems do not have.
    """
    kind = file_system(directory, mounts)
    if kind in NETWORK_FILE_SYSTEMS:
        raise Refused(
            f"lies on a network file system ({kind}), where SQLite's databases can be damaged",
            place=str(directory),
            hint="keep the state on local disk: --state-dir DIR",
        )
