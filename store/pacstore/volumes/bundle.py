"""Bundles: exports of one release without its packs, so that the packs may come from anywhere.

A bundle has all that tells what the packs must be: the catalog as it was then, the release's documents, its holdings. It is an
object of the store, named by the digest of its bytes, and kept for as long as its release is pinned.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from blake3 import blake3

from pacstore.digest import Digest
from pacstore.directory_source import DirectorySource
from pacstore.durable import wrapped
from pacstore.errors import Corrupt, NotFound, PacballError, Refused, TooLarge
from pacstore.holding import holdings_of
from pacstore.limits import LIMITS, MIB
from pacstore.links import links_of
from pacstore.storage import DocumentKind, ObjectKind, document_path, object_path
from pacstore.volumes.expected import packs_named
from pacstore.volumes.exporting import plan_bundle, volume_pieces
from pacstore.volumes.volume import Volume

if TYPE_CHECKING:
    from pacstore.release import Release
    from pacstore.storage import Clock
    from pacstore.store import Store
    from pacstore.trust.targets import CatalogRelease

_HINT = "a bundle is what pacball export --without-packs writes"


@dataclass(frozen=True)
class Bundle:
    """The bundle `digest` of `length` bytes, of the release that `entry` describes; `packs`: all that it needs, with lengths."""

    digest: Digest
    length: int
    entry: CatalogRelease
    packs: Mapping[Digest, int]


def make_bundle(store: Store, release: Release, *, root: bytes, clock: Clock, fresh: bool = False) -> Bundle:
    """The bundle of a release of `store`, durable there when this returns. Pin the release first: others are collected.

    The newest that is there is returned, if the catalog still says the same of the release; unless `fresh`, which makes one of
    the catalog as it is now. `root` is trusted. Raises NotFound for a release that the catalog does not name, Refused for one
    that was withdrawn, Corrupt or Untrusted where the store is not right, Unavailable.
    """
    source = DirectorySource(store.path)
    plan, entry = plan_bundle(source, source, release, root=root, clock=clock)
    packs = packs_named(source, entry)
    found = None if fresh else _newest(store, entry)
    if found is not None:
        return Bundle(found, store.storage.size(ObjectKind.BUNDLE, found), entry, packs)
    hasher, length = blake3(), 0
    with store.storage.stage(ObjectKind.BUNDLE) as staged:
        for data in volume_pieces(plan, source, 1):
            staged.write(memoryview(data))
            hasher.update(data)
            length += len(data)
        digest = Digest(hasher.digest())
        staged.publish(digest)
    return Bundle(digest, length, entry, packs)


def open_bundle(path: Path) -> Volume:
    """The bundle in the file `path`, no member of which was looked at yet. Close it.

    Raises Refused for what is no bundle of one release, and what `Volume.open` raises.
    """
    volume = Volume.open(path)
    contents = volume.contents
    if len(contents.releases) != 1 or contents.since or len(contents.volumes) != 1 or contents.packs():
        volume.close()
        raise Refused("is an export, but no bundle of one release", place=str(path), hint=_HINT)
    return volume


def keep_bundle(store: Store, path: Path, digest: Digest) -> None:
    """Make the file `path` an object of `store`, durably, if it is the bundle `digest`. May be repeated.

    Nothing inside is compared with a catalog: that is for who takes it in. Raises Corrupt for other bytes, and as `open_bundle`.
    """
    with closing(open_bundle(path)) as volume:
        keep_volume(store, volume, digest)


def keep_volume(store: Store, volume: Volume, digest: Digest) -> None:
    """Like `keep_bundle`, of a bundle that is open."""
    hasher = blake3()
    with store.storage.stage(ObjectKind.BUNDLE) as staged:
        for data in volume.pieces():
            hasher.update(data)
            staged.write(data)
        if hasher.digest() != digest.raw:
            raise Corrupt(f"is not the bundle {digest}", place=volume.name, hint="fetch it again")
        staged.publish(digest)


def has_holdings(volume: Volume, entry: CatalogRelease) -> bool:
    """Whether a bundle is of the placement of `entry`; a provenance may have been attached since. Raises NotFound, Corrupt."""
    path = document_path(DocumentKind.HOLDINGS, str(entry.release))
    return volume.read(path, limit=LIMITS.holdings_bytes) == holdings_of(entry).encode()


def bundles_in(store: Store) -> Iterator[tuple[Digest, Release | None]]:
    """Every bundle that the store has, and of which release it is; None where it does not say so. Raises Unavailable."""
    for digest in store.storage.digests(ObjectKind.BUNDLE):
        release = None
        try:
            with closing(open_bundle(bundle_file(store, digest))) as volume:
                release = volume.contents.releases[0]
        except NotFound:
            continue
        except (Corrupt, Refused, TooLarge):
            pass
        yield digest, release


def bundle_file(store: Store, digest: Digest) -> Path:
    """The file of a bundle of `store`."""
    return store.public / object_path(ObjectKind.BUNDLE, digest)


def _newest(store: Store, entry: CatalogRelease) -> Digest | None:
    """The bundle with the newest catalog of those that have this very release, and whose bytes are what their name says."""
    found: list[tuple[int, Digest]] = []
    for digest, release in bundles_in(store):
        if release == entry.release:
            try:
                with closing(open_bundle(bundle_file(store, digest))) as volume:
                    if _is_of(volume, entry):
                        found.append((volume.contents.version, digest))
            except PacballError:
                continue
    whole = (digest for _, digest in sorted(found, reverse=True) if _is_whole(store, digest))
    return next(whole, None)


def _is_of(volume: Volume, entry: CatalogRelease) -> bool:
    shared = {piece.path for piece in volume.contents.shared}
    return has_holdings(volume, entry) and all(link.file in shared for link in links_of(entry))


def _is_whole(store: Store, digest: Digest) -> bool:
    hasher = blake3()
    with wrapped(bundle_file(store, digest)), open(bundle_file(store, digest), "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while data := file.read(4 * MIB):
            hasher.update(data)
    return hasher.digest() == digest.raw
