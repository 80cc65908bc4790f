"""Logs: lines for people, or one JSON object a line, on standard error; each with the id of the request that it is about.

Where the journal of systemd reads them, it knows the time; it is told the level, as sd-daemon(3) says.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pacmirror.request_keys import request_id
from pacstore.errors import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pacmirror.config import LogConfig

FIELDS = "fields"
"""The attribute of a record with further fields: `extra={FIELDS: {...}}`."""
_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))


def configure_logs(config: LogConfig, *, environment: Mapping[str, str] = os.environ) -> None:
    """Send all that is logged in this process to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    in_journal = "JOURNAL_STREAM" in environment
    handler.setFormatter(JsonLines() if config.style == "json" else TextLines(in_journal=in_journal))
    # None of this is in a line, and to find it out takes a fifth of what a line does.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(config.level.upper())
    # Its own words on malformed requests come with tracebacks; the line of the request says it.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)


class TextLines(logging.Formatter):
    """For people: time, level, message, and the request's id."""

    def __init__(self, *, in_journal: bool = False) -> None:
        super().__init__()
        self._in_journal = in_journal

    def format(self, record: logging.LogRecord) -> str:
        """One line, and those of a traceback."""
        about = _id_of(record)
        text = printable(record.getMessage()) + (f" [{about}]" if about else "")
        lines = [f"{record.levelname.lower()}: {text}" if record.levelno != logging.INFO else text]
        if record.exc_info:
            lines += self.formatException(record.exc_info).splitlines()
        if self._in_journal:
            priority = next(value for level, value in _PRIORITIES if record.levelno >= level)
            return "\n".join(f"<{priority}>{line}" for line in lines)
        return f"{_time_of(record)} " + "\n".join(lines)


class JsonLines(logging.Formatter):
    """For programs: `time`, `level`, `logger`, `message`, `request_id`, and the fields of the record."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        fields: dict[str, object] = {
            "time": _time_of(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        about = _id_of(record)
        if about:
            fields["request_id"] = about
        fields |= getattr(record, FIELDS, {})
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=True)


def _id_of(record: logging.LogRecord) -> str:
    return str(getattr(record, FIELDS, {}).get("request_id", "")) or request_id.get()


def _time_of(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
