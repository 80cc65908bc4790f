"""Which keys sign a store's catalog: where they are, and making them at the first publish."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path

from paccli.places import config_dir
from pacstore.durable import replace_file, wrapped
from pacstore.errors import NotFound
from pacstore.store import Store
from pacstore.trust.keys import KeyRing
from pacstore.trust.metadata import Expiry
from pacstore.trust.repository import Catalog

Note = Callable[[str], None]
ROOT_FILE = "root.json"


def open_catalog(store: Store, keys: Path | None, timestamp_days: float | None) -> tuple[Catalog, KeyRing]:
    """The catalog of `store` and the keys that sign it. Raises NotFound where one of them is not there."""
    catalog = Catalog.open(store.storage, expiry=_expiry(timestamp_days))
    directory = keys or store.keys_dir
    if directory is None:
        raise NotFound("its keys are not known here", place=str(store.path), hint="name their directory: --keys DIR")
    return catalog, KeyRing(directory)


def open_or_create_catalog(
    store: Store, keys: Path | None, timestamp_days: float | None, note: Note
) -> tuple[Catalog, KeyRing]:
    """Like open_catalog; where there is no catalog, it and its keys are made, and `note` is told.

    The store remembers the directory of its keys, not the keys.
    """
    try:
        return open_catalog(store, keys, timestamp_days)
    except NotFound:
        # Again with the lock: of two first publishers one makes the catalog, and the other finds it.
        with store.catalog_lock():
            if Catalog.exists(store.storage):
                return open_catalog(store, keys, timestamp_days)
            return _create(store, keys or store.keys_dir or _new_directory(store), _expiry(timestamp_days), note)


def _expiry(timestamp_days: float | None) -> Expiry:
    return Expiry() if timestamp_days is None else Expiry(timestamp=timestamp_days, snapshot=timestamp_days)


def _new_directory(store: Store) -> Path:
    parent = config_dir() / "keys"
    with wrapped(parent):
        parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return parent / f"{store.path.resolve().name}-{secrets.token_hex(4)}"


def _create(store: Store, directory: Path, expiry: Expiry, note: Note) -> tuple[Catalog, KeyRing]:
    # Remembered first, so that a publish that is interrupted finds the keys that it began with.
    store.remember_keys(directory.absolute())
    keys = KeyRing(directory)
    catalog = Catalog.create(store.storage, keys, now=time.time(), expiry=expiry)
    replace_file(directory / ROOT_FILE, catalog.root_bytes, staging=directory)
    note(f"pacball: new catalog; its keys are in {directory}: keep a copy of them in a safe place")
    note(f"pacball: installers pin its root, which you give them: {directory / ROOT_FILE}")
    return catalog, keys
