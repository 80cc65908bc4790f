"""Trees to publish, made from a seed, and an exact comparison of what was installed with what was published."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import numpy as np

KIB = 1024
MIB = 1024 * KIB


def content(seed: int, length: int, *, bits: int = 5) -> bytes:
    """`length` bytes of about `bits` bits of entropy each, always the same for a seed."""
    return np.random.default_rng(seed).integers(0, 1 << bits, length, dtype=np.uint8).tobytes()


def fill(where: Path, *, seed: int, files: int, file_bytes: int, bits: int = 5) -> Path:
    """A directory with `files` files of `file_bytes` each, in subdirectories of 20."""
    for number in range(files):
        path = where / f"d{number // 20:03}" / f"f{number:05}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(seed * 100_000 + number, file_bytes, bits=bits))
    return where


def change(tree: Path, *, seed: int, share: float) -> None:
    """Write about `share` of the files of `tree` anew, with content of the same length that no version had before."""
    chosen = np.random.default_rng(seed)
    for path in sorted(p for p in tree.rglob("*.bin") if p.is_file()):
        if chosen.random() < share:
            length = path.stat().st_size
            path.unlink()
            path.write_bytes(content(int(chosen.integers(1 << 60)), length))


def one_of_each(where: Path) -> Path:
    """A small tree with every kind of entry that a release may have."""
    (where / "lib/empty directory").mkdir(parents=True)
    (where / "bin").mkdir()
    (where / "share/größe").mkdir(parents=True)
    (where / "empty").touch()
    (where / "one byte").write_bytes(b"x")
    (where / "lib/large.so").write_bytes(content(1, 3 * MIB))
    (where / "lib/just a chunk").write_bytes(content(2, 256 * KIB))
    (where / "lib/zeros").write_bytes(bytes(600 * KIB))
    (where / "share/größe/名前.txt").write_text("text\n" * 1000)
    (where / "share/quote'\"$(x)").write_bytes(b"odd name")
    run = where / "bin/run"
    run.write_bytes(b"#!/bin/sh\nexit 0\n")
    run.chmod(0o755)
    os.link(run, where / "bin/walk")
    os.link(where / "lib/large.so", where / "lib/large.so.1")
    os.symlink("large.so", where / "lib/link")
    os.symlink("/nonexistent/absolute", where / "lib/dangling")
    os.symlink("../../../../etc/passwd", where / "lib/outside")
    os.symlink("empty directory", where / "lib/to directory")
    with (where / "sparse").open("wb") as sparse:
        sparse.seek(2 * MIB)
        sparse.write(b"end")
    os.utime(where / "one byte", (0, 0))
    os.utime(run, (1_000_000_000, 1_000_000_000))
    os.utime(where / "lib", (1_100_000_000, 1_100_000_000))
    return where


def copy(tree: Path, where: Path) -> Path:
    """A copy with links of both kinds and times."""
    shutil.copytree(tree, where, symlinks=True)
    return where


def assert_same(installed: Path, published: Path) -> None:
    """Fail unless both trees have the same entries, bytes, modes, whole seconds and hard links."""
    assert _describe(installed) == _describe(published)
    for path in _paths(published):
        if _is_file(published / path):
            assert (installed / path).read_bytes() == (published / path).read_bytes(), path


def _paths(top: Path) -> list[Path]:
    return sorted(p.relative_to(top) for p in top.rglob("*"))


def _is_file(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode)


def _describe(top: Path) -> dict[str, tuple]:
    """Kind, executable bit, size or target, time and hard-linked names of every entry."""
    linked: dict[int, list[str]] = {}
    for path in _paths(top):
        linked.setdefault((top / path).lstat().st_ino, []).append(str(path))
    described = {}
    for path in _paths(top):
        found = (top / path).lstat()
        what: object = os.readlink(top / path) if stat.S_ISLNK(found.st_mode) else None
        if stat.S_ISREG(found.st_mode):
            what = (found.st_size, bool(found.st_mode & 0o100))
        described[str(path)] = (
            stat.S_IFMT(found.st_mode),
            what,
            int(found.st_mtime_ns // 1_000_000_000),
            linked[found.st_ino],
        )
    return described
