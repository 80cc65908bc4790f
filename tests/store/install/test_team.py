"""A team of processes does all jobs, hands on every error, and never leaves anybody behind."""

import contextlib
import errno
import os
import signal
import threading
import time

import pytest

from pacstore.errors import Refused, Unavailable
from pacstore.install.team import Team, may_fork
from tests.store.install.alone import alone, start


def nobody():
    """No process that this one forked is left."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
        return False
    return True


def run(work, jobs, count=2, answer=lambda question: question):
    """What comes of the jobs in a team, how far it got, and whether the workers are gone; an error instead."""
    results, progress = [], []
    assert may_fork()
    descriptors = len(os.listdir("/proc/self/fd"))
    try:
        with Team(count, work) as team:
            team.run(jobs, answer=answer, advance=progress.append, take=results.append)
            team.run([], answer=answer, advance=progress.append, take=results.append)
    except Exception as error:  # noqa: BLE001 - the test looks at it
        return error, nobody() and len(os.listdir("/proc/self/fd")) == descriptors
    return results, sum(progress), nobody() and len(os.listdir("/proc/self/fd")) == descriptors


def squares(count):
    def work(job, desk):
        desk.advance(job)
        return desk.ask(job) * job, os.getpid()

    results, done, gone = run(work, iter(range(100)), count)
    return sorted(square for square, _ in results), len({pid for _, pid in results}), done, gone


@pytest.mark.parametrize("count", [1, 2, 5])
def test_all_jobs_are_done(count):
    results, _, done, gone = alone(squares, count)
    assert results == [n * n for n in range(100)]
    assert (done, gone) == (sum(range(100)), True)


def several_runs():
    with Team(2, lambda job, desk: job + len(desk.ask(""))) as team:
        found = []
        for _ in range(3):
            team.run([1, 2, 3], answer=lambda _: "12", advance=len, take=found.append)
    return sorted(found)


def test_a_team_is_used_again():
    assert alone(several_runs) == [3, 3, 3, 4, 4, 4, 5, 5, 5]


def much():
    big = b"x" * 3_000_000
    results, _, gone = run(lambda job, desk: job + desk.ask(job), [big] * 6)
    return [len(result) for result in results], gone


def test_messages_that_no_pipe_holds():
    assert alone(much) == ([6_000_000] * 6, True)


def failing(kind):
    def work(job, desk):
        if job < 3:
            return job
        if kind == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "exit":
            os._exit(7)
        raise {
            "disk": OSError(errno.EIO, os.strerror(errno.EIO), "lib/a"),
            "refused": Refused("is not allowed", place="lib/b", hint="do not"),
            "memory": MemoryError(),
            "interrupted": KeyboardInterrupt(),
            "other": ValueError("a mistake"),
        }[kind]

    return run(work, range(10))


@pytest.mark.parametrize(("kind", "what"), [("killed", r"by signal 9 \(Killed\)"), ("exit", "with exit code 7")])
def test_a_worker_that_is_ended_is_an_error(kind, what):
    error, gone = alone(failing, kind)
    assert isinstance(error, Unavailable)
    assert error.place.startswith("process ")
    assert error.hint
    with pytest.raises(Unavailable, match=f"a worker of this command was ended {what}"):
        raise error
    assert gone


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("disk", (OSError, "[Errno 5] Input/output error: 'lib/a'")),
        ("refused", (Refused, "lib/b: is not allowed (do not)")),
        ("memory", (MemoryError, "")),
        ("interrupted", (RuntimeError, "KeyboardInterrupt: ")),
        ("other", (RuntimeError, "ValueError: a mistake")),
    ],
)
def test_an_error_arrives_as_it_was_raised(kind, expected):
    error, gone = alone(failing, kind)
    assert (type(error), str(error)) == expected
    assert gone


def killed_by_the_caller(which):
    pids = []

    def advance(_):
        for pid in pids[which]:
            os.kill(pid, signal.SIGKILL)

    def work(job, desk):
        desk.advance(1)
        return job

    with Team(2, work) as team:
        pids += team.pids
        try:
            team.run(range(1000), answer=repr, advance=advance, take=repr)
        except Unavailable as error:
            return str(error)
    return "done"


@pytest.mark.parametrize("which", [slice(0, 1), slice(1, 2), slice(0, 2)])
def test_workers_that_somebody_kills(which):
    assert "ended by signal 9" in alone(killed_by_the_caller, which)


def killed_between():
    found = []
    with Team(1, lambda job, _: job) as team:
        team.run([1], answer=repr, advance=repr, take=found.append)
        os.kill(team.pids[0], signal.SIGKILL)
        os.waitid(os.P_PID, team.pids[0], os.WEXITED | os.WNOWAIT)
        try:
            team.run([2], answer=repr, advance=repr, take=found.append)
        except Unavailable as error:
            return found, str(error)
    return found, "done"


def test_a_worker_that_is_killed_while_it_waits():
    found, message = alone(killed_between)
    assert found == [1]
    assert "ended by signal 9" in message


def failing_jobs():
    def jobs():
        yield 1
        yield 2
        raise Refused("no more")

    return run(lambda job, _: job, jobs())


def test_jobs_that_cannot_be_made():
    error, gone = alone(failing_jobs)
    assert isinstance(error, Refused)
    assert gone


# -- from outside


def endless(ready):
    """Workers that never come to an end, once both have begun."""

    def work(job, desk):
        desk.advance(1)
        while True:
            time.sleep(100)

    begun = []

    def advance(_):
        begun.append(1)
        if len(begun) == 2:
            os.close(os.open(ready, os.O_WRONLY))

    with Team(2, work) as team:
        team.run([1, 2], answer=repr, advance=advance, take=repr)


def endless_child(tmp_path):
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    child = start(endless, str(ready))
    os.close(os.open(ready, os.O_RDONLY))
    return child


def test_an_interrupt_ends_all_at_once(tmp_path):
    child = endless_child(tmp_path)
    os.killpg(child.pid, signal.SIGINT)
    # Everybody holds these pipes: they end when the last has gone.
    out, errors = child.communicate(timeout=30)
    assert (child.returncode, out) == (-signal.SIGINT, b"")
    assert errors.count(b"Traceback") == errors.count(b"KeyboardInterrupt") == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nobody_outlives_who_forked_him(tmp_path, number):
    child = endless_child(tmp_path)
    os.kill(child.pid, number)
    child.communicate(timeout=30)
    assert child.returncode == -number


def test_who_has_threads_may_not_fork():
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    try:
        assert not may_fork()
    finally:
        end.set()
        thread.join()


def squares_without_news():
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    return squares(2)


def test_who_was_started_with_the_ends_of_processes_ignored_has_a_team_as_well():
    results, _, done, gone = alone(squares_without_news)
    assert results == [n * n for n in range(100)]
    assert (done, gone) == (sum(range(100)), True)
