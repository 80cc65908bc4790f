"""Team: a few processes that do jobs, for work which the threads of one interpreter would do one after another.

They are forked, so they begin at once and share the memory of this process until they write to it. Each has a pipe in each
direction. Nothing is sent to a worker unless it waits for it, so nobody ever waits for somebody who waits. A worker never
outlives the process that forked it, whatever ends that one, and a worker that is ended is an error, never a missing result.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import pickle
import select
import signal
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, NoReturn, Self, TypeVar

from pacstore.errors import PacballError, Unavailable
from pacstore.install.tree.disk import write_whole

_LENGTH = struct.Struct("<Q")
_PR_SET_PDEATHSIG = 1
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_libc = ctypes.CDLL(None, use_errno=True)

Job = TypeVar("Job")
Question = TypeVar("Question")
Answer = TypeVar("Answer")
Result = TypeVar("Result")


def may_fork() -> bool:
    """Whether this process has a single thread: of others, a forked process would keep the locks that they held."""
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return False


class Desk(Generic[Question, Answer]):
    """Whom a worker turns to while it does a job."""

    def __init__(self, ask: Callable[[Question], Answer], advance: Callable[[int], None]) -> None:
        self.ask = ask
        self.advance = advance


class _Line:
    """Messages over a pair of pipes; what arrives comes from our own processes."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        self.incoming = incoming
        self._outgoing = outgoing

    def send(self, *message: object) -> None:
        """Raises OSError."""
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        write_whole(self._outgoing, _LENGTH.pack(len(data)) + data)

    def receive(self) -> Any:
        """The next message. Raises EOFError where nobody sends any more."""
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
        return pickle.loads(self._read(length))  # noqa: S301 - see above

    def _read(self, count: int) -> bytearray:
        data = bytearray(count)
        done = 0
        while done < count:
            more = os.readv(self.incoming, [memoryview(data)[done:]])
            if not more:
                raise EOFError
            done += more
        return data

    def close(self) -> None:
        for descriptor in (self.incoming, self._outgoing):
            with contextlib.suppress(OSError):
                os.close(descriptor)


@dataclass(eq=False)
class _Worker:
    pid: int
    line: _Line


class Team(Generic[Job, Question, Answer, Result]):
    """`count` processes that do `work` with each job they are given. For one thread; what a worker inherits stays open there.

    Entering raises OSError where there cannot be so many.
    """

    def __init__(self, count: int, work: Callable[[Job, Desk[Question, Answer]], Result]) -> None:
        self._count = count
        self._work = work
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        # Where whoever started this one has it ignored, nobody is told how a process ended, nor when its number is another's.
        if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        try:
            for _ in range(self._count):
                self._workers.append(self._fork())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """The numbers of the processes."""
        return [worker.pid for worker in self._workers]

    def run(
        self,
        jobs: Iterable[Job],
        *,
        answer: Callable[[Question], Answer],
        advance: Callable[[int], None],
        take: Callable[[Result], None],
    ) -> None:
        """Have all `jobs` done, in any order; `take` is given what comes of each, `answer` what workers ask meanwhile.

        Raises the first error of any job, as its worker raised it, and Unavailable where a worker was ended; the team is
        of no use after that.
        """
        busy = dict[int, _Worker]()
        ahead = iter(jobs)
        job = next(ahead, None)
        idle = list(self._workers)
        while busy or job is not None:
            while idle and job is not None:
                worker = idle.pop()
                self._send(worker, "job", job)
                busy[worker.line.incoming] = worker
                job = next(ahead, None)
            for descriptor in _readable(busy):
                worker = busy[descriptor]
                kind, value = self._receive(worker)
                if kind == "advance":
                    advance(value)
                elif kind == "ask":
                    self._send(worker, "answer", answer(value))
                elif kind == "failed":
                    raise value
                else:
                    idle.append(busy.pop(descriptor))
                    take(value)

    def _send(self, worker: _Worker, kind: str, value: object) -> None:
        try:
            worker.line.send(kind, value)
        except BrokenPipeError:
            raise self._ended(worker) from None

    def _receive(self, worker: _Worker) -> Any:
        try:
            return worker.line.receive()
        except EOFError:
            raise self._ended(worker) from None

    def _ended(self, worker: _Worker) -> Unavailable:
        self._workers.remove(worker)
        worker.line.close()
        _, status = os.waitpid(worker.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        how = f"by signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"with exit code {code}"
        return Unavailable(
            f"a worker of this command was ended {how} before it was done",
            place=f"process {worker.pid}",
            hint="look whether memory ran out, then run the same command again",
        )

    def close(self) -> None:
        """End all processes at once, and wait until they are gone."""
        for worker in self._workers:
            os.kill(worker.pid, signal.SIGKILL)
        for worker in self._workers:
            worker.line.close()
            os.waitpid(worker.pid, 0)
        self._workers.clear()

    def _fork(self) -> _Worker:
        jobs, give = os.pipe()
        try:
            results, tell = os.pipe()
        except OSError:
            _Line(jobs, give).close()
            raise
        # A ^C between the fork and the moment at which the worker ignores it would show a trace of the worker.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            parent = os.getpid()
            pid = os.fork()
            if not pid:
                self._serve(_Line(jobs, tell), _Line(results, give), parent, before)
        except OSError:
            _Line(jobs, tell).close()
            _Line(results, give).close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _Line(jobs, tell).close()
        return _Worker(pid, _Line(results, give))

    def _serve(self, line: _Line, other: _Line, parent: int, mask: Iterable[int]) -> NoReturn:
        """The life of a worker. Nothing that the process which forked it left open or unwritten is touched."""
        code = 1
        try:
            gc.freeze()
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # who forked it ends it
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            other.close()
            for worker in self._workers:
                worker.line.close()
            if os.getppid() == parent:
                code = self._do_jobs(line)
        finally:
            os._exit(code)

    def _do_jobs(self, line: _Line) -> int:
        def ask(question: Question) -> Answer:
            line.send("ask", question)
            _, answer = line.receive()
            found: Answer = answer
            return found

        desk = Desk(ask, lambda count: line.send("advance", count))
        try:
            while True:
                _, job = line.receive()
                line.send("done", self._work(job, desk))
        except EOFError:
            return 0
        except (PacballError, OSError, MemoryError) as error:
            line.send("failed", error)
        except BaseException as error:  # noqa: BLE001 - whatever it is, who gave the job hears of it
            line.send("failed", RuntimeError(f"{type(error).__name__}: {error}"))
        return 1


def _readable(workers: Iterable[int]) -> Iterator[int]:
    """Those of the descriptors from which something can be read, or at whose other end nobody is; waits for the first."""
    poll = select.poll()
    for descriptor in workers:
        poll.register(descriptor, select.POLLIN)
    return iter([descriptor for descriptor, _ in poll.poll()])
