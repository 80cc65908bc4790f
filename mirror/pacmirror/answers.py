"""How errors are answered: one table from kinds to HTTP status, one shape for all bodies."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from aiohttp import web

from pacmirror.request_keys import REQUEST_ID, REQUEST_ID_HEADER, choose_request_id, request_id
from pacmirror.verdict import InCircle, NotReached
from pacstore.errors import Corrupt, NotFound, PacballError, Refused, TooLarge, Unavailable, Untrusted
from pacstore.limits import KIB

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

STATUS: tuple[tuple[type[PacballError], int], ...] = (
    (NotFound, 404),
    (Corrupt, 502),
    (TooLarge, 413),
    (NotReached, 504),
    (InCircle, 508),
    (Unavailable, 503),
    (Untrusted, 403),
    (Refused, 400),
    (PacballError, 500),
)
"""The first kind that fits decides."""

IGNORED_BODY_BYTES = 64 * KIB
TAKING_BODIES = "/v1/publications/"
"""Below it, requests may have bodies."""
_RETRY_SECONDS = "5"
_URL = re.compile(r"(?:(the proxy) )?https?://[^\s\"'(),;]*[^\s\"'(),;:.]")
_log = logging.getLogger(__name__)


def status_of(error: PacballError) -> int:
    """The HTTP status for `error`."""
    return next(status for kind, status in STATUS if isinstance(error, kind))


def kind_of(error: PacballError) -> str:
    """The name of its kind, one of `pacstore.errors`: what `error` is beside that matters only here."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == PacballError.__module__)


def _without_names(message: str) -> str:
    """`message` for strangers: which upstreams and proxies there are is for those to know who may read the status."""
    return _URL.sub(lambda found: found[1] or "an upstream", message)


def error_answer(
    status: int, kind: str, message: str, *, hint: str = "", headers: Mapping[str, str] | None = None
) -> web.Response:
    """An error as every route gives it: JSON with `error`, `message`, `hint` and the request's id; never cached."""
    body = {"error": kind, "message": message, "hint": hint, "request_id": request_id.get()}
    return web.json_response(body, status=status, headers={**(headers or {}), "Cache-Control": "no-store"})


@web.middleware
async def answer_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Turn every error of a handler into `error_answer`."""
    try:
        return await handler(request)
    except PacballError as error:
        message = _without_names(f"{error.place}: {error.message}" if error.place else error.message)
        status = status_of(error)
        headers = {"Retry-After": _RETRY_SECONDS} if status == 503 else None
        return error_answer(status, kind_of(error), message, hint=error.hint, headers=headers)
    except web.HTTPException as error:
        allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        kind = "NotFound" if error.status == 404 else "Refused"
        return error_answer(error.status, kind, error.reason, hint="see /openapi.json", headers=allow)
    except Exception:  # noqa: BLE001 the outermost place: whatever it is, the client gets an answer and the log the cause
        _log.exception("a request failed unexpectedly")
        return error_answer(500, "PacballError", "the server failed unexpectedly", hint="its log says more")


@web.middleware
async def identify(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Give `request` an id, for all that is logged and answered from here on. Each request has a task of its own."""
    request[REQUEST_ID] = choose_request_id(request.headers.getall(REQUEST_ID_HEADER, []))
    request_id.set(request[REQUEST_ID])
    return await handler(request)


@web.middleware
async def refuse_bodies(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Few routes take a body, and bound it themselves; a small one is read and ignored, as HTTP allows, any other refused."""
    if request.path.startswith(TAKING_BODIES):
        return await handler(request)
    if request.body_exists and (request.content_length is None or request.content_length > IGNORED_BODY_BYTES):
        hint = "ask without a body"
        answer = error_answer(413, "TooLarge", f"a body of more than {IGNORED_BODY_BYTES} bytes", hint=hint)
        answer.force_close()
        return answer
    return await handler(request)


async def set_common_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Headers that every answer has; aiohttp would tell its own and Python's version."""
    if REQUEST_ID in request:
        response.headers[REQUEST_ID_HEADER] = request[REQUEST_ID]
    response.headers["Server"] = "pacball"
    response.headers["X-Content-Type-Options"] = "nosniff"
