"""Refusals: why something that is published over HTTP is not taken now, or not so, and how each is answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pacmirror.answers import error_answer, kind_of, status_of
from pacmirror.uploads.wire import OFFSET_HEADER
from pacstore.errors import Corrupt, NewerFormat, PacballError, Refused, TooLarge, Unavailable
from pacstore.incoming.publication import StillMissing
from pacstore.trust.proposals import Outdated

if TYPE_CHECKING:
    from aiohttp import web


class Later(Unavailable):
    """It may work after a pause of `seconds`; `status` is that of HTTP."""

    status = 503
    seconds = 2


class NoRoom(Later):
    """There is no room for so many bytes, for anybody."""

    status = 507
    seconds = 60


class TooMany(Later):
    """The client has too much under way."""

    status = 429


class OutOfStep(Refused):
    """A piece does not begin where its upload ends, at `offset`: the client asks how far it is, and goes on there."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message, hint="ask how far the upload is (HEAD), and go on there")
        self.offset = offset


class Wrong(Corrupt):
    """What was sent is not what it was said to be."""


def answer_refusal(error: PacballError, request: web.Request) -> web.Response:
    """The answer to what could not be taken. The connection is closed where the rest of a body may come on it."""
    status, kind, headers = status_of(error), kind_of(error), {}
    if isinstance(error, Later):
        status, headers = error.status, {"Retry-After": str(error.seconds)}
    elif isinstance(error, Unavailable):
        headers = {"Retry-After": str(Later.seconds)}
    elif isinstance(error, OutOfStep):
        status, kind, headers = 409, "OutOfStep", {OFFSET_HEADER: str(error.offset)}
    elif isinstance(error, Outdated):
        status, kind = 409, "Outdated"
    elif isinstance(error, StillMissing):
        status, kind = 409, "StillMissing"
    elif isinstance(error, Wrong | NewerFormat):
        status = 422
    message = f"{error.place}: {error.message}" if error.place else error.message
    answer = error_answer(status, kind, message, hint=error.hint, headers=headers)
    if request.body_exists and not request.content.is_eof():
        answer.force_close()
    return answer


def as_sent(error: Corrupt | TooLarge) -> PacballError:
    """The error of what a client sent: bytes that are wrong here are its, and not those of an upstream."""
    return Wrong(error.message, place=error.place, hint=error.hint) if isinstance(error, Corrupt) else error
