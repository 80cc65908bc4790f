"""Manifests: a tree and the chunks of each of its files, and those of an original file beside it (FORMAT.md section 4.2)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from pacstore.chunker import CHUNKER, ChunkerParameters
from pacstore.digest import Bytes, Digest
from pacstore.document import (
    U32,
    Column8,
    Column32,
    Document,
    Layout,
    Numbers,
    Value,
    decode,
    encode_beginning,
    row_keys,
    starts,
)
from pacstore.errors import NewerFormat
from pacstore.limits import LIMITS
from pacstore.original import Original
from pacstore.tree import Tree

LAYOUT = Layout(
    letters="MANI",
    title="manifest",
    keys=("chunker", "chunks", "tree"),
    sections=("tree", "chunk_counts", "chunk_lengths", "chunk_ids"),
    limit_bytes=LIMITS.manifest_bytes,
)
LAYOUT_WITH_ORIGINAL = replace(
    LAYOUT,
    keys=("chunker", "chunks", "original", "tree"),
    sections=(*LAYOUT.sections, "literal_lengths", "literal_files"),
    version=2,
)

_ROWS_AT_ONCE = 65_536


@dataclass(frozen=True, eq=False)
class Manifest:
    """A parsed manifest; columns are views. `chunk_ids` is C x 32 bytes.

    The chunks of file f are those from `first_chunks[f]` up to, not including, `first_chunks[f + 1]`. Behind those of all files
    stand the ones of the residue of the `original`, if there is one.
    """

    digest: Digest
    length: int
    tree: Tree
    chunk_counts: Column32
    chunk_lengths: Column32
    chunk_ids: Column8
    first_chunks: Numbers
    original: Original | None = None

    @classmethod
    def parse(cls, data: Bytes, *, place: str) -> Manifest:
        """The manifest in `data`. Raises Corrupt, TooLarge or NewerFormat for all that FORMAT.md does not allow."""
        document = decode_manifest(data, place=place)
        _check_chunker(document)
        chunks = document.number("chunks", LIMITS.manifest_chunks)
        tree = Tree.parse(document.sections["tree"], place=f"the tree of {place}")
        if tree.digest != document.digest("tree"):
            raise document.corrupt("its tree is not the one that its header names")
        counts = cast(Column32, document.column("chunk_counts", U32, tree.files))
        manifest = cls(
            digest=Digest.of(data),
            length=memoryview(data).nbytes,
            tree=tree,
            chunk_counts=counts,
            chunk_lengths=cast(Column32, document.column("chunk_lengths", U32, chunks)),
            chunk_ids=document.digests("chunk_ids", chunks),
            first_chunks=starts(counts),
            original=Original.of_document(document) if document.layout is LAYOUT_WITH_ORIGINAL else None,
        )
        _check(manifest, document)
        return manifest

    @property
    def chunks(self) -> int:
        return len(self.chunk_lengths)

    @property
    def tree_chunks(self) -> int:
        """How many of the chunks belong to files: the first ones."""
        return int(self.first_chunks[-1])


def decode_manifest(data: Bytes, *, place: str) -> Document:
    """The manifest document in `data`, with or without an original. Raises Corrupt, TooLarge or NewerFormat."""
    magic = bytes(memoryview(data)[: len(LAYOUT.magic)])
    # A newer one than both is compared with the newest that is known.
    layout = LAYOUT if magic == LAYOUT.magic or magic[:6] != LAYOUT.magic[:6] else LAYOUT_WITH_ORIGINAL
    return decode(layout, data, place=place)


def encode_manifest(tree: bytes, chunk_counts: bytes, chunk_lengths: bytes, chunk_ids: Bytes) -> bytes:
    """The canonical manifest of the tree document `tree` and the encoded columns of its chunks."""
    columns = [tree, chunk_counts, chunk_lengths, chunk_ids]
    return b"".join([encode_manifest_beginning(Digest.of(tree), [len(column) for column in columns]), *columns])


def encode_manifest_beginning(tree: Digest, lengths: list[int], original: Original | None = None) -> bytes:
    """What comes before the sections of a manifest of the tree with digest `tree`; `lengths`: of its sections, in bytes.

    It has four of them, and with an `original` the two of that.
    """
    header: dict[str, Value] = {"tree": tree.raw, "chunks": lengths[2] // U32.itemsize, "chunker": CHUNKER.header()}
    if original is None:
        return encode_beginning(LAYOUT, header, lengths)
    return encode_beginning(LAYOUT_WITH_ORIGINAL, {**header, "original": original.header()}, lengths)


def _check_chunker(document: Document) -> None:
    value = document.header.get("chunker")
    if ChunkerParameters.from_header(value) is None:
        raise document.corrupt("its header does not describe a chunker")
    if value != CHUNKER.header():
        raise NewerFormat(
            "was made with a chunker that this pacball does not know", place=document.place, hint="install a newer one"
        )


def _check(manifest: Manifest, document: Document) -> None:
    lengths = manifest.chunk_lengths
    residue = manifest.chunks - manifest.tree_chunks
    if residue < 0 or (residue and manifest.original is None):
        raise document.corrupt("the chunk counts do not add up to 'chunks'")
    if ((lengths == 0) | (lengths > CHUNKER.max_bytes)).any():
        raise document.corrupt("a chunk is empty or too long")
    ends = starts(lengths)
    sums = ends[manifest.first_chunks[1:]] - ends[manifest.first_chunks[:-1]]
    # At most 2^27 chunks of 2^18 bytes: no sum overflows, and a forged size above 2^63 was refused by the tree.
    if (sums != manifest.tree.sizes.astype(np.int64)).any():
        raise document.corrupt("the chunks of a file do not add up to its size")
    if manifest.original is not None:
        fault = manifest.original.fault(manifest.tree.sizes, int(ends[-1] - ends[manifest.tree_chunks]))
        if fault:
            raise document.corrupt(fault)
    single = np.flatnonzero(manifest.chunk_counts == 1)
    for begin in range(0, len(single), _ROWS_AT_ONCE):
        files = single[begin : begin + _ROWS_AT_ONCE]
        if (manifest.chunk_ids[manifest.first_chunks[files]] != manifest.tree.contents[files]).any():
            raise document.corrupt("the only chunk of a file is not the file")
    if _lengths_differ(manifest):
        raise document.corrupt("equal chunks have different lengths")


def _lengths_differ(manifest: Manifest) -> bool:
    """Whether chunks with one id have several lengths. Only those are compared whole that begin alike: the others are many."""
    beginnings = np.ascontiguousarray(manifest.chunk_ids[:, :8]).view(np.uint64).reshape(manifest.chunks)
    order = np.argsort(beginnings)
    alike = np.zeros(manifest.chunks + 1, dtype=bool)
    alike[1:-1] = np.diff(beginnings[order]) == 0
    some = order[alike[1:] | alike[:-1]]
    some = some[np.argsort(row_keys(manifest.chunk_ids[some]))]
    same = (manifest.chunk_ids[some][1:] == manifest.chunk_ids[some][:-1]).all(axis=1)
    lengths = manifest.chunk_lengths[some]
    return bool((same & (lengths[1:] != lengths[:-1])).any())
