"""Living: whether the process that made an attempt may still be at work on it, here or elsewhere.

A process of this machine is known by its number and the time it started. Of any other only the signs of life are seen: the time
of its owner file, which it renews, against the time of a file just written. Both are the file server's: no other clock is asked.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pacstore.mounts import LOCAL_FILE_SYSTEMS, file_system, mounts

OWNER = "owner.json"
"""The file in an attempt that says who makes it; its time is that of the last sign of life."""
SIGN_SECONDS = 30.0
"""How often a living process gives a sign."""
SILENT_SECONDS = 3_600.0
"""After how long without a sign a process elsewhere is taken for dead."""
SILENT_HERE_SECONDS = 600.0
"""The same where it was on a machine of our name: in another container, or before a restart."""
_STARTED = 19
"""The place of the start time among the fields of /proc/PID/stat that follow the name."""


@dataclass(frozen=True)
class Owner:
    """Who makes an attempt. `machine`: host, start of its kernel and process name space; `pid` is 0 once it was given up.

    `started`: when the attempt began, in seconds since 1970. `process_started`: when the process did, in ticks of its
    kernel, 0 where that is not known; it tells apart two processes that had one number after the other.
    """

    release: str
    manifest_digest: str
    machine: str
    pid: int
    started: float
    process_started: int = 0


class Witness:
    """Judges who lives, of those who make attempts in the open directory `staging` of the install root `root`."""

    def __init__(self, root: Path, staging: int) -> None:
        self._root = root
        self._staging = staging
        self._now: float | None = None
        self._local: bool | None = None

    def silence(self, name: str) -> float | None:
        """Seconds since the last sign of life in the attempt `name`; None if that cannot be known."""
        try:
            silence = self._time() - _last_sign(self._staging, name)
            if silence < -SILENT_SECONDS:
                # From a clock that was wrong. Its owner, if it lives, gives a new sign soon.
                os.utime(f"{name}/{OWNER}", dir_fd=self._staging, follow_symlinks=False)
        except OSError:
            return None
        return silence

    def _time(self) -> float:
        """The file server's time: that of a file just written there. Raises OSError."""
        if self._now is None:
            name = f".time-{secrets.token_hex(8)}"
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(name, flags, 0o600, dir_fd=self._staging)
            try:
                os.write(descriptor, b"\n")
                os.fsync(descriptor)
                self._now = os.fstat(descriptor).st_mtime
            finally:
                os.close(descriptor)
                os.unlink(name, dir_fd=self._staging)
        return self._now

    def has_ended(self, name: str, owner: Owner) -> bool:
        """Whether nobody is at work on the attempt `name` of `owner` any more, as far as can be known."""
        if owner.pid == 0:
            return True
        ours = this_machine()
        if owner.machine == ours:
            return not _runs(owner)
        host, boot, _ = [*owner.machine.split("/"), "", ""][:3]
        our_host, our_boot, _ = ours.split("/")
        if boot and our_boot and boot != our_boot and self._is_local():
            return True
        silent = self.silence(name)
        return silent is not None and silent > (SILENT_HERE_SECONDS if host == our_host else SILENT_SECONDS)

    def _is_local(self) -> bool:
        """Whether no other kernel can have this file system mounted."""
        if self._local is None:
            self._local = file_system(self._root, mounts()) in LOCAL_FILE_SYSTEMS
        return self._local


def _last_sign(staging: int, name: str) -> float:
    try:
        return os.stat(f"{name}/{OWNER}", dir_fd=staging, follow_symlinks=False).st_mtime
    except FileNotFoundError:
        return os.stat(name, dir_fd=staging, follow_symlinks=False).st_mtime


@contextmanager
def signs_of_life(give: Callable[[], None], *, seconds: float = SIGN_SECONDS) -> Iterator[None]:
    """Call `give` every some seconds until the block ends; its OSErrors mean nothing."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(seconds):
            with contextlib.suppress(OSError):
                give()

    thread = threading.Thread(target=run, name="signs-of-life", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def this_machine() -> str:
    """The host's name, this start of its kernel, and this process name space."""
    boot = space = ""
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot = file.read().strip()
    with contextlib.suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    return f"{os.uname().nodename}/{boot}/{space}"


def process_started(pid: int) -> int:
    """When a process of this machine started, in ticks since the kernel did; 0 where that is not known, or it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state, *fields = file.read().rpartition(b")")[2].split()
        return 0 if state in (b"Z", b"X") else int(fields[_STARTED - 1])
    except (OSError, ValueError, IndexError):
        return 0


def _runs(owner: Owner) -> bool:
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    if not owner.process_started or not Path("/proc/self/stat").exists():
        return True
    # Where processes of others are hidden, what is not seen may be there.
    now = process_started(owner.pid)
    return now == owner.process_started or (not now and not Path(f"/proc/{owner.pid}").exists())
