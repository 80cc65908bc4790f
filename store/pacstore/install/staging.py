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
import shutil
from dataclasses import asdict, dataclass, replace

from pacstore.digest import Digest
from pacstore.errors import PacballError
from pacstore.holdings import decode_json
from pacstore.install.disk import DIRECTORY_FLAGS, DIRECTORY_MODE, write_durably
from pacstore.install.root import PRIVATE_MODE, Root
from pacstore.limits import KIB
from pacstore.release import Release

OWNER = "owner.json"
TREE = "tree"
RECORD = "generated.json"
"""What the release's own commands made (generated.py), until it is moved to the kept manifests."""
_BIRTHS = 5
_OWNER_BYTES = 4 * KIB
_FOREIGN_SECONDS = 24 * 3600
"""How old an attempt of another machine must be before it is swept once its release is installed."""


@dataclass(frozen=True)
class Owner:
    """Who makes an attempt. `machine`: host, start of its kernel and process name space; `pid` is 0 once it was given up."""

    release: str
    manifest_digest: str
    machine: str
    pid: int
    started: float

    @property
    def certainly_ended(self) -> bool:
        """Whether nobody can be at work on it any more, as far as this machine can know for certain."""
        if self.pid == 0:
            return True
        host, boot, _ = [*self.machine.split("/"), "", ""][:3]
        our_host, our_boot, _ = this_machine().split("/")
        if host == our_host and boot != our_boot:
            return True
        return self.machine == this_machine() and not _runs(self.pid)


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
        owner = Owner(str(release), manifest.hex, this_machine(), os.getpid(), now)
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


def attempts(root: Root) -> list[tuple[str, Owner]]:
    """The attempts under `root` whose owner can be read. Raises OSError."""
    found = []
    for name in sorted(os.listdir(root.staging)):
        owner = _owner(root, name)
        if owner is not None:
            found.append((name, owner))
    return found


def sweep(root: Root, finished: Release, now: float) -> None:
    """Remove what ended attempts left: of any release those that certainly ended, of `finished` old ones of other machines."""
    for name, owner in attempts(root):
        forgotten = (
            owner.release == str(finished)
            and owner.machine != this_machine()
            and now - owner.started > _FOREIGN_SECONDS
        )
        if owner.certainly_ended or forgotten:
            remove_attempt(root, name)
    for name in os.listdir(root.staging):
        if _is_stillborn(root, name):
            remove_attempt(root, name)


def remove_attempt(root: Root, name: str) -> None:
    """Remove an attempt; what cannot be removed stays, and so does a record that is still to be moved into place."""
    with contextlib.suppress(OSError):
        directory = os.open(name, DIRECTORY_FLAGS, dir_fd=root.staging)
        try:
            names = os.listdir(directory)
            if RECORD in names and TREE not in names:
                return
            if RECORD in names:
                # First of all: without its tree it would be taken for that of the one whose tree got the name.
                os.unlink(RECORD, dir_fd=directory)
                os.fsync(directory)
        finally:
            os.close(directory)
    shutil.rmtree(name, ignore_errors=True, dir_fd=root.staging)


def this_machine() -> str:
    """The host's name, this start of its kernel, and this process name space."""
    boot = space = ""
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot = file.read().strip()
    with contextlib.suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    return f"{os.uname().nodename}/{boot}/{space}"


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


def _is_stillborn(root: Root, name: str) -> bool:
    """Whether an attempt ended before it said whose it is: it has neither an owner nor a tree."""
    try:
        directory = os.open(name, DIRECTORY_FLAGS, dir_fd=root.staging)
    except OSError:
        return False
    try:
        return not {OWNER, TREE} & set(os.listdir(directory))
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
            int(str(value["pid"])),
            float(str(value["started"])),
        )
    except (OSError, PacballError, KeyError, ValueError):
        return None
    finally:
        os.close(directory)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
