"""Judging: whether volumes may be taken into a store, found out before anything in it changes.

Signatures from a root that is trusted; no step backward behind what the store has, or has served; every byte of the volumes
what it must be; and, of what the releases need beside that, everything here, or to come from others. Each volume has the
catalog and the documents, so each is judged alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tuf.api.metadata import Snapshot

from pacstore.backends.directory import read_bounded
from pacstore.durable import wrapped
from pacstore.errors import Corrupt, NotFound, Refused, TooLarge, Untrusted, printable
from pacstore.holding import has_pack, packs_of
from pacstore.install.documents import fetch_documents, fetch_placement
from pacstore.storage import STORE_MARKER, Clock, DocumentKind
from pacstore.store import Store, check_free
from pacstore.trust.listing import Listing, list_releases
from pacstore.trust.metadata import FIRST_ROOT_NAME, METADATA_LIMITS, TIMESTAMP_NAME
from pacstore.trust.pins import fingerprint
from pacstore.trust.replica import Replica
from pacstore.trust.served import RECORD_BYTES, RECORD_NAME, ServedState, Verifier, decode_record
from pacstore.volumes.contents import Piece
from pacstore.volumes.expected import CatalogCopy, Expected, copy_catalog

if TYPE_CHECKING:
    from pacstore.digest import Digest
    from pacstore.progress import Progress
    from pacstore.release import Release
    from pacstore.trust.targets import CatalogRelease
    from pacstore.volumes.volume import Volume

_AGAIN = "copy it again from where it was made"
_OTHER = "import it into a store of its own: --to another directory"
_NEWER = "export again, from where there is a newer one"
_SHOWN = 5
_SNAPSHOT = re.compile(rf"([1-9][0-9]{{0,18}})\.{Snapshot.type}\.json\Z")


@dataclass(frozen=True)
class Judged:
    """Volumes that may be taken in: their verified `catalog`, the releases in them, and the packs, with lengths, of each.

    `others`: what is in no volume may come from elsewhere. `newer`: the store has a newer catalog, and these are its entries.
    """

    catalog: CatalogCopy
    expected: Expected
    entries: Sequence[CatalogRelease]
    needed: Mapping[Release, Mapping[Digest, int]]
    others: bool = False
    newer: Sequence[CatalogRelease] | None = None

    @cached_property
    def packs(self) -> dict[Digest, int]:
        """All packs of the releases."""
        return {pack: length for packs in self.needed.values() for pack, length in packs.items()}


class Superseded(Refused):
    """The store has a newer catalog, which names other packs for a release than the volumes do."""


def open_target(path: Path) -> Store | None:
    """The store that is to take volumes in; None if it is to be made. Nothing is changed.

    Raises Refused where something else is, or a store to which releases are published; and what `Store.open` raises.
    """
    if not (path / "public" / STORE_MARKER).exists():
        with wrapped(path):
            check_free(path)
        return None
    store = Store.open(path, writable=True)
    if not store.is_mirror and (store.keys_dir is not None or _has_catalog(store)):
        message = "is no mirror: releases are published to it, and its catalog is signed here"
        raise Refused(message, place=str(path), hint="import into a store of its own: --to another directory")
    return store


def first_root(store: Store) -> bytes | None:
    """The first root in the store, which was believed when it came; None if there is none."""
    with suppress(NotFound):
        return store.storage.get(DocumentKind.CATALOG, FIRST_ROOT_NAME, limit=METADATA_LIMITS.root_bytes)
    return None


def judge(
    volumes: Sequence[Volume],
    store: Store | None,
    *,
    root: bytes,
    clock: Clock,
    progress: Progress,
    others: bool = False,
) -> Judged:
    """Find out whether `volumes` may be taken into `store`, or a new one. `root` is trusted.

    Raises Untrusted for another catalog, for signatures that do not suffice and for a step backward; Corrupt for what is not
    what it must be; Refused for volumes of several exports, for withdrawn releases, and where packs are missing that are in no
    volume; Unavailable. With `others` these packs may come from elsewhere; and where the store has a newer catalog, that is
    what counts: Superseded is raised if it names other packs for a release.
    """
    first, contents = volumes[0], volumes[0].contents
    for volume in volumes[1:]:
        if volume.contents.id != contents.id:
            raise Refused(
                f"is of another export than {first.name}", place=volume.name, hint="import one after the other"
            )
    _check_same_catalog(first, store)
    catalog = copy_catalog(first, root=root, clock=clock)
    if (contents.root, contents.version) != (catalog.root, catalog.state.version):
        raise Corrupt("says that it has another catalog than it has", place=first.name, hint=_AGAIN)
    newer = newer_state(store, catalog, clock) if others and store is not None else None
    if store is not None and newer is None:
        _check_forward(first, catalog, store, clock)
    entries = list(_entries(first, catalog))
    expected = Expected.of(catalog, entries)
    needed = {entry.release: _needed(first, entry) for entry in entries}
    instead = newer_entries(store, newer, entries) if store is not None and newer is not None else None
    judged = Judged(catalog, expected, entries, needed, others, instead)
    _check_members(first, judged)
    if not others:
        _check_base(first, judged, store)
    progress.begin("checking", sum(place.length for volume in volumes for place in volume.places))
    for volume in volumes:
        _check_volume(volume, judged, store, progress)
    return judged


def newer_state(store: Store, catalog: CatalogCopy, clock: Clock) -> ServedState | None:
    """What the store has of the catalog, verified, if that is newer than `catalog`."""
    held = Replica(store.storage, pinned=None, clock=clock).load()
    return held if held is not None and held.version > catalog.state.version else None


def newer_entries(store: Store, state: ServedState, entries: Sequence[CatalogRelease]) -> list[CatalogRelease]:
    """What the catalog of the store says of these releases. Raises Superseded; Refused for one that it offers no more."""
    named = list_releases(store.storage, state, Listing()).releases
    where = f"the catalog of {store.path}, which is newer (version {state.version}),"
    found = []
    for entry in entries:
        now = named.get(entry.release)
        if now is None:
            raise Refused(f"{where} does not name it", place=str(entry.release), hint="leave it; nobody can install it")
        if now.withdrawal is not None:
            message = f"was withdrawn: {printable(now.withdrawal.reason)}"
            raise Refused(message, place=str(entry.release), hint="leave it; mirrors cease to hold such releases")
        if (now.manifest, now.attributes, now.placement) != (entry.manifest, entry.attributes, entry.placement):
            raise Superseded(
                f"{where} names other packs for it", place=str(entry.release), hint="take a newer bundle of it"
            )
        found.append(now)
    return found


def served_floor(store: Store) -> Iterator[ServedState]:
    """What a daemon has served from the store, if one has."""
    with suppress(NotFound, Corrupt, TooLarge):
        yield decode_record(read_bounded(store.private / RECORD_NAME, RECORD_BYTES), RECORD_NAME)


def _has_catalog(store: Store) -> bool:
    with suppress(NotFound):
        return bool(store.storage.get(DocumentKind.CATALOG, TIMESTAMP_NAME, limit=METADATA_LIMITS.timestamp_bytes))
    return False


def _check_same_catalog(volume: Volume, store: Store | None) -> None:
    here = first_root(store) if store is not None else None
    if here is not None and fingerprint(here) != volume.contents.root.hex:
        message = f"is of another catalog than {store.path if store else ''}: its first root has the fingerprint "
        message += f"{volume.contents.root.hex}, and the store's {fingerprint(here)}"
        raise Untrusted(message, place=volume.name, hint=_OTHER)


def _check_forward(volume: Volume, catalog: CatalogCopy, store: Store, clock: Clock) -> None:
    held = Replica(store.storage, pinned=None, clock=clock).load()
    floors = [*([held] if held is not None else []), *served_floor(store)]
    try:
        Verifier(catalog.storage).verify(catalog.state.timestamp, floors=floors)
    except Untrusted as error:
        newest = max(floor.version for floor in floors)
        message = f"has version {catalog.state.version} of the catalog, and {store.path} had version {newest}: {error.message}"
        raise Untrusted(message, place=volume.name, hint=_NEWER) from error
    snapshot, newest = catalog.state.roles[Snapshot.type].version, _newest_snapshot(store)
    if held is None and snapshot < newest:
        here = f"{store.path}, whose {TIMESTAMP_NAME} is damaged or gone"
        message = f"has snapshot {snapshot} of the catalog, and {here}, has {newest}"
        raise Untrusted(message, place=volume.name, hint=_NEWER)


def _newest_snapshot(store: Store) -> int:
    """The highest version of a snapshot in the store, 0 if it has none: where no state verifies, it tells how far that was."""
    found = map(_SNAPSHOT.match, store.storage.names(DocumentKind.CATALOG))
    return max((int(one[1]) for one in found if one), default=0)


def _entries(volume: Volume, catalog: CatalogCopy) -> Iterator[CatalogRelease]:
    for release in volume.contents.releases:
        entry = catalog.releases.get(release)
        if entry is None:
            raise Corrupt(f"its catalog does not name {release}", place=volume.name, hint=_AGAIN)
        if entry.withdrawal is not None:
            raise Refused("was withdrawn", place=str(release), hint="export again without it")
        yield entry


def _needed(volume: Volume, entry: CatalogRelease) -> dict[Digest, int]:
    with _unaltered(volume):
        documents = fetch_documents(volume, entry)
        return packs_of(fetch_placement(volume, entry, documents.manifest))


def _check_members(volume: Volume, judged: Judged) -> None:
    """Exactly those members are there that the catalog tells of."""
    contents, packs = volume.contents, judged.packs
    own = [piece for pieces in contents.volumes for piece in pieces]
    others = tuple(piece for piece in contents.volumes[-1] if piece.pack is None)
    is_right = (
        contents.shared == judged.expected.shared()
        and others == judged.expected.last()
        and len(own) == len(others) + len(contents.packs())
        and all(packs.get(piece.pack) == piece.length for piece in own if piece.pack is not None)
    )
    if not is_right:
        message = "has other members than its catalog and its releases make"
        raise Corrupt(message, place=volume.name, hint=_AGAIN)


def _check_base(volume: Volume, judged: Judged, store: Store | None) -> None:
    brought = volume.contents.packs()
    missing = {
        pack: length
        for pack, length in judged.packs.items()
        if pack not in brought and not (store is not None and has_pack(store.storage, pack, length))
    }
    if not missing:
        return
    since = volume.contents.since
    names = ", ".join(map(str, since[:_SHOWN])) + (f" and {len(since) - _SHOWN} more" if len(since) > _SHOWN else "")
    where = store.path if store is not None else "the new store"
    lacks = f"{where} lacks {len(missing)} packs of {sum(missing.values()):,} bytes"
    if not since:
        hint = "say where packs are to be had: --from SOURCE"
        raise Refused(f"brings not all packs, and {lacks}", place=volume.name, hint=hint)
    message = f"was made for a side that holds {names}, and {lacks} that its releases share with them"
    hint = "import those releases first, with the packs that they have now; or export again without --since; or give --from"
    raise Refused(message, place=volume.name, hint=hint)


def _check_volume(volume: Volume, judged: Judged, store: Store | None, progress: Progress) -> None:
    for place in volume.places[1:]:
        piece = Piece(place.path, place.length)
        pack = piece.pack
        if pack is not None and store is not None and has_pack(store.storage, pack, piece.length):
            progress.advance(piece.length)
            continue
        with _unaltered(volume):
            judged.expected.check(volume, piece, progress)


@contextmanager
def _unaltered(volume: Volume) -> Iterator[None]:
    """What is not right inside is the volume's fault."""
    try:
        yield
    except (Corrupt, TooLarge) as error:
        place = error.place.removeprefix(volume.name).lstrip(":/ ")
        message = f"was altered: {place}: {error.message}"
        raise Corrupt(message, place=volume.name, hint=_AGAIN) from error
    except NotFound as error:
        raise Corrupt(f"lacks {error.place}", place=volume.name, hint=_AGAIN) from error
