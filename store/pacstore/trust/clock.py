"""By which time a client judges expiry: a clock that was set back must not make an old catalog look fresh.

The reference is the machine's clock, or the latest time at which this client has verified a fresh catalog, whichever is
later. That time is durable, in steps of an hour, so that a call usually writes nothing; no more than this can a clock that
is set back regain. It is never later than the end of what was fresh then, so a clock that was ahead for a while delays no
catalog that is signed later. It belongs to the online keys: when a root changes them, it starts anew (as `floor` does).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pacstore.errors import Untrusted
from pacstore.trust.metadata import SIGNED_AT, TIME
from pacstore.trust.records import Records

if TYPE_CHECKING:
    from pathlib import Path

    from tuf.api.metadata import Timestamp

STEP_SECONDS = 3600.0
TOLERANCE_SECONDS = 86_400.0
"""By how much a clock may be behind the time at which a catalog says that it was signed."""


@dataclass(frozen=True)
class Moment:
    """When a catalog is judged; all in seconds since 1970, UTC.

    `at`: the time by which expiry is judged. `now`: what the machine's clock says. `fresh`: when a fresh catalog was last
    verified here, or None. `as_of`: whether the user has named `at`.
    """

    at: float
    now: float
    fresh: float | None = None
    as_of: bool = False

    @property
    def is_behind(self) -> bool:
        """Whether the machine's clock contradicts what was verified here before."""
        return not self.as_of and self.now + TOLERANCE_SECONDS < self.at

    def check_signed_at(self, signed_at: float | None, place: str) -> None:
        """Raise Untrusted if the catalog `place` was signed later than it can be at this moment."""
        if signed_at is None or signed_at <= self.at + TOLERANCE_SECONDS:
            return
        signed = date(signed_at)
        if self.as_of:
            message = f"the catalog was signed at {signed}, after {date(self.at)}, as of which it is to be judged"
            raise Untrusted(message, place=place, hint=f"give --as-of {signed} or later")
        message = f"the clock of this machine says {date(self.now)}, but the catalog was signed at {signed}"
        hint = f"set the clock; or, if it is right, use another source; where there is no clock: --as-of {signed}"
        raise Untrusted(message, place=place, hint=hint)


class Clock:
    """The latest time at which a fresh catalog was verified, kept in `directory`, as it was when this object was made.

    Raises Corrupt for a damaged record, Unavailable.
    """

    def __init__(self, directory: Path) -> None:
        self._records = Records(directory)

    def latest(self, online_keys: tuple[str, ...]) -> float | None:
        """That time, in seconds since 1970, for a catalog with these online keys; None if there is none."""
        times = [record["time"] for record in self._records if tuple(record["online_keys"]) == online_keys]
        return float(max(times)) if times else None

    def moment(self, now: float, online_keys: tuple[str, ...], *, as_of: float | None) -> Moment:
        """When to judge a catalog with these online keys, if the machine's clock says `now`."""
        fresh = self.latest(online_keys)
        if as_of is not None:
            return Moment(as_of, now, fresh, as_of=True)
        return Moment(max(now, fresh if fresh is not None else now), now, fresh)

    def advance(self, moment: Moment, online_keys: tuple[str, ...], *, expires: float) -> None:
        """Remember durably that a catalog, valid until `expires`, was fresh at `moment`. Raises Unavailable."""
        time = int(min(moment.now, expires))
        latest = self.latest(online_keys)
        if not moment.as_of and (latest is None or time >= latest + STEP_SECONDS):
            record = {"format": 1, "online_keys": list(online_keys), "time": time}
            self._records.add(record, superseded=self._records)


def signed_at(timestamp: Timestamp) -> float | None:
    """When `timestamp` says that it was signed, in seconds since 1970; None if it does not say so, or nothing sensible."""
    value = timestamp.unrecognized_fields.get(SIGNED_AT)
    try:
        return parse_date(value if isinstance(value, str) else "")
    except ValueError:
        return None


def date(seconds: float) -> str:
    """A time in seconds since 1970 as YYYY-MM-DDTHH:MM:SSZ."""
    return datetime.fromtimestamp(seconds, UTC).strftime(TIME)


def parse_date(text: str) -> float:
    """The time, in seconds since 1970, that `text` says as YYYY-MM-DDTHH:MM:SSZ exactly. Raises ValueError."""
    moment = datetime.strptime(text, TIME).replace(tzinfo=UTC)
    # strptime takes other spellings too: single digits, spaces, the digits of other scripts.
    if moment.strftime(TIME) != text:
        raise ValueError(f"{text} is not of the form YYYY-MM-DDTHH:MM:SSZ")
    return moment.timestamp()
