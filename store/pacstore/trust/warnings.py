"""Warnings before a catalog's metadata expires, early enough for who has the keys: pure, from the dates alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pacstore.trust.metadata import PLACEMENT_PREFIX, Expiry, at

if TYPE_CHECKING:
    from collections.abc import Mapping

OFFLINE_DAYS = 60.0
"""People have to fetch these keys from a safe: they are told this many days before."""
ONLINE_SHARE = 0.25
"""A machine signs these: when no more than this share of the expected life is left, that machine does not work."""
LISTED = 20

_DAY_SECONDS = 86_400.0
_ONLINE_ROLES = frozenset({"timestamp", "snapshot"})
_DEFAULT = Expiry()


def is_online(role: str) -> bool:
    """Whether the online key signs this role."""
    return role in _ONLINE_ROLES or role.startswith(PLACEMENT_PREFIX)


def expiry_warnings(expires: Mapping[str, float], *, now: float, signed_at: float | None = None) -> list[str]:
    """A sentence for each role that expires soon or has expired, the first to expire first; at most 20 and a last one.

    `expires` has each role's time; all times are in seconds since 1970, UTC. `signed_at` is when the timestamp was
    signed, if that is known: from it follows for how long online metadata live here. Each sentence names the command.
    """
    lives = _lives(expires, signed_at)
    near = sorted((when, role) for role, when in expires.items() if when - now < _margin(role, lives))
    warnings = [_sentence(role, when, now) for when, role in near[:LISTED]]
    if len(near) > LISTED:
        warnings.append(f"{len(near) - LISTED} more roles expire soon after: see pacball trust status")
    return warnings


def _lives(expires: Mapping[str, float], signed_at: float | None) -> dict[str, float]:
    """The expected life in seconds of timestamp and snapshot; a snapshot is signed anew more seldom, never for less."""
    lives = {role: _DEFAULT.days(role) * _DAY_SECONDS for role in _ONLINE_ROLES}
    if signed_at is not None and "timestamp" in expires:
        lives["timestamp"] = max(expires["timestamp"] - signed_at, 0.0)
        lives["snapshot"] = min(lives["snapshot"], lives["timestamp"])
    return lives


def _margin(role: str, lives: Mapping[str, float]) -> float:
    if not is_online(role):
        return OFFLINE_DAYS * _DAY_SECONDS
    return ONLINE_SHARE * lives.get(role, _DEFAULT.placement * _DAY_SECONDS)


def _sentence(role: str, when: float, now: float) -> str:
    date = f"{at(when):%Y-%m-%d %H:%M}Z"
    fact = f"{role} expired at {date}" if when <= now else f"{role} expires at {date}, in {_duration(when - now)}"
    if is_online(role):
        return f"{fact}: run pacball trust refresh, or find out why the machine that does so does not"
    return f"{fact}: run pacball trust sign --renew where its key is"


def _duration(seconds: float) -> str:
    for length, unit in ((_DAY_SECONDS, "day"), (3600.0, "hour"), (60.0, "minute")):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return "less than a minute"
