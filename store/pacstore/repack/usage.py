"""Which frames of which packs are needed, and which packs must be left alone, by all placements that count."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from pacstore.digest import Digest
from pacstore.errors import Corrupt, NotFound, Refused
from pacstore.holding import is_held, packs_of, verify_whole
from pacstore.ledger.completion import record_moved
from pacstore.placement import FramesUsed, frames_of, placement_name
from pacstore.repack.plan import Frames, PackUse
from pacstore.storage import DocumentKind, ObjectKind, document_path
from pacstore.sweep.references import ReferenceReader
from pacstore.trust.repository import Catalog

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pacstore.document import Numbers
    from pacstore.ledger.pins import Pin
    from pacstore.store import Store
    from pacstore.trust.targets import CatalogRelease

_MERGED_ROWS = 1 << 20
_OFFSET_BITS = 32
"""A pack has at most 4 GiB."""


class Usage:
    """What releases need of the packs of a store, which are numbered as they are met.

    `movable`: the releases that may get another placement, the newest first, each with the numbers of its packs. `reasons`: why
    packs must be left alone, by number.
    """

    def __init__(self) -> None:
        self.packs: list[Digest] = []
        self.reasons: dict[int, str] = {}
        self.movable: list[tuple[CatalogRelease, Numbers]] = []
        self._numbers: dict[Digest, int] = {}
        self._parts: list[tuple[Numbers, Numbers, Numbers]] = []
        self._added = 0
        self._merged = 0

    def number_of(self, pack: Digest) -> int:
        """The number of a pack."""
        number = self._numbers.setdefault(pack, len(self.packs))
        if number == len(self.packs):
            self.packs.append(pack)
        return number

    def add(self, used: FramesUsed, *, newest: int, reason: str) -> Numbers:
        """Count the frames of a release, and say which packs it has; releases come from the newest to the oldest.

        With a `reason` its packs must be left alone.
        """
        numbers = np.array([self.number_of(Digest(row.tobytes())) for row in used.pack_ids], dtype=np.int64)
        if reason:
            for number in numbers.tolist():
                self.reasons.setdefault(number, reason)
        keys = (numbers[used.packs] << _OFFSET_BITS) | used.offsets.astype(np.int64)
        self._parts.append((keys, used.lengths.astype(np.int64), np.full(len(keys), newest, dtype=np.int64)))
        self._added += len(keys)
        if self._added > max(_MERGED_ROWS, self._merged):
            self._merge()
        return numbers

    def concerned(self, packs: Collection[int]) -> list[CatalogRelease]:
        """The releases that may get another placement, and have any of these packs."""
        wanted = np.fromiter(packs, dtype=np.int64)
        return [entry for entry, numbers in self.movable if np.isin(numbers, wanted).any()]

    def frames(self) -> Frames:
        """Every frame that is needed, once, by pack and offset."""
        self._merge()
        keys, lengths, newest = self._parts[0]
        return Frames(keys >> _OFFSET_BITS, keys & ((1 << _OFFSET_BITS) - 1), lengths, newest)

    def uses(self, store: Store) -> list[PackUse]:
        """How much of each pack is needed. Packs that are not here are left out."""
        frames = self.frames()
        live = np.bincount(frames.packs, weights=frames.lengths, minlength=len(self.packs)).astype(np.int64).tolist()
        uses = []
        for number, pack in enumerate(self.packs):
            with suppress(NotFound):
                length = store.storage.size(ObjectKind.PACK, pack)
                uses.append(PackUse(pack, length, live[number], self.reasons.get(number, "")))
        return uses

    def _merge(self) -> None:
        columns = zip(*self._parts, strict=True) if self._parts else ([np.empty(0, dtype=np.int64)],) * 3
        keys, lengths, newest = (np.concatenate(list(column)) for column in columns)
        # Of equal keys the first is taken: the newest release's.
        keys, first = np.unique(keys, return_index=True)
        self._parts = [(keys, lengths[first], newest[first])]
        self._added, self._merged = 0, len(keys)


def look(store: Store, pins: Sequence[Pin], *, now: float) -> Usage:
    """What the catalog's releases, and those that wait for signatures, need. Raises Corrupt where that cannot be read.

    Raises what `ReferenceReader.read` raises, too.
    """
    references = ReferenceReader(store).read(now=now, pinned=[pin.name for pin in pins])
    if references.unreadable:
        name, error = next(iter(references.unreadable.items()))
        hint = "restore it from a backup or a mirror, or withdraw the release and drop it"
        message = f"it cannot be read what {name} needs: {error.message}"
        raise Corrupt(message, place=error.place, hint=hint) from error
    usage = Usage()
    owners = {pin.name: pin.owner for pin in pins}
    held = frozenset(store.storage.names(DocumentKind.HOLDINGS))
    for pin in pins:
        with suppress(Refused):
            usage.reasons[usage.number_of(Digest.parse(pin.name))] = f"pinned by {pin.owner}"
    kept = sorted(references.kept, key=lambda entry: (-entry.published, entry.release))
    for newest, entry in enumerate(kept):
        reason = _reason(store, entry, owners, held)
        numbers = usage.add(_frames(store, entry), newest=newest, reason=reason)
        if not reason:
            usage.movable.append((entry, numbers))
    for entry in references.waiting:
        usage.add(_frames(store, entry), newest=0, reason=f"{entry.release} waits for signatures")
    return usage


def _reason(store: Store, entry: CatalogRelease, owners: dict[str, str], held: frozenset[str]) -> str:
    """Why the packs of a release must be left alone, if they must."""
    name = str(entry.release)
    if name in owners:
        return f"{name} is pinned by {owners[name]}"
    if name not in held or not is_held(store.storage, entry):
        return f"{name} is not held whole"
    return ""


def _frames(store: Store, entry: CatalogRelease) -> FramesUsed:
    name = placement_name(entry.release, entry.placement_number)
    place = document_path(DocumentKind.PLACEMENT, name)
    data = store.storage.get(DocumentKind.PLACEMENT, name, limit=entry.placement.length)
    if Digest.of(data) != entry.placement.digest:
        raise Corrupt("is not what the catalog says", place=place)
    return frames_of(data, place=place)


def settle(store: Store, *, now: float) -> None:
    """Let holdings say what the catalog says, where a repacking was interrupted between the two."""
    releases = Catalog.open(store.storage).releases()
    held = frozenset(store.storage.names(DocumentKind.HOLDINGS))
    for entry in releases:
        if str(entry.release) in held and not is_held(store.storage, entry):
            # What is not whole stays as it is, and its packs are left alone.
            with store.unswept(), suppress(NotFound, Corrupt):
                needed = packs_of(verify_whole(store.storage, entry))
                record_moved(store.ledger, store.storage, entry, needed, now=now)
