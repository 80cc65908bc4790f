"""Material: what a store has of a release, for registering: its files with their checksums, its bundle, its pin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

from pacmirror.delivery.rucio.catalogue import FileRecord
from pacmirror.delivery.rucio.naming import FileKind, file_name
from pacstore.checksums import checksums_of_all
from pacstore.digest import Digest
from pacstore.documents import read_manifest, read_placement
from pacstore.errors import NotFound, Refused, Unavailable
from pacstore.holding import packs_of
from pacstore.ledger import orders, pins
from pacstore.pacball.recording import record_digests
from pacstore.pacball.stub import file_name as pacball_name
from pacstore.progress import Progress
from pacstore.release import Release
from pacstore.storage import Clock
from pacstore.store import Store
from pacstore.trust.targets import CatalogRelease
from pacstore.volumes.bundle import bundle_file, make_bundle, open_bundle

PIN_OWNER = "rucio"
"""For whom registered releases are pinned."""


class StoreMaterial:
    """What the writable `store` has of `entry`, which `find` reads from the verified catalog. `root` is trusted."""

    def __init__(
        self, store: Store, find: Callable[[], CatalogRelease], *, root: bytes, clock: Clock, progress: Progress
    ) -> None:
        self.store = store
        self.entry = find()
        self._find = find
        self._root = root
        self._clock = clock
        self._progress = progress

    def pin(self) -> bool:
        """Keep the release, with this placement, from now on; whether it was not kept before.

        Raises Unavailable where it got another placement at this moment.
        """
        is_new = pin_release(self.store, self.entry, now=self._clock())
        # A repack that had looked for pins before has its catalog in force by now, or sees ours.
        if self._find() != self.entry:
            raise Unavailable("has just changed", place=str(self.entry.release), hint="run the same command again")
        return is_new

    def unpin(self) -> None:
        """Take the pin back."""
        unpin_release(self.store, self.entry.release)

    def bundle(self, known: Digest | None) -> Digest:
        """The bundle that is `known` to Rucio, or that of now. Raises NotFound where the store has not that which is known."""
        if known is None:
            return make_bundle(self.store, self.entry.release, root=self._root, clock=self._clock).digest
        name = file_name(FileKind.BUNDLE, known)
        try:
            with closing(open_bundle(bundle_file(self.store, known))) as volume:
                if volume.contents.releases != (self.entry.release,):
                    message = f"is in Rucio as the bundle of {self.entry.release}, and is of another release"
                    raise Refused(
                        message, place=name, hint="somebody has changed the dataset's sw_bundle: set it right"
                    )
        except NotFound as error:
            message = f"is the bundle of {self.entry.release} in Rucio, but is not in {self.store.path}"
            hint = "put it there from another RSE or a backup: pacball store restore; its name must not change any more"
            raise NotFound(message, place=name, hint=hint) from error
        return known

    def files(self, bundle: Digest) -> Sequence[FileRecord]:
        """The bundle, the manifest and all packs. Each was read and compared with its id when its checksums were taken."""
        storage = self.store.storage
        packs = packs_of(read_placement(storage, self.entry, read_manifest(storage, self.entry)))
        wanted = [
            (FileKind.BUNDLE, bundle),
            (FileKind.MANIFEST, self.entry.manifest.digest),
            *((FileKind.PACK, pack) for pack in sorted(packs)),
        ]
        taken = checksums_of_all(
            self.store, [(kind.object_kind, digest) for kind, digest in wanted], progress=self._progress
        )
        records = []
        for kind, digest in wanted:
            one = taken[kind.object_kind, digest]
            records.append(FileRecord(file_name(kind, digest), True, one.length, one.adler32, one.md5))
        return records

    def pacball(self) -> FileRecord:
        """The pacball; its digests are taken if they were not before."""
        digests = record_digests(self.store, self.entry, self._progress)
        name = pacball_name(self.entry.release, self.entry.tree_digest)
        return FileRecord(name, True, digests.total_bytes, f"{digests.adler32:08x}", digests.md5.hex())


def pin_release(store: Store, entry: CatalogRelease, *, now: float) -> bool:
    """Keep a release for Rucio; whether it was not kept for it before."""
    with store.ledger.reading() as connection:
        if _is_pinned(pins.listed(connection, now=now), entry):
            return False
    pin = pins.Pin(str(entry.release), PIN_OWNER, "registered in Rucio", made_at=now)
    with orders.changing(store.ledger) as connection:
        pins.add(connection, pin)
    return True


def unpin_release(store: Store, release: Release) -> bool:
    """Keep a release for Rucio no longer; whether it was kept for it."""
    with orders.changing(store.ledger) as connection:
        return pins.remove(connection, str(release), PIN_OWNER)


def _is_pinned(listed: Sequence[pins.Pin], entry: CatalogRelease) -> bool:
    return any(pin.owner == PIN_OWNER and pin.name == str(entry.release) and pin.until is None for pin in listed)
