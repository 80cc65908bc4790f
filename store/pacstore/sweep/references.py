"""What a store's catalog, its waiting changes, its holdings and its pins refer to: all else may be collected.

References are only ever added while one object of this module lives, so that who looks again has at least what there was
before. What cannot be read is no reason to take anything for unused: it is in `unreadable`, and then no pack is judged at all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from pacstore.backends.directory import read_bounded
from pacstore.digest import DIGEST_BYTES, Digest
from pacstore.document import Column8, row_keys
from pacstore.errors import Corrupt, NewerFormat, NotFound, PacballError, Refused, TooLarge
from pacstore.holdings import Holdings
from pacstore.housekeeping import droppable_releases, retention_rules
from pacstore.limits import LIMITS
from pacstore.links import links_of
from pacstore.placement import packs_of, placement_name
from pacstore.release import Release
from pacstore.storage import DocumentKind, ObjectKind, document_path, object_path
from pacstore.trust.chain import in_one_state, load_head, newest_timestamp
from pacstore.trust.metadata import file_name
from pacstore.trust.repository import Catalog
from pacstore.trust.served import RECORD_BYTES, RECORD_NAME, decode_record
from pacstore.trust.targets import CatalogRelease
from pacstore.volumes.bundle import bundles_in

if TYPE_CHECKING:
    from pacstore.store import Store
    from pacstore.trust.chain import Head

_MERGED_ROWS = 1 << 16
_CATALOG = f"{DocumentKind.CATALOG.value}/"
_NEVER_COLLECTED = ("root", "timestamp")


class PackSet:
    """A set of packs in sorted rows of 32 bytes. Adding is cheap: what was added is merged in large steps."""

    def __init__(self) -> None:
        self._sorted = np.empty((0, DIGEST_BYTES), dtype=np.uint8)
        self._added: list[Column8] = []
        self._rows = 0

    def add(self, rows: Column8) -> None:
        """Add packs, in rows of 32 bytes."""
        self._added.append(rows.copy())
        self._rows += len(rows)
        if self._rows > max(_MERGED_ROWS, len(self._sorted)):
            self._merge()

    def add_one(self, pack: Digest) -> None:
        """Add one pack."""
        self.add(np.frombuffer(pack.raw, dtype=np.uint8).reshape(1, DIGEST_BYTES))

    def __contains__(self, pack: Digest) -> bool:
        self._merge()
        keys = row_keys(self._sorted)
        wanted = row_keys(np.frombuffer(pack.raw, dtype=np.uint8).reshape(1, DIGEST_BYTES))
        at = int(np.searchsorted(keys, wanted)[0])
        return at < len(keys) and bool(keys[at] == wanted[0])

    def __len__(self) -> int:
        self._merge()
        return len(self._sorted)

    def __iter__(self) -> Iterator[Digest]:
        self._merge()
        return (Digest(row.tobytes()) for row in self._sorted)

    def _merge(self) -> None:
        if self._added:
            rows = np.concatenate([self._sorted, *self._added])
            self._sorted = np.unique(row_keys(rows)).view(np.uint8).reshape(-1, DIGEST_BYTES)
            self._added, self._rows = [], 0


@dataclass
class References:
    """What is referred to. `packs`; `paths` of everything else, below the docroot; `unreadable`: why packs cannot be judged.

    `releases`: how many are kept; `dropped`: those of the catalog that are not, as they were withdrawn or have lapsed, and are
    not offered any more. `kept` are the former themselves, as the catalog has them now; `waiting` those that wait for signatures.
    `versions`: of each role of the catalog, the one in force.
    """

    packs: PackSet = field(default_factory=PackSet)
    paths: set[str] = field(default_factory=set)
    unreadable: dict[str, PacballError] = field(default_factory=dict)
    releases: int = 0
    dropped: set[Release] = field(default_factory=set)
    kept: list[CatalogRelease] = field(default_factory=list)
    waiting: list[CatalogRelease] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=dict)

    def has(self, path: str) -> bool:
        """Whether the object, document or link at `path` is referred to. Packs that cannot be judged are."""
        if path.startswith(f"{ObjectKind.PACK.value}/"):
            return bool(self.unreadable) or Digest.parse(path[-2 * DIGEST_BYTES :]) in self.packs
        return path in self.paths or (path.startswith(_CATALOG) and not self._is_old(path.removeprefix(_CATALOG)))

    def _is_old(self, name: str) -> bool:
        """Whether a file of the catalog is a version before the one in force: nothing will ever refer to it again.

        What is later may be a commit that is just being written, whether it was there when the catalog was read or not.
        """
        number, _, rest = name.partition(".")
        role = rest.removesuffix(".json")
        return role not in _NEVER_COLLECTED and number.isdecimal() and int(number) < self.versions.get(role, 0)


class ReferenceReader:
    """Reads what a store refers to, as often as it is asked; placements that were read once are not read again."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read: set[Digest] = set()
        self._seen: object = None
        self.found = References()

    def read(self, *, now: float, pinned: Iterable[str] = ()) -> References:
        """Add what is referred to now. `pinned`: releases and packs, as their names, that stay whatever else is said.

        While neither catalog, waiting changes, holdings nor pins have changed, this is done at once. Raises NotFound where there
        is no catalog, Corrupt, NewerFormat or Unavailable where one cannot be read: nothing can be said then.
        """
        storage, pins = self._store.storage, frozenset(pinned)
        # Looked at before they are read: what changes in between is read again.
        held = frozenset(storage.names(DocumentKind.HOLDINGS))
        bundles = frozenset(storage.digests(ObjectKind.BUNDLE)) if pins else None
        seen = (newest_timestamp(storage), self._changes(), held, pins, bundles)
        if seen != self._seen:
            self._read_all(held, pins, now)
            self._seen = seen
        return self.found

    def _changes(self) -> list[str]:
        with suppress(NotFound):
            return list(self._store.drafts.names(DocumentKind.CATALOG))
        return []

    @in_one_state
    def _read_all(self, held: frozenset[str], pins: frozenset[str], now: float) -> None:
        head = load_head(self._store.storage)
        releases = [entry for project in head.projects() for entry in head.releases(project)]
        known = {entry.release: entry.documents() for entry in releases}
        # All releases of a line of which something waits are among these; one that was dropped is not needed for that.
        proposed = Catalog.open(self._store.storage, self._store.drafts).waiting_releases()
        waiting = [entry for entry in proposed if known.get(entry.release) != entry.documents()]
        kept = list(self._kept(releases, held | pins, now))
        self.found.unreadable.clear()
        self.found.releases, self.found.kept, self.found.waiting = len(kept), kept, waiting
        self.found.dropped = {entry.release for entry in releases} - {entry.release for entry in kept}
        self._add_catalog(head)
        for entry in [*kept, *waiting]:
            self._add_release(entry)
        held_as = {entry.release: entry for entry in kept}
        for name in held:
            self._add_holdings(name, held_as)
        for name in pins:
            with suppress(Refused):
                self.found.packs.add_one(Digest.parse(name))
        for digest, release in bundles_in(self._store) if pins else ():
            # One that does not say of what it is, is damaged, and no reason to take it for unused.
            if release is None or str(release) in pins:
                self.found.paths.add(object_path(ObjectKind.BUNDLE, digest))

    def _kept(self, releases: list[CatalogRelease], named: Collection[str], now: float) -> Iterator[CatalogRelease]:
        """All releases but those that may be held no longer, and are not."""
        rules = retention_rules(self._store.storage)
        droppable: set[Release] = set()
        for _, line in groupby(releases, key=lambda entry: entry.release.project):
            droppable |= droppable_releases(line, rules, now=now, grace_seconds=0)
        return (entry for entry in releases if entry.release not in droppable or str(entry.release) in named)

    def _add_catalog(self, head: Head) -> None:
        """The state in force, and what the daemon served last."""
        versions = {role.removesuffix(".json"): meta.version for role, meta in head.snapshot.meta.items()}
        versions["snapshot"] = head.snapshot.version
        self.found.versions.update(versions)
        for role, version in self._served() | versions.items():
            self.found.paths.add(document_path(DocumentKind.CATALOG, file_name(role, version)))

    def _served(self) -> set[tuple[str, int]]:
        path = self._store.private / RECORD_NAME
        with suppress(NotFound, Corrupt, TooLarge, NewerFormat):
            state = decode_record(read_bounded(path, RECORD_BYTES), str(path))
            return {(role, one.version) for role, one in state.roles.items()}
        return set()

    def _add_release(self, entry: CatalogRelease) -> None:
        name = placement_name(entry.release, entry.placement_number)
        self.found.paths.update(
            [
                object_path(ObjectKind.MANIFEST, entry.manifest.digest),
                object_path(ObjectKind.ATTRIBUTES, entry.attributes.digest),
                document_path(DocumentKind.PLACEMENT, name),
                document_path(DocumentKind.HOLDINGS, str(entry.release)),
                *(link.path for link in links_of(entry)),
            ]
        )
        if entry.provenance is not None:
            self.found.paths.add(object_path(ObjectKind.PROVENANCE, entry.provenance.digest))
        try:
            self._add_packs(name, entry.placement.digest, entry.placement.length)
        except PacballError as error:
            self.found.unreadable[str(entry.release)] = error

    def _add_packs(self, name: str, digest: Digest, limit: int) -> None:
        if digest in self._read:
            return
        place = document_path(DocumentKind.PLACEMENT, name)
        data = self._store.storage.get(DocumentKind.PLACEMENT, name, limit=limit)
        if Digest.of(data) != digest:
            raise Corrupt("is not what the catalog says", place=place)
        self.found.packs.add(packs_of(data, place=place))
        self._read.add(digest)

    def _add_holdings(self, name: str, known: dict[Release, CatalogRelease]) -> None:
        """What is offered stays, also if the catalog names something else: a placement that is just being replaced.

        Of a release that is in no catalog the holdings themselves may go; what they name goes after them.
        """
        place = document_path(DocumentKind.HOLDINGS, name)
        try:
            data = self._store.storage.get(DocumentKind.HOLDINGS, name, limit=LIMITS.holdings_bytes)
            held = Holdings.parse(data, place=place)
            entry = known.get(held.release)
            if entry is not None and entry.placement.digest == held.placement_digest:
                return
            placement = placement_name(held.release, held.placement_number)
            self.found.paths |= {
                object_path(ObjectKind.MANIFEST, held.manifest_digest),
                object_path(ObjectKind.ATTRIBUTES, held.attributes_digest),
                document_path(DocumentKind.PLACEMENT, placement),
            }
            self._add_packs(placement, held.placement_digest, LIMITS.placement_bytes)
        except (NotFound, Corrupt, TooLarge):
            # Then it offers nothing: what the catalog names of the release is kept in any case.
            return
