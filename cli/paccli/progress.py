"""Progress: a bar on a terminal, lines in a log, events for programs, or nothing where nobody looks."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Protocol

from paccli.bar import Bar, in_words
from paccli.options import ProgressMode
from paccli.output import Output, fields
from paccli.tally import Rate, Snapshot, Tally
from pacstore.errors import printable
from pacstore.progress import Progress
from pacstore.source import SourceState

_DOWNLOADING = "downloading"
"""The phase in which the sources are asked for what is counted."""

States = Callable[[], Sequence[SourceState]]


class View(Protocol):
    """Shows a phase, and how the sources do while it downloads. Called by one thread at a time; `look` every `seconds`."""

    seconds: float

    def began(self, now: Snapshot) -> None:
        """A phase has begun."""

    def look(self, now: Snapshot, sources: Sequence[SourceState]) -> None:
        """How far it is now."""

    def ended(self, now: Snapshot, sources: Sequence[SourceState]) -> None:
        """It has ended, or the work has failed."""

    def close(self) -> None:
        """No more will come."""


class Counting:
    """A Progress that keeps count, and has `view` look at it from a thread of its own, from the first phase until it is closed.

    Until then the process has one thread, and may fork.
    """

    def __init__(self, output: Output, view: View, sources: States) -> None:
        self._output = output
        self._view = view
        self._sources = sources
        self._tally = Tally()
        self._phase = ""
        self._arrived_before = 0
        self._rates: dict[int, Rate] = {}
        self._showing = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def begin(self, phase: str, total_bytes: int | None) -> None:
        """Show the end of the phase before, and this one."""
        phase = printable(phase)  # a release's own commands have names that strangers chose
        with self._showing:
            self._end()
            self._arrived_before = sum(one.bytes_downloaded for one in self._sources())
            self._tally.begin(phase, total_bytes, time.monotonic())
            self._phase = phase
            self._rates.clear()
            self._view.began(self._look()[0])
            if self._thread.ident is None:
                self._thread.start()

    def advance(self, count_bytes: int) -> None:
        """Count."""
        self._tally.advance(count_bytes)

    def warn(self, message: str) -> None:
        """Say it at once."""
        self._output.warn(message)

    def close(self) -> None:
        """Show the end, and leave the screen as it was."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        with self._showing:
            self._end()
            self._view.close()

    def _run(self) -> None:
        with suppress(OSError):  # a terminal that has gone away shows nothing more
            while not self._stop.wait(self._view.seconds):
                with self._showing:
                    if self._phase:
                        self._view.look(*self._look())

    def _look(self) -> tuple[Snapshot, Sequence[SourceState]]:
        if self._phase != _DOWNLOADING:
            return self._tally.look(time.monotonic()), ()
        states = [self._measured(number, state) for number, state in enumerate(self._sources())]
        # Nothing is done before a whole range has come, which takes long on a slow line.
        arrived = sum(one.bytes_downloaded for one in states) - self._arrived_before
        return self._tally.look(time.monotonic(), arrived=arrived), states

    def _measured(self, number: int, state: SourceState) -> SourceState:
        """The state with the rate at which the source brings bytes here, which is less than it could where we hold it back."""
        now = time.monotonic()
        rate = self._rates.setdefault(number, Rate(now, state.bytes_downloaded))
        return replace(state, bytes_per_second=rate.at(now, state.bytes_downloaded))

    def _end(self) -> None:
        if self._phase:
            self._view.ended(*self._look())
        self._phase = ""


class Quiet:
    """Only warnings."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def begin(self, phase: str, total_bytes: int | None) -> None:
        """Not shown."""

    def advance(self, count_bytes: int) -> None:
        """Not shown."""

    def warn(self, message: str) -> None:
        """Print the warning."""
        self._output.warn(message)


class Lines:
    """A line now and then: for logs, and for terminals that cannot move their cursor."""

    seconds = 10.0

    def __init__(self, output: Output) -> None:
        self._output = output

    def began(self, now: Snapshot) -> None:
        """Said when it has lasted for a while."""

    def look(self, now: Snapshot, sources: Sequence[SourceState]) -> None:
        """Print a line, and one for each source that is in trouble."""
        self._output.note(f"pacball: {in_words(now)}")
        for state in sources:
            if state.is_bad:
                self._output.note(f"pacball:   {printable(state.name)} is {state.state}: {printable(state.error)}")

    def ended(self, now: Snapshot, sources: Sequence[SourceState]) -> None:
        """The result will say more."""

    def close(self) -> None:
        """Nothing is held."""


class Events:
    """Events `phase`, `progress` and `source`."""

    seconds = 1.0

    def __init__(self, output: Output) -> None:
        self._output = output
        self._told: dict[int, SourceState] = {}

    def began(self, now: Snapshot) -> None:
        """An event `phase`."""
        self._output.event("phase", {"phase": now.phase, "bytes_total": now.bytes_total})

    def look(self, now: Snapshot, sources: Sequence[SourceState]) -> None:
        """An event `progress`, and one `source` for each source of which there is something new."""
        left = now.seconds_left
        self._output.event(
            "progress",
            {
                "phase": now.phase,
                "bytes_done": now.bytes_done,
                "bytes_total": now.bytes_total,
                "bytes_per_second": round(now.bytes_per_second),
                "seconds": round(now.seconds, 3),
                "seconds_left": None if left is None else round(left, 1),
            },
        )
        for number, state in enumerate(sources):
            if self._told.get(number) != state:
                self._output.event("source", {**fields(state), "bytes_per_second": round(state.bytes_per_second)})
                self._told[number] = state

    def ended(self, now: Snapshot, sources: Sequence[SourceState]) -> None:
        """The last events of the phase."""
        self.look(now, sources)

    def close(self) -> None:
        """The result is the last event."""


@contextmanager
def showing(output: Output, *, quiet: bool, sources: States = tuple) -> Iterator[Progress]:
    """A Progress for the length of the context, shown as `output.mode` says; `quiet` asks for no bar and no lines.

    `sources` says how the sources do; it is asked often.
    """
    view = _view(output, quiet=quiet)
    if view is None:
        yield Quiet(output)
        return
    progress = Counting(output, view, sources)
    try:
        yield progress
    finally:
        progress.close()


def _view(output: Output, *, quiet: bool) -> View | None:
    terminal = sys.stderr.isatty()
    if output.mode is ProgressMode.JSON:
        return Events(output)
    if quiet or output.mode is ProgressMode.NONE:
        return None
    if output.mode is ProgressMode.AUTO and (output.as_json or not terminal):
        return None
    if terminal and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", ""):
        return Bar(output)
    return Lines(output)
