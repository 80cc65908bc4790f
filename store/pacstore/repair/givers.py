"""Who is asked for what is damaged, and in which order: what is near and quick first, reading whole trees last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pacstore.directory_source import DirectorySource
from pacstore.repair.giver import Giver, SourceGiver
from pacstore.repair.trees import TreeGiver
from pacstore.storage import STORE_MARKER

if TYPE_CHECKING:
    from pacstore.repair.usage import Usage
    from pacstore.source import Source


@dataclass(frozen=True)
class Givers:
    """`frames` may have frames and tables, `documents` may have documents; both in the order in which they are to be asked."""

    frames: tuple[Giver, ...]
    documents: tuple[Source, ...]


def find_givers(sources: Sequence[Source], seeds: Sequence[Path], usage: Usage) -> Givers:
    """The givers that `sources` are, and local directories: stores, and trees of files such as installed releases."""
    stores = [DirectorySource(seed) for seed in seeds if is_store(seed)]
    trees = [seed for seed in seeds if not is_store(seed)]
    documents = (*stores, *sources)
    quick = [TreeGiver(tree, usage.manifests, searches=False) for tree in trees]
    thorough = [TreeGiver(tree, usage.manifests, searches=True) for tree in trees]
    return Givers((*quick, *map(SourceGiver, documents), *thorough), documents)


def is_store(directory: Path) -> bool:
    """Whether it is a store's directory or docroot."""
    return (directory / STORE_MARKER).exists() or (directory / "public" / STORE_MARKER).exists()
