"""Small trees, stores to publish them to, and what is asked of a store afterwards."""

from __future__ import annotations

import os
import pickle
import resource
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3

from pacstore.assemble import Assembler
from pacstore.check import catalog_releases, check
from pacstore.documents import read_manifest, read_placement
from pacstore.limits import KIB, PackSizes
from pacstore.packing import PackingOptions
from pacstore.progress import Silent
from pacstore.publish import Published, publish
from pacstore.readback import Report
from pacstore.release import Release
from pacstore.store import Store
from pacstore.trust.keyring import KeyRing
from pacstore.trust.repository import Catalog, create
from pacstore.trust.targets import CatalogRelease

NOW = 1_800_000_000.0
NOBODY = 65534
SMALL = PackSizes(frame_plain_bytes=128 * KIB, pack_bytes=512 * KIB)
OPTIONS = PackingOptions(level=1, sizes=SMALL)
NAME = "Demo-1.0-x86_64"
NEXT = "Demo-1.1-x86_64"


def noise(seed: str, size: int) -> bytes:
    """Bytes that do not compress, the same for the same seed."""
    return blake3(seed.encode()).digest(length=size)


def prose(seed: str, size: int) -> bytes:
    """Bytes that compress."""
    words = (b"muon ", b"track ", b"vertex ", b"jet ", b"cell ", b"hit ", b"the ", b"of\n")
    return b"".join(words[b & 7] for b in noise(seed, size // 4 + 2))[:size]


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def make_tree(top: Path, *, version: str = "1", kib: int = 1200) -> Path:
    """One of everything, some of it the same in every version; about `kib` KiB."""
    write(top / "bin/run", b"#!/bin/sh\nexit 0\n").chmod(0o755)
    write(top / "lib/shared.so", noise("shared", kib * 400))
    write(top / "lib/changed.so", noise("changed", kib * 100) + noise(version, kib * 100) + noise("changed", kib * 100))
    write(top / "lib/own.so", noise(f"own {version}", kib * 100))
    write(top / "lib/text", prose("text", kib * 200))
    write(top / "lib/again.so", noise("shared", kib * 400)[: kib * 200])
    write(top / "none", b"")
    write(top / "version", version.encode())
    write(top / "lib/Grüße", b"x")
    (top / "empty").mkdir()
    os.link(top / "lib/text", top / "lib/text-again")
    (top / "lib/link").symlink_to("../bin/run")
    (top / "abs").symlink_to("/etc/passwd")
    for number in range(30):
        write(
            top / f"lib/python/f{number:02}.py", prose(f"{number % 20} {version if number % 3 else ''}", 100 * number)
        )
    return top


class Notes:
    """A Progress that remembers warnings and phases; `act` is called at each step, with their number."""

    def __init__(self, act: Callable[[int], None] = lambda _: None) -> None:
        self.warnings: list[str] = []
        self.phases: list[str] = []
        self.bytes = 0
        self.steps = 0
        self._act = act

    def begin(self, phase: str, total_bytes: int | None) -> None:
        self.phases.append(phase)
        self._step()

    def advance(self, count_bytes: int) -> None:
        self.bytes += count_bytes
        self._step()

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def _step(self) -> None:
        self.steps += 1
        self._act(self.steps)


@dataclass
class Origin:
    """A store, its catalog and keys, below one directory."""

    top: Path
    store: Store
    catalog: Catalog
    keys: KeyRing
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def make(cls, top: Path) -> Origin:
        store = Store.create(top / "store")
        keys = KeyRing(top / "keys")
        catalog = create(store.storage, keys, now=NOW, drafts=store.drafts)
        return cls(top, store, catalog, keys)

    def again(self) -> Origin:
        """The same, as a process that starts now finds it."""
        self.store.close()
        store = Store.open(self.store.path, writable=True)
        return Origin(self.top, store, Catalog.open(store.storage, store.drafts), self.keys)

    def publish(
        self, directory: Path, name: str = NAME, *, options: PackingOptions = OPTIONS, progress: Notes | None = None
    ) -> Published:
        return publish(
            directory,
            Release.parse(name),
            self.store,
            self.catalog,
            keys=self.keys,
            options=options,
            progress=progress or Notes(),
            now=lambda: NOW,
        )

    def entry(self, name: str = NAME) -> CatalogRelease:
        entry = self.catalog.release(Release.parse(name))
        assert entry is not None
        return entry

    def listed(self) -> list[str]:
        return [str(entry.release) for entry in self.catalog.releases()]

    def check(self) -> Report:
        with Store.open(self.store.path, writable=False) as store:
            return check(store, catalog_releases(store), progress=Silent())

    def assembled(self, name: str = NAME) -> dict[str, bytes]:
        """The content of every file of a release, by path."""
        return contents(self.store, self.entry(name))

    def public(self) -> dict[str, bytes]:
        """Every public file."""
        return snapshot(self.store.public)


def contents(store: Store, entry: CatalogRelease) -> dict[str, bytes]:
    manifest = read_manifest(store.storage, entry)
    assembler = Assembler(manifest, read_placement(store.storage, entry, manifest), store.storage)
    files = [e for e in manifest.tree.walk() if e.kind.is_file]
    try:
        return {e.path: b"".join(assembler.read(e.file_number, 0, e.size)) for e in files}
    finally:
        assembler.frames.close()


def originals(directory: Path) -> dict[str, bytes]:
    """The content of every file of a directory, by path."""
    files = [p for p in sorted(directory.rglob("*")) if p.is_file() and not p.is_symlink()]
    return {str(p.relative_to(directory)): p.read_bytes() for p in files}


def snapshot(directory: Path) -> dict[str, bytes]:
    return originals(directory)


def leftovers(store: Store) -> list[str]:
    """Public files whose names show that they are not finished, and files in staging."""
    public = [name for name in snapshot(store.public) if name.endswith(".tmp")]
    return public + os.listdir(store.staging)


def flip(path: Path, offset: int, bit: int = 0) -> None:
    """Change one bit of a file, whatever its mode; a negative offset counts from its end."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 1 << bit
    overwrite(path, bytes(data))


def overwrite(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


def as_nobody(work: Callable[[], object], *, owner_of: Path) -> object:
    """What `work` returns in a child process without root's powers, to which everything below `owner_of` belongs."""
    if os.getuid() == 0:
        for directory, names, files in os.walk(owner_of):
            for name in (".", *names, *files):
                os.chown(os.path.join(directory, name), NOBODY, NOBODY, follow_symlinks=False)
    receive, send = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        _work_in_child(work, send)
    os.close(send)
    with open(receive, "rb") as file:
        data = file.read()
    os.waitpid(pid, 0)
    good, value = pickle.loads(data)
    assert good, value
    return value


def _work_in_child(work: Callable[[], object], send: int) -> None:
    try:
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        data = pickle.dumps((True, work()))
    except BaseException as error:  # noqa: BLE001 - the parent fails for it
        data = pickle.dumps((False, f"{type(error).__name__}: {error}"))
    with open(send, "wb") as file:
        file.write(data)
    os._exit(0)


def limit_file_size(size: int) -> None:
    """No file may grow beyond `size` bytes in this process from now on."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@contextmanager
def shared_directory() -> Iterator[Path]:
    """A directory that every user can reach; pytest's own belong to the user who runs it alone."""
    path = Path(tempfile.mkdtemp(prefix="pacball-test-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        for directory, _, _ in os.walk(path):
            os.chmod(directory, 0o755)
        shutil.rmtree(path)
