"""The repair of a whole store at once, by hand: what a check found, what its ledger knows, and what releases lack."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pacstore.damage import WHOLE, DamagedPart, damaged_pack, pack_at
from pacstore.errors import PacballError
from pacstore.ledger import damage
from pacstore.repair.healing import Healed, Healer
from pacstore.repair.usage import Usage
from pacstore.rereading import Position
from pacstore.scrub import Scrub
from pacstore.storage import ObjectKind

if TYPE_CHECKING:
    from pacstore.check import BadFrames
    from pacstore.digest import Digest
    from pacstore.progress import Progress
    from pacstore.release import Release
    from pacstore.repair.givers import Givers
    from pacstore.storage import Clock
    from pacstore.store import Store
    from pacstore.trust.targets import CatalogRelease

_MOST_KNOWN = 1_000_000


@dataclass
class Overhaul:
    """What a repair did. `parts_found`; `parts_repaired` with `bytes_got` bytes that others gave, `lost`: what nobody had.

    `failed`: what could not even be tried, a sentence each. `offered`: releases that are offered again.
    """

    parts_found: int = 0
    parts_repaired: int = 0
    bytes_got: int = 0
    healed: list[Healed] = field(default_factory=list)
    lost: list[DamagedPart] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    offered: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """What is to be repaired: `frames` of packs with `frame_bytes` bytes, `packs` whose tables are lost or that are gone, and
    `documents` and links.
    """

    frames: int
    frame_bytes: int
    packs: int
    documents: int


def find_damage(
    store: Store, releases: Sequence[CatalogRelease], bad_packs: BadFrames, *, expected: Collection[Release]
) -> list[DamagedPart]:
    """All damage of a store: in packs, as a check found it, in all else, as it is found now, and what the ledger knows.

    Releases in `expected` must be held. Raises Unavailable when the store as a whole cannot be read.
    """
    found = {part for pack, frames in bad_packs.items() for part in _parts(pack, frames)}
    # All that comes after the packs, which take the time.
    with closing(Scrub(store, releases, expected=lambda: expected)) as scrub:
        for step in scrub.steps(Position(ObjectKind.MANIFEST.value)):
            found |= set(step.damage)
    with store.ledger.reading() as connection:
        found |= {row.part for row in damage.unrepaired(connection, limit=_MOST_KNOWN)}
    return sorted(found)


def _parts(pack: Digest, frames: Mapping[int, int] | None) -> list[DamagedPart]:
    if frames is None:
        return [damaged_pack(pack, WHOLE, "is not the pack that its name says")]
    return [damaged_pack(pack, offset, "the frame is damaged", length) for offset, length in sorted(frames.items())]


def plan(parts: Sequence[DamagedPart]) -> Plan:
    """What these parts are."""
    frames = [part for part in parts if part.offset != WHOLE]
    packs = {part.path for part in parts if part.offset == WHOLE and pack_at(part.path) is not None}
    documents = {part.path for part in parts if pack_at(part.path) is None}
    return Plan(len(frames), sum(part.length for part in frames), len(packs), len(documents))


def overhaul(
    store: Store,
    releases: Sequence[CatalogRelease],
    parts: Sequence[DamagedPart],
    givers: Callable[[Usage], Givers],
    *,
    droppable: Collection[Release],
    progress: Progress,
    now: Clock,
) -> Overhaul:
    """Record damage, repair what can be, withdraw the rest, and offer again the releases that are whole.

    May be interrupted and repeated, and run beside daemons and publishers.
    """
    done = Overhaul(parts_found=len(parts))
    usage = Usage(store, releases)
    with closing(Healer(store, usage, givers(usage), progress=progress, droppable=droppable)) as healer:
        healer.record(parts, now=now())
        for path in healer.damaged_paths():
            try:
                healed = healer.heal(path, now=now())
            except PacballError as error:
                done.failed.append(str(error))
                continue
            if healed is not None:
                _add(done, healed)
        done.offered = [str(release) for release in healer.restore(now=now())]
    return done


def _add(done: Overhaul, healed: Healed) -> None:
    done.healed.append(healed)
    done.parts_repaired += healed.parts
    done.bytes_got += healed.bytes_got
    done.lost += healed.lost
