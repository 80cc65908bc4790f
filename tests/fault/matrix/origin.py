"""The origin of a cell: a store with signed releases of several packs each, to which more are published meanwhile."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from pacstore.digest import Digest
from pacstore.documents import read_manifest, read_placement
from pacstore.limits import KIB, PackSizes
from pacstore.packing import PackingOptions
from pacstore.publish import publish
from pacstore.release import Release
from pacstore.storage import ObjectKind, object_path
from pacstore.store import Store
from pacstore.trust.keyring import KeyRing
from pacstore.trust.repository import Catalog, create
from tests.store.releases import Notes, noise, prose, write

HELD = "Held-1.0-any"
"""Subscribed at the mirror."""
LATER = "Held-1.1-any"
"""Subscribed too, and published while the fault goes on."""
PULLED = "Pulled-1.0-any"
"""Only pulled through."""
_OPTIONS = PackingOptions(level=1, sizes=PackSizes(frame_plain_bytes=64 * KIB, pack_bytes=512 * KIB))


class Origin:
    """A store below `top`, the trees of its releases, and what its mirrors must serve."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.store = top / "store"
        self.public = self.store / "public"
        self.published: list[str] = []
        """The releases, in the order in which their publishers were told that they are."""

    @classmethod
    def make(cls, top: Path) -> Origin:
        """A new one with two releases, of some 4 MiB each."""
        origin = cls(top)
        with Store.create(origin.store) as store:
            create(store.storage, KeyRing(top / "keys"), now=time.time(), drafts=store.drafts)
        for name in (HELD, PULLED):
            _make_tree(origin.tree(name), name)
            origin.publish(name)
        _make_tree(origin.tree(LATER), HELD)
        write(origin.tree(LATER) / "more.so", noise(LATER, 900 * KIB))
        return origin

    def copy(self, top: Path) -> Origin:
        """The same at another place: a cell changes only its own."""
        shutil.copytree(self.top, top, symlinks=True)
        copied = Origin(top)
        copied.published = list(self.published)
        return copied

    @property
    def root_keys(self) -> Path:
        """The root.json that installers pin."""
        return self.public / "catalog/1.root.json"

    def tree(self, name: str) -> Path:
        """The directory that is, or will be, published as `name`."""
        return self.top / "trees" / name

    def publish(self, name: str) -> None:
        """Publish its tree. For any thread."""
        with Store.open(self.store, writable=True) as store:
            catalog = Catalog.open(store.storage, store.drafts)
            publish(self.tree(name), Release.parse(name), store, catalog, keys=KeyRing(self.top / "keys"),
                    options=_OPTIONS, progress=Notes(), now=time.time)  # fmt: skip
        self.published.append(name)

    def needs(self, name: str) -> list[str]:
        """The public paths of all that who installs the release reads, packs first."""
        with Store.open(self.store, writable=False) as store:
            entry = Catalog.open(store.storage, store.drafts).release(Release.parse(name))
            assert entry is not None
            placement = read_placement(store.storage, entry, read_manifest(store.storage, entry))
        packs = sorted(object_path(ObjectKind.PACK, Digest(row.tobytes())) for row in placement.pack_ids)
        manifest = object_path(ObjectKind.MANIFEST, entry.manifest.digest)
        attributes = object_path(ObjectKind.ATTRIBUTES, entry.attributes.digest)
        return [*packs, manifest, attributes, f"placements/{name}.1"]

    def content(self, path: str) -> bytes:
        """A public file."""
        return (self.public / path).read_bytes()


def _make_tree(top: Path, seed: str) -> None:
    for number in range(5):
        write(top / f"lib/large{number}.so", noise(f"{seed} {number}", 800 * KIB))
    for number in range(20):
        write(top / f"share/text{number}", prose(f"{seed} {number}", 20 * KIB))
