"""Progress on a terminal: phase, bytes, rate, remaining bytes and time. Nothing where nobody looks."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pacstore.errors import printable
from pacstore.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress


class Quiet:
    """Only warnings, on standard error."""

    def begin(self, phase: str, total_bytes: int | None) -> None:
        """Not shown."""

    def advance(self, count_bytes: int) -> None:
        """Not shown."""

    def warn(self, message: str) -> None:
        """Print the warning."""
        print(f"pacball: warning: {printable(message)}", file=sys.stderr)


class Terminal:
    """A bar on standard error."""

    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars
        self._task = bars.add_task("starting", total=None)
        self._lock = threading.Lock()

    def begin(self, phase: str, total_bytes: int | None) -> None:
        """A new bar for a new phase."""
        with self._lock:
            self._bars.update(self._task, visible=False)
            self._task = self._bars.add_task(phase, total=total_bytes)

    def advance(self, count_bytes: int) -> None:
        """Move the bar."""
        self._bars.update(self._task, advance=count_bytes)

    def warn(self, message: str) -> None:
        """Print the warning above the bar."""
        self._bars.console.print(f"pacball: warning: {printable(message)}", markup=False, highlight=False)


@contextmanager
def showing(*, quiet: bool) -> Iterator[Progress]:
    """A Progress for the length of the context: a bar if standard error is a terminal and nobody asked for quiet."""
    if quiet or not sys.stderr.isatty():
        yield Quiet()
        return
    from rich.console import Console  # noqa: PLC0415 - rich takes longer to import than a short command to run
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bars  # noqa: PLC0415

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        yield Terminal(bars)
