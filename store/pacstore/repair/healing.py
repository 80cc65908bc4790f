"""Healing: from damage that was found to releases that are whole again, with every step in the ledger.

What is found is recorded together with what follows from it: no release that needs it is complete any longer, and none is
offered. It is repaired or withdrawn; when nothing of a release is damaged any more, it is verified, and offered again.
"""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pacstore.damage import WHOLE, DamagedPart, pack_at
from pacstore.errors import NotFound, PacballError, Unavailable
from pacstore.holding import put_holdings, verify_whole
from pacstore.ledger import damage, packs, releases
from pacstore.ledger.completion import complete
from pacstore.ledger.packs import PackState
from pacstore.ledger.releases import ReleaseState
from pacstore.pack import read_table
from pacstore.partial import PartialPacks
from pacstore.repair.documents import DocumentRepairer
from pacstore.repair.packs import PackRepairer
from pacstore.repair.usage import Usage
from pacstore.storage import DocumentKind, ObjectKind, document_path

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import sqlalchemy as sa

    from pacstore.digest import Digest
    from pacstore.progress import Progress
    from pacstore.release import Release
    from pacstore.repair.givers import Givers
    from pacstore.store import Store
    from pacstore.trust.targets import CatalogRelease

DAMAGED = "something of it was damaged"


@dataclass(frozen=True)
class Healed:
    """What became of what was wrong at `path`. `whole`: it is public, and right.

    `parts`: how many were made good with `bytes_got` bytes, by `givers`. `lost`: what is still wrong; `withdrawn`: it is not
    public any more. `faults`: why nobody gave more, a sentence each.
    """

    path: str
    whole: bool
    parts: int = 0
    bytes_got: int = 0
    givers: tuple[str, ...] = ()
    lost: tuple[DamagedPart, ...] = ()
    withdrawn: bool = False
    faults: tuple[str, ...] = field(default=())


class Healer:
    """Heals a store. Not for several threads at once; others may work on the store and its ledger meanwhile.

    `usage` knows the releases of its catalog. Those in `droppable` need not be held and are not offered again.
    """

    def __init__(
        self,
        store: Store,
        usage: Usage,
        givers: Givers,
        *,
        progress: Progress,
        droppable: Collection[Release] = frozenset(),
    ) -> None:
        self._store = store
        self._ledger = store.ledger
        self._usage = usage
        self._droppable = droppable
        self._packs = PackRepairer(store, givers.frames, known_table=usage.table, progress=progress)
        self._documents = DocumentRepairer(store, usage.entries, givers.documents)

    def close(self) -> None:
        """Release memory. May be repeated."""
        self._packs.close()

    def record(self, parts: Iterable[DamagedPart], *, now: float) -> set[Release]:
        """Write damage into the ledger, and cease to offer the releases that need what is damaged; those."""
        parts = sorted(set(parts))
        found = {pack for part in parts if (pack := part.pack) is not None}
        concerned = self._usage.users({part.path for part in parts})
        held = frozenset(self._store.storage.names(DocumentKind.HOLDINGS))
        with self._ledger.writing() as connection:
            damage.record(connection, parts, now=now)
            for pack in found:
                self._set_state(connection, pack, PackState.DAMAGED, now)
            concerned |= releases.needing(connection, found)
            for release in concerned:
                row = releases.find(connection, release)
                if row is not None and row.state is ReleaseState.COMPLETE:
                    releases.set_partial(connection, release, reason=DAMAGED, now=now)
                elif str(release) not in held and not _names_holdings(parts, release):
                    continue
                self._store.storage.remove(DocumentKind.HOLDINGS, str(release))
                damage.wait(connection, release, now=now)
        return concerned

    def damaged_paths(self) -> list[str]:
        """What is to be healed, ascending."""
        with self._ledger.reading() as connection:
            return damage.damaged_paths(connection)

    def heal(self, path: str, *, now: float) -> Healed | None:
        """Make good what is wrong at `path`, or withdraw it. None for holdings, which `restore` writes."""
        pack = pack_at(path)
        if pack is not None:
            return self._heal_pack(pack, path, now)
        if path.startswith(f"{DocumentKind.HOLDINGS.value}/"):
            return None
        done = self._documents.repair(path)
        lost = () if done.whole else (DamagedPart(path, WHOLE, "is damaged, and nobody has it"),)
        givers = (done.giver,) if done.giver else ()
        healed = Healed(path, done.whole, int(done.whole), 0, givers, lost, done.withdrawn, done.faults)
        with self._ledger.writing() as connection:
            _write(connection, healed, now)
        return healed

    def restore(self, *, now: float) -> list[Release]:
        """Offer again the releases that were damaged and are whole, verified; those."""
        with self._ledger.reading() as connection:
            waiting, damaged = damage.waiting(connection), frozenset(damage.damaged_paths(connection))
        restored = []
        for release in waiting:
            entry = self._usage.find(release)
            if entry is None or release in self._droppable:
                self._wait_no_longer(release, now)
            elif not damaged & self._usage.needs(entry):
                with suppress(PacballError):
                    self._hold(entry, now)
                    self._wait_no_longer(release, now)
                    restored.append(release)
        return restored

    def _heal_pack(self, pack: Digest, path: str, now: float) -> Healed:
        length = self._usage.length(pack)
        try:
            done = self._packs.repair(pack, length)
            healed = Healed(
                path,
                done.whole,
                done.frames,
                done.bytes_got,
                tuple(done.givers),
                done.lost,
                done.withdrawn,
                done.faults,
            )
        except Unavailable as error:
            # As on a full disk: then it is withdrawn, which takes no room, and tried again later.
            lost = (DamagedPart(path, WHOLE, "is damaged, and could not be written"),)
            healed = Healed(path, whole=False, lost=lost, withdrawn=self._withdraw(pack), faults=(str(error),))
        with self._ledger.writing() as connection:
            _write(connection, healed, now)
            if healed.whole or healed.withdrawn:
                self._set_state(connection, pack, PackState.WHOLE if healed.whole else PackState.PARTIAL, now)
        self._tell_index(pack, whole=healed.whole)
        return healed

    def _withdraw(self, pack: Digest) -> bool:
        """Whether the pack is not public any more."""
        try:
            PartialPacks(self._store.private, self._store.storage).demote(pack)
        except NotFound:
            return True
        except PacballError:
            return False
        return True

    def _set_state(self, connection: sa.Connection, pack: Digest, state: PackState, now: float) -> None:
        if packs.find(connection, pack) is not None:
            packs.set_state(connection, pack, state)
            return
        length = self._length(pack)
        if length:
            packs.record(connection, pack, length=length, held_bytes=length, state=state, now=now)

    def _length(self, pack: Digest) -> int:
        try:
            return self._store.storage.size(ObjectKind.PACK, pack)
        except PacballError:
            return self._usage.length(pack) or 0

    def _tell_index(self, pack: Digest, *, whole: bool) -> None:
        """Publishers are to refer to chunks only where those can be had."""
        if not self._store.index_path.exists():
            return
        with suppress(PacballError):
            if not whole:
                self._store.index.condemn(pack, None)
            elif self._store.index.condemned(pack):
                with closing(self._store.storage.open(ObjectKind.PACK, pack)) as file:
                    self._store.index.add(read_table(file, place=str(pack)))

    def _hold(self, entry: CatalogRelease, now: float) -> None:
        """Verify a release and offer it. Raises NotFound or Corrupt where it is not whole."""
        with self._store.unswept():
            with self._ledger.reading() as connection:
                row = releases.find(connection, entry.release)
            if row is None:
                verify_whole(self._store.storage, entry)
                put_holdings(self._store.storage, entry)
                return
            complete(self._ledger, self._store.storage, entry, now=now)
            if row.leaves_at is not None:
                with self._ledger.writing() as connection:
                    releases.let_go(connection, entry.release, at=row.leaves_at)

    def _wait_no_longer(self, release: Release, now: float) -> None:
        with self._ledger.writing() as connection:
            damage.end(connection, document_path(DocumentKind.HOLDINGS, str(release)), giver="", now=now)
            damage.wait_no_longer(connection, release)


def _names_holdings(parts: Iterable[DamagedPart], release: Release) -> bool:
    path = document_path(DocumentKind.HOLDINGS, str(release))
    return any(part.path == path for part in parts)


def _write(connection: sa.Connection, healed: Healed, now: float) -> None:
    giver = ", ".join(healed.givers)
    if healed.whole:
        damage.end(connection, healed.path, giver=giver, now=now)
    elif healed.withdrawn:  # otherwise it is as damaged as it was, and still public
        damage.withdraw(connection, healed.path, healed.lost, giver=giver, now=now)
