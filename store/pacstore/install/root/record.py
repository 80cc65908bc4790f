"""Records: kept manifests, read with little memory.

A record was checked strictly before it was kept. Here its tree is compared with the tree digest beside it, and its columns are
mapped, not copied; what a seed holds is verified as it is read, so nothing more depends on it.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from typing import cast

from blake3 import blake3

from pacstore import tree as tree_format
from pacstore.digest import Digest
from pacstore.document import U32, Column32, decode, starts
from pacstore.errors import Corrupt
from pacstore.limits import LIMITS, MIB
from pacstore.manifest import Manifest, decode_manifest
from pacstore.tree import Tree


def read_record(descriptor: int, data: memoryview, *, place: str) -> Manifest:
    """The manifest in the open file `descriptor`, whose mapped bytes are `data`.

    Its digest is not computed: it is that of the tree. Raises Corrupt, TooLarge, NewerFormat or OSError.
    """
    document = decode_manifest(data, place=place)
    begin = len(data) - sum(len(section) for section in document.sections.values())
    digest = document.digest("tree")
    if _digest(descriptor, begin, len(document.sections["tree"])) != digest:
        raise Corrupt("is damaged: its tree is not the one that its header names", place=place)
    tree = Tree.of_document(decode(tree_format.LAYOUT, document.sections["tree"], place=place), digest)
    chunks = document.number("chunks", LIMITS.manifest_chunks)
    counts = cast(Column32, document.column("chunk_counts", U32, tree.files))
    manifest = Manifest(
        digest=digest,
        length=len(data),
        tree=tree,
        chunk_counts=counts,
        chunk_lengths=cast(Column32, document.column("chunk_lengths", U32, chunks)),
        chunk_ids=document.digests("chunk_ids", chunks),
        first_chunks=starts(counts),
    )
    if manifest.tree_chunks > chunks:
        raise Corrupt("is damaged: the chunk counts do not add up", place=place)
    return manifest


def let_go(manifest: Manifest) -> None:
    """Give back the memory that reading a record's columns took; what is read again comes from the disk again."""
    mapped = manifest.tree.names.obj
    if isinstance(mapped, mmap.mmap):
        mapped.madvise(mmap.MADV_DONTNEED)


def _digest(descriptor: int, begin: int, length: int) -> Digest:
    """The digest of a part of a file, read rather than mapped, so that it takes no memory."""
    hasher = blake3()
    for piece in _pieces(descriptor, begin, length):
        hasher.update(piece)
    return Digest(hasher.digest())


def _pieces(descriptor: int, begin: int, length: int) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(MIB))
    while length:
        count = os.preadv(descriptor, [buffer[: min(length, MIB)]], begin)
        if not count:
            return
        yield buffer[:count]
        begin += count
        length -= count
