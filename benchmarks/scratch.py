"""A fresh file system for each measurement.

On a much-used file system the creation of files costs many times what it costs on a fresh one, and what an earlier
measurement left to be written is charged to the next. So each measurement gets its own: ext4 in a sparse file on a
loop device; where that cannot be had a tmpfs, else a plain directory. `Scratch.kind` says which, and so does the report.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

EXT4, TMPFS, DIRECTORY = "ext4 on a loop device", "tmpfs", "plain directory"
BTRFS = "compressing btrfs on a loop device"
IMAGE_BYTES = 32 << 30  # sparse: only what is written takes room
INODES = 500_000
COMPRESSING_BYTES = 400 << 30  # sparse as well


@dataclass(frozen=True, slots=True)
class Scratch:
    path: Path
    kind: str


class ScratchFullError(Exception):
    """There is not enough room for a measurement."""


@contextmanager
def fresh(parent: Path, *, need_bytes: int) -> Iterator[Scratch]:
    """A new, empty file system under ``parent``; gone when the block ends, however it ends.

    Raises ScratchFullError if fewer than ``need_bytes`` are free under ``parent``.
    """
    with _home(parent, need_bytes) as home:
        yield Scratch(home / "fs", _make(home))


@contextmanager
def compressing(parent: Path, *, need_bytes: int) -> Iterator[Scratch]:
    """The same on a file system that compresses what is written; without root, as ``fresh``."""
    with _home(parent, need_bytes) as home:
        if os.geteuid() == 0:
            (home / "fs").mkdir()
            _mount_btrfs(home, home / "fs")
            yield Scratch(home / "fs", BTRFS)
        else:
            yield Scratch(home / "fs", _make(home))


@contextmanager
def _home(parent: Path, need_bytes: int) -> Iterator[Path]:
    parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(parent).free
    if free < need_bytes:
        raise ScratchFullError(f"{parent} has {free >> 20} MiB free; this measurement needs {need_bytes >> 20} MiB")
    home = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=parent))
    try:
        yield home
    finally:
        _remove(home)


def sweep(parent: Path) -> None:
    """Removes what runs that were killed outright left mounted or lying under ``parent``."""
    for home in parent.glob("*-*") if parent.is_dir() else ():
        pid = home.name.split("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            _remove(home)


def _make(home: Path) -> str:
    mount = home / "fs"
    mount.mkdir()
    ways: list[tuple[str, Callable[[Path, Path], None]]] = [(EXT4, _mount_ext4), (TMPFS, _mount_tmpfs)]
    for kind, way in ways if os.geteuid() == 0 else ():
        try:
            way(home, mount)
        except (OSError, subprocess.CalledProcessError):
            continue
        return kind
    return DIRECTORY


def _mount_ext4(home: Path, mount: Path) -> None:
    image = home / "image"
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    lazy = "lazy_itable_init=1,lazy_journal_init=1"  # a sparse file is zero already
    _quietly("mkfs.ext4", "-q", "-F", "-m", "0", "-N", str(INODES), "-E", lazy, str(image))
    # noinit_itable: no kernel thread that goes on initialising while we measure
    _quietly("mount", "-o", "loop,noatime,noinit_itable", str(image), str(mount))
    (mount / "lost+found").rmdir()


def _mount_btrfs(home: Path, mount: Path) -> None:
    image = home / "image"
    with image.open("wb") as file:
        file.truncate(COMPRESSING_BYTES)
    _quietly("mkfs.btrfs", "-q", str(image))
    _quietly("mount", "-o", "loop,noatime,compress=zstd:1", str(image), str(mount))


def _mount_tmpfs(_home: Path, mount: Path) -> None:
    _quietly("mount", "-t", "tmpfs", "-o", "noatime,mode=0755", "pacball-bench", str(mount))


def _remove(home: Path) -> None:
    mount = home / "fs"
    for attempt in range(20):
        if not mount.is_mount():
            break
        force = ["-l"] if attempt > 15 else []
        if subprocess.run(["umount", *force, str(mount)], stderr=subprocess.DEVNULL, check=False).returncode != 0:
            time.sleep(0.25)
    if mount.is_mount():
        raise OSError(f"{mount} cannot be unmounted; do that before its directory is removed")
    shutil.rmtree(home, ignore_errors=True)


def _quietly(*command: str) -> None:
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
