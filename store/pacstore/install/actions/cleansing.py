"""Cleansing: an interrupted attempt in whose tree foreign commands ran becomes one that can be taken over.

While commands run, the attempt is marked: until it is cleansed, its files are only copied from, never moved. Cleansing gives
every directory back to the installer and removes whatever is not an ordinary file of its own; whoever uses them verifies them.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat

from pacstore.errors import PacballError
from pacstore.holdings import decode_json
from pacstore.install.root.layout import PRIVATE_MODE, Root
from pacstore.install.root.living import Owner, Witness, process_started, this_machine
from pacstore.install.root.staging import TAKEN, TREE, attempts
from pacstore.install.tree.clearing import clear_tree, make_accessible
from pacstore.install.tree.disk import DIRECTORY_FLAGS, DIRECTORY_MODE, write_durably
from pacstore.limits import KIB
from pacstore.release import Release

MARK = "acting.json"
_MARK_BYTES = 4 * KIB
_DEPTH = 200
"""Releases are less deep; what is deeper a command has made."""


def mark(attempt: int, pid: int) -> None:
    """Say in the open directory of an attempt that the process `pid` lets commands at its tree. Raises OSError."""
    value = {"machine": this_machine(), "pid": pid, "process_started": process_started(pid)}
    write_durably(attempt, MARK, json.dumps(value, sort_keys=True).encode() + b"\n", through=attempt)


def unmark(attempt: int) -> None:
    """Its commands have ended, and their traces were removed or recorded. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(MARK, dir_fd=attempt)
        os.fsync(attempt)


def is_marked(root: Root, name: str) -> bool:
    """Whether commands were let at the tree of the attempt `name`, and it is not cleansed."""
    try:
        os.stat(f"{name}/{MARK}", dir_fd=root.staging, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def cleanse_ended(root: Root, release: Release, *, owner: tuple[int, int]) -> None:
    """Cleanse the attempts at `release` that certainly ended and whose commands did, too. Raises OSError."""
    witness = Witness(root.path, root.staging)
    for found in attempts(root):
        if found.owner.release == str(release) and found.ended and is_marked(root, found.name):
            with contextlib.suppress(FileNotFoundError):
                directory = os.open(found.name, DIRECTORY_FLAGS, dir_fd=root.staging)
                try:
                    if witness.has_ended(found.name, _marker(directory)):
                        _cleanse_attempt(directory, owner)
                finally:
                    os.close(directory)


def _cleanse_attempt(attempt: int, owner: tuple[int, int]) -> None:
    os.fchmod(attempt, PRIVATE_MODE)
    for name in {TREE, TAKEN} & set(os.listdir(attempt)):
        _cleanse(attempt, name.encode(), owner)
    unmark(attempt)


def _marker(attempt: int) -> Owner:
    """Who let the commands at the tree; nobody that can still run, if that cannot be read."""
    descriptor = os.open(MARK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=attempt)
    with open(descriptor, "rb") as file:
        data = file.read(_MARK_BYTES + 1)
    try:
        value = decode_json(data, limit=_MARK_BYTES, place=MARK)
        pid, started = int(str(value["pid"])), int(str(value["process_started"]))
        return Owner("", "", str(value["machine"]), pid, 0.0, started)
    except (PacballError, KeyError, ValueError):
        return Owner("", "", "", 0, 0.0)


def _cleanse(above: int, name: bytes, owner: tuple[int, int], depth: int = 0) -> None:
    """A directory and all in it. Whatever was put in its place is removed."""
    make_accessible(above, name)
    directory = os.open(name, DIRECTORY_FLAGS, dir_fd=above)
    try:
        if os.fstat(directory).st_uid != owner[0]:
            os.fchown(directory, *owner)
        os.fchmod(directory, DIRECTORY_MODE)
        for child in map(os.fsencode, os.listdir(directory)):
            status = os.stat(child, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode) and depth < _DEPTH:
                _cleanse(directory, child, owner, depth + 1)
            elif stat.S_ISDIR(status.st_mode):
                clear_tree(directory, child)
            elif not stat.S_ISREG(status.st_mode) or status.st_uid != owner[0]:
                os.unlink(child, dir_fd=directory)
    finally:
        os.close(directory)
