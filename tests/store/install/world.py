"""A small store in memory, a source over it that misbehaves on request, and trees to install."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from blake3 import blake3

from pacstore.attributes import encode_attributes
from pacstore.chunker import Chunker
from pacstore.codec import KIND_ZSTD, compress
from pacstore.digest import Digest
from pacstore.errors import NotFound
from pacstore.install.installation import Installed, install
from pacstore.install.options import InstallOptions
from pacstore.install.plan import Plan
from pacstore.manifest import Manifest, encode_manifest
from pacstore.pack import HEADER, Table, TableBuilder, ending
from pacstore.placement import Placement
from pacstore.release import Release
from pacstore.source import PackRange, Traffic
from pacstore.spool import Spool
from pacstore.storage import DocumentKind, ObjectKind, document_path, object_path
from pacstore.tree import EntryKind, Tree, TreeBuilder
from pacstore.trust.targets import CatalogRelease, SignedDocument

NAME = "Sample-1.0-any"
NEXT = "Sample-1.1-any"


def noise(seed: str, size: int) -> bytes:
    return blake3(seed.encode()).digest(length=size)


@dataclass
class Files:
    """Walks a directory into the documents of a release, by hand."""

    tree: TreeBuilder = field(default_factory=TreeBuilder)
    counts: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    ids: bytearray = field(default_factory=bytearray)
    mtimes: list[int] = field(default_factory=list)
    plain: dict[bytes, bytes] = field(default_factory=dict)
    inodes: dict[int, list[int]] = field(default_factory=dict)

    def walk(self, directory: Path, depth: int = 0) -> None:
        for name in sorted(os.listdir(os.fsencode(directory))):
            path = directory / os.fsdecode(name)
            found = path.lstat()
            self.mtimes.append(int(found.st_mtime_ns // 10**9))
            if stat.S_ISDIR(found.st_mode):
                self.tree.add(depth, name, EntryKind.DIRECTORY)
                self.walk(path, depth + 1)
            elif stat.S_ISLNK(found.st_mode):
                self.tree.add(depth, name, EntryKind.SYMLINK)
                self.tree.add_target(os.fsencode(os.readlink(path)))
            else:
                self.file(name, depth, found, path.read_bytes())

    def file(self, name: bytes, depth: int, found: os.stat_result, data: bytes) -> None:
        if found.st_nlink > 1:
            self.inodes.setdefault(found.st_ino, []).append(len(self.mtimes) - 1)
        self.tree.add(depth, name, EntryKind.EXECUTABLE if found.st_mode & 0o100 else EntryKind.FILE)
        self.tree.add_content(len(data), blake3(data).digest())
        lengths = Chunker().cut(memoryview(data), last=True)
        self.counts.append(len(lengths))
        at = 0
        for length in lengths:
            chunk = data[at : at + length]
            at += length
            self.lengths.append(length)
            self.ids += blake3(chunk).digest()
            self.plain.setdefault(blake3(chunk).digest(), chunk)

    def chunk(self, number: int) -> bytes:
        return bytes(self.ids[32 * number : 32 * number + 32])


@dataclass
class World:
    """Everything public of a store by path, and what its catalog says of its releases."""

    public: dict[str, bytes] = field(default_factory=dict)
    catalog: dict[str, CatalogRelease] = field(default_factory=dict)
    places: dict[bytes, tuple[int, Table, int, int]] = field(default_factory=dict)
    frame_bytes: int = 1 << 20
    pack_bytes: int = 8 << 20

    def publish(self, directory: Path, name: str = NAME, *, lie: bool = False) -> CatalogRelease:
        files = Files()
        files.walk(directory)
        if lie:
            largest = int(np.argmax(files.tree.sizes))
            contents = bytearray(b"".join(files.tree.contents.blocks()))
            contents[32 * largest] ^= 1
            files.tree.contents = Spool()
            files.tree.contents.append(contents)
        tree = files.tree.encode()
        manifest_bytes = encode_manifest(
            tree, np.array(files.counts, "<u4").tobytes(), np.array(files.lengths, "<u4").tobytes(), files.ids
        )
        manifest = Manifest.parse(manifest_bytes, place=name)
        groups = [group for group in files.inodes.values() if len(group) > 1]
        attributes = encode_attributes(Digest.of(tree), files.mtimes, groups)
        self.public[object_path(ObjectKind.MANIFEST, manifest.digest)] = manifest_bytes
        self.public[object_path(ObjectKind.ATTRIBUTES, Digest.of(attributes))] = attributes
        self.store(files)
        placement = self.place(files, Release.parse(name), manifest, 1)
        self.catalog[name] = CatalogRelease(
            Release.parse(name),
            Digest.of(tree),
            signed(manifest_bytes),
            signed(attributes),
            signed(placement),
            1,
            manifest.tree.total_bytes,
            manifest.tree.files,
            1_700_000_000,
        )
        return self.catalog[name]

    def store(self, files: Files) -> None:
        new = [c for c in files.plain if c not in self.places]
        while new:
            frames: list[list[bytes]] = []
            size = 0
            while new and size < self.pack_bytes:
                frame: list[bytes] = []
                plain = 0
                while new and plain < self.frame_bytes and len(frame) < 4000:
                    frame.append(new.pop(0))
                    plain += len(files.plain[frame[-1]])
                frames.append(frame)
                size += plain
            self.pack(frames, files.plain)

    def pack(self, frames: list[list[bytes]], plain: dict[bytes, bytes]) -> None:
        builder = TableBuilder()
        parts = [HEADER]
        for frame in frames:
            parts.append(compress(b"".join(plain[c] for c in frame), 1))
            builder.add(KIND_ZSTD, parts[-1], b"".join(frame), [len(plain[c]) for c in frame])
        data = builder.encode()
        table = Table.parse(data, place="pack")
        pack = b"".join(parts) + ending(data)
        self.public[object_path(ObjectKind.PACK, table.id)] = pack
        for number, frame in enumerate(frames):
            offset = 0
            for chunk in frame:
                self.places[chunk] = (len(pack), table, number, offset)
                offset += len(plain[chunk])

    def place(self, files: Files, release: Release, manifest: Manifest, number: int) -> bytes:
        placed = [self.places[files.chunk(n)] for n in range(len(files.lengths))]
        tables = {table.id: (length, table) for length, table, _, _ in placed}
        packs = list(tables)
        frames = sorted({(packs.index(table.id), frame) for _, table, frame, _ in placed})
        numbers = {frame: n for n, frame in enumerate(frames)}
        rows = [(p, tables[packs[p]][1].frame(f)) for p, f in frames]
        data = Placement(
            release,
            manifest.digest,
            number,
            np.array([np.frombuffer(p.raw, "u1") for p in packs], "u1").reshape(-1, 32),
            np.array([tables[p][0] for p in packs], "<u8"),
            np.array([p for p, _ in rows], "<u4"),
            np.array([f.kind for _, f in rows], "u1"),
            np.array([f.offset for _, f in rows], "<u8"),
            np.array([f.length for _, f in rows], "<u4"),
            np.array([f.plain_length for _, f in rows], "<u4"),
            np.array([np.frombuffer(f.digest, "u1") for _, f in rows], "u1").reshape(-1, 32),
            np.array([numbers[packs.index(t.id), f] for _, t, f, _ in placed], "<u4"),
            np.array([o for _, _, _, o in placed], "<u4"),
        ).encode()
        Placement.parse(data, manifest, place=str(release))
        self.public[document_path(DocumentKind.PLACEMENT, f"{release}.{number}")] = data
        return data

    def repack(self, directory: Path, name: str = NAME) -> CatalogRelease:
        """All chunks of the release in new packs, the old ones gone, and a newer placement."""
        old = self.catalog[name]
        for path in [p for p in self.public if p.startswith("packs/")]:
            del self.public[path]
        self.places.clear()
        self.frame_bytes = 300_000
        files = Files()
        files.walk(directory)
        self.store(files)
        path = object_path(ObjectKind.MANIFEST, old.manifest.digest)
        manifest = Manifest.parse(self.public[path], place=name)
        number = old.placement_number + 1
        placement = self.place(files, old.release, manifest, number)
        self.catalog[name] = CatalogRelease(
            old.release,
            old.tree_digest,
            old.manifest,
            old.attributes,
            signed(placement),
            number,
            old.total_bytes,
            old.files,
            old.published,
        )
        return self.catalog[name]


def signed(data: bytes) -> SignedDocument:
    return SignedDocument(Digest.of(data), len(data), hashlib.sha256(data).digest())


class FakeSource:
    """The public files of a world. `spoil` may change the bytes of each range, or raise, on the n-th call."""

    def __init__(self, world: World, spoil: Callable[[int, PackRange, bytes], bytes] | None = None) -> None:
        self.world = world
        self.name = "fake"
        self.traffic = Traffic()
        self._spoil = spoil
        self._lock = threading.Lock()
        self.calls = 0

    def read(self, path: str, *, limit: int) -> bytes:
        data = self.world.public.get(path)
        if data is None:
            raise NotFound("is not there", place=path)
        self._count(len(data))
        return data

    def ranges(self, wanted: Sequence[PackRange]) -> Iterator[tuple[PackRange, bytes]]:
        for piece in wanted:
            pack = self.world.public.get(object_path(ObjectKind.PACK, piece.pack))
            if pack is None:
                raise NotFound("is not there", place=str(piece.pack))
            data = pack[piece.offset : piece.offset + piece.length]
            with self._lock:
                self.calls += 1
                number = self.calls
            if self._spoil:
                data = self._spoil(number, piece, data)
            self._count(len(data))
            yield piece, data

    def close(self) -> None:
        pass

    def _count(self, length: int) -> None:
        with self._lock:
            self.traffic.bytes_downloaded += length
            self.traffic.requests += 1


class Notes:
    """Progress that remembers warnings and phases."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.phases: list[str] = []

    def begin(self, phase: str, total_bytes: int | None) -> None:
        self.phases.append(phase)

    def advance(self, count_bytes: int) -> None:
        pass

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def put(
    entry: CatalogRelease,
    source: FakeSource,
    root: Path,
    notes: Notes | None = None,
    options: InstallOptions | None = None,
    refresh: Callable[[], CatalogRelease] | None = None,
    planned: Callable[[Plan], object] = lambda _: None,
) -> Installed:
    """Install with what most tests leave as it is."""
    return install(
        entry,
        source=source,
        root=root,
        progress=notes or Notes(),
        now=lambda: 1_700_000_000.0,
        refresh=refresh,
        planned=planned,
        options=options or InstallOptions(range_bytes=1 << 20),
    )


def make_tree(top: Path) -> Path:
    """One of everything."""
    (top / "bin").mkdir(parents=True)
    (top / "empty").mkdir()
    (top / "lib/deep/er/still").mkdir(parents=True)
    (top / "bin/run").write_bytes(b"#!/bin/sh\nexit 0\n")
    (top / "bin/run").chmod(0o755)
    (top / "none").write_bytes(b"")
    (top / "lib/none.py").write_bytes(b"")
    (top / "lib/big.so").write_bytes(noise("big", 3 << 20))
    (top / "lib/copy.so").write_bytes(noise("big", 3 << 20))
    (top / "lib/zeros").write_bytes(bytes(2 << 20))
    (top / "lib/deep/er/still/text").write_bytes(b"a small file\n" * 100)
    (top / "lib/deep/same").write_bytes(b"a small file\n" * 100)
    os.link(top / "lib/deep/same", top / "lib/deep/er/same-again")
    os.link(top / "lib/deep/same", top / "bin/same-too")
    (top / "lib/Grüße – 日本").write_bytes("ünïcode".encode())
    (top / "lib/abs").symlink_to("/etc/passwd")
    (top / "lib/dangling").symlink_to("no/such\tplace")
    (top / "up").symlink_to("lib/deep")
    for number in range(40):
        (top / f"lib/deep/f{number:02}").write_bytes(noise(f"f{number}", 1000 * number + 1))
    for number, path in enumerate(sorted([*top.rglob("*")], reverse=True)):
        os.utime(path, (1_600_000_000 + number, 1_600_000_000 + number), follow_symlinks=False)
    for path in top.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.name == "run" else 0o644)
    for path in sorted(top.rglob("*"), reverse=True):
        os.utime(path, (1_500_000_000, 1_500_000_000 + len(path.name)), follow_symlinks=False)
    return top


def look(top: Path) -> dict[str, object]:
    """Everything about a tree that an installation promises."""
    seen: dict[str, object] = {}
    inodes: dict[int, list[str]] = {}
    for path in sorted(top.rglob("*")):
        found = path.lstat()
        name = str(path.relative_to(top))
        kind = stat.S_IFMT(found.st_mode)
        content: object = None
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = blake3(path.read_bytes()).hexdigest()
            inodes.setdefault(found.st_ino, []).append(name)
        seen[name] = (kind, found.st_mode & 0o777 if not path.is_symlink() else 0, int(found.st_mtime), content)
    seen["linked"] = sorted(group for group in inodes.values() if len(group) > 1)
    return seen


def tree_of(world: World, entry: CatalogRelease) -> Tree:
    data = world.public[object_path(ObjectKind.MANIFEST, entry.manifest.digest)]
    return Manifest.parse(data, place="").tree
