"""Delivering: one dataset that Rucio wants at an RSE is brought into its store, and reported file by file.

A file is reported when it is verified, durable and served: packs while others are still on their way, the rest when the release
is here whole. Nothing is remembered of how far this is: what the store has says it. So it may be killed anywhere.
"""

from __future__ import annotations

import logging
import threading
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pacmirror.delivery.rucio.declaring import record_damage
from pacmirror.delivery.rucio.naming import Did, FileKind, dataset_name, parse_dataset_name
from pacmirror.delivery.rucio.rse import AVAILABLE, BAD
from pacmirror.delivery.rucio.shelf import Here, Shelf
from pacmirror.delivery.rucio.source import RucioSource
from pacstore.check import catalog_releases
from pacstore.documents import fetch_signed, keep_document
from pacstore.errors import Corrupt, PacballError, Refused
from pacstore.ledger import damage, orders, pins, releases
from pacstore.ledger.pins import Pin
from pacstore.ledger.releases import ReleaseState
from pacstore.repair.givers import find_givers
from pacstore.repair.overhaul import overhaul
from pacstore.storage import ObjectKind, object_path
from pacstore.volumes.bundle import bundle_file, keep_volume, open_bundle
from pacstore.volumes.expected import copy_catalog, packs_named
from pacstore.volumes.gathering import gather
from pacstore.volumes.importing import take_in
from pacstore.volumes.judging import Superseded, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pacmirror.delivery.rucio.rse import Rse, RseFile
    from pacstore.digest import Digest
    from pacstore.progress import Progress
    from pacstore.release import Release
    from pacstore.storage import Clock
    from pacstore.store import Store
    from pacstore.volumes.volume import Volume

    Trust = Callable[[Volume, Store], bytes]

_log = logging.getLogger(__name__)
OWNER = "rucio agent"
"""Whose pins are on what is here because Rucio wants it."""
REPORT_SECONDS = 5.0


@dataclass(frozen=True)
class Place:
    """Where datasets are brought to: the store of an RSE. `trust` says which root a bundle's catalog must follow from.

    `connect`: another connection to the same RSE, for another thread.
    """

    store: Store
    rse: Rse
    trust: Trust
    clock: Clock
    connect: Callable[[], Rse]


@dataclass(frozen=True)
class Delivered:
    """What became of a dataset: how many files were reported, and how many bytes of packs came."""

    release: Release
    reported: int
    bytes_came: int


class Delivery:
    """One dataset on its way. `stop` may be called from another thread: then `run` ends soon, with Unavailable."""

    def __init__(self, place: Place, did: Did, files: Mapping[str, RseFile], progress: Progress) -> None:
        """`files`: all of the dataset, as Rucio knows them now. Raises Refused if it is none of a release."""
        self._place = place
        self._store = place.store
        self.did = did
        self._files = files
        self._progress = progress
        self._source: RucioSource | None = None
        self._stopped = False
        self._reported: set[str] = set()
        self.release, self._bundle = _check(did, files)

    def stop(self) -> None:
        """End it."""
        self._stopped = True
        source = self._source
        if source is not None:
            source.close()

    def is_here(self) -> bool:
        """Whether nothing has to come: all of it is here, and right, as far as the store knows."""
        shelf = Shelf(self._store)
        if not all(shelf.look(file) is Here.WHOLE for file in self._files.values()):
            return False
        packs = {str(digest) for kind, digest in map(_object, self._files.values()) if kind is FileKind.PACK}
        # Where the catalog names other packs by now, these are pinned by themselves.
        return self._is_held() or (bool(packs) and packs <= self._pinned())

    def is_pinned(self) -> bool:
        """Whether an agent has brought the release before, or begun to."""
        return str(self.release) in self._pinned()

    def run(self) -> Delivered:
        """Bring what is missing, and report it. Raises what keeps it from being here whole; all that came was reported then."""
        came = 0
        if not self._doubt() or not self.is_here():
            with closing(
                RucioSource.open(self._place.rse.catalogue, self.did, expression=f"*\\{self._place.rse.name}")
            ) as source:
                self._source = source
                if self._stopped:
                    source.close()
                with _Reporting(self, self._place):
                    self._bring(source)
                came = source.traffic.bytes_downloaded
        self._report(self._files.values())
        self._check()
        return Delivered(self.release, len(self._reported), came)

    def report_packs(self, rse: Rse) -> None:
        """Report the packs that have come meanwhile."""
        self._report((file for file in self._files.values() if file.name.endswith(f".{FileKind.PACK}")), rse)

    def _report(self, files: Iterable[RseFile], rse: Rse | None = None) -> None:
        shelf = Shelf(self._store)
        todo = [file for file in files if file.state != AVAILABLE and file.name not in self._reported]
        names = shelf.whole(todo)
        (rse or self._place.rse).report(names)
        self._reported |= set(names)

    def _check(self) -> None:
        """Raise Corrupt unless all is here: what Rucio says of a file may be what is wrong."""
        shelf = Shelf(self._store)
        wrong = [file for file in self._files.values() if shelf.look(file) is not Here.WHOLE]
        if wrong:
            first = f"{wrong[0].name} of {wrong[0].length:,} bytes"
            message = f"{len(wrong)} of its files are not here as Rucio describes them: {first}"
            hint = "it was registered wrongly, or is damaged here: pacball store check says more"
            raise Corrupt(message, place=str(self.did), hint=hint)

    def _doubt(self) -> bool:
        """Read again what somebody has declared bad; whether all of it is right."""
        shelf = Shelf(self._store)
        doubted = [file for file in self._files.values() if file.state == BAD and shelf.look(file) is Here.WHOLE]
        return sum(record_damage(self._store, file, self._place.clock) for file in doubted) == 0

    def _is_held(self) -> bool:
        with self._store.ledger.reading() as connection:
            row = releases.find(connection, self.release)
        return row is not None and row.state is ReleaseState.COMPLETE

    def _bring(self, source: RucioSource) -> None:
        volume, place = self._open(source), self._place
        with closing(volume):
            root = place.trust(volume, self._store)
            entry = copy_catalog(volume, root=root, clock=place.clock).releases.get(self.release)
            if entry is None or dataset_name(entry) != self.did.name:
                raise Corrupt("its bundle is of another release than its name says", place=str(self.did),
                              hint="somebody registered it wrongly: pacball rucio register makes it anew")  # fmt: skip
            if entry.withdrawal is not None:
                raise Refused(
                    f"{self.release} was withdrawn", place=str(self.did), hint="end the rule: pacball rucio retire"
                )
            self._pin(str(self.release))
            keep_volume(self._store, volume, self._bundle)
            self._mend(source)
            try:
                judged = judge(
                    [volume], self._store, root=root, clock=place.clock, progress=self._progress, others=True
                )
            except Superseded:
                # Packs that have come later take their place in the store's catalog; Rucio wants these ones as well.
                path = object_path(ObjectKind.MANIFEST, entry.manifest.digest)
                keep_document(self._store.storage, path, fetch_signed(volume, path, entry.manifest))
                self._bring_packs(source, packs_named(volume, entry))
            else:
                take_in([volume], judged, self._store.path, root=root, state_dir=None, clock=place.clock,
                        progress=self._progress, others=source)  # fmt: skip

    def _open(self, source: RucioSource) -> Volume:
        """The bundle, from the store if it is there, as it must be."""
        file = self._files[f"{self._bundle}.{FileKind.BUNDLE}"]
        if Shelf(self._store).look(file) is Here.WHOLE:
            return open_bundle(bundle_file(self._store, self._bundle))
        return source.volume()

    def _pinned(self) -> set[str]:
        with self._store.ledger.reading() as connection:
            return {pin.name for pin in pins.listed(connection, now=self._place.clock()) if pin.owner == OWNER}

    def _pin(self, *names: str) -> None:
        new = set(names) - self._pinned()
        if new:
            with orders.changing(self._store.ledger) as connection:
                for name in new:
                    pins.add(connection, Pin(name, OWNER, str(self.did), None, self._place.clock()))

    def _mend(self, source: RucioSource) -> None:
        """Repair what is damaged of the dataset, from the other RSEs."""
        paths = {object_path(kind.object_kind, digest) for kind, digest in map(_object, self._files.values())}
        with self._store.ledger.reading() as connection:
            damaged = paths & set(damage.damaged_paths(connection))
        if damaged:
            overhaul(self._store, catalog_releases(self._store), [], lambda usage: find_givers([source], [], usage),
                     droppable=frozenset(), progress=self._progress, now=self._place.clock)  # fmt: skip

    def _bring_packs(self, source: RucioSource, needed: Mapping[Digest, int]) -> None:
        """Bring the packs of a placement that the store's catalog does not name any more."""
        self._pin(*map(str, needed))
        shelf = Shelf(self._store)
        lacking = {
            digest: needed[digest]
            for file in self._files.values()
            for kind, digest in [_object(file)]
            if kind is FileKind.PACK and digest in needed and shelf.look(file) is not Here.WHOLE
        }
        gather(source, self._store, lacking, clock=self._place.clock, progress=self._progress, arrived=lambda *_: None)


class _Reporting:
    """Inside, what has come is reported now and then, by a thread and a connection of its own."""

    def __init__(self, delivery: Delivery, place: Place) -> None:
        self._delivery = delivery
        self._place = place
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pacball-rucio-report", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        # Where Rucio does not answer, it ends by itself; the thread only reports what is true.
        self._thread.join(REPORT_SECONDS)

    def _run(self) -> None:
        rse: Rse | None = None
        while not self._ended.wait(REPORT_SECONDS):
            try:
                rse = rse or self._place.connect()
                self._delivery.report_packs(rse)
            except PacballError as error:
                # They are reported in the end.
                _log.warning("%s: what has come could not be reported yet: %s", self._delivery.did, error)


def _check(did: Did, files: Mapping[str, RseFile]) -> tuple[Release, Digest]:
    """The release whose dataset this is, and its bundle. Raises Refused for any other dataset."""
    name = parse_dataset_name(did.name)
    hint = "only datasets that pacball rucio register made can be delivered; end the rule"
    if name is None:
        raise Refused("is no dataset of a release", place=str(did), hint=hint)
    strange = [file.name for file in files.values() if file.object is None]
    if strange:
        raise Refused(f"has a file that is none of a release: {strange[0]}", place=str(did), hint=hint)
    bundles = [digest for kind, digest in map(_object, files.values()) if kind is FileKind.BUNDLE]
    if len(bundles) != 1:
        raise Refused(
            f"has {len(bundles)} bundles, not one", place=str(did), hint="complete it: pacball rucio register"
        )
    return name.release, bundles[0]


def _object(file: RseFile) -> tuple[FileKind, Digest]:
    found = file.object
    assert found is not None, "the files were looked at before"
    return found
