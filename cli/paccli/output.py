"""What a command prints: text for people, or one JSON object as the last line for programs; errors as one sentence.

With `--progress=json` events come before that object, which then is the last event itself.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from paccli import exits
from paccli.events import EventStream, discard, outliving_reader
from paccli.options import ProgressMode
from pacstore.digest import Digest
from pacstore.errors import PacballError, printable
from pacstore.release import Release
from pacstore.source import Condition, SourceState


def fields(value: object) -> dict[str, object]:
    """The fields of a result as they appear in JSON: digests and names as text."""
    shown = (f for f in dataclasses.fields(value) if f.metadata.get("shown", True))  # type: ignore[arg-type]
    return {f.name: _plain(getattr(value, f.name)) for f in shown}


def _plain(value: object) -> object:
    if isinstance(value, Digest | Release | Path):
        return str(value)
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if dataclasses.is_dataclass(value):
        return fields(value)
    return value


_AGAIN = "run the same command again to continue"


class Output:
    """Where a command's result goes. `as_json`: one object at the end, and no text. `mode`: how progress is shown.

    While a bar is on the screen, it takes the place of `put`, which writes a line to a file: so lines never cross the bar.
    """

    def __init__(self, *, as_json: bool, mode: ProgressMode = ProgressMode.AUTO) -> None:
        self.as_json = as_json or mode is ProgressMode.JSON
        self.mode = mode
        self.put: Callable[[str, TextIO], None] = put_line
        self._events = EventStream(sys.stdout) if mode is ProgressMode.JSON else None

    def text(self, line: str) -> None:
        """A line for people."""
        if not self.as_json:
            self.put(line, sys.stdout)

    def note(self, line: str) -> None:
        """A line for people beside the result; on standard error, so that it never mixes with data.

        Where nobody reads it any more, the work goes on all the same.
        """
        with outliving_reader(sys.stderr):
            self.put(line, sys.stderr)

    def warn(self, message: str) -> None:
        """A warning, for people and, among the events, for programs."""
        self.note(f"pacball: warning: {printable(message)}")
        self.event("warning", {"message": printable(message)})

    def event(self, name: str, values: Mapping[str, object]) -> None:
        """An event, where they were asked for."""
        if self._events is not None:
            self._events.tell(name, values)

    def result(self, values: Mapping[str, object]) -> None:
        """The result, for programs."""
        self._end("result", values)

    def error(self, values: Mapping[str, object]) -> None:
        """What stands in the place of a result that there is not."""
        self._end("error", values)

    def _end(self, event: str, values: Mapping[str, object]) -> None:
        if self._events is not None:
            self._events.tell(event, values)
        elif self.as_json:
            print(json.dumps(dict(values), sort_keys=True), flush=True)

    def flush(self) -> None:
        """Show now what was printed, for a command that goes on."""
        sys.stdout.flush()


def put_line(line: str, file: TextIO) -> None:
    """Write a line to `file`."""
    print(line, file=file)


@contextmanager
def reporting(*, as_json: bool, progress: ProgressMode = ProgressMode.AUTO) -> Iterator[Output]:
    """Run a command: errors become one sentence, one JSON object where asked for, and an exit code."""
    output = Output(as_json=as_json, mode=progress)
    try:
        yield output
        sys.stdout.flush()
    except PacballError as error:
        fail(output, error)
    except KeyboardInterrupt:
        print(f"pacball: interrupted; {_AGAIN}", file=sys.stderr)
        _end_with(output, "interrupted", PacballError("interrupted", hint=_AGAIN), exits.INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output went away: no error, and nothing more can be said.
        discard(sys.stdout)
        raise SystemExit(exits.OK) from None
    except OSError as error:
        from pacstore.durable import unavailable  # noqa: PLC0415 - only for what nobody wrapped

        fail(output, unavailable(error))
    except Exception as error:  # noqa: BLE001 - Python's own exit code for it means damage here
        traceback.print_exc()
        message = f"a fault in pacball: {type(error).__name__}: {error}"
        fail(output, PacballError(message, hint="please report it with the lines above"))


def fail(output: Output, error: PacballError) -> None:
    """Print `error` and exit with its code."""
    try:
        print(f"pacball: {error}", file=sys.stderr)
    except OSError:  # the code is all that can be told
        discard(sys.stderr)
    _end_with(output, exits.kind_name(error), error, exits.exit_code(error))


def _end_with(output: Output, kind: str, error: PacballError, code: int) -> None:
    values = {
        "error": kind,
        "message": printable(error.message),
        "place": printable(error.place),
        "hint": printable(error.hint),
        "exit_code": code,
    }
    try:
        output.error(values)
    except OSError:  # nobody reads it any more, or the disk to which it goes is full; people were told already
        discard(sys.stdout)
    raise SystemExit(code) from None


def print_sources(output: Output, states: Sequence[SourceState]) -> None:
    """What people should know of the sources at the end: which share several had, and what was wrong with which."""
    if len(states) > 1:
        for one in (one for one in states if one.requests):
            rate = f" at {size(one.bytes_per_second)}/s" if one.bytes_per_second else ""
            output.text(f"  {size(one.bytes_downloaded)} from {printable(one.name)} in {one.requests} requests{rate}")
    for one in states:
        if one.is_bad:
            output.warn(f"{one.name} {_trouble(one)}")


def _trouble(state: SourceState) -> str:
    """What was the matter with a source, in words."""
    words = {
        Condition.WRONG: "gave what is wrong",
        Condition.REFUSED: "could not be used",
        Condition.SLOW: "was much slower than others",
    }.get(state.state, "failed")
    times = f" {state.failures} times" if state.failures > 1 and state.state is not Condition.REFUSED else ""
    now = ", and is good now" if state.state is Condition.GOOD else ""
    return f"{words}{times}{now}{f': {state.error}' if state.error else ''}"


def date(seconds: float) -> str:
    """A moment in seconds since 1970, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def size(count: float) -> str:
    """Bytes for people, in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError
