"""Warden: a process that runs one command of a stranger, bounds it in time and output, and ends all that it started.

It is told what to do by one line of JSON on its standard input (`running.Order`), and says on its standard output how the
command ended. When its standard input ends, whoever asked for this is gone: then everything is ended at once. Orphans of the
command become the warden's children, so none can hide by starting a session of its own. It imports only the standard library.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from pacstore.contain import landlock

_CHILD_SUBREAPER = 36
_DEATH_SIGNAL = 1
_READ_BYTES = 64 << 10
_ORDER_BYTES = 256 << 20
_END_SECONDS = 10.0
_ROUNDS = 50
_DEVICES = ("null", "zero", "full", "random", "urandom")
_FAILED = 127
_DESCRIPTORS = 1 << 16
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Do what the order says."""
    _libc.prctl(_CHILD_SUBREAPER, 1, 0, 0, 0)
    wake = _wake_on_children()
    line = sys.stdin.buffer.readline(_ORDER_BYTES)
    if line.endswith(b"\n"):
        print(json.dumps(_Command(json.loads(line), wake).run()), flush=True)


def _wake_on_children() -> int:
    """A descriptor that can be read when a child has ended."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return reader


class _Command:
    """One command, from its start until nothing is left of it."""

    def __init__(self, order: dict[str, Any], wake: int) -> None:
        self._order = order
        self._wake = wake
        self._status: int | None = None
        self._log_left = int(order["log_bytes"])
        self._dropped = 0
        self._master_gone = False

    def run(self) -> dict[str, object]:
        """Run it; how it ended."""
        output, writer = os.pipe2(os.O_CLOEXEC)
        failure, failing = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(output, False)
        begun = time.monotonic()
        warden = os.getpid()
        child = os.fork()
        if child == 0:
            _become(self._order, writer, failing, warden=warden)
        os.close(writer)
        os.close(failing)
        timed_out = self._attend(child, output, begun + float(self._order["timeout_seconds"]))
        left, stuck = _end_all(self._reap)
        seconds = time.monotonic() - begun
        self._drain(output)
        with open(failure, "rb") as file:
            reason = file.read().decode("utf-8", "replace")
        return {
            "status": self._status if self._status is not None else -signal.SIGKILL,
            "timed_out": timed_out,
            "seconds": round(seconds, 3),
            "dropped_bytes": self._dropped,
            "left": left,
            "stuck": stuck,
            "not_started": reason,
        }

    def _attend(self, child: int, output: int, deadline: float) -> bool:
        """Keep its output until it ends, is ended, or nobody is interested any more; whether it ran out of time."""
        self._child = child
        while self._status is None and not self._master_gone:
            if not self._wait(output, deadline):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child, signal.SIGTERM)
                grace = time.monotonic() + float(self._order["grace_seconds"])
                while self._status is None and not self._master_gone and self._wait(output, grace):
                    pass
                return True
        return False

    def _wait(self, output: int, deadline: float) -> bool:
        """Attend to what happens next; False when nothing did until `deadline`."""
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        ready, _, _ = select.select([output, self._wake, sys.stdin.fileno()], [], [], left)
        if sys.stdin.fileno() in ready:
            self._master_gone = not os.read(sys.stdin.fileno(), _READ_BYTES)
        if output in ready and not self._read(output):
            # All that could write has ended, or has closed it; the command itself may go on.
            ready, _, _ = select.select([self._wake, sys.stdin.fileno()], [], [], min(left, 0.05))
        if self._wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake, _READ_BYTES)
        self._reap()
        return True

    def _read(self, output: int) -> bool:
        """Keep what there is to read; False when there will be no more."""
        try:
            data = os.read(output, _READ_BYTES)
        except BlockingIOError:
            return True
        kept = data[: self._log_left]
        self._log_left -= len(kept)
        self._dropped += len(data) - len(kept)
        while kept:
            try:
                kept = kept[os.write(int(self._order["log"]), kept) :]
            except OSError:  # a full disk must not stop the command from being watched
                self._dropped += len(kept)
                break
        return bool(data)

    def _drain(self, output: int) -> None:
        """Keep what was written before the end, unless a stranger goes on writing for ever."""
        for _ in range(_ROUNDS):
            if not select.select([output], [], [], 0)[0] or not self._read(output):
                break

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                if pid == self._child:
                    self._status = os.waitstatus_to_exitcode(status)


def _end_all(reap: Callable[[], None]) -> tuple[int, int]:
    """Kill everything that descends from this process: how many there were, and how many cannot be killed."""
    found: set[int] = set()
    deadline = time.monotonic() + _END_SECONDS
    while True:
        alive = _stopped()
        found |= alive
        for pid in alive:
            _signal(pid, signal.SIGKILL)
        reap()
        if not alive or time.monotonic() > deadline:
            return len(found), len(alive)
        time.sleep(0.005)


def _stopped() -> set[int]:
    """All descendants, stopped, so that none of them starts another while the next is looked for."""
    stopped: set[int] = set()
    for _ in range(_ROUNDS):
        new = _descendants() - stopped
        if not new:
            break
        for pid in new:
            _signal(pid, signal.SIGSTOP)
        stopped |= new
    return stopped & _descendants()


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, number)


def _descendants() -> set[int]:
    """The processes that descend from this one, without those that have ended and only wait to be asked how."""
    children: dict[int, list[int]] = {}
    ended = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                state, parent = file.read().rpartition(b")")[2].split()[:2]
                children.setdefault(int(parent), []).append(int(name))
                if state in b"ZX":
                    ended.add(int(name))
    found: set[int] = set()
    pending = [os.getpid()]
    while pending:
        for pid in children.get(pending.pop(), []):
            if pid not in found:
                found.add(pid)
                pending.append(pid)
    return found - ended


def _become(order: dict[str, Any], output: int, failing: int, *, warden: int) -> NoReturn:
    """In the child: give up everything that the command does not need, and become the command."""
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in range(1, signal.NSIG):
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        _bound(order["limits"])
        rules = _rules(order)
        if order["uid"] is not None:
            os.fchown(output, order["uid"], order["gid"])
            os.setgroups([])
            os.setresgid(order["gid"], order["gid"], order["gid"])
            os.setresuid(order["uid"], order["uid"], order["uid"])
        # After the change of user, which takes it back.
        _libc.prctl(_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != warden:
            os._exit(_FAILED)
        landlock.forgo_privileges()
        if rules is not None:
            landlock.restrict(rules)
        os.umask(0o022)
        os.chdir(order["directory"])
        _check(".", order, "directory")
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        _close_but(failing)
        os.execvpe(order["argv"][0], order["argv"], order["environment"])  # noqa: S606 - a shell is what must not be
    except BaseException as error:  # noqa: BLE001 - nobody else can tell
        reason = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) else repr(error)
        with contextlib.suppress(OSError):
            os.write(failing, reason.encode("utf-8", "backslashreplace"))
    os._exit(_FAILED)


def _bound(limits: dict[str, int]) -> None:
    for name, most in limits.items():
        number = getattr(resource, name)
        hard = resource.getrlimit(number)[1]
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(number, (value, value))


def _rules(order: dict[str, Any]) -> int | None:
    """The rules for the kernel: where the command may write; None where the kernel does not know such rules."""
    if not order["landlock"]:
        _check(order["scratch"], order, "scratch")
        return None
    return landlock.ruleset(_grants(order), interface=order["landlock"])


def _grants(order: dict[str, Any]) -> Iterator[tuple[int, int]]:
    """Open directories and devices with the rights to them, one at a time, so that few are open."""
    tree = os.open(order["directory"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    _check(tree, order, "directory")
    for path in order["writable"]:
        # What an earlier command removed, or replaced, cannot be written to.
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            yield from _granted(_beneath(tree, path), landlock.TREE)
    scratch = os.open(order["scratch"], os.O_PATH | os.O_CLOEXEC)
    _check(scratch, order, "scratch")
    yield from _granted(scratch, landlock.SCRATCH)
    for name in _DEVICES:
        with contextlib.suppress(OSError):
            yield from _granted(os.open(f"/dev/{name}", os.O_PATH | os.O_CLOEXEC), landlock.CONTENT)


def _check(at: int | str, order: dict[str, Any], what: str) -> None:
    """Raise OSError if something else than was meant has its path by now."""
    found = os.stat(at)
    if order[f"{what}_is"] not in (None, [found.st_dev, found.st_ino]):
        raise OSError(errno.ESTALE, "it was replaced", order[what])


def _granted(descriptor: int, rights: int) -> Iterator[tuple[int, int]]:
    try:
        yield descriptor, rights
    finally:
        os.close(descriptor)


def _beneath(tree: int, path: str) -> int:
    """Open the directory `path` of the tree, through no symbolic link."""
    at = os.dup(tree)
    for name in path.split("/") if path else ():
        try:
            below = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise NotADirectoryError(error.errno, path) from error
            raise
        finally:
            os.close(at)
        at = below
    return at


def _close_but(kept: int) -> None:
    """Close every descriptor but the first three and `kept`, whatever was inherited."""
    os.closerange(3, kept)
    os.closerange(kept + 1, _DESCRIPTORS)
