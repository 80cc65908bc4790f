"""History: what happened to an install root, in the order in which it happened: a line of JSON for each event.

    ROOT/.pacball/history.jsonl     {"event": ..., "time": seconds since 1970, "release": ..., and what the event is about}

A switch is written before it is made, so that a way back is known whatever happens: a switch that stands in the history may not
have come to pass, but none came to pass that does not stand there. After a power loss the last line may be torn; readers pass
over it, and over events that they do not know. Lines without `event` are switches: they were the only ones.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pacstore.errors import Corrupt, PacballError
from pacstore.holdings import decode_json
from pacstore.install.tree.disk import write_whole
from pacstore.limits import KIB
from pacstore.release import Release

NAME = "history.jsonl"
LINE_BYTES = 64 * KIB
LATEST = 253_402_300_799.0
"""The end of the year 9999, in seconds since 1970."""
_PIECE_BYTES = 256 * KIB
_PRIVATE = 0o600


class EventKind(enum.StrEnum):
    """What can happen to a release."""

    INSTALL = "install"
    SWITCH = "switch"
    ROLLBACK = "rollback"
    REMOVE = "remove"
    REPAIR = "repair"
    VALIDATE = "validate"


SWITCHES = (EventKind.SWITCH, EventKind.ROLLBACK)
"""The events that let `current` lead to their release; their `previous` is the one before, or None."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event; `time` is what the clock said, in seconds since 1970. `values`: all that the line says."""

    kind: EventKind
    time: float
    release: Release
    values: Mapping[str, object]

    def text(self, key: str) -> str:
        """The text under `key`; empty where there is none."""
        value = self.values.get(key)
        return value if isinstance(value, str) else ""

    @property
    def previous(self) -> str:
        """For a switch the name of the release that was current before it; empty for none."""
        return self.text("previous")


def append_event(private: int, kind: EventKind, release: Release, *, time: float, values: Mapping[str, object]) -> None:
    """Write an event to the history in the open directory `private`, durably. Raises OSError, Corrupt for one too long."""
    line = {"event": str(kind), "time": round(time, 3), "release": str(release), **values}
    data = json.dumps(line, sort_keys=True).encode() + b"\n"
    if len(data) > LINE_BYTES:
        raise Corrupt(f"an event has {len(data)} bytes, which is more than {LINE_BYTES}", place=NAME)
    flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(NAME, flags, dir_fd=private)
        new = False
    except FileNotFoundError:
        descriptor = os.open(NAME, flags | os.O_CREAT, _PRIVATE, dir_fd=private)
        new = True
    try:
        # One write: of two processes at once neither cuts the other's line.
        write_whole(descriptor, data if _ends_a_line(descriptor) else b"\n" + data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if new:
        os.fsync(private)


def read_events(private: int) -> Iterator[Event]:
    """The events in the open directory `private`, the oldest first. Memory does not grow with their number. Raises OSError."""
    for line in _lines(private):
        with contextlib.suppress(PacballError, ValueError, TypeError, KeyError):
            yield _event(decode_json(line, limit=LINE_BYTES, place=NAME))


def _event(value: Mapping[str, object]) -> Event:
    time = value["time"]
    if isinstance(time, bool) or not isinstance(time, int | float):
        raise TypeError("a time is a number")
    if not 0 <= time <= LATEST:
        raise ValueError("no clock shows that time")
    kind = EventKind(str(value.get("event", EventKind.SWITCH)))
    return Event(kind, float(time), Release.parse(str(value["release"])), value)


def _ends_a_line(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"


def _lines(private: int) -> Iterator[bytes]:
    """Its lines without their ends; none that is too long for an event."""
    try:
        descriptor = os.open(NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=private)
    except FileNotFoundError:
        return
    with open(descriptor, "rb", buffering=_PIECE_BYTES) as file:
        skipping = False
        while line := file.readline(LINE_BYTES):
            whole = line.endswith(b"\n")
            # A last line without an end may be one that is being written.
            if whole and not skipping:
                yield line
            skipping = not whole
