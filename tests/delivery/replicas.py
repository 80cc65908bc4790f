"""A release as a dataset: what Rucio would say of its replicas, and web servers that have them, in layouts of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pacmirror.delivery.rucio.naming import Did, FileKind, dataset_name, file_name
from pacmirror.delivery.rucio.replicas import parse_replicas
from pacmirror.delivery.rucio.source import RucioSource
from pacmirror.limits import LIST_LIMITS
from pacstore.digest import Digest
from pacstore.install.installation import Installed, install
from pacstore.release import Release
from pacstore.storage import ObjectKind, object_path
from pacstore.trust.client import open_catalog
from pacstore.volumes.bundle import Bundle, make_bundle
from tests.store.releases import NAME, NOW, Notes, Origin

SCOPE = "sw"


@dataclass(frozen=True)
class Dataset:
    """A release of an origin, and its files by their names in Rucio."""

    root: bytes
    bundle: Bundle
    files: Mapping[str, bytes]

    @classmethod
    def of(cls, origin: Origin, name: str = NAME) -> Dataset:
        root = (origin.store.public / "catalog/1.root.json").read_bytes()
        bundle = make_bundle(origin.store, Release.parse(name), root=root, clock=lambda: NOW)
        kinds = [(FileKind.PACK, pack) for pack in bundle.packs]
        kinds += [(FileKind.MANIFEST, bundle.entry.manifest.digest), (FileKind.BUNDLE, bundle.digest)]
        files = {
            file_name(kind, digest): (origin.store.public / object_path(kind.object_kind, digest)).read_bytes()
            for kind, digest in kinds
        }
        return cls(root, bundle, files)

    @property
    def did(self) -> Did:
        return Did(SCOPE, dataset_name(self.bundle.entry))

    @property
    def bundle_name(self) -> str:
        return file_name(FileKind.BUNDLE, self.bundle.digest)

    def laid_out(self, how: str) -> dict[str, bytes]:
        """The files as a web server has them, `how` being the path of each, with {name} and {hex} in it."""
        return {how.format(name=name, hex=name[:2]): data for name, data in self.files.items()}

    def rows(self, places: Mapping[str, tuple[str, str]], *, but: Sequence[str] = ()) -> list[dict[str, object]]:
        """What `list_replicas` says where RSEs have the files, in `places` by RSE: the server's URL, and the layout."""
        rows = []
        for name, data in self.files.items():
            pfns = {
                f"{url}/{how.format(name=name, hex=name[:2])}": {"rse": rse, "type": "DISK", "domain": "wan"}
                for rse, (url, how) in places.items()
                if f"{rse}:{name}" not in but
            }
            rows.append({"scope": SCOPE, "name": name, "bytes": len(data), "pfns": pfns})
        return rows

    def source(self, rows: Sequence[Mapping[str, object]], **more: object) -> RucioSource:
        return RucioSource(self.did, parse_replicas(rows), **{"each": LIST_LIMITS, **more})

    def install(self, source: RucioSource, top: Path, *, progress: Notes | None = None) -> Installed:
        """Install the release from `source` below `top`, with the catalog of its bundle."""
        catalog = open_catalog(source, root=self.root, state_dir=top / "state", now=NOW)
        return install(
            catalog.release(self.bundle.entry.release),
            source=source,
            root=top / "root",
            progress=progress or Notes(),
            now=lambda: NOW,
        )


def packs_of(dataset: Dataset) -> list[Digest]:
    return list(dataset.bundle.packs)


def path_of(pack: Digest) -> str:
    return object_path(ObjectKind.PACK, pack)
