"""What the tests of backups share: a store with one of everything, and calls with what most of them want."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from pacstore.backup import BackupReport, RestoreReport, back_up, restore
from pacstore.check import catalog_releases, check
from pacstore.progress import Progress, Silent
from pacstore.provenance import store_provenance
from pacstore.release import Release
from pacstore.source import Source
from pacstore.storage import DocumentKind
from pacstore.store import Store
from pacstore.trust.keyring import KeyRing
from pacstore.trust.repository import Catalog
from pacstore.trust.retention import Retain
from pacstore.trust.targets import Withdrawal
from tests.store.releases import NAME, NEXT, NOW, Origin, make_tree, snapshot

HOLDINGS = DocumentKind.HOLDINGS
GONE = "Gone-1.0-x86_64"
"""A release that was withdrawn and is offered no longer."""


def make_origin(top: Path) -> Origin:
    """A store with three releases, one of them withdrawn, a provenance, a change that waits, and another database."""
    origin = Origin.make(top)
    origin.store.remember_keys(top / "keys")
    for version, name in (("1", NAME), ("2", NEXT), ("gone", GONE)):
        origin.publish(make_tree(top.with_name(f"tree-{version}"), version=version, kib=500), name)
    origin.catalog.withdraw(Release.parse(GONE), Withdrawal(int(NOW), "broken"), origin.keys, now=NOW)
    origin.store.storage.remove(HOLDINGS, GONE)
    entry = origin.entry(NAME)
    origin.catalog.attach(entry.release, store_provenance(origin.store, entry, statement(entry)), origin.keys, now=NOW)
    waiting = origin.catalog.keep("Gone", Retain(releases=5), KeyRing(top / "no keys"), now=NOW)
    assert waiting.waiting
    with closing(sqlite3.connect(origin.store.private / "sites.sqlite")) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE sites (name TEXT)")
        database.execute("INSERT INTO sites VALUES ('CERN')")
        database.commit()
    return origin


def statement(entry) -> bytes:
    """A provenance that names the release."""
    value = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": str(entry.release), "digest": {"blake3": entry.tree_digest.hex}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {},
    }
    return json.dumps(value).encode()


class Pair:
    """An origin, the backup that is made of it, and the store that is made from that."""

    def __init__(self, origin: Origin, top: Path) -> None:
        self.origin = origin
        self.top = top
        self.backup = top / "backup"
        self.restored = top / "restored"

    def back_up(
        self, *, packs: bool = False, verify: bool = False, progress: Progress | None = None, to: Path | None = None
    ) -> BackupReport:
        """Back up as a process that starts now would."""
        with Store.open(self.origin.store.path, writable=False) as store:
            return back_up(
                store,
                to or self.backup,
                packs=packs,
                verify=verify,
                progress=progress or Silent(),
                now=lambda: NOW,
            )

    def restore(
        self,
        *,
        source: Source | None = None,
        state_dir: Path | None = None,
        despite_damage: bool = False,
        to: Path | None = None,
        progress: Progress | None = None,
    ) -> RestoreReport:
        return restore(
            self.backup,
            to or self.restored,
            source=source,
            state_dir=state_dir,
            despite_damage=despite_damage,
            progress=progress or Silent(),
            now=lambda: NOW,
        )

    def assert_restored(self) -> None:
        """The restored store is sound, and offers what the origin does, byte for byte; one can publish to it."""
        assert public(self.restored) == public(self.origin.store.path)
        assert not (self.restored / "restore.json").exists()
        checked(self.restored)
        with Store.open(self.restored, writable=True) as store:
            again = Origin(self.top, store, Catalog.open(store.storage, store.drafts), self.origin.keys)
            tree = make_tree(self.top / "tree-9", version="9", kib=500)
            done = again.publish(tree, "Demo-1.9-x86_64")
            assert 0 < done.bytes_new < 0.7 * done.bytes_total
        checked(self.restored)
        shutil.rmtree(tree)


@contextmanager
def failing(monkeypatch, at: int, error: BaseException, *, call: str = "fsync") -> Iterator[list[int]]:
    """Raise `error` instead of the `at`-th call of this function of `os`, and from then on; counts the calls."""
    count = [0]
    real = getattr(os, call)

    def instead(*arguments):
        count[0] += 1
        if at and count[0] >= at:
            raise error
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(os, call, instead)
        yield count


def full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def checked(path: Path) -> list[str]:
    """Everything in the store is as it must be; the releases that it offers."""
    with Store.open(path, writable=False) as store:
        releases = catalog_releases(store)
        gone = {entry.release for entry in releases if entry.withdrawal is not None}
        report = check(store, releases, progress=Silent(), droppable=gone)
        assert report.damage == []
        assert report.links_missing == 0
        return sorted(store.storage.names(HOLDINGS))


def public(store: Path) -> dict[str, bytes]:
    """Every public file."""
    return snapshot(store / "public")
