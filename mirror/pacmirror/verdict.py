"""Verdicts of sources: one asks for a pause; or none of several gave what was asked of them, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pacstore.errors import Corrupt, NotFound, PacballError, Refused, TooLarge, Unavailable, Untrusted
from pacstore.source import PerhapsAbsent

if TYPE_CHECKING:
    from collections.abc import Mapping


class TryLater(Unavailable):
    """The server asks for a pause of `seconds`."""

    def __init__(self, message: str, *, place: str, seconds: float) -> None:
        super().__init__(message, place=place)
        self.seconds = seconds


class InCircle(PerhapsAbsent):
    """A mirror was asked for what it would have to ask this one for. It is well, and does not have it; no more is known."""


class NotReached(Unavailable):
    """What only others have could not be had from them now: a gateway's answer, never that something is absent."""


_KINDS = (Unavailable, Corrupt, TooLarge, Untrusted, Refused)
CIRCLE_HINT = "mirrors that name each other as upstreams must have another one, or name each other as peers"
_HINTS = {
    Unavailable: "try again later, or name more sources",
    PerhapsAbsent: "try again later, or name more sources",
    NotFound: "name a source that has it",
    InCircle: CIRCLE_HINT,
}
_OTHERS = "name other sources, and tell the operators of these"


def as_gateway(error: PacballError) -> PacballError:
    """What an upstream's `error` is to our own clients: absent if that is definite, wrong bytes, or not to be reached.

    That an upstream refuses us is no fault of the client's.
    """
    kind: type[PacballError] = NotReached
    if isinstance(error, NotFound):
        kind = NotFound
    elif isinstance(error, Corrupt | TooLarge):
        kind = Corrupt
    elif isinstance(error, InCircle):
        kind = InCircle
    return kind(error.message, place=error.place, hint=error.hint)


def all_failed(what: object, errors: Mapping[str, PacballError]) -> PacballError:
    """The error for `what`, which no source gave. `errors`: why, by the sources' names.

    NotFound only if every one says so: an error is no absence. If any may succeed later, Unavailable.
    """
    causes = list(errors.values())
    if len(causes) == 1:
        return causes[0]
    kind: type[PacballError]
    if all(isinstance(cause, NotFound) for cause in causes):
        kind = NotFound
    elif all(isinstance(cause, NotFound | InCircle) for cause in causes):
        kind = InCircle
    elif any(isinstance(cause, NotFound | PerhapsAbsent) for cause in causes):
        kind = PerhapsAbsent
    else:
        kind = next(kind for kind in _KINDS if any(isinstance(cause, kind) for cause in causes))
    reasons = "; ".join(f"{name}: {_reason(name, cause)}" for name, cause in errors.items())
    return kind(f"none of {len(causes)} sources gives it: {reasons}", place=str(what), hint=_HINTS.get(kind, _OTHERS))


def _reason(name: str, cause: PacballError) -> str:
    place = cause.place.removeprefix(name).lstrip("/")
    return f"{place} {cause.message}".strip() if place and name not in cause.message else cause.message
