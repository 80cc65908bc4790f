"""CatalogCopy: the catalog in a mirror's store, as `pacmirror.replication` works on it. Everything here blocks."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from tuf.api.metadata import Root, Timestamp

from pacmirror.judging import read_record
from pacstore.backends.directory import read_bounded
from pacstore.durable import wrapped
from pacstore.errors import PacballError
from pacstore.store import Store
from pacstore.trust.listing import Listing, list_releases
from pacstore.trust.metadata import METADATA_LIMITS
from pacstore.trust.replica import Replica
from pacstore.trust.superseded import RECORD_NAME, Superseded

if TYPE_CHECKING:
    from collections.abc import Callable

    from pacmirror.catalog import ServedCatalog
    from pacmirror.config import Config
    from pacstore.source import Source
    from pacstore.trust.replica import Look
    from pacstore.trust.served import ServedState


class CatalogCopy:
    """The copy in the store of `config`; what `served` has served is never gone back behind."""

    def __init__(self, config: Config, served: ServedCatalog) -> None:
        """Raises Refused if another root is here than the configured one, or the store cannot be written to; Unavailable."""
        self._config = config
        self._served = served
        pinned = None
        if config.trusted_root is not None:
            pinned = read_bounded(config.trusted_root, METADATA_LIMITS.root_bytes)
        with Store.open(config.store, writable=True) as store:
            self._store = store
            lock = store.catalog_lock
        self._replica = Replica(
            store.storage, pinned=pinned, clock=time.time, floors=self._floors, lock=lock, known=served.known
        )
        self._replica.refuse_other_root()
        grace = config.limits.replication.grace_seconds
        self._superseded = Superseded(store.storage, store.private / RECORD_NAME, grace_seconds=grace)

    @property
    def held(self) -> ServedState | None:
        """The verified state that is here; None while there is none. May be asked for by any thread."""
        return self._replica.held

    def is_named(self, name: str) -> bool:
        """Whether `name` is that of a file of the state that is here, timestamp apart, so that it must be here too."""
        held = self.held
        version, _, role = name.removesuffix(".json").partition(".")
        if held is None or not version.isdecimal():
            return False
        if role == Root.type:
            return int(version) <= held.root_version
        return role != Timestamp.type and role in held.roles and held.roles[role].version == int(version)

    def load(self) -> None:
        """Find out what is here. Raises as `Replica.load`."""
        self._replica.load()

    def refresh(self, source: Source, *, whole: bool, progress: Callable[[int], None]) -> Look:
        """As `Replica.refresh`."""
        return self._replica.refresh(source, whole=whole, progress=progress)

    def read(self, before: Listing) -> tuple[Listing, str]:
        """The listing of what is held, and the fingerprint of its first root."""
        held = self.held
        listing = list_releases(self._store.storage, held, before) if held is not None else before
        return listing, self._replica.root_fingerprint()

    def tidy(self) -> None:
        """Remove superseded files, and what killed daemons left. Raises Unavailable."""
        now = time.time()
        with wrapped(self._store.staging):
            self._store.drop_stale_staging(now)
        if self.held is not None:
            self._superseded.sweep(self._replica.named(), now=now)

    def _floors(self) -> list[ServedState]:
        """What this daemon, or one before it, has served."""
        states = [self._served.standing.served]
        with suppress(PacballError):
            states.append(read_record(self._config.served_record))
        return [state for state in states if state is not None]
