"""Whether a store directory is this user's own: only then may it say itself which root to trust.

A directory that only this user and root can change is no stranger. A directory of somebody else is one, and so is a medium
that is carried about, whoever its files seem to belong to: file systems without owners show whom the mount names.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from pacstore.durable import wrapped
from pacstore.storage import DocumentKind
from pacstore.trust.metadata import FIRST_ROOT_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

MOUNTS = Path("/proc/self/mountinfo")
_OWNERLESS = frozenset({"vfat", "msdos", "exfat", "ntfs", "ntfs3", "fuseblk", "iso9660", "udf", "hfs", "cifs", "smb3"})
_REMOVABLE = ("/media/", "/run/media/")


def stranger(store: Path, *, uid: int, mounts: Path = MOUNTS) -> str:
    """Who, beside the user `uid` and root, may have put the catalog there that is in `store`; in words, empty for nobody.

    `mounts` has the format of Linux's /proc/self/mountinfo; where there is none, media are not told apart. Raises NotFound
    or Unavailable if the directory cannot be examined.
    """
    with wrapped(store):
        top = store.resolve(strict=True)
        for path in _parts(top):
            found = _of_others(path, os.stat(path), uid)
            if found:
                return found
    return _of_medium(top, mounts)


def _parts(top: Path) -> Iterator[Path]:
    """What leads to the root: who may change any of these may change the root."""
    yield top
    public = top / "public"
    if public.is_dir():
        yield public
    else:
        public = top
    catalog = public / DocumentKind.CATALOG.value
    for path in (catalog, catalog / FIRST_ROOT_NAME):
        if path.exists():
            yield path


def _of_others(path: Path, found: os.stat_result, uid: int) -> str:
    if found.st_uid not in (0, uid):
        return f"{path} belongs to the user {found.st_uid}"
    if found.st_mode & stat.S_IWOTH:
        return f"everybody may write to {path}"
    # A group with the number of its user is that user's own, as many systems set it up.
    if found.st_mode & stat.S_IWGRP and found.st_gid not in (0, found.st_uid):
        return f"the group {found.st_gid} may write to {path}"
    return ""


def _of_medium(top: Path, mounts: Path) -> str:
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    place = f"{top}/"
    mounted = [(point, kind) for point, kind in map(_mount, lines) if place.startswith(point.rstrip("/") + "/")]
    # Of two mounts on one place the later one is seen.
    point, kind = max(reversed(mounted), key=lambda mount: len(mount[0]), default=("", ""))
    if kind in _OWNERLESS:
        return f"{point} is of the kind {kind}, which does not know to whom files belong"
    if f"{point}/".startswith(_REMOVABLE):
        return f"{point} is a medium that others may have written"
    return ""


def _mount(line: str) -> tuple[str, str]:
    """Mount point and kind of file system in a line of mountinfo (man 5 proc)."""
    before, _, after = line.partition(" - ")
    fields, kinds = before.split(" "), after.split(" ")
    point = fields[4] if len(fields) > 4 else "/"
    for escaped, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        point = point.replace(escaped, character)
    return point, kinds[0]
