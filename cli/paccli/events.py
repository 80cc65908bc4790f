"""Events: what a long command does, for programs: JSON objects on standard output, one a line, of any thread, never mixed.

Every event has `event` and `at`, in seconds since 1970. docs/installing.md describes them all; integrators rely on it.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO


class EventStream:
    """Writes events to `file`. Once nobody reads them any more they are dropped: the work goes on."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._lock = threading.Lock()

    def tell(self, event: str, values: Mapping[str, object]) -> None:
        """Write one event, and have it leave now."""
        values = dict(sorted(values.items()))
        with self._lock, outliving_reader(self._file):
            line = json.dumps({"event": event, "at": round(time.time(), 3), **values})
            self._file.write(line + "\n")
            self._file.flush()


@contextmanager
def outliving_reader(file: TextIO) -> Iterator[None]:
    """Where the reader of `file` has gone away, what is written to it is dropped from now on."""
    try:
        yield
    except BrokenPipeError:
        discard(file)


def discard(file: TextIO) -> None:
    """Let what is still written to `file` go nowhere, without an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, file.fileno())
    os.close(nowhere)
