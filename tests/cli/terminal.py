"""A terminal for the command: a pseudoterminal of a given size, and what is on its screen afterwards."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable

BEGIN = "import sys; sys.argv[0] = 'pacball'; "
COMMAND = BEGIN + "from paccli.main import run; run()"


class Terminal:
    """A program on a terminal of `columns` by 24; `seen` is all that it sent there."""

    def __init__(self, program: str, *words: object, columns: int = 80, stdout: int | None = None, **environment: str):
        self._master, slave = pty.openpty()
        self.resize(columns)
        silent = termios.tcgetattr(slave)
        silent[3] &= ~termios.ECHO
        termios.tcsetattr(slave, termios.TCSANOW, silent)
        paths = os.pathsep.join(path for path in sys.path if path)
        unset = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")
        environment = {"TERM": "xterm", "LC_ALL": "C.UTF-8", **environment}
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, words)],
            env={**{k: v for k, v in os.environ.items() if k not in unset}, "PYTHONPATH": paths, **environment},
            stdin=slave,
            stdout=slave if stdout is None else stdout,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.seen = ""

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def until(self, condition: Callable[[str], object], *, seconds: float = 60.0) -> str:
        """Read until `condition` holds of what was seen; fails if the program ends before."""
        deadline = time.monotonic() + seconds
        while not condition(self.seen):
            assert self._read(deadline), f"ended before: {self.seen}"
        return self.seen

    def press(self) -> None:
        """Press the return key, which is not echoed."""
        os.write(self._master, b"\n")

    def end(self, *, seconds: float = 60.0) -> int:
        """Read to the end; the exit code."""
        deadline = time.monotonic() + seconds
        while self._read(deadline):
            pass
        os.close(self._master)
        return self.process.wait(seconds)

    def _read(self, deadline: float) -> bool:
        assert select.select([self._master], [], [], max(deadline - time.monotonic(), 0))[0], f"silent: {self.seen}"
        try:
            data = os.read(self._master, 65536)
        except OSError:  # how a terminal says that nobody has it open any more
            return False
        self.seen += data.decode()
        return bool(data)

    @property
    def screen(self) -> list[str]:
        """The lines on an endless screen, as far as they are not empty."""
        return [line for line in replay(self.seen) if line.strip()]


def replay(sent: str) -> list[str]:
    """What is on an endless, wide screen after `sent`: lines, carriage returns, cursor up, erased lines; colours ignored."""
    lines, row, column, at = [""], 0, 0, 0
    while at < len(sent):
        if sent[at] == "\x1b":
            end = at + 2
            while not sent[end].isalpha():
                end += 1
            if sent[end] == "A":
                row = max(row - int(sent[at + 2 : end] or 1), 0)
            elif sent[end] == "K":
                lines[row] = "" if sent[at + 2 : end] == "2" else lines[row][:column]
            at = end + 1
            continue
        if sent[at] == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif sent[at] == "\r":
            column = 0
        else:
            lines[row] = lines[row].ljust(column)[:column] + sent[at] + lines[row][column + 1 :]
            column += 1
        at += 1
    return lines
