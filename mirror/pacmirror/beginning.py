"""Beginning: the status and headers of an answer with a public file, or a range of it, whatever its bytes then come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from pacmirror.answers import error_answer
from pacmirror.conditions import choose_answer, http_date

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pacmirror.conditions import Answer
    from pacmirror.files import PublicFile


def begin_answer(
    request: web.Request,
    public: PublicFile,
    *,
    size: int,
    etag: str,
    modified: int | None = None,
    more: Mapping[str, str] | None = None,
) -> tuple[Answer, web.StreamResponse]:
    """What `request` is answered with, of a file of `size` bytes; whoever has the bytes sends them, if it has a body.

    `modified`: when it was changed last, in seconds since 1970, if that is said; `more`: headers of whole files and parts alike.
    """
    answer = choose_answer(request.method, request.headers, size=size, etag=etag, modified=modified)
    headers = _headers(public, answer, size, etag)
    if answer.status in (200, 206, 304) and modified is not None:
        headers["Last-Modified"] = http_date(modified)
    if answer.status == 416:
        return answer, error_answer(416, "Refused", "the range lies outside of the file", headers=headers)
    if not answer.has_body:
        return answer, web.Response(status=answer.status, headers=headers)
    return answer, web.StreamResponse(status=answer.status, headers={**headers, **(more or {})})


def _headers(public: PublicFile, answer: Answer, size: int, etag: str) -> dict[str, str]:
    headers = {"ETag": etag, "Cache-Control": public.cache_control, "Accept-Ranges": "bytes"}
    if answer.status == 206:
        headers["Content-Range"] = f"bytes {answer.offset}-{answer.offset + answer.length - 1}/{size}"
    elif answer.status == 416:
        headers = {"Content-Range": f"bytes */{size}", "Accept-Ranges": "bytes"}
    elif answer.status == 412:
        headers["Cache-Control"] = "no-store"
    if answer.has_body:
        headers["Content-Type"] = public.content_type
    return headers
