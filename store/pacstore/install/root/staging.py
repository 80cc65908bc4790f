"""Staging: where one attempt to install writes, apart from every other; and what attempts that ended leave behind.

An attempt is `staging/<random>/` with `owner.json` and `tree/`. Files are written in place, so what an interrupted attempt
wrote can be used by the next, which verifies every chunk as it reads it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
from dataclasses import asdict, dataclass, replace

from pacstore.digest import Digest
from pacstore.errors import PacballError
from pacstore.holdings import decode_json
from pacstore.install.root.layout import PRIVATE_MODE, Root
from pacstore.install.root.living import OWNER, SILENT_SECONDS, Owner, Witness, process_started, this_machine
from pacstore.install.tree.clearing import CLEARED, clear_tree
from pacstore.install.tree.disk import DIRECTORY_FLAGS, DIRECTORY_MODE, sync_file_system, write_durably, write_whole
from pacstore.limits import KIB
from pacstore.release import Release

TREE = "tree"
TAKEN = "taken"
"""What the tree is called once another installation has begun to take it over: its first owner cannot publish it any more."""
MANIFEST = "manifest"
"""The manifest of the release; not durable, and believed as little as the files."""
RECORD = "generated.json"
"""What the release's own commands made (generated.py), until it is moved to the kept manifests."""
UNSYNCED = "unsynced"
"""A file in an attempt that the disk did not take as a whole."""
_BIRTHS = 5
_OWNER_BYTES = 4 * KIB
_KEPT_SECONDS = 7 * 24 * 3600.0
"""How long what an ended attempt wrote is kept for the same command to continue, while its release is not installed."""


class Attempt:
    """One attempt, open. `top` is the descriptor of the tree being written; `exact_modes`: the umask takes nothing away."""

    def __init__(self, root: Root, name: str, owner: Owner) -> None:
        self.name = name
        self._root = root
        self._owner = owner
        self.directory = os.open(name, DIRECTORY_FLAGS, dir_fd=root.staging)
        self.top = -1

    @classmethod
    def begin(cls, root: Root, release: Release, manifest: Digest, now: float) -> Attempt:
        """A new attempt. Raises OSError."""
        pid = os.getpid()
        owner = Owner(str(release), manifest.hex, this_machine(), pid, now, process_started(pid))
        attempt = _named(root, owner)
        attempt.top = os.open(TREE, DIRECTORY_FLAGS, dir_fd=attempt.directory)
        attempt.exact_modes = os.fstat(attempt.top).st_mode & 0o777 == DIRECTORY_MODE
        os.fchmod(attempt.top, DIRECTORY_MODE)
        return attempt

    exact_modes = False

    def write_owner(self) -> None:
        """Say who is at work here. Raises OSError."""
        write_durably(
            self.directory,
            OWNER,
            json.dumps(asdict(self._owner), sort_keys=True).encode() + b"\n",
            through=self.directory,
        )

    def sign(self) -> None:
        """Give a sign of life, with the file server's time. Raises OSError."""
        os.utime(OWNER, dir_fd=self.directory, follow_symlinks=False)

    def sync(self) -> None:
        """Make durable what was written. Raises OSError: then the next attempt copies from it, and moves nothing.

        What the disk did not take may look whole as long as it is in memory, and is not written again if it is only moved.
        """
        try:
            sync_file_system(self.top)
        except OSError:
            with contextlib.suppress(OSError):
                write_durably(self.directory, UNSYNCED, b"", through=self.directory)
            raise

    @property
    def displaced(self) -> bool:
        """Whether another installation, which took this one for dead, has taken its tree away."""
        try:
            there = os.stat(TREE, dir_fd=self.directory, follow_symlinks=False)
        except OSError:
            return True
        return not os.path.samestat(there, os.fstat(self.top))

    def tell(self, manifest: bytes) -> None:
        """Leave word of what the tree is to be, for those who install another release. Raises OSError."""
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(MANIFEST, flags, 0o600, dir_fd=self.directory)
        try:
            write_whole(descriptor, manifest)
        finally:
            os.close(descriptor)

    def give_up(self) -> None:
        """Leave what was written to the next attempt."""
        self._owner = replace(self._owner, pid=0)
        with contextlib.suppress(OSError):
            self.write_owner()

    def remove(self) -> None:
        """Remove it with all that is in it."""
        remove_attempt(self._root, self.name)

    def close(self) -> None:
        """Let go of its directories."""
        os.close(self.directory)
        if self.top >= 0:
            os.close(self.top)


@dataclass(frozen=True)
class Leftover:
    """An attempt that is there: its name, whose it is, and whether nobody can be at work on it any more."""

    name: str
    owner: Owner
    ended: bool


def attempts(root: Root) -> list[Leftover]:
    """The attempts under `root` whose owner can be read. Raises OSError."""
    witness = Witness(root.path, root.staging)
    found = []
    for name in sorted(os.listdir(root.staging)):
        owner = _owner(root, name)
        if owner is not None:
            found.append(Leftover(name, owner, _holds(root, name, TAKEN) or witness.has_ended(name, owner)))
    return found


def open_tree(root: Root, name: str) -> int:
    """The top of the tree of the attempt `name`, open. Raises OSError."""
    try:
        return os.open(f"{name}/{TREE}", DIRECTORY_FLAGS, dir_fd=root.staging)
    except FileNotFoundError:
        return os.open(f"{name}/{TAKEN}", DIRECTORY_FLAGS, dir_fd=root.staging)


def is_unsynced(root: Root, name: str) -> bool:
    """Whether the disk did not take what the attempt `name` wrote: its files are not to be moved."""
    return _holds(root, name, UNSYNCED)


def take_over(root: Root, name: str, top: int) -> bool:
    """Take the tree of the ended attempt `name`, opened as `top`: from now on nobody can publish it, and its files can be moved.

    False where it is not there any more: it may have been published. Raises OSError.
    """
    directory = os.open(name, DIRECTORY_FLAGS, dir_fd=root.staging)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.rename(TREE, TAKEN, src_dir_fd=directory, dst_dir_fd=directory)
        with contextlib.suppress(FileNotFoundError):
            taken = os.path.samestat(os.stat(TAKEN, dir_fd=directory, follow_symlinks=False), os.fstat(top))
            if taken:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(RECORD, dir_fd=directory)
            return taken
        return False
    finally:
        os.close(directory)


def sweep(root: Root, *, kept_seconds: float = _KEPT_SECONDS) -> int:
    """Remove what ended attempts left, of releases that are installed now; of others what was left longer ago than that.

    How many it removed. Raises OSError.
    """
    witness = Witness(root.path, root.staging)
    removed = 0
    for found in attempts(root):
        if found.ended and not _is_of_use(root, found, witness, kept_seconds):
            remove_attempt(root, found.name)
            removed += 1
    for name in os.listdir(root.staging):
        _remove_stillborn(root, name, witness)
    return removed


def _is_of_use(root: Root, found: Leftover, witness: Witness, kept_seconds: float) -> bool:
    if not _holds(root, found.name, TREE) and not _holds(root, found.name, TAKEN):
        return False
    try:
        installed = root.recorded(Release.parse(found.owner.release)) is not None
    except PacballError:
        return False
    return not installed and (witness.silence(found.name) or 0.0) < kept_seconds


def remove_attempt(root: Root, name: str) -> None:
    """Remove an attempt; what cannot be removed stays, and so does a record that is still to be moved into place."""
    with contextlib.suppress(OSError):
        directory = os.open(name, DIRECTORY_FLAGS, dir_fd=root.staging)
        try:
            names = os.listdir(directory)
            if RECORD in names and TREE not in names and TAKEN not in names:
                return
            if RECORD in names:
                # First of all: without its tree it would be taken for that of the one whose tree got the name.
                os.unlink(RECORD, dir_fd=directory)
                os.fsync(directory)
        finally:
            os.close(directory)
    clear_tree(root.staging, name.encode())


def _named(root: Root, owner: Owner) -> Attempt:
    """A new attempt that says whose it is. Until it does, another installer may take it for a dead one and remove it."""
    for _ in range(_BIRTHS):
        name = secrets.token_hex(8)
        with contextlib.suppress(FileNotFoundError):
            os.mkdir(name, PRIVATE_MODE, dir_fd=root.staging)
            attempt = Attempt(root, name, owner)
            try:
                attempt.write_owner()
                os.mkdir(TREE, DIRECTORY_MODE, dir_fd=attempt.directory)
            except BaseException:
                attempt.close()
                raise
            return attempt
    raise FileNotFoundError(errno.ENOENT, "new attempts vanish", "staging")


def _holds(root: Root, name: str, what: str) -> bool:
    try:
        os.stat(f"{name}/{what}", dir_fd=root.staging, follow_symlinks=False)
    except OSError:
        return False
    return True


def _remove_stillborn(root: Root, name: str, witness: Witness) -> None:
    """Remove an attempt that ended before it said whose it is, and one that cannot be told whose, once it is silent for long.

    Whoever is just about to say so is not disturbed: only what is empty is removed, and it begins anew.
    """
    if name.startswith("."):
        return
    if name.startswith(CLEARED):
        clear_tree(root.staging, name.encode())
        return
    try:
        directory = os.open(name, DIRECTORY_FLAGS, dir_fd=root.staging)
    except OSError:
        return
    try:
        names = set(os.listdir(directory))
        if not names & {OWNER, TREE, TAKEN, RECORD}:
            with contextlib.suppress(OSError):
                for left in names:
                    os.unlink(left, dir_fd=directory)
                os.rmdir(name, dir_fd=root.staging)
        elif _owner(root, name) is None and (witness.silence(name) or 0.0) > SILENT_SECONDS:
            remove_attempt(root, name)
    finally:
        os.close(directory)


def _owner(root: Root, name: str) -> Owner | None:
    try:
        directory = os.open(name, DIRECTORY_FLAGS, dir_fd=root.staging)
    except OSError:
        return None
    try:
        descriptor = os.open(OWNER, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            value = decode_json(os.read(descriptor, _OWNER_BYTES), limit=_OWNER_BYTES, place=OWNER)
        finally:
            os.close(descriptor)
        return Owner(
            str(value["release"]),
            str(value["manifest_digest"]),
            str(value["machine"]),
            _process_number(value["pid"]),
            float(str(value["started"])),
            int(str(value.get("process_started", 0))),
        )
    except (OSError, PacballError, KeyError, ValueError):
        return None
    finally:
        os.close(directory)


def _process_number(value: object) -> int:
    """Raises ValueError for what is none."""
    number = int(str(value))
    if not 0 <= number < 1 << 31:
        raise ValueError("no number of a process")
    return number
