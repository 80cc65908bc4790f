"""Running one command, contained: from the order to how it ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pacstore
from pacstore.contain import landlock
from pacstore.errors import Unavailable
from pacstore.limits import GIB, MIB

GRACE_SECONDS = 2.0
"""From the request to end (SIGTERM) that a command gets when its time is over until it is killed."""
LOG_BYTES = 16 * MIB
FILE_BYTES = 16 * GIB
_LIMITS = {"RLIMIT_CORE": 0, "RLIMIT_FSIZE": FILE_BYTES, "RLIMIT_NOFILE": 4_096}
_PROCESSES = 4_096
_END_SECONDS = 60.0
_ANSWER_BYTES = 64 << 10
_CODE = "import sys; sys.path[:0] = [sys.argv[1]]; from pacstore.contain.warden import main; main()"


@dataclass(frozen=True)
class User:
    """Whom a command runs as: name, user and group id. `changes`: it is another than this process's."""

    name: str
    uid: int
    gid: int

    @property
    def changes(self) -> bool:
        """Whether the command runs as somebody else than this process."""
        return self.uid != os.geteuid()


@dataclass(frozen=True)
class Order:
    """What to run, where, and within what bounds.

    `directory`: absolute; where the command starts, and where `writable` (directories below it) are. `scratch`: a directory of
    the command's own. `directory_is` and `scratch_is`: device and inode that these two must have, where that is known: somebody
    else may own a directory above them. `landlock`: the kernel's version of it that is to be used, 0 for none.
    """

    argv: tuple[str, ...]
    directory: str
    environment: Mapping[str, str]
    timeout_seconds: float
    user: User
    writable: tuple[str, ...]
    scratch: str
    landlock: int = field(default_factory=landlock.version)
    grace_seconds: float = GRACE_SECONDS
    log_bytes: int = LOG_BYTES
    directory_is: tuple[int, int] | None = None
    scratch_is: tuple[int, int] | None = None

    def encode(self, log: int) -> bytes:
        """One line for the warden; `log` is the descriptor that the output goes to."""
        value: dict[str, object] = asdict(self)
        user = self.user if self.user.changes else None
        limits = _LIMITS | ({"RLIMIT_NPROC": _PROCESSES} if user is not None else {})
        value |= {"uid": user and user.uid, "gid": user and user.gid, "limits": limits, "log": log}
        return json.dumps(value).encode() + b"\n"


@dataclass(frozen=True)
class Ended:
    """How a command ended. `status`: its exit code, or minus the signal that killed it. `left`: processes that it left running,
    which were ended; `stuck`: those that could not be. `not_started`: why it was not even started, or empty.
    """

    status: int
    timed_out: bool
    seconds: float
    dropped_bytes: int
    left: int
    stuck: int
    not_started: str

    @property
    def passed(self) -> bool:
        """Whether it did what it should."""
        return self.status == 0 and not self.timed_out and not self.not_started

    def __str__(self) -> str:
        """For people, as the end of a sentence."""
        if self.not_started:
            return f"could not be started: {self.not_started}"
        if self.timed_out:
            return f"had not ended after {self.seconds:.0f} s, and was killed"
        if self.status < 0:
            return f"was killed by {_signal_name(-self.status)}"
        return f"ended with exit code {self.status}"


def run(order: Order, log: int, *, started: Callable[[int], None] = lambda _: None) -> Ended:
    """Run a command to its end; its output goes to the open file `log`. `started` gets the warden's process id before that.

    Whatever happens, when this returns or raises (also for ^C), nothing that the command started is left. Raises Unavailable.
    """
    argv = [sys.executable, "-I", "-S", "-c", _CODE, str(Path(pacstore.__file__).parents[1])]
    process = subprocess.Popen(  # noqa: S603 - our own module
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, pass_fds=[log], cwd="/",
        start_new_session=True, bufsize=0,
    )  # fmt: skip
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        started(process.pid)
        with contextlib.suppress(BrokenPipeError):
            _write(process.stdin.fileno(), order.encode(log))
        answer = _read(process.stdout.fileno())
    finally:
        _end(process)
    return _ended(answer)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _read(descriptor: int) -> bytes:
    """What there is until the end, of bounded length."""
    data = b""
    while len(data) < _ANSWER_BYTES and (piece := os.read(descriptor, _ANSWER_BYTES)):
        data += piece
    return data


def _end(process: subprocess.Popen[bytes]) -> None:
    """The end of its standard input tells the warden to end everything."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(_END_SECONDS)
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        if process.stdout is not None:
            process.stdout.close()


def _ended(answer: bytes) -> Ended:
    try:
        return Ended(**json.loads(answer))
    except (ValueError, TypeError) as error:
        raise Unavailable(
            "the process that watches over the command ended before the command did",
            place=sys.executable,
            hint="find out what killed it, such as a lack of memory, and run the same command again",
        ) from error


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
