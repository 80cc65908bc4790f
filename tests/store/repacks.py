"""A store whose packs are mostly dead, and repacking it."""

from __future__ import annotations

from pathlib import Path

from pacstore.limits import KIB
from pacstore.progress import Progress, Silent
from pacstore.repack.repacking import RepackOptions, RepackReport, preview, repack
from pacstore.storage import ObjectKind
from pacstore.store import Store
from pacstore.trust.repository import Catalog
from tests.store.releases import NOW, SMALL, noise, write
from tests.store.sweeping import DAY, Releases, drop, gc, withdraw

FIRST, SECOND, THIRD, FOURTH = (f"Demo-1.{number}-x" for number in range(4))
PARTS = {FIRST: "abcdefghij", SECOND: "aejk", THIRD: "ajkl", FOURTH: "abcm"}
"""Files of a frame each. After FIRST is dropped, a, e and j are alive in its three packs; FOURTH has more that was dead then."""
HALF = RepackOptions(0.5, SMALL)


def make_parts(top: Path) -> Releases:
    """An origin, to which nothing was published yet, with the trees of PARTS."""
    made = Releases(top)
    for name, parts in PARTS.items():
        made.trees[name] = made.top / "trees" / name
        for part in parts:
            write(made.trees[name] / part, noise(part, 130 * KIB))
    return made


def make_worn(top: Path) -> Releases:
    """An origin with SECOND and THIRD, which need little of the packs of FIRST, which was dropped."""
    made = make_parts(top)
    for name in (FIRST, SECOND, THIRD):
        made.publish(name)
    withdraw(made.origin, FIRST)
    drop(made.origin, now=NOW + DAY)
    gc(made.store, now=NOW + DAY)
    made.trees = {name: tree for name, tree in made.trees.items() if name != FIRST}
    return made


def do_repack(
    releases: Releases, *, store: Store | None = None, options: RepackOptions = HALF, now: float = NOW + DAY,
    progress: Progress | None = None,
) -> RepackReport:  # fmt: skip
    store = store or releases.store
    catalog = Catalog.open(store.storage, store.drafts)
    return repack(store, catalog, keys=releases.origin.keys, options=options, progress=progress or Silent(),
                  now=lambda: now)  # fmt: skip


def try_repack(releases: Releases, *, options: RepackOptions = HALF) -> RepackReport:
    with Store.open(releases.store.path, writable=False) as store:
        return preview(store, now=NOW + DAY, options=options)


def bytes_of_packs(releases: Releases) -> int:
    storage = releases.store.storage
    return sum(storage.size(ObjectKind.PACK, pack) for pack in storage.digests(ObjectKind.PACK))


def needed_bytes(*names: str) -> int:
    """What a store with nothing but the files of these releases, each once, would need at least."""
    return 130 * KIB * len(set("".join(PARTS[name] for name in names)))
