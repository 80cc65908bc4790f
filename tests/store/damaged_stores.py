"""Stores that are damaged in all ways, beside a sound copy that may be a source, and what heals them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path

from pacstore.check import catalog_releases
from pacstore.damage import DamagedPart
from pacstore.pack import Table, read_table
from pacstore.progress import Silent
from pacstore.repair.givers import find_givers
from pacstore.repair.healing import Healed, Healer
from pacstore.repair.usage import Usage
from pacstore.rereading import Position, Step
from pacstore.scrub import Scrub
from pacstore.storage import DocumentKind, ObjectKind, object_path
from pacstore.store import Store
from tests.store.releases import NAME, NEXT, NOW, Origin, make_tree

START = Position()


def publish_two(top: Path) -> Origin:
    """A store with two releases, whose trees are `top`/1 and `top`/2; tests change copies of it."""
    origin = Origin.make(top / "origin")
    for version, name in (("1", NAME), ("2", NEXT)):
        origin.publish(make_tree(top / version, version=version, kib=700), name)
    origin.store.close()
    return origin


def copy_store(path: Path, to: Path) -> Path:
    """A copy in which what was one file with two names is one again."""
    subprocess.run(["cp", "-a", path, to], check=True)
    return to


def scrub(store: Store, position: Position = START, *, expected: Sequence[object] = ()) -> list[Step]:
    """The steps of a pass from `position` on."""
    with closing(Scrub(store, catalog_releases(store), expected=lambda: expected)) as scrub:
        return list(scrub.steps(position))


def found(steps: Sequence[Step]) -> list[DamagedPart]:
    """All damage, each part once."""
    return sorted({part for step in steps for part in step.damage})


def damage(store: Store) -> list[DamagedPart]:
    """What is wrong with a store, all releases of which should be held."""
    return found(scrub(store, expected=[entry.release for entry in catalog_releases(store)]))


def packs(store: Store) -> list[str]:
    """The public paths of all packs."""
    return [object_path(ObjectKind.PACK, pack) for pack in store.storage.digests(ObjectKind.PACK)]


def largest(store: Store) -> str:
    """The public path of the largest pack."""
    return max(packs(store), key=lambda path: (store.public / path).stat().st_size)


def held(store: Store) -> list[str]:
    """The releases that the store says to hold."""
    return sorted(store.storage.names(DocumentKind.HOLDINGS))


def table_of(store: Store, path: str) -> Table:
    with open(store.public / path, "rb") as file:
        return read_table(file, place=path)


def frames(store: Store, path: str) -> list[tuple[int, int]]:
    """Offset and end of every frame."""
    offsets = table_of(store, path).offsets.tolist()
    return list(pairwise(offsets))


@contextmanager
def healer(store: Store, *, sources: Sequence[Path] = (), trees: Sequence[Path] = ()) -> Iterator[Healer]:
    """What heals `store` from other stores and from trees."""
    usage = Usage(store, catalog_releases(store))
    givers = find_givers([], [*sources, *trees], usage)
    with closing(Healer(store, usage, givers, progress=Silent())) as made:
        yield made


def heal(store: Store, *, sources: Sequence[Path] = (), trees: Sequence[Path] = (), now: float = NOW) -> list[Healed]:
    """Scrub a store, record what is found, heal it, and offer again what is whole."""
    with healer(store, sources=sources, trees=trees) as made:
        made.record(damage(store), now=now)
        done = [healed for path in made.damaged_paths() if (healed := made.heal(path, now=now)) is not None]
        made.restore(now=now)
    return done
