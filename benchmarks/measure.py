"""What a command costs: wall clock with a sync of its file system, CPU time, memory.

CPU seconds are user + system of the command and of every descendant (wait4; this process adopts orphans, so none is
lost). Peak memory is sampled every 20 ms from /proc: the larger of (a) the greatest sum of VmRSS over the process tree
at one moment, pages shared between its processes counted each time, and (b) the greatest VmHWM of any one process.
The ru_maxrss of wait4 is not used: it also counts the parent's memory before exec.
"""

from __future__ import annotations

import ctypes
import os
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import IO, Self

SAMPLE_S = 0.02
ORPHAN_S = 5.0
_TICK = os.sysconf("SC_CLK_TCK")
_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Command:
    """What to run: the environment is exactly ``env`` on top of `plain_environment`."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    wall_s: float  # with the sync
    sync_s: float
    cpu_s: float
    peak_bytes: int


class CommandFailedError(Exception):
    """A measured command did not succeed; the message ends with what it said last."""


def plain_environment(extra: Mapping[str, str]) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "TZ": "UTC", **extra}


def adopt_orphans() -> None:
    """From now on, processes whose parent died belong to us, so that their CPU time is counted."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_with_parent() -> None:
    """For a child before exec: SIGTERM if the process that started it dies, were it by SIGKILL."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


def sync_file_system(path: Path) -> float:
    """Seconds that it takes until all of the file system that holds ``path`` is durable."""
    started = time.perf_counter()
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _LIBC.syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), "syncfs failed", str(path))
    finally:
        os.close(descriptor)
    return time.perf_counter() - started


def run(command: Command, *, synced: Path) -> tuple[Cost, str]:
    """Runs ``command``, then syncs the file system of ``synced``; returns the cost and the standard output.

    Raises CommandFailedError. Whatever the command started is gone when this returns.
    """
    os.sync()  # what was written before is not this command's
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.perf_counter()
        process = subprocess.Popen(
            command.argv,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=plain_environment(command.env),
            cwd=command.cwd,
            start_new_session=True,
        )
        with Watch(process.pid) as watch:
            status, cpu_s = _reap(process)
        ran_s = time.perf_counter() - started
        sync_s = sync_file_system(synced)
        output, complaint = _text(out), _text(err)
    if status != 0:
        said = " | ".join((complaint or output).strip().splitlines()[-4:])
        raise CommandFailedError(f"{' '.join(command.argv)[:300]} ended with {status}: {said[-800:]}")
    return Cost(ran_s + sync_s, sync_s, cpu_s, watch.peak_bytes), output


def run_untimed(command: Command) -> str:
    """Runs ``command`` for its effect, then makes everything durable."""
    _, output = run(command, synced=Path("/"))
    os.sync()
    return output


def median(costs: Sequence[Cost]) -> Cost:
    """The median of each figure by itself."""
    values = {item.name: statistics.median(getattr(cost, item.name) for cost in costs) for item in fields(Cost)}
    return Cost(**values)


def rounds(names: Sequence[str], repeat: int) -> Iterator[tuple[int, str]]:
    """Each name ``repeat`` times; the order is reversed in every other round."""
    for number in range(repeat):
        for name in names if number % 2 == 0 else reversed(names):
            yield number, name


class Watch:
    """Samples the memory of a process and its descendants until the block ends."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.peak_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            memory = [_memory(pid) for pid in descendants(self.pid)]
            together = sum(now for now, _ in memory)
            self.peak_bytes = max(self.peak_bytes, together, *(most for _, most in memory), 0)
            if self._stop.wait(SAMPLE_S):
                return


def descendants(pid: int) -> list[int]:
    """``pid`` and all processes below it."""
    found, wanted = [], [pid]
    while wanted:
        current = wanted.pop()
        found.append(current)
        try:
            for task in os.listdir(f"/proc/{current}/task"):
                wanted += map(int, Path(f"/proc/{current}/task/{task}/children").read_text().split())
        except OSError:
            continue
    return found


def tree_cpu_s(pid: int) -> float:
    """User and system seconds so far of a running daemon, its descendants and those of them that ended."""
    total = 0
    for each in descendants(pid):
        try:
            words = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(map(int, words[11:15]))
    return total / _TICK


def _memory(pid: int) -> tuple[int, int]:
    now = most = 0
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                now = int(line.split()[1]) << 10
            elif line.startswith("VmHWM:"):
                most = int(line.split()[1]) << 10
    except OSError:
        return 0, 0
    return now, most


def _reap(process: subprocess.Popen[bytes]) -> tuple[int, float]:
    try:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        cpu_s = usage.ru_utime + usage.ru_stime + _reap_orphans(process.pid)
    except BaseException:
        _kill_group(process.pid)
        process.wait()
        raise
    return process.returncode, cpu_s


def _reap_orphans(group: int) -> float:
    cpu_s = 0.0
    deadline = time.monotonic() + ORPHAN_S
    while True:
        try:
            pid, _, usage = os.wait4(-group, os.WNOHANG)
        except ChildProcessError:
            return cpu_s
        if pid:
            cpu_s += usage.ru_utime + usage.ru_stime
        elif time.monotonic() > deadline:
            _kill_group(group)
        else:
            time.sleep(0.002)


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
