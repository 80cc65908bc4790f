"""Mounts: on what kind of file system a directory lies."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

NETWORK_FILE_SYSTEMS = frozenset(
    ("nfs", "nfs4", "lustre", "ceph", "fuse.ceph", "cifs", "smb3", "smbfs", "9p", "afs", "gpfs", "beegfs", "fuse.sshfs",
     "glusterfs", "fuse.glusterfs", "orangefs", "ocfs2", "gfs2")
)  # fmt: skip
LOCAL_FILE_SYSTEMS = frozenset(
    ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "bcachefs", "tmpfs", "ramfs", "overlay")
)
"""Those that only one kernel has mounted at a time."""
_OCTAL = re.compile(r"\\([0-7]{3})")
"""How the kernel writes spaces, tabs, newlines and backslashes in the names of mount points."""


@dataclass(frozen=True)
class Mount:
    """Where a file system is mounted, of which kind it is, and the options of the mount, such as `ro`."""

    point: str
    kind: str
    options: frozenset[str]

    @property
    def is_network(self) -> bool:
        """Whether other machines may change what is in it."""
        return self.kind in NETWORK_FILE_SYSTEMS


def find_mount(directory: Path, mounts: str) -> Mount | None:
    """The mount that `directory` lies on by `mounts`, the text of /proc/self/mounts; None if it is not known."""
    real = os.path.realpath(directory)
    best = None
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[1])
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and (best is None or len(point) >= len(best.point)):
            options = frozenset(fields[3].split(",")) if len(fields) > 3 else frozenset[str]()
            best = Mount(point, fields[2], options)
    return best


def file_system(directory: Path, mounts: str) -> str:
    """The kind of the file system that `directory` lies on by `mounts`, the text of /proc/self/mounts; empty if unknown."""
    found = find_mount(directory, mounts)
    return found.kind if found is not None else ""


def mounts() -> str:
    """The text of /proc/self/mounts; empty where there is none."""
    try:
        return Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
