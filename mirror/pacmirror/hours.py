"""Hours: rates that hold at some hours of the day, in the local time of this machine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pacstore.errors import Refused, printable

DAY_MINUTES = 24 * 60
_HOURS = re.compile(r"([0-9]{1,2}):([0-9]{2}) ?- ?([0-9]{1,2}):([0-9]{2})\Z")


@dataclass(frozen=True)
class RateHours:
    """From `begin_minute` until before `end_minute` of each day, the rate is `bytes_per_second`: 0 is nothing, None all.

    Minutes count from midnight. If the end is not after the beginning, midnight lies between.
    """

    begin_minute: int
    end_minute: int
    bytes_per_second: int | None

    def covers(self, minute: int) -> bool:
        """Whether `minute` of the day lies in these hours."""
        if self.begin_minute < self.end_minute:
            return self.begin_minute <= minute < self.end_minute
        return minute >= self.begin_minute or minute < self.end_minute


def parse_hours(text: str, *, place: str) -> tuple[int, int]:
    """The first minute of the day and the one after the last, of `08:00-18:00`. Raises Refused."""
    match = _HOURS.match(text)
    hours = [int(part) for part in match.groups()] if match else []
    if hours and hours[1] < 60 and hours[3] < 60:
        begin, end = 60 * hours[0] + hours[1], 60 * hours[2] + hours[3]
        if begin < DAY_MINUTES and end <= DAY_MINUTES:
            return begin, end % DAY_MINUTES
    hint = "write for example 08:00-18:00, or 22:00-06:00 over midnight"
    raise Refused(f"'{printable(text[:40])}' are no hours of the day", place=place, hint=hint)


def format_hours(span: RateHours) -> str:
    """For people: `08:00-18:00 at 5000000 bytes/s`."""
    rate = "unlimited" if span.bytes_per_second is None else f"{span.bytes_per_second} bytes/s"
    return f"{_clock(span.begin_minute)}-{_clock(span.end_minute)} at {rate}"


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def rate_at(minute: int, hours: Sequence[RateHours], *, usual: int | None) -> int | None:
    """The rate in bytes a second at `minute` of the day: of the first of `hours` that covers it, otherwise the usual one.

    None is without a limit, 0 nothing at all.
    """
    return next((span.bytes_per_second for span in hours if span.covers(minute)), usual)
