"""Which keys sign a store's catalog: where they are, their passphrases, and making them at the first publish."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from tuf.api.metadata import Root

from paccli.places import config_dir
from paccli.rings import ROOT_FILE, keep_public, open_ring, own_directory, passphrases, read_passphrase
from pacstore.durable import replace_file, wrapped
from pacstore.errors import NotFound
from pacstore.store import Store
from pacstore.trust.chain import read_document, read_roots
from pacstore.trust.keyring import KeyRing
from pacstore.trust.metadata import METADATA_LIMITS, Expiry, file_name
from pacstore.trust.repository import Catalog, create

__all__ = ["Note", "begun_catalog", "changing", "keep_public", "open_catalog", "open_or_create_catalog", "open_ring",
           "read_passphrase", "remember", "root_of", "signing_ring"]  # fmt: skip

Note = Callable[[str], None]


def signing_ring(
    directory: Path | None, passphrase_file: Path | None, *, store: Store, keyids: Collection[str]
) -> KeyRing:
    """Like open_ring, but where the keys that the store remembers are none of `keyids`, and one of the user's own is: those."""
    ring = open_ring(directory, passphrase_file, store=store)
    if directory is None and ring.directory != own_directory() and not any(map(ring.has, keyids)):
        own = KeyRing(own_directory(), passphrases(passphrase_file, own_directory()))
        if any(map(own.has, keyids)):
            return own
    return ring


def open_catalog(
    store: Store, keys: Path | None, timestamp_days: float | None = None, passphrase_file: Path | None = None
) -> tuple[Catalog, KeyRing]:
    """The catalog of `store` and the keys that this user has for it. Raises NotFound where there is no catalog."""
    catalog = Catalog.open(store.storage, store.drafts, expiry=_expiry(timestamp_days))
    return catalog, open_ring(keys, passphrase_file, store=store)


def begun_catalog(store: Store, timestamp_days: float | None = None) -> Catalog:
    """The catalog of `store`, which may wait for its first signatures, or not be there at all."""
    return Catalog(store.storage, store.drafts, expiry=_expiry(timestamp_days))


def root_of(store: Store, *, newest: bool) -> bytes:
    """The first root of the catalog of `store`, or the `newest` one. Raises NotFound where there is none yet, Corrupt."""
    if not Catalog.exists(store.storage):
        hint = "it waits for its first signatures, or is not begun: pacball trust status --store DIR"
        raise NotFound("this catalog has no root yet", place=str(store.path), hint=hint)
    version = read_roots(store.storage)[-1].signed.version if newest else 1
    data = read_document(store.storage, file_name(Root.type, version), METADATA_LIMITS.root_bytes)
    assert data is not None
    return data


@contextmanager
def changing(
    path: Path, keys: Path | None, passphrase_file: Path | None, timestamp_days: float | None = None
) -> Iterator[tuple[Catalog, KeyRing]]:
    """The catalog of the store at `path`, begun or finished, and the keys here, to change it.

    Without the store's lock: somebody may be thinking about a passphrase, and nothing but work would be lost.
    """
    with Store.open(path, writable=True) as store:
        yield begun_catalog(store, timestamp_days), open_ring(keys, passphrase_file, store=store)


def open_or_create_catalog(
    store: Store, keys: Path | None, timestamp_days: float | None, passphrase_file: Path | None, note: Note
) -> tuple[Catalog, KeyRing]:
    """Like open_catalog; where there is no catalog, it and its keys are made, and `note` is told.

    The store remembers the directory of its keys, not the keys.
    """
    try:
        return open_catalog(store, keys, timestamp_days, passphrase_file)
    except NotFound:
        # Again with the lock: of two first publishers one makes the catalog, and the other finds it.
        with store.catalog_lock():
            if Catalog.exists(store.storage):
                return open_catalog(store, keys, timestamp_days, passphrase_file)
            directory = keys or store.keys_dir or _new_directory(store)
            return _create(store, directory, _expiry(timestamp_days), passphrases(passphrase_file, directory), note)


def remember(store: Store, ring: KeyRing) -> Path:
    """Let the store remember the directory of keys, and put the catalog's root beside them; the path of that."""
    store.remember_keys(ring.directory.absolute())
    path = ring.directory / ROOT_FILE
    replace_file(path, begun_catalog(store).root_bytes, staging=ring.directory)
    return path


def _expiry(timestamp_days: float | None) -> Expiry:
    return Expiry() if timestamp_days is None else Expiry(timestamp=timestamp_days, snapshot=timestamp_days)


def _new_directory(store: Store) -> Path:
    parent = config_dir() / "keys"
    with wrapped(parent):
        parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return parent / f"{store.path.resolve().name}-{secrets.token_hex(4)}"


def _create(
    store: Store, directory: Path, expiry: Expiry, passphrases: Callable[[str], str], note: Note
) -> tuple[Catalog, KeyRing]:
    # Remembered first, so that a publish that is interrupted finds the keys that it began with.
    store.remember_keys(directory.absolute())
    ring = KeyRing(directory, passphrases)
    catalog = create(store.storage, ring, now=time.time(), drafts=store.drafts, expiry=expiry)
    root = remember(store, ring)
    note(f"pacball: new catalog; its keys are in {directory}: keep a copy of them in a safe place")
    note(f"pacball: installers pin its root, which you give them: {root}")
    return catalog, ring
