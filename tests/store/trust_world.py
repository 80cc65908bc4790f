"""A small world for the tests of trust: a catalog in memory, sources over it, storages that fail or are interrupted."""

from __future__ import annotations

import copy
import hashlib
import shutil
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tuf.api.exceptions import DownloadHTTPError
from tuf.api.metadata import Metadata
from tuf.ngclient import FetcherInterface, Updater

from pacstore.backends.memory import MemoryStorage
from pacstore.digest import Digest
from pacstore.errors import NotFound, Refused, TooLarge, Unavailable
from pacstore.release import Release
from pacstore.trust import chain, entries, repository
from pacstore.trust.ceremony import Founding, Keys
from pacstore.trust.change import Change, Context, Proposed
from pacstore.trust.client import VerifiedCatalog, open_catalog
from pacstore.trust.keyring import KeyRing
from pacstore.trust.proposals import check_context, sign_change
from pacstore.trust.repository import Catalog, Outcome
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
        self.drafts = MemoryStorage()
        self.catalog = repository.create(self.storage, self.keys, now=NOW, drafts=self.drafts)
        self.source = MemorySource(self.storage.files)
        self.state = directory / "state"
        self.publish(RELEASE)

    def publish(self, name: str, *, now: float = NOW):
        return self.catalog.publish(entry(name), self.keys, now=now)

    def lose(self, *names: str) -> None:
        """Take keys away."""
        for name in names:
            (self.keys.directory / f"{name}.pem").unlink()
            (self.keys.directory / f"{name}.pub").unlink()

    def twin(self, directory: Path) -> World:
        """Another world with the same keys, and the files and the client's state as they are now."""
        twin = copy.copy(self)
        twin.storage, twin.drafts = MemoryStorage(), MemoryStorage()
        twin.storage.files, twin.drafts.files = dict(self.storage.files), dict(self.drafts.files)
        twin.catalog = Catalog(twin.storage, twin.drafts)
        twin.source, twin.state = MemorySource(twin.storage.files), directory / "state"
        if self.state.exists():
            shutil.copytree(self.state, twin.state, symlinks=True)
        return twin

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


class Office:
    """A catalog whose keys people have, each in a directory of their own; the origin has the store and the online key.

    Two of ann, bob and cid sign the root, dan and eve together targets, and two of fay, gus and hal the line Atlas.
    """

    ROOT, TARGETS, LINE = ("ann", "bob", "cid"), ("dan", "eve"), ("fay", "gus", "hal")

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._rings: dict[str, KeyRing] = {}
        self.storage, self.drafts = MemoryStorage(), MemoryStorage()
        self.catalog = Catalog(self.storage, self.drafts)
        self.origin = KeyRing(directory / "origin")
        self.online = self.origin.create("online")

    def ring(self, name: str) -> KeyRing:
        """The keys of one person, made where that is new."""
        if name not in self._rings:
            self._rings[name] = KeyRing(self._directory / name)
            self._rings[name].create(name)
        return self._rings[name]

    def keys(self, *names: str, threshold: int = 1) -> Keys:
        """The public keys of these people."""
        return Keys(tuple(self.ring(name).public(name) for name in names), threshold)

    def keyid(self, name: str) -> str:
        return self.keys(name).keys[0].keyid

    def found(self, ring: KeyRing | None = None) -> Outcome:
        founding = Founding(
            self.keys(*self.ROOT, threshold=2), self.keys(*self.TARGETS, threshold=2), Keys((self.online,))
        )
        return self.catalog.found(founding, ring or self.origin, now=NOW)

    def carry(self, *names: str, now: float = NOW) -> Outcome:
        """What waits goes to these people, one after another, and back to the origin."""
        data = self.catalog.export().encode()
        for name in names:
            data = signed_file(data, self.ring(name))
        return self.catalog.submit(Change.parse(data, place="change"), self.origin, now=now)

    def begin(self, *releases: str) -> Office:
        """The catalog with its line, and these releases of it, signed by all who must."""
        self.found()
        self.carry("ann", "bob", "dan", "eve")
        self.catalog.add_line("Atlas", self.keys(*self.LINE, threshold=2), self.origin, now=NOW)
        self.carry("dan", "eve", "fay", "gus")
        for name in releases:
            self.publish(name)
            self.carry("fay", "gus")
        return self

    def publish(self, name: str, ring: KeyRing | None = None) -> Outcome:
        """At the origin, to be signed later."""
        return self.catalog.publish(entry(name), ring or self.origin, now=NOW, sign_later=True)

    def twin(self) -> Office:
        """Another office with the same people, and the files as they are now."""
        twin = copy.copy(self)
        twin.storage, twin.drafts = MemoryStorage(), MemoryStorage()
        twin.storage.files, twin.drafts.files = dict(self.storage.files), dict(self.drafts.files)
        twin.catalog = Catalog(twin.storage, twin.drafts)
        return twin

    def releases(self) -> list[str]:
        """What a new client sees."""
        return releases_of(self.storage.files, self._directory / f"new-{len(list(self._directory.iterdir()))}")


def signed_file(data: bytes, ring: KeyRing, *, pinned: bytes | None = None, roles: Collection[str] = ()) -> bytes:
    """A change file, signed by somebody who has no store."""
    change = Change.parse(data, place="change")
    sign_change(change, ring, check_context(change, pinned), roles)
    return change.encode()


def releases_of(files: dict[str, bytes], state: Path, *, root: bytes = b"", now: float = NOW) -> list[str]:
    """What a client with this state sees, by our rules and by those of python-tuf alone."""
    root = root or files["catalog/1.root.json"]
    found = open_catalog(MemorySource(files), root=root, state_dir=state / "ours", now=now).releases()
    updater = Foreign(files, state / "foreign", root, now)
    for one in found:
        assert updater.manifest(str(one.release)) == one.manifest.sha256.hex()
    return [str(one.release) for one in found]


def followers(world: World, directory: Path) -> list[list[str]]:
    """What those clients see that have slept, and those that are new with the first root or the newest."""
    files = world.storage.files
    newest = files[f"catalog/{world.catalog.status().root_version}.root.json"]
    return [
        releases_of(files, world.state),
        releases_of(files, directory / f"first{len(files)}", root=world.catalog.root_bytes),
        releases_of(files, directory / f"newest{len(files)}", root=newest),
    ]


SIGNERS = {"root": ("ann", "bob"), "targets": ("dan", "eve"), "line-Atlas": ("fay", "gus")}


def proposal(office: Office, role: str, edit, *signers: str, placements=(), version: int = 0) -> Change:
    """A change of one role that was made elsewhere, and signed by those who must, or by `signers`."""
    head = chain.load_head(office.storage)
    context = Context(
        copy.deepcopy(head.roots),
        copy.deepcopy(head.targets_metadata),
        {"line-Atlas": copy.deepcopy(head.envelope("line-Atlas"))},
    )
    signed = copy.deepcopy(head.committed(role))
    signed.version = version or head.version_of(role) + 1
    edit(signed)
    metadata = Metadata(signed)
    for name in signers or SIGNERS[role]:
        metadata.sign(office.ring(name).signer(name), append=True)
    found = {target.path: target for target in map(entries.encode_placement, placements)}
    return Change({role: Proposed(head.version_of(role), metadata)}, found, context=context)


def adds(*names: str):
    def edit(line) -> None:
        for name in names:
            line.targets |= {target.path: target for target in entries.encode_line(entry(name))}

    return edit


def submitted(office: Office, change: Change) -> Outcome:
    """As if it came in a file."""
    return office.catalog.submit(Change.parse(change.encode(), place="change"), office.origin, now=NOW)


def refused(office: Office, change: Change, message: str | None, *, hint: str = "") -> None:
    before = dict(office.storage.files), dict(office.drafts.files)
    with pytest.raises(Refused, match=message) as caught:
        submitted(office, change)
    assert caught.value.place
    assert hint in caught.value.hint
    assert (office.storage.files, office.drafts.files) == before


class Foreign(FetcherInterface):
    """A client of TUF that is not ours: python-tuf's, which has refreshed at `now`, and keeps its state in `directory`."""

    def __init__(self, files: dict[str, bytes], directory: Path, root: bytes, now: float = NOW) -> None:
        self._files = files
        directory.mkdir(parents=True, exist_ok=True)
        self._updater = Updater(str(directory), "https://foreign/", fetcher=self, bootstrap=root)
        self._updater._trusted_set.reference_time = datetime.fromtimestamp(now, UTC)
        self._updater.refresh()

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = f"catalog/{url.removeprefix('https://foreign/')}"
        if path not in self._files:
            raise DownloadHTTPError("not here", 404)
        yield self._files[path]

    def manifest(self, name: str) -> str | None:
        """The sha256 of a release's manifest; None if it is not in the catalog."""
        found = self._updater.get_targetinfo(f"releases/{name.partition('-')[0]}/{name}/manifest")
        return found.hashes["sha256"] if found is not None else None


class Crash(BaseException):
    """Stands for kill -9: nothing catches it."""


class HookedStorage:
    """A DocumentStorage that calls `hook` before or after its n-th call of put, create or remove, counted from 0."""

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
        self._do(self._inner.remove, kind, name)


def crash() -> None:
    raise Crash
