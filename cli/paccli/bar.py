"""A bar on a terminal: phase, bytes, rate, what is left; below it a line for each of several sources.

It fits itself to the width, and breaks nobody else's lines.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from paccli.output import Output, put_line, size
from paccli.tally import Snapshot
from pacstore.errors import printable
from pacstore.source import Condition, SourceState

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

_PATIENCE_SECONDS = 0.5
"""What ends sooner shows no bar, and does not import rich, which would take longer than many a command."""
_LEAST_BAR = 8
_MOST_SOURCES = 8
_WIDEST = 100
"""Where a window becomes narrower than a line, the terminal may break that line, and part of it stays."""
_SPARE = 3
"""Cells left free at the right: the terminal itself writes ^C there, which must not begin a line of its own."""
_GAP = "  "


class Bar:
    """Some lines at the lower end of a terminal, on standard error."""

    seconds = 0.2

    def __init__(self, output: Output) -> None:
        self._output = output
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._live: Live | None = None

    def began(self, now: Snapshot) -> None:
        """Shown with the next look."""

    def ended(self, now: Snapshot, sources: Sequence[SourceState]) -> None:
        """Shown with the next look."""

    def look(self, now: Snapshot, sources: Sequence[SourceState]) -> None:
        """Draw it anew."""
        if time.monotonic() - self._began < _PATIENCE_SECONDS:
            return
        with self._lock:
            if self._live is None:
                self._live = _start()
                self._output.put = self.put
            console = self._live.console
            width = min(console.width, _WIDEST) - _SPARE
            text = _drawn(now, width, console.encoding)
            for line in source_lines(sources, width):
                text.append(f"\n{line}")
            self._live.update(text, refresh=True)

    def put(self, line: str, file: TextIO) -> None:
        """Write a line above the bar, whole however long it is, so that what people copy from it is right."""
        with self._lock:
            if self._live is None or not file.isatty():
                put_line(line, file)
            else:
                self._live.console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def close(self) -> None:
        """Take it off the screen."""
        with self._lock:
            if self._live is not None:
                self._live.stop()
                self._live = None
                self._output.put = put_line


def _start() -> Live:
    from rich.live import Live  # noqa: PLC0415 - takes long to import

    live = Live(console=_console(), auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False)
    live.start()
    return live


def _console() -> Console:
    from rich.console import Console  # noqa: PLC0415

    class Plain(Console):
        """Leaves the cursor visible: who kills the command would be left without one."""

        def show_cursor(self, show: bool = True) -> bool:
            return show

    return Plain(file=sys.stderr)


def _drawn(now: Snapshot, width: int, encoding: str) -> Text:
    from rich.text import Text  # noqa: PLC0415

    before, cells, after = row(now, width)
    text = Text(before, no_wrap=True, overflow="crop", end="")
    if cells:
        full, empty = ("━", "─") if encoding.startswith("utf") else ("#", "-")
        done = round(cells * now.bytes_done / now.bytes_total) if now.bytes_total else 0
        text.append(_GAP).append(full * done, style="green").append(empty * (cells - done), style="dim")
    return text.append(after)


def row(now: Snapshot, width: int) -> tuple[str, int, str]:
    """What stands before the bar, how many cells the bar has, and what stands after it, in `width` cells together."""
    amount, rate, left = amount_of(now), rate_of(now), left_of(now)
    parts = [part for part in (amount, rate, left) if part]
    room = width - len(_GAP.join([now.phase, *parts])) - len(_GAP)
    if now.bytes_total and room >= _LEAST_BAR:
        return now.phase, room, "".join(_GAP + part for part in parts)
    short = clock(now.seconds_left) if now.seconds_left is not None else ""
    for chosen in (parts, [amount, rate, short], [amount, short], [amount]):
        after = "".join(_GAP + part for part in chosen if part)
        if len(now.phase) + len(after) <= width:
            return now.phase, 0, after
    return (now.phase + _GAP + amount)[: max(width, 0)], 0, ""


def source_lines(sources: Sequence[SourceState], width: int) -> list[str]:
    """A line of at most `width` cells for each source: who, how fast, how much, what is wrong. None for a single one."""
    if len(sources) < 2:
        return []
    chosen = sources[:_MOST_SOURCES]
    names = [printable(state.name).partition("://")[2] or printable(state.name) for state in chosen]
    longest = max(map(len, names))
    ends = [_end_of_line(state, 10, 8) for state in chosen]
    if longest + max(map(len, ends)) > width - len(_GAP):
        longest, ends = 0, [_end_of_line(state, 0, 0) for state in chosen]
    lines = []
    for name, end in zip(names, ends, strict=True):
        room = max(width - len(_GAP) - len(end), _LEAST_BAR)
        short = name if len(name) <= room else f"{name[: room - 1]}…"
        lines.append(f"{_GAP}{short:{longest}}{end}"[: max(width, 0)])
    if len(sources) > _MOST_SOURCES:
        lines.append(f"{_GAP}and {len(sources) - _MOST_SOURCES} more"[: max(width, 0)])
    return lines


def _end_of_line(state: SourceState, rate_cells: int, amount_cells: int) -> str:
    rate, amount = f"{size(state.bytes_per_second)}/s", size(state.bytes_downloaded)
    trouble = "" if state.state in (Condition.GOOD, Condition.UNUSED) else f"{_GAP}{state.state}"
    return f"{_GAP}{rate:>{rate_cells}}{_GAP}{amount:>{amount_cells}}{trouble}"


def in_words(now: Snapshot) -> str:
    """A phase as a line of a log."""
    parts: Sequence[str] = [part for part in (amount_of(now), rate_of(now), left_of(now)) if part]
    return f"{now.phase}: {', '.join(parts)}" if parts else now.phase


def amount_of(now: Snapshot) -> str:
    """How much is done of how much; empty if nothing is counted."""
    if not now.bytes_total:
        return size(now.bytes_done) if now.bytes_done else ""
    done, total = size(now.bytes_done), size(now.bytes_total)
    if done.split()[1] == total.split()[1]:
        done = done.split()[0]
    return f"{done} of {total}"


def rate_of(now: Snapshot) -> str:
    """How fast; empty if nothing is counted."""
    return f"{size(now.bytes_per_second)}/s" if now.bytes_total or now.bytes_done else ""


def left_of(now: Snapshot) -> str:
    """What is left, in bytes and time; empty if it is not known."""
    if not now.bytes_total or now.bytes_done >= now.bytes_total:
        return ""
    rest = f"{size(now.bytes_total - now.bytes_done)} left"
    return rest if now.seconds_left is None else f"{rest}, {clock(now.seconds_left)}"


def clock(seconds: float) -> str:
    """A length of time for people: 0:07, 12:34, 1:02:03, or days and hours."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
