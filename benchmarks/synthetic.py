"""A release of any size that takes little disk: no two chunks are the same, but all of them compress to almost nothing.

The store is complete for installers behind any web server. Each frame stands before a hole of its sparse pack, so that as many
bytes travel as if the content had compressed to a quarter. The packs have no tables: installers do not read them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from blake3 import blake3

from paccli.keychain import open_or_create_catalog
from pacstore.attributes import encode_attributes
from pacstore.codec import KIND_ZSTD, compress
from pacstore.digest import Digest
from pacstore.holding import holdings_of
from pacstore.links import links_of
from pacstore.manifest import Manifest, encode_manifest
from pacstore.pack import FOOTER_BYTES, FRAMES_BEGIN
from pacstore.placement import Placement
from pacstore.release import Release
from pacstore.storage import DocumentKind, ObjectKind, ObjectStorage, object_path
from pacstore.store import Store
from pacstore.tree import EntryKind, TreeBuilder
from pacstore.trust.targets import CatalogRelease, SignedDocument

SMALL_BYTES, LARGE_CHUNK_BYTES, LARGE_CHUNKS = 20_000, 128 << 10, 7
LARGE_EVERY = 6
FILES_A_DIRECTORY, DIRECTORIES_A_DIRECTORY = 300, 10
FRAME_BYTES, HOLE_BYTES, PACK_BYTES = 1 << 20, 250_000, 64 << 20
MTIME = 1_700_000_000
_FILLER = (b"".join(b"line %d of a text that compresses well\n" % n for n in range(100)) * 50)[: 256 << 10]


@dataclass(slots=True)
class _Frames:
    """Frames as a placement lists them, and the sparse packs that they are written to."""

    public: Path
    release: str
    offset: int = FRAMES_BEGIN
    packs: list[Digest] = field(default_factory=list)
    pack_lengths: list[int] = field(default_factory=list)
    rows: list[tuple[int, int, int, int, bytes]] = field(default_factory=list)

    def add(self, compressed: bytes, plain_bytes: int) -> None:
        """Write a frame; a pack that is full ends before it."""
        if not self.packs or self.offset > PACK_BYTES:
            self._end_pack()
            self.packs.append(Digest(blake3(f"{self.release} pack {len(self.packs)}".encode()).digest()))
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.touch()
            self.offset = FRAMES_BEGIN
        with self._path.open("r+b") as file:
            file.seek(self.offset)
            file.write(compressed)
        digest = blake3(compressed).digest()
        self.rows.append((len(self.packs) - 1, self.offset, len(compressed), plain_bytes, digest))
        self.offset += len(compressed) + HOLE_BYTES

    @property
    def _path(self) -> Path:
        return self.public / object_path(ObjectKind.PACK, self.packs[-1])

    def _end_pack(self) -> None:
        if self.packs:
            self.pack_lengths.append(self.offset + FOOTER_BYTES)
            with self._path.open("r+b") as file:
                file.truncate(self.pack_lengths[-1])

    def placement(self, release: Release, manifest: Manifest, chunk_frames: list[int], offsets: list[int]) -> Placement:
        """The placement of `manifest`, whose chunks are in these frames at these offsets."""
        self._end_pack()
        packs, begins, lengths, plain_lengths, digests = zip(*self.rows, strict=True)
        return Placement(
            release,
            manifest.digest,
            1,
            np.frombuffer(b"".join(pack.raw for pack in self.packs), "u1").reshape(-1, 32),
            np.array(self.pack_lengths, "<u8"),
            np.array(packs, "<u4"),
            np.full(len(packs), KIND_ZSTD, "u1"),
            np.array(begins, "<u8"),
            np.array(lengths, "<u4"),
            np.array(plain_lengths, "<u4"),
            np.frombuffer(b"".join(digests), "u1").reshape(-1, 32),
            np.array(chunk_frames, "<u4"),
            np.array(offsets, "<u4"),
        )


@dataclass(slots=True)
class _Content:
    """The files' content as a manifest lists it."""

    counts: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    ids: bytearray = field(default_factory=bytearray)
    frames: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)


def make(home: Path, release: Release, *, files: int, changed_every: int = 0) -> int:
    """Make `release` with so many files, in a store at `home`/store with keys in `home`/keys; its plain bytes.

    Its files are always the same, but for one of `changed_every`, whose chunks only this release has.
    Every sixth file has seven chunks of 128 KiB, the others one of 20 kB: 170 kB a file, two chunks a file.
    """
    with Store.create(home / "store") as store:
        catalog, keys = open_or_create_catalog(store, home / "keys", None, None, lambda _: None)
        frames = _Frames(store.path / "public", str(release))
        content, tree = _Content(), TreeBuilder()
        _fill(tree, content, frames, _Files(files, str(release), changed_every))
        document = tree.encode()
        manifest_bytes = encode_manifest(
            document, np.array(content.counts, "<u4").tobytes(), np.array(content.lengths, "<u4").tobytes(), content.ids
        )
        attributes = encode_attributes(Digest.of(document), [MTIME] * len(tree.kinds), [])
        manifest = Manifest.parse(manifest_bytes, place=str(release))
        placement = frames.placement(release, manifest, content.frames, content.offsets)
        store.storage.create(DocumentKind.PLACEMENT, placement.document_name, placement.encode())
        entry = CatalogRelease(
            release,
            manifest.tree.digest,
            _store(store.storage, ObjectKind.MANIFEST, manifest_bytes),
            _store(store.storage, ObjectKind.ATTRIBUTES, attributes),
            SignedDocument.of_all([placement.encode()]),
            1,
            manifest.tree.total_bytes,
            manifest.tree.files,
            MTIME,
        )
        store.storage.link(links_of(entry))
        store.storage.put(DocumentKind.HOLDINGS, str(release), holdings_of(entry).encode())
        catalog.publish(entry, keys, now=time.time(), sign_later=False)
        return entry.total_bytes


@dataclass(frozen=True, slots=True)
class _Files:
    """How many files there are, and which of them only this release has."""

    count: int
    release: str
    changed_every: int

    def seed(self, file: int) -> str:
        """What makes the content of a file its own."""
        return f"{self.release} {file}" if self.changed_every and file % self.changed_every == 0 else f"{file}"


def _fill(tree: TreeBuilder, content: _Content, frames: _Frames, files: _Files) -> None:
    """Add all files, in directories of two levels, and write their frames."""
    with ThreadPoolExecutor(2) as pool:
        jobs = pool.map(_frame, _runs(tree, files))
        for number, (compressed, plain_bytes, chunks, whole) in enumerate(jobs):
            frames.add(compressed, plain_bytes)
            offset = 0
            for length, digest in chunks:
                content.lengths.append(length)
                content.ids += digest
                content.frames.append(number)
                content.offsets.append(offset)
                offset += length
            for count, size, digest in whole:
                content.counts.append(count)
                tree.add_content(size, digest)


_Frame = tuple[bytes, int, list[tuple[int, bytes]], list[tuple[int, int, bytes]]]


def _frame(seeds_and_counts: list[tuple[str, int]]) -> _Frame:
    """A run of files compressed, its plain length, (length, id) of each chunk, (chunks, size, digest) of each file."""
    plain = bytearray()
    chunks: list[tuple[int, bytes]] = []
    whole: list[tuple[int, int, bytes]] = []
    for seed, count in seeds_and_counts:
        begin = len(plain)
        length = LARGE_CHUNK_BYTES if count > 1 else SMALL_BYTES
        for number in range(count):
            chunk = blake3(f"{seed} {number}".encode()).digest() + _FILLER[: length - 32]
            chunks.append((length, blake3(chunk).digest()))
            plain += chunk
        whole.append((count, len(plain) - begin, blake3(memoryview(plain)[begin:]).digest()))
    return compress(plain, 1), len(plain), chunks, whole


def _runs(tree: TreeBuilder, files: _Files) -> Iterator[list[tuple[str, int]]]:
    """Runs of files that make up a frame each: what makes each one's content its own, and how many chunks it has."""
    run: list[tuple[str, int]] = []
    size = 0
    for file in range(files.count):
        _add(tree, file)
        count = LARGE_CHUNKS if file % LARGE_EVERY == 0 else 1
        length = count * LARGE_CHUNK_BYTES if count > 1 else SMALL_BYTES
        if size + length > FRAME_BYTES and run:
            yield run
            run, size = [], 0
        run.append((files.seed(file), count))
        size += length
    yield run


def _add(tree: TreeBuilder, file: int) -> None:
    directory, at = divmod(file, FILES_A_DIRECTORY)
    if at == 0 and directory % DIRECTORIES_A_DIRECTORY == 0:
        tree.add(0, b"package%04d" % (directory // DIRECTORIES_A_DIRECTORY), EntryKind.DIRECTORY)
    if at == 0:
        tree.add(1, b"part%d" % (directory % DIRECTORIES_A_DIRECTORY), EntryKind.DIRECTORY)
    tree.add(2, b"module_with_a_name_%03d.so" % at, EntryKind.FILE)


def _store(storage: ObjectStorage, kind: ObjectKind, data: bytes) -> SignedDocument:
    signed = SignedDocument.of_all([data])
    with storage.stage(kind) as staged:
        staged.write(data)
        staged.publish(signed.digest)
    return signed
