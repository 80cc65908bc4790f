"""Releases whose documents nobody would publish, signed all the same, as by who holds a line's key and means harm."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from paccli.keychain import open_catalog
from pacstore.attributes import encode_attributes
from pacstore.digest import Digest
from pacstore.manifest import encode_manifest
from pacstore.placement import Placement
from pacstore.release import Release
from pacstore.storage import DocumentKind, ObjectKind, object_path
from pacstore.store import Store
from pacstore.trust.targets import CatalogRelease, SignedDocument


class Handmade:
    """Puts releases into a store that has a catalog, past all that publishers check."""

    def __init__(self, store: Path) -> None:
        self._store = store

    def sign(self, release: str, tree: bytes, *, chunk_counts: bytes = b"", entries: int = 0, files: int = 0) -> None:
        """A release with the tree document `tree`, whatever it says, and without chunks."""
        manifest = encode_manifest(tree, chunk_counts, b"", b"")
        attributes = encode_attributes(Digest.of(tree), [0] * entries, [])
        with Store.open(self._store, writable=True) as store:
            name = Release.parse(release)
            placement = _nothing(name, Digest.of(manifest))
            store.storage.create(DocumentKind.PLACEMENT, f"{release}.1", placement)
            entry = CatalogRelease(
                release=name,
                tree_digest=Digest.of(tree),
                manifest=self._put(ObjectKind.MANIFEST, manifest),
                attributes=self._put(ObjectKind.ATTRIBUTES, attributes),
                placement=SignedDocument.of_all([placement]),
                placement_number=1,
                total_bytes=0,
                files=files,
                published=1_700_000_000,
            )
            catalog, keys = open_catalog(store, store.keys_dir)
            catalog.publish(entry, keys, now=time.time(), sign_later=False)

    def _put(self, kind: ObjectKind, data: bytes) -> SignedDocument:
        signed = SignedDocument.of_all([data])
        path = self._store / "public" / object_path(kind, signed.digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return signed


def _nothing(release: Release, manifest: Digest) -> bytes:
    none = np.zeros(0, "u1")
    rows = none.reshape(0, 32)
    return Placement(release, manifest, 1, rows, none, none, none, none, none, none, rows, none, none).encode()
