"""Repacking the packs of an origin that are mostly dead, beside publishers, readers, collections and scrubs.

1. *Look*: which frames the placements of all releases need, and so which packs are mostly dead (`usage`, `plan`).
2. *Copy*: what is alive in them goes into new packs, compressed as it is, verified, durable, and into the index, whose chunks are
   found there from now on (`copying`). Nothing refers to these packs yet; a lease keeps them.
3. *Commit*: releases get new placements, the next number each, signed by the online key; then their holdings (`replacing`).
4. *Mark*: old packs and placements that nothing refers to any more are marked for the collection, whose grace begins: until its
   end clients and mirrors with an older placement find what that names.

Killed anywhere, every release is whole, by its old placement or by the new one. The next call finds the frames that were copied
already through the index, and goes on; what it has no use for is collected.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np

from pacstore.errors import Refused
from pacstore.ledger import marks, pins
from pacstore.limits import PackSizes
from pacstore.locks import locked
from pacstore.placement import placement_name
from pacstore.repack.copying import Copier
from pacstore.repack.plan import LIVE_SHARE, Frames, PackUse, cut, mostly_dead
from pacstore.repack.replacing import Moves, Replacer
from pacstore.repack.usage import Usage, look, settle
from pacstore.storage import DocumentKind, ObjectKind, document_path, object_path
from pacstore.sweep.references import ReferenceReader

if TYPE_CHECKING:
    from pacstore.digest import Digest
    from pacstore.ledger.pins import Pin
    from pacstore.progress import Progress
    from pacstore.readback import Damage
    from pacstore.storage import Clock
    from pacstore.store import Store
    from pacstore.trust.keyring import KeyRing
    from pacstore.trust.repository import Catalog
    from pacstore.trust.targets import CatalogRelease

_LOCK_NAME = "repack.lock"


@dataclass(frozen=True)
class RepackOptions:
    """`live_share`: packs are repacked of which at most this share of the bytes is alive; `sizes` of the new ones."""

    live_share: float = LIVE_SHARE
    sizes: PackSizes = field(default_factory=PackSizes)


@dataclass
class RepackReport:
    """What was done, or, in a trial, would be. Bytes are those of compressed frames and of packs.

    `packs` were looked at. `repacked` are old packs that were (`old_bytes` long, `live_bytes` of them needed), `left` those that
    are mostly dead and must stay. Of what is needed `found_bytes` were in other packs already; the rest went into `new_packs`
    with `new_bytes`. `placements` were signed; `passed` releases got none, since others changed or dropped them meanwhile.
    `failed`: what is not right and keeps its packs.
    """

    packs: int = 0
    repacked: list[PackUse] = field(default_factory=list)
    left: list[PackUse] = field(default_factory=list)
    old_bytes: int = 0
    live_bytes: int = 0
    found_bytes: int = 0
    new_packs: int = 0
    new_bytes: int = 0
    placements: int = 0
    passed: int = 0
    failed: list[Damage] = field(default_factory=list)

    @property
    def won_bytes(self) -> int:
        """What the store will be smaller by, once the old packs are collected."""
        return self.old_bytes - self.new_bytes


def preview(store: Store, *, now: float, options: RepackOptions) -> RepackReport:
    """What `repack` would do; nothing is written. Raises what that raises."""
    _check_origin(store)
    with _Work(store, _pins(store, now) if store.has_ledger else [], options, now) as work:
        work.plan(None)
        return work.estimate()


def repack(
    store: Store, catalog: Catalog, *, keys: KeyRing, options: RepackOptions, progress: Progress, now: Clock
) -> RepackReport:
    """Repack what is mostly dead in `store`. When this returns, releases have their new placements, durably.

    Raises Refused in a mirror, and without the online key; Corrupt where it cannot be read what a release needs; Unavailable if
    the disk fails or is full, or while another process does the same: nothing is lost then, and the next call goes on.
    """
    _check_origin(store)
    catalog.check_online(keys)
    lock = store.state_dir / _LOCK_NAME
    with locked(lock, shared=False, wait_seconds=0, busy="another repacking is at work", pause=store.pause):
        store.drop_stale_staging(now())
        settle(store, now=now())
        # What is found in the index, and what is stored, is not deleted before this ends.
        with store.lease(), _Work(store, _pins(store, now()), options, now()) as work:
            work.plan(progress)
            work.copy(progress)
            replacer = Replacer(store, catalog, keys, work.moves(), now=now)
            old = work.concerned()
            replacer.replace(old)
            report = work.report(replacer)
        _mark(store, [use.pack for use in report.repacked], old, now=now())
    return report


def _check_origin(store: Store) -> None:
    if store.is_mirror:
        hint = "repack at the origin: its mirrors follow the new placements"
        raise Refused("is a mirror, which passes on packs and placements as its upstream has them", place=str(store.path),
                      hint=hint)  # fmt: skip


def _pins(store: Store, now: float) -> list[Pin]:
    with store.ledger.reading() as connection:
        return pins.listed(connection, now=now)


class _Work:
    """One repacking: what it found, and what it moves."""

    def __init__(self, store: Store, pinned: list[Pin], options: RepackOptions, now: float) -> None:
        self._options = options
        self._usage: Usage = look(store, pinned, now=now)
        uses = self._usage.uses(store)
        self._packs = len(uses)
        self._chosen, self._left = mostly_dead(uses, options.live_share)
        frames = self._usage.frames()
        numbers = [self._usage.number_of(use.pack) for use in self._chosen]
        self._frames: Frames = frames.take(np.flatnonzero(np.isin(frames.packs, numbers))).ordered()
        self._copier = Copier(store.storage, store.index, self._usage.packs, self._frames)
        self._cuts: list[list[int]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._copier.packs.close()

    def plan(self, progress: Progress | None) -> None:
        """Say which frame goes into which new pack. With `progress`, frames that are elsewhere already are read."""
        counts = self._copier.chunk_counts()
        if progress is not None:
            progress.begin("repacking", int(self._frames.lengths.sum()))
        self._copier.find(progress)
        rows = np.flatnonzero((self._copier.to < 0) & (counts > 0))
        self._cuts = [
            rows[part.start : part.stop].tolist()
            for part in cut(self._frames.lengths[rows], counts[rows], self._options.sizes)
        ]

    def copy(self, progress: Progress) -> None:
        """Store the new packs."""
        for rows in self._cuts:
            self._copier.store(rows, progress)

    def concerned(self) -> list[CatalogRelease]:
        """The releases that have any of the packs to be repacked."""
        return self._usage.concerned([self._usage.number_of(use.pack) for use in self._repacked()])

    def moves(self) -> Moves:
        """Where the frames of packs that can go are now."""
        frames, copier = self._frames, self._copier
        order = np.lexsort((frames.offsets, frames.packs))
        order = order[~np.isin(frames.packs[order], list(copier.damage))]
        numbers = {use.pack: self._usage.number_of(use.pack) for use in self._chosen}
        return Moves(numbers, frames.packs[order], frames.offsets[order], copier.places, copier.to[order],
                     copier.offsets[order])  # fmt: skip

    def estimate(self) -> RepackReport:
        """What would be done."""
        report = self._begin()
        report.new_packs = len(self._cuts)
        report.new_bytes = report.live_bytes - report.found_bytes
        report.placements = len(self.concerned())
        return report

    def report(self, replacer: Replacer) -> RepackReport:
        """What was done."""
        report = self._begin()
        report.new_packs, report.new_bytes = self._copier.new_packs, self._copier.new_bytes
        report.placements, report.passed = replacer.done, replacer.passed
        report.failed += replacer.failed
        return report

    def _begin(self) -> RepackReport:
        repacked = self._repacked()
        live = sum(use.live_bytes for use in repacked)
        copied = np.concatenate(
            [np.asarray(rows, dtype=np.int64) for rows in self._cuts] or [np.empty(0, dtype=np.int64)]
        )
        return RepackReport(
            packs=self._packs,
            repacked=repacked,
            left=self._left,
            old_bytes=sum(use.length for use in repacked),
            live_bytes=live,
            found_bytes=max(live - int(self._frames.lengths[copied].sum()), 0),
            failed=list(self._copier.damage.values()),
        )

    def _repacked(self) -> list[PackUse]:
        return [use for use in self._chosen if self._usage.number_of(use.pack) not in self._copier.damage]


def _mark(store: Store, packs: list[Digest], old: list[CatalogRelease], *, now: float) -> None:
    """Begin the grace of those of these packs, and of these releases' placements, that nothing refers to any more."""
    references = ReferenceReader(store).read(now=now, pinned=[pin.name for pin in _pins(store, now)])
    paths = [object_path(ObjectKind.PACK, pack) for pack in packs]
    paths += [document_path(DocumentKind.PLACEMENT, placement_name(e.release, e.placement_number)) for e in old]
    sizes = {}
    for path in paths:
        with suppress(OSError):
            if not references.has(path):
                sizes[path] = (store.public / path).stat().st_size
    with store.ledger.writing() as connection:
        marks.mark(connection, sizes, now=now)
