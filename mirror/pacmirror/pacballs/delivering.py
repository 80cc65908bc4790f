"""Delivering: sends what the handlers of this package have made or put together, to a few at once."""

from __future__ import annotations

import io
from contextlib import contextmanager
from typing import TYPE_CHECKING

from aiohttp import web

from pacmirror.beginning import begin_answer
from pacmirror.config import Config
from pacmirror.files import PublicFile
from pacmirror.listener import counted_as
from pacmirror.pacballs.fields import disposition
from pacmirror.pacballs.offer import DAMAGED, LATER
from pacmirror.pacballs.pumping import send_batches
from pacmirror.pacballs.service import Pacballs, part_of
from pacmirror.request_keys import client_address
from pacmirror.sending import send_part
from pacmirror.threads import start_thread
from pacstore.digest import Digest
from pacstore.errors import PacballError, Unavailable
from pacstore.pacball.assembling import batches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from pacmirror.conditions import Answer
    from pacstore.assemble import Assembler
    from pacstore.digest import Bytes
    from pacstore.pacball.digests import PacballDigests
    from pacstore.pacball.opened import OpenedRelease
    from pacstore.trust.targets import CatalogRelease

PACBALLS = web.AppKey("PACBALLS", Pacballs)
CONFIG = web.AppKey("CONFIG", Config)
_THREAD = "pacball-page"


async def answer_page(request: web.Request, write: Callable[[], web.Response]) -> web.StreamResponse:
    """The page that `write` makes, in a thread. Raises Unavailable where too much is sent at once."""
    async with request.app[PACBALLS].writing:
        page = await start_thread(write, name=_THREAD)
    return await _send_data(request, page, bytes(page.body))  # type: ignore[arg-type]


async def answer_data(request: web.Request, public: PublicFile, data: bytes) -> web.StreamResponse:
    """`data`, which was made for this answer, whole or one range of it, as a file to be kept under its own name."""
    more = {"Content-Disposition": disposition(public.path.rpartition("/")[2])}
    answer, response = begin_answer(request, public, size=len(data), etag=f'"b3-{Digest.of(data)}"', more=more)
    if not answer.has_body:
        return response
    part = data[answer.offset : answer.offset + answer.length]
    return await _send_data(request, web.Response(status=answer.status, headers=response.headers, body=part), part)


async def _send_data(request: web.Request, response: web.Response, data: bytes) -> web.StreamResponse:
    """Send `response`, whose body is `data`: what is long only to a few at once, since who does not read keeps it in memory."""
    limits = request.app[CONFIG].limits
    if len(data) <= limits.pacballs.unseated_bytes:
        return response
    with _seated(request):
        sent = web.StreamResponse(status=response.status, headers=response.headers)
        await send_part(request, sent, io.BytesIO(data), offset=0, length=len(data), limits=limits)
    return sent


async def send_assembled(
    request: web.Request,
    answer: Answer,
    response: web.StreamResponse,
    opened: OpenedRelease,
    digests: PacballDigests | None,
    pieces: Callable[[Assembler], Iterator[Bytes]],
) -> web.StreamResponse:
    """Send `response`, with the `pieces` that an assembler of the release gives, unless it has no body.

    Raises Unavailable where that is damaged, or too much is being put together.
    """
    if not answer.has_body:
        return response
    if request.method != "GET" or not answer.length:
        response.content_length = answer.length
        await response.prepare(request)
        return response
    service, limits = request.app[PACBALLS], request.app[CONFIG].limits

    def rest() -> None:
        if assembler.rest():
            service.freed.note()
        service.freed.give_back()

    with assembling(request, opened, digests) as assembler:
        most = limits.pacballs
        made = batches(pieces(assembler), most_bytes=most.batch_bytes, most_pieces=most.batch_pieces)
        await send_batches(
            request,
            response,
            made,
            length=answer.length,
            limits=limits,
            turns=service.turns,
            rest=rest,
            failed=lambda error: service.report_soon(error, opened.entry),
        )
    return response


@contextmanager
def assembling(request: web.Request, opened: OpenedRelease, digests: PacballDigests | None) -> Iterator[Assembler]:
    """An assembler of the release for one request, in a seat.

    Raises Unavailable where there is no seat, or what it reads is damaged.
    """
    service = request.app[PACBALLS]
    with _seated(request), _reported(service, opened.entry):
        assembler = opened.assembler(digests)
        try:
            yield assembler
        finally:
            assembler.frames.close()
            service.freed.note()


def _seated(request: web.Request) -> AbstractContextManager[None]:
    trusted = request.app[CONFIG].access.trusted_proxies
    return request.app[PACBALLS].seats.seat(counted_as(client_address(request, trusted), trusted))


@contextmanager
def _reported(service: Pacballs, entry: CatalogRelease) -> Iterator[None]:
    """What is found damaged before anything was sent is repaired, and told as what it is to clients: here for now."""
    try:
        yield
    except PacballError as error:
        if part_of(error) is None:
            raise
        service.report_soon(error, entry)
        raise Unavailable(DAMAGED, place=error.place, hint=LATER) from error
