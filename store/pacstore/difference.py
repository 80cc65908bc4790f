"""The difference of two releases: files, chunks, and the bytes that an update from one to the other moves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np

from pacstore.document import row_keys
from pacstore.install.documents import Documents
from pacstore.install.options import InstallOptions
from pacstore.install.planning import plan_fetch
from pacstore.install.wanted import Wanted
from pacstore.placement import Placement
from pacstore.tree import Entry, Tree


@dataclass(frozen=True)
class Difference:
    """From an old release to a new one. Paths are those of files, directories and links, in tree order.

    `bytes_new`: plain bytes of the `chunks_new` distinct chunks that the old release lacks; `bytes_to_download` and `requests`:
    what an update of an installed old release asks a server for, documents included.
    """

    added: list[str]
    removed: list[str]
    changed: list[str]
    unchanged: int
    chunks_new: int
    chunks_shared: int
    bytes_new: int
    bytes_to_download: int
    requests: int


def compare(old: Documents, new: Documents, placement: Placement) -> Difference:
    """The difference from `old` to `new`, whose placement is `placement`."""
    wanted = Wanted(new.manifest, new.attributes)
    shared = np.isin(row_keys(wanted.ids()), row_keys(old.manifest.chunk_ids[: old.manifest.tree_chunks]))
    missing = np.flatnonzero(~shared).astype(np.int32)
    fetch = plan_fetch(wanted, placement, missing, InstallOptions())
    added, removed, changed, unchanged = _paths(old.manifest.tree, new.manifest.tree)
    documents = len(new.manifest_bytes) + len(new.attributes_bytes) + len(placement.encode())
    return Difference(
        added=added,
        removed=removed,
        changed=changed,
        unchanged=unchanged,
        chunks_new=len(missing),
        chunks_shared=int(shared.sum()),
        bytes_new=int(wanted.lengths[missing].sum(dtype=np.int64)),
        bytes_to_download=fetch.bytes + documents,
        requests=fetch.requests + 3,
    )


def _paths(old: Tree, new: Tree) -> tuple[list[str], list[str], list[str], int]:
    added: list[str] = []
    removed: list[str] = []
    changed: list[str] = []
    unchanged = 0
    for before, after in _merge(old.walk(), new.walk()):
        if before is None and after is not None:
            added.append(after.path)
        elif after is None and before is not None:
            removed.append(before.path)
        elif before is not None and after is not None:
            same = (before.kind, before.content, before.target) == (after.kind, after.content, after.target)
            unchanged += same
            if not same:
                changed.append(after.path)
    return added, removed, changed, unchanged


def _merge(old: Iterator[Entry], new: Iterator[Entry]) -> Iterator[tuple[Entry | None, Entry | None]]:
    """Pairs of entries of the same path, or one alone, in tree order."""
    left, right = next(old, None), next(new, None)
    while left is not None and right is not None:
        a, b = left.path.split("/"), right.path.split("/")
        # Python orders text by code points, which is the order of its UTF-8 bytes.
        yield (left if a <= b else None, right if b <= a else None)
        left, right = (next(old, None) if a <= b else left), (next(new, None) if b <= a else right)
    yield from ((entry, None) for entry in chain([left] if left else [], old))
    yield from ((None, entry) for entry in chain([right] if right else [], new))
