"""A store with releases that come and go, and what is asked of it while it is collected."""

from __future__ import annotations

import subprocess
from contextlib import closing
from pathlib import Path

from pacstore.check import catalog_releases, check
from pacstore.documents import read_manifest, read_placement
from pacstore.errors import NotFound
from pacstore.housekeeping import drop_holdings, droppable_releases, retention_rules
from pacstore.ledger import Ledger, marks, pins
from pacstore.ledger.pins import Pin
from pacstore.progress import Silent
from pacstore.publish import publish
from pacstore.release import Release
from pacstore.storage import DocumentKind, ObjectKind
from pacstore.store import Store
from pacstore.sweep.collection import collect, preview
from pacstore.sweep.report import SweepReport
from pacstore.trust.keyring import KeyRing
from pacstore.trust.repository import Catalog
from pacstore.trust.targets import Withdrawal
from tests.store.releases import NOW, OPTIONS, Origin, contents, make_tree, noise, originals, write

DAY = 86_400.0
WEEK = 7 * DAY


def ledger_of(store: Store) -> Ledger:
    return Ledger(store.state_dir / "ledger.sqlite")


def gc(store: Store, *, now: float = NOW, grace: float = 0.0, at=lambda _: None) -> SweepReport:
    with closing(ledger_of(store)) as ledger:
        return collect(store, ledger, now=now, grace_seconds=grace, at=at)


def trial(store: Store, *, now: float = NOW, grace: float = 0.0) -> SweepReport:
    with closing(ledger_of(store)) as ledger:
        return preview(store, ledger, now=now, grace_seconds=grace)


def marked(store: Store) -> dict[str, marks.Mark]:
    with closing(ledger_of(store)) as ledger, ledger.reading() as connection:
        return marks.every(connection)


def pin(store: Store, name: str, **values) -> None:
    with closing(ledger_of(store)) as ledger, ledger.writing() as connection:
        pins.add(connection, Pin(name, **values))


def withdraw(origin: Origin, name: str, *, now: float = NOW) -> None:
    origin.catalog.withdraw(Release.parse(name), Withdrawal(int(now), "bad"), origin.keys, now=now)


def drop(origin: Origin, *, now: float = NOW) -> None:
    storage = origin.store.storage
    drop_holdings(storage, catalog_releases(origin.store), retention_rules(storage), now=now, grace_seconds=0)


def packs_here(store: Store) -> set[str]:
    return {digest.hex for digest in store.storage.digests(ObjectKind.PACK)}


def packs_needed(origin: Origin, name: str) -> set[str]:
    entry = origin.entry(name)
    manifest = read_manifest(origin.store.storage, entry)
    placement = read_placement(origin.store.storage, entry, manifest)
    return {placement.pack(number).hex for number in range(len(placement.pack_ids))}


def files_of(store: Store, name: str) -> list[str]:
    """The public files whose paths have the name of a release in them."""
    return [path for path in originals(store.public) if name in path]


class Releases:
    """An origin and the trees that were published to it, by release."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.origin = Origin.make(top)
        self.trees: dict[str, Path] = {}

    @property
    def store(self) -> Store:
        return self.origin.store

    def tree(self, name: str, *, kib: int = 1200) -> Path:
        if name not in self.trees:
            self.trees[name] = make_tree(self.top / "trees" / name, version=name, kib=kib)
            write(self.trees[name] / "large", noise(f"large {name}", kib * 1024))
        return self.trees[name]

    def publish(self, name: str, **options) -> None:
        self.origin.publish(self.tree(name, **options), name)

    def publish_later(self, name: str) -> None:
        """Publish without the key of the line: the release waits for its signature."""
        line = [path for path in (self.top / "keys").iterdir() if path.name.startswith("line-")]
        for path in line:
            path.rename(self.top / path.name)
        try:
            done = publish(self.tree(name), Release.parse(name), self.store, self.origin.catalog, keys=KeyRing(self.top / "keys"),
                           options=OPTIONS, progress=Silent(), now=lambda: NOW, sign_later=True)  # fmt: skip
        finally:
            for path in line:
                (self.top / path.name).rename(path)
        assert done.waiting

    def copy(self, top: Path) -> Releases:
        """The same once more, at `top`; the store is not in use meanwhile."""
        self.store.close()
        # Unlike shutil's copy, this one keeps hard links.
        subprocess.run(["cp", "-a", self.top, top], check=True)
        copied = Releases.__new__(Releases)
        copied.top, copied.trees = top, dict(self.trees)
        store = Store.open(top / "store", writable=True)
        copied.origin = Origin(top, store, Catalog.open(store.storage, store.drafts), KeyRing(top / "keys"))
        self.again()
        return copied

    def again(self) -> None:
        """Go on as a process that starts now."""
        self.origin = self.origin.again()

    def assert_installable(self, *, but: set[str] = frozenset()) -> None:  # type: ignore[assignment]
        """Every release of the catalog, `but` those, has all its bytes, and they are right."""
        with Store.open(self.store.path, writable=False) as store:
            for entry in catalog_releases(store):
                if str(entry.release) not in but:
                    assert contents(store, entry) == originals(self.trees[str(entry.release)]), entry.release
                    assert str(entry.release) in set(store.storage.names(DocumentKind.HOLDINGS))

    def assert_sound(self) -> None:
        """A check of the whole store finds nothing; what was dropped need not be there."""
        with Store.open(self.store.path, writable=False) as store:
            releases, rules = catalog_releases(store), retention_rules(store.storage)
            droppable = droppable_releases(releases, rules, now=NOW + 99 * DAY, grace_seconds=0)
            assert check(store, releases, progress=Silent(), droppable=droppable).damage == []

    def assert_gone(self, name: str) -> None:
        assert files_of(self.store, name) == []
        entry = self.origin.entry(name)
        for kind, signed in ((ObjectKind.MANIFEST, entry.manifest), (ObjectKind.ATTRIBUTES, entry.attributes)):
            try:
                self.store.storage.size(kind, signed.digest)
            except NotFound:
                continue
            raise AssertionError(f"the {kind} of {name} is still here")

    def assert_gone_but_shared(self, gone: str, kept: str) -> None:
        """Of the release `gone`, nothing is here but what `kept` has too."""
        assert files_of(self.store, gone) == []
        needed = set().union(*(packs_needed(self.origin, name) for name in self.trees if name != gone))
        assert packs_here(self.store) == needed
        if self.origin.entry(gone).manifest != self.origin.entry(kept).manifest:
            self.assert_gone(gone)
