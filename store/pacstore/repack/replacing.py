"""Giving releases placements that name the new packs: made, confirmed, stored, then committed for many releases at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pacstore.documents import read_manifest, read_placement
from pacstore.errors import Corrupt, NotFound, TooLarge
from pacstore.frames import FramePlace
from pacstore.holding import packs_of
from pacstore.ledger.completion import record_moved
from pacstore.links import links_of
from pacstore.pack import Frame
from pacstore.placing import create_placement, make_placement
from pacstore.readback import Damage
from pacstore.trust.targets import SignedDocument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from pacstore.digest import Digest
    from pacstore.document import Numbers
    from pacstore.manifest import Manifest
    from pacstore.placement import Placement
    from pacstore.store import Store
    from pacstore.trust.keyring import KeyRing
    from pacstore.trust.repository import Catalog
    from pacstore.trust.targets import CatalogRelease

_BATCH = 64
_BATCH_BYTES = 256 << 20
"""Releases, and bytes of their documents, that are committed at once: each commit writes the placements of whole lines anew."""


@dataclass(frozen=True, eq=False)
class Moves:
    """Where frames are now: that at `offsets[f]` of pack `packs[f]` (numbers of `ids`) is in `places[to[f]]` at `new_offsets[f]`.

    Rows are sorted by pack and offset. `places`: packs with their lengths in bytes.
    """

    ids: Mapping[Digest, int]
    packs: Numbers
    offsets: Numbers
    places: Sequence[tuple[Digest, int]]
    to: Numbers
    new_offsets: Numbers

    def places_of(self, placement: Placement) -> tuple[list[FramePlace], Numbers] | None:
        """The frames of a placement where they are now, each place once, and the number there of each; None if none has moved."""
        numbers = np.array(
            [self.ids.get(placement.pack(n), -1) for n in range(len(placement.pack_ids))], dtype=np.int64
        )
        packs, offsets = numbers[placement.frame_packs], placement.frame_offsets.astype(np.int64)
        rows = _rows(self.packs, self.offsets, packs, offsets)
        to = np.where(rows >= 0, self.to[rows], -1) if len(self.to) else np.full(len(rows), -1)
        if not (to >= 0).any():
            return None
        places: dict[tuple[Digest, int], FramePlace] = {}
        found = np.empty(placement.frames, dtype=np.int64)
        for number in range(placement.frames):
            if to[number] >= 0:
                (pack, length), offset = self.places[to[number]], int(self.new_offsets[rows[number]])
            else:
                old = int(placement.frame_packs[number])
                pack, length, offset = placement.pack(old), int(placement.pack_lengths[old]), int(offsets[number])
            frame = _frame(placement, number, offset)
            found[number] = places.setdefault((pack, offset), FramePlace(len(places), pack, length, frame)).number
        return list(places.values()), found


def _rows(packs: Numbers, offsets: Numbers, wanted_packs: Numbers, wanted_offsets: Numbers) -> Numbers:
    """The row of each wanted pair in the sorted pairs (packs, offsets); -1 where it is not among them."""
    if not len(packs):
        return np.full(len(wanted_packs), -1, dtype=np.int64)
    keys, wanted = (packs << 32) | offsets, (wanted_packs << 32) | wanted_offsets
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where((keys[at] == wanted) & (wanted_packs >= 0), at, -1)


def _frame(placement: Placement, number: int, offset: int) -> Frame:
    return Frame(
        number,
        int(placement.frame_kinds[number]),
        offset,
        int(placement.frame_lengths[number]),
        int(placement.frame_plain_lengths[number]),
        placement.frame_digests[number].tobytes(),
    )


@dataclass(frozen=True)
class _Made:
    """A release as the catalog has it, and as it will have it, with its packs then and their lengths."""

    before: CatalogRelease
    later: CatalogRelease
    packs: dict[Digest, int]


class Replacer:
    """Commits new placements in the catalog of `store`; see `replace`. `done`: how many; `failed`: why others could not get one.

    `passed`: how many releases were passed over.
    """

    def __init__(
        self, store: Store, catalog: Catalog, keys: KeyRing, moves: Moves, *, now: Callable[[], float]
    ) -> None:
        self.done = 0
        self.passed = 0
        self.failed: list[Damage] = []
        self._store = store
        self._catalog = catalog
        self._keys = keys
        self._moves = moves
        self._now = now

    def replace(self, releases: Iterable[CatalogRelease]) -> None:
        """Give these releases new placements, where frames of theirs have moved; each commit is durable, and whole.

        Passed over are those that have got another placement meanwhile, or are held no longer. One whose new placement is not
        confirmed by its packs keeps the old one. Raises what commits raise.
        """
        for batch in _batches(releases):
            # From when packs are looked at until the catalog refers to them.
            with self._store.unswept():
                made = [one for one in map(self._try, batch) if one is not None]
                if made:
                    self._commit(made)

    def _try(self, entry: CatalogRelease) -> _Made | None:
        try:
            return self._make(entry)
        except (Corrupt, NotFound, TooLarge) as error:
            self.failed.append(Damage(str(entry.release), str(error)))
            return None

    def _make(self, entry: CatalogRelease) -> _Made | None:
        storage = self._store.storage
        manifest = read_manifest(storage, entry)
        placement = read_placement(storage, entry, manifest)
        found = self._moves.places_of(placement)
        if found is None:
            return None
        made, data = create_placement(
            storage, manifest, _maker(placement, manifest, *found), first=entry.placement_number + 1
        )
        later = replace(entry, placement=SignedDocument.of_all([data]), placement_number=made.number)
        storage.link(links_of(later))
        return _Made(entry, later, packs_of(made))

    def _commit(self, made: list[_Made]) -> None:
        with self._store.catalog_lock():
            now = {entry.release: entry for entry in self._catalog.releases()}
            fit = [one for one in made if _is_as_before(now.get(one.before.release), one.before)]
            self.passed += len(made) - len(fit)
            if not fit:
                return
            wanted = {one.later.release: (one.later.placement, one.later.placement_number) for one in fit}
            self._catalog.replace_placements(wanted, self._keys, now=self._now())
            # The catalog first: if this ends here, the old placement is still whole, and so are the holdings that name it.
            for one in fit:
                self._hold(one)

    def _hold(self, one: _Made) -> None:
        try:
            held = record_moved(self._store.ledger, self._store.storage, one.later, one.packs, now=self._now())
        except Corrupt as error:
            # One of its other packs was found to be damaged just now.
            self.failed.append(Damage(str(one.later.release), str(error)))
            return
        self.done, self.passed = self.done + held, self.passed + (not held)


def _maker(
    placement: Placement, manifest: Manifest, places: list[FramePlace], numbers: Numbers
) -> Callable[[int], Placement]:
    frames = numbers[placement.chunk_frames]
    offsets = placement.chunk_offsets.astype(np.int64)
    return lambda number: make_placement(placement.release, number, manifest, frames, offsets, places)


def _is_as_before(now: CatalogRelease | None, before: CatalogRelease) -> bool:
    return now is not None and now.documents()[:3] == before.documents()[:3]


def _batches(releases: Iterable[CatalogRelease]) -> Iterator[list[CatalogRelease]]:
    batch: list[CatalogRelease] = []
    size = 0
    for entry in releases:
        batch.append(entry)
        size += entry.manifest.length + entry.placement.length
        if len(batch) >= _BATCH or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
