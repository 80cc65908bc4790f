"""Mounts: on what kind of file system a directory lies."""

from __future__ import annotations

import os
import re
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


def file_system(directory: Path, mounts: str) -> str:
    """The kind of the file system that `directory` lies on by `mounts`, the text of /proc/self/mounts; empty if unknown."""
    real = os.path.realpath(directory)
    best, kind = "", ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[1])
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, fields[2]
    return kind


def mounts() -> str:
    """The text of /proc/self/mounts; empty where there is none."""
    try:
        return Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
