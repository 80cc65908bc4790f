"""What is in a tree: its bytes read once to warm the page cache, and whether two trees are the same."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

READ_BYTES = 1 << 20
Entry = tuple[str, ...]


class TreeDiffersError(Exception):
    """A restored tree is not the tree that was stored."""


def warm(root: Path) -> int:
    """Reads every file under ``root`` once; returns how many bytes that were."""
    total = 0
    buffer = bytearray(READ_BYTES)
    for path in _files(root):
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                total += count
    return total


def stored_bytes(root: Path, *, without: tuple[str, ...] = ()) -> int:
    """The sizes of all files under ``root``, except below top-level entries whose names begin as in ``without``."""
    return sum(
        path.lstat().st_size
        for path in _files(root)
        if not without or not path.relative_to(root).parts[0].startswith(without)
    )


def require_same(restored: Path, original: Path) -> None:
    """Raises TreeDiffersError unless contents, links, executable bits and directories are the same."""
    have, want = fingerprint(restored), known_fingerprint(original)
    different = [path for path in sorted(have.keys() | want.keys()) if have.get(path) != want.get(path)]
    if different:
        detail = "; ".join(f"{path}: {have.get(path)} instead of {want.get(path)}" for path in different[:3])
        raise TreeDiffersError(f"{restored} differs from {original} in {len(different)} entries: {detail}")


def fingerprint(root: Path) -> dict[str, Entry]:
    """Each path under ``root`` with its kind, executable bit and SHA-256, or link target."""
    entries: dict[str, Entry] = {}
    for folder, directories, files in os.walk(root):
        for name in (*directories, *files):
            path = Path(folder, name)
            entries[str(path.relative_to(root))] = _entry(path)
    return entries


_known: dict[Path, dict[str, Entry]] = {}


def known_fingerprint(root: Path) -> dict[str, Entry]:
    """As `fingerprint`, computed once a run: for originals, which nobody changes."""
    if root not in _known:
        _known[root] = fingerprint(root)
    return _known[root]


def _entry(path: Path) -> Entry:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return ("link", os.readlink(path))
    if stat.S_ISDIR(mode):
        return ("directory",)
    with path.open("rb") as file:
        return ("executable" if mode & 0o100 else "file", hashlib.file_digest(file, "sha256").hexdigest())


def _files(root: Path) -> list[Path]:
    found = []
    for folder, _, files in os.walk(root):
        found += [path for name in files if not (path := Path(folder, name)).is_symlink()]
    return found
