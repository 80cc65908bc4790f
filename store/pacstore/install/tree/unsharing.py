"""Unsharing: files that commands could write to get inodes that nothing outside their tree has.

Releases may share equal files by hard links. Who writes to one writes to all of them, so before commands run as the user who
owns the files, those that they might open are copied.
"""

from __future__ import annotations

import os
from collections.abc import Container

from pacstore.attributes import Attributes
from pacstore.install.tree.directories import Directories
from pacstore.install.tree.disk import failure
from pacstore.install.tree.fresh import copy_fresh, relink
from pacstore.install.tree.paths import Paths


def unshare(paths: Paths, directories: Directories, attributes: Attributes, *, exposed: Container[int] | None) -> int:
    """Copy the files in the directories `exposed` (entry numbers; None for all) that are linked from outside the tree.

    How many bytes it copied. Raises Unavailable.
    """
    groups = {member: group for group in attributes.groups() for member in group}
    done: set[int] = set()
    copied = 0
    for entry in paths.file_entries.tolist():
        if entry in done or (exposed is not None and int(paths.parents[entry]) not in exposed):
            continue
        group = groups.get(entry, [entry])
        try:
            copied += _unshare(paths, directories, entry, group)
        except OSError as error:
            raise failure(error, paths.shown(entry)) from error
        done.update(group[1:] and group)
    return copied


def _unshare(paths: Paths, directories: Directories, entry: int, group: list[int]) -> int:
    directory = directories.open(int(paths.parents[entry]))
    status = os.stat(paths.name(entry), dir_fd=directory, follow_symlinks=False)
    if status.st_nlink <= len(group):
        return 0
    copy_fresh(directory, paths.name(entry), status, owner=(status.st_uid, status.st_gid))
    for other in group:
        if other != entry:
            source = directories.open(int(paths.parents[entry]))
            relink(source, paths.name(entry), directories.open(int(paths.parents[other])), paths.name(other))
    return status.st_size
