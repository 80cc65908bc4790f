"""Material: where what is registered of a release comes from: a store on this machine, or an origin over HTTP."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from pacmirror.delivery.rucio.catalogue import FileRecord
from pacmirror.delivery.rucio.naming import FileKind, file_name
from pacmirror.uploads.client import HttpOrigin
from pacstore.consignment import Consignment, consign, take_back
from pacstore.digest import Digest
from pacstore.errors import Corrupt, Unavailable
from pacstore.ledger.checksums import Checksums, Named
from pacstore.pacball.stub import file_name as pacball_name
from pacstore.progress import Progress
from pacstore.source import Source
from pacstore.storage import Clock, ObjectKind
from pacstore.store import Store
from pacstore.trust.targets import CatalogRelease
from pacstore.volumes.expected import packs_named


@dataclass(frozen=True)
class Material:
    """The files of a release's dataset, the `bundle` among them, and the pacball, None unless asked for.

    `is_new`: whether the release was not kept for this before.
    """

    bundle: Digest
    files: tuple[FileRecord, ...]
    pacball: FileRecord | None
    is_new: bool


class Supply(Protocol):
    """Where the release `entry`, which a verified catalog names, is whole."""

    @property
    def entry(self) -> CatalogRelease:
        """The release."""

    def consign(self, known: Digest | None, *, with_pacball: bool) -> Material:
        """All that is to be registered, of a release that is kept from now on as it is.

        The bundle is the one that is `known` to Rucio, or the one of now. Raises NotFound for what is not there, Corrupt,
        Refused, Unavailable.
        """

    def take_back(self) -> None:
        """Keep the release for this no longer."""


@dataclass(frozen=True)
class StoreSupply:
    """The writable `store`, which has `entry` in its catalog. `root` is trusted."""

    store: Store
    entry: CatalogRelease
    root: bytes
    clock: Clock
    progress: Progress

    def consign(self, known: Digest | None, *, with_pacball: bool) -> Material:
        """As the protocol says."""
        made = consign(
            self.store, self.entry, known=known, with_pacball=with_pacball, root=self.root, clock=self.clock,
            progress=self.progress,
        )  # fmt: skip
        return material_of(self.entry, made)

    def take_back(self) -> None:
        """As the protocol says."""
        take_back(self.store, self.entry.release)


@dataclass(frozen=True)
class OriginSupply:
    """The `origin` over HTTP, of whose catalog `entry` is; `source` is the same origin, for documents."""

    origin: HttpOrigin
    source: Source
    entry: CatalogRelease

    def consign(self, known: Digest | None, *, with_pacball: bool) -> Material:
        """As the protocol says. The checksums are the origin's word; which files there are, and how long, is the catalog's."""
        made = self.origin.consign(self.entry.release, known, with_pacball=with_pacball)
        if made.placement_number != self.entry.placement_number:
            hint = "run the same command again"
            raise Unavailable("has just changed", place=str(self.entry.release), hint=hint)
        self._check(made, known, with_pacball=with_pacball)
        return material_of(self.entry, made)

    def take_back(self) -> None:
        """As the protocol says."""
        self.origin.take_back(self.entry.release)

    def _check(self, made: Consignment, known: Digest | None, *, with_pacball: bool) -> None:
        expected = {(ObjectKind.PACK, pack): length for pack, length in packs_named(self.source, self.entry).items()}
        expected[ObjectKind.MANIFEST, self.entry.manifest.digest] = self.entry.manifest.length
        said = {one: checksums.length for one, checksums in made.objects.items()}
        said.pop((ObjectKind.BUNDLE, made.bundle))
        if said != expected or known not in (None, made.bundle) or (made.pacball is None) == with_pacball:
            message = f"says other files of {self.entry.release} than its catalog"
            raise Corrupt(
                message, place=self.origin.name, hint="tell its operator; pacball store check says more there"
            )


def material_of(entry: CatalogRelease, made: Consignment) -> Material:
    """What a consignment of `entry` is in Rucio."""
    name = pacball_name(entry.release, entry.tree_digest)
    pacball = _record(name, made.pacball) if made.pacball is not None else None
    return Material(made.bundle, tuple(_records(made.objects)), pacball, made.is_new)


def _records(objects: Mapping[Named, Checksums]) -> Iterable[FileRecord]:
    for (kind, digest), checksums in objects.items():
        yield _record(file_name(FileKind(kind.value.removesuffix("s")), digest), checksums)


def _record(name: str, checksums: Checksums) -> FileRecord:
    return FileRecord(name, True, checksums.length, checksums.adler32, checksums.md5)
