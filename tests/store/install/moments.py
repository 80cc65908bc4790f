"""Processes that are killed or stopped right before the n-th change that they make to the file system."""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator

from pacstore.errors import PacballError

CHANGES = {
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "os.chmod",
    "os.chown",
    "os.utime",
}
REFUSED, FAILED = 1, 99


def moments(
    action: Callable[[], object], sent: signal.Signals, *, prepare: Callable[[], object], most: int = 400
) -> Iterator[int]:
    """Have a process do `action`, and send it a signal before its first change; then another before its second; and so on.

    Yields while the process is stopped, or was killed; then it is continued, and awaited. Everything is `prepare`d anew for
    each. Ends with the process that comes to its end before so many changes.
    """
    for number in range(1, most):
        prepare()
        child = _forked(action, number, sent)
        _, status = os.waitpid(child, os.WUNTRACED)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) in (0, REFUSED), "the process failed"
            assert number > 3, "it changes hardly anything"
            return
        try:
            yield number
        finally:
            if os.WIFSTOPPED(status):
                os.kill(child, signal.SIGCONT)
                _, status = os.waitpid(child, 0)
                assert os.WEXITSTATUS(status) in (0, REFUSED), "the process failed"
    raise AssertionError("it never came to its end")


def _forked(action: Callable[[], object], number: int, sent: signal.Signals) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that other threads do not come along
        child = os.fork()
    if child == 0:
        _run(action, number, sent)
    return child


def _run(action: Callable[[], object], number: int, sent: signal.Signals) -> None:
    made = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal made
        if event in CHANGES or (event == "open" and _creates(arguments)):
            made += 1
            if made == number:
                os.kill(os.getpid(), sent)

    code = FAILED
    try:
        sys.addaudithook(hook)
        action()
        code = 0
    except PacballError:
        code = REFUSED
    except BaseException:  # noqa: BLE001 - nothing of pytest may run twice
        traceback.print_exc()
    finally:
        os._exit(code)


def _creates(arguments: tuple[object, ...]) -> bool:
    flags = arguments[2] if len(arguments) > 2 else 0
    return isinstance(flags, int) and bool(flags & os.O_CREAT)
