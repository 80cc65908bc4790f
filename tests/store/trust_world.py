"""A small world for the tests of trust: a catalog in memory, sources over it, storages that fail or are interrupted."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pacstore.backends.memory import MemoryStorage
from pacstore.digest import Digest
from pacstore.errors import NotFound, TooLarge, Unavailable
from pacstore.release import Release
from pacstore.trust.client import VerifiedCatalog, open_catalog
from pacstore.trust.keys import KeyRing
from pacstore.trust.repository import Catalog
from pacstore.trust.targets import CatalogRelease, SignedDocument

NOW = 1_700_000_000.0
DAY = 86_400.0
RELEASE = "AtlasOffline-17.2.0-x86_64-slc6-gcc46-opt"


def document(text: str) -> SignedDocument:
    data = text.encode()
    return SignedDocument(Digest.of(data), len(data), hashlib.sha256(data).digest())


def entry(name: str = RELEASE, *, tree: str = "", number: int = 1) -> CatalogRelease:
    return CatalogRelease(
        release=Release.parse(name),
        tree_digest=Digest.of((tree or name).encode()),
        manifest=document(f"manifest {name} {tree}"),
        attributes=document(f"attributes {name}"),
        placement=document(f"placement {name} {number}"),
        placement_number=number,
        total_bytes=12_345_678_901,
        files=1000,
        published=int(NOW),
    )


class MemorySource:
    """Reads the public files of a MemoryStorage, or of a frozen copy of one, as a Source does."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.name = "memory"
        self.asked: list[str] = []
        self.down = False

    def read(self, path: str, *, limit: int) -> bytes:
        self.asked.append(path)
        if self.down:
            raise Unavailable("the network is down", place=path)
        if path not in self.files:
            raise NotFound("is not here", place=path)
        if len(self.files[path]) > limit:
            raise TooLarge("too long", place=path)
        return self.files[path]


class World:
    """A catalog with one release, its keys, a source, and a client's state directory."""

    def __init__(self, directory: Path) -> None:
        self.storage = MemoryStorage()
        self.keys = KeyRing(directory / "keys")
        self.catalog = Catalog.create(self.storage, self.keys, now=NOW)
        self.source = MemorySource(self.storage.files)
        self.state = directory / "state"
        self.publish(RELEASE)

    def publish(self, name: str, *, now: float = NOW):
        return self.catalog.publish(entry(name), self.keys, now=now)

    def open(
        self, *, now: float = NOW, source: MemorySource | None = None, root: bytes = b"", **options
    ) -> VerifiedCatalog:
        root = root or self.catalog.root_bytes
        return open_catalog(source or self.source, root=root, state_dir=self.state, now=now, **options)

    def copy(self) -> dict[str, bytes]:
        return dict(self.storage.files)

    def metadata_dir(self) -> Path:
        (directory,) = self.state.glob("*/metadata")
        return directory

    def floor_records(self) -> list[Path]:
        return list(self.state.glob("*/floor/*"))


class Crash(BaseException):
    """Stands for kill -9: nothing catches it."""


class HookedStorage:
    """A DocumentStorage that calls `hook` before or after its n-th call of put or create, counted from 0."""

    def __init__(self, inner: MemoryStorage, n: int, hook, *, after: bool = False) -> None:
        self._inner = inner
        self._n = n
        self._hook = hook
        self._after = after
        self.calls = 0

    def _do(self, write, *args) -> None:
        mine = self.calls == self._n
        self.calls += 1
        if mine and not self._after:
            self._hook()
        write(*args)
        if mine and self._after:
            self._hook()

    def put(self, kind, name, data) -> None:
        self._do(self._inner.put, kind, name, data)

    def create(self, kind, name, data) -> None:
        self._do(self._inner.create, kind, name, data)

    def get(self, kind, name, *, limit):
        return self._inner.get(kind, name, limit=limit)

    def names(self, kind):
        return self._inner.names(kind)

    def remove(self, kind, name) -> None:
        self._inner.remove(kind, name)


def crash() -> None:
    raise Crash
