"""The format of server-sent events (WHATWG HTML, section 9.2): written, and read from servers that nobody trusts."""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pacstore.errors import Corrupt

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MEDIA_TYPE = "text/event-stream"
_END_OF_LINE = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its kind, its data, and the id by which a listener says where it was."""

    kind: str
    data: str
    id: str = ""


def encode_event(event: Event) -> bytes:
    """The bytes of an event. Its kind and id have one line; of the data, each line is written by itself."""
    lines = [f"id: {event.id}"] if event.id else []
    lines += [f"event: {event.kind}", *(f"data: {line}" for line in event.data.split("\n")), "", ""]
    return "\n".join(lines).encode()


def encode_retry(seconds: float) -> bytes:
    """How long a listener should wait before it connects again."""
    return f"retry: {int(seconds * 1000)}\n\n".encode()


KEEP_ALIVE = b":\n\n"
"""A comment, which listeners pass over."""


def encode_data(fields: Mapping[str, object]) -> str:
    """Fields as the data of an event."""
    return json.dumps(fields, sort_keys=True, separators=(",", ":"))


def decode_data(event: Event) -> dict[str, object]:
    """The fields of an event; none if its data is no JSON object."""
    try:
        fields = json.loads(event.data)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


class EventReader:
    """Takes the bytes of a stream as they come, and gives the events that are whole.

    Raises Corrupt for a line, or an event, of more than `limit` characters, and for what is not UTF-8.
    """

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._rest = ""
        self._is_first = True
        self._kind = self._id = ""
        self._data: list[str] = []
        self._length = 0

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events that end in `data`."""
        try:
            text = self._rest + self._decoder.decode(data)
        except UnicodeDecodeError as error:
            raise Corrupt("this stream of events is not UTF-8") from error
        if self._is_first and text:
            text, self._is_first = text.removeprefix("\ufeff"), False
        start = 0
        for match in _END_OF_LINE.finditer(text):
            if match[0] == "\r" and match.end() == len(text):
                break  # its \n may be still to come
            event = self._line(text[start : match.start()])
            start = match.end()
            if event is not None:
                yield event
        self._rest = text[start:]
        self._check(len(self._rest))

    def _line(self, line: str) -> Event | None:
        if not line:
            return self._end()
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        self._length += len(line)
        self._check(self._length)
        if field == "event":
            self._kind = value
        elif field == "data":
            self._data.append(value)
        elif field == "id" and "\0" not in value:
            self._id = value
        elif not field:
            self._length -= len(line)  # a comment belongs to no event
        return None

    def _end(self) -> Event | None:
        kind, data = self._kind or "message", self._data
        self._kind, self._data, self._length = "", [], 0
        return Event(kind, "\n".join(data), self._id) if data else None

    def _check(self, length: int) -> None:
        if length > self._limit:
            raise Corrupt(f"an event has more than {self._limit} characters")
