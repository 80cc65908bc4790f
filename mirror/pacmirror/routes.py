"""The one table of routes, and their handlers: parse, one call, answer. `openapi.json` describes the same, held by a test."""

from __future__ import annotations

import asyncio
import contextlib
import io
from importlib import resources
from typing import TYPE_CHECKING

from aiohttp import web

from pacmirror import did_paths
from pacmirror.beginning import begin_answer
from pacmirror.cache.answering import answer_filling
from pacmirror.cache.filler import Filler
from pacmirror.documents import Documents
from pacmirror.events import Events
from pacmirror.files import CHANGING, OpenFile, PublicFile, PublicFiles, parse_public
from pacmirror.judging import TIMESTAMP_PATH
from pacmirror.listener import counted_as
from pacmirror.pacballs.answering import get_index, get_pacball
from pacmirror.pacballs.browsing import add_slash, get_file, get_release
from pacmirror.pacballs.chunks import get_chunk
from pacmirror.pacballs.delivering import CONFIG
from pacmirror.peers import asks_held_only, follow
from pacmirror.replication import Replication
from pacmirror.request_keys import SENT, SERVED, client_address
from pacmirror.sending import send_part
from pacmirror.service import Services
from pacmirror.status import METRICS_TYPE, encode_metrics, status_document
from pacmirror.sync.bookkeeping import Bookkeeping
from pacmirror.sync.paging import Page
from pacmirror.traffic import Traffic
from pacmirror.uploads.handling import PUBLISHING_ROUTES
from pacmirror.watch import Watch
from pacmirror.withdrawn import answer_withdrawn_pack, check_withdrawn
from pacstore.digest import Digest
from pacstore.errors import NotFound, PacballError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

ALIAS = web.AppKey("ALIAS", str)
"""Of a mirror, among mirrors."""
BOOKS = web.AppKey("BOOKS", Bookkeeping)
DOCUMENTS = web.AppKey("DOCUMENTS", Documents)
EVENTS = web.AppKey("EVENTS", Events)
FILES = web.AppKey("FILES", PublicFiles)
FILLER = web.AppKey("FILLER", Filler)
REPLICATION = web.AppKey("REPLICATION", Replication)
SERVICES = web.AppKey("SERVICES", Services)
TRAFFIC = web.AppKey("TRAFFIC", Traffic)
WATCH = web.AppKey("WATCH", Watch)
_NEVER_KEPT = {"Cache-Control": "no-store"}


async def get_public(request: web.Request) -> web.StreamResponse:
    """A public file of the store, whole or one range of it. The undecoded path counts: each file has one URL."""
    return await _answer_public(request, parse_public(request.rel_url.raw_path.removeprefix("/")))


async def _answer_public(request: web.Request, public: PublicFile) -> web.StreamResponse:
    try:
        opened = await _open(request, public)
    except NotFound:
        await asyncio.to_thread(check_withdrawn, public, request.app[CONFIG])
        raise
    return await _answer(request, opened)


async def get_pack(request: web.Request) -> web.StreamResponse:
    """A pack that is here; in a mirror also one of the upstreams', which is fetched and kept."""
    return await _answer_pack(request, parse_public(request.rel_url.raw_path.removeprefix("/")))


async def get_replica(request: web.Request) -> web.StreamResponse:
    """A file by its scope and name in Rucio: the same answer as by its own path."""
    path = did_paths.public_path(request.rel_url.raw_path)
    if path.startswith("pacballs/"):
        return await get_pacball(request)
    public = parse_public(path)
    return await (_answer_pack if path.startswith("packs/") else _answer_public)(request, public)


async def _answer_pack(request: web.Request, public: PublicFile) -> web.StreamResponse:
    filler = request.app.get(FILLER)
    if filler is None:
        try:
            return await _answer(request, _open_pack(request.app, public))
        except NotFound:
            return await answer_withdrawn_pack(request, public, request.app[CONFIG])
    if asks_held_only(request):
        return await _answer(request, _open_pack(request.app, public))
    pack = Digest.parse(public.etag_id)
    trusted = request.app[CONFIG].access.trusted_proxies
    who = counted_as(client_address(request, trusted), trusted)
    while True:
        with contextlib.suppress(NotFound):
            response = await _answer(request, _open_pack(request.app, public))
            filler.sent_public(pack, request.get(SENT, 0))
            return response
        follow(request, request.app[ALIAS], place=public.path)
        async with filler.filling(pack, who=who) as filling:
            if filling is not None:
                return await answer_filling(request, public, filler, filling, limits=request.app[CONFIG].limits)


async def _answer(request: web.Request, opened: OpenFile) -> web.StreamResponse:
    with opened.file:
        answer, response = begin_answer(request, opened.public, size=opened.size, etag=opened.etag)
        if answer.has_body:
            limits = request.app[CONFIG].limits
            await send_part(request, response, opened.file, offset=answer.offset, length=answer.length, limits=limits)
        return response


async def get_health(request: web.Request) -> web.Response:
    """200 if the store can be read and has a known format, otherwise 503."""
    try:
        await asyncio.to_thread(request.app[FILES].check)
    except PacballError as error:
        raise Unavailable(error.message, place=error.place, hint=error.hint) from error
    return web.json_response({"status": "ok"}, headers=_NEVER_KEPT)


async def get_ready(request: web.Request) -> web.Response:
    """200 if clients may be sent here, otherwise 503 and why not."""
    await asyncio.to_thread(request.app[FILES].check)
    await request.app[WATCH].catalog.look()
    reasons = request.app[SERVICES].unready()
    if reasons:
        raise Unavailable("; ".join(reasons), place="/readyz", hint="/v1/status tells more")
    return web.json_response({"status": "ready"}, headers=_NEVER_KEPT)


async def get_status(request: web.Request) -> web.Response:
    """What is served, how old it is, and what should be looked after."""
    await request.app[WATCH].catalog.look()
    return web.json_response(status_document(request.app[SERVICES]), headers=_NEVER_KEPT)


async def get_releases(request: web.Request) -> web.Response:
    """How each release does that is to be kept whole here, page by page."""
    books = request.app[BOOKS]
    page = Page.parse(request.query, most=books.limits.page)
    rows = await books.page(after=page.after, limit=page.limit, state=page.state)
    return web.json_response(page.document(rows, books.under_way), headers=_NEVER_KEPT)


async def get_metrics(request: web.Request) -> web.Response:
    """The same as numbers."""
    await request.app[WATCH].catalog.look()
    body = await asyncio.to_thread(encode_metrics, request.app[SERVICES].metrics())
    return web.Response(body=body, headers={**_NEVER_KEPT, "Content-Type": METRICS_TYPE})


async def get_events(request: web.Request) -> web.StreamResponse:
    """What happens here, as it happens: server-sent events."""
    return await request.app[EVENTS].answer(request)


async def get_openapi(_request: web.Request) -> web.Response:
    """The description of this interface."""
    return web.Response(body=_OPENAPI, content_type="application/json", headers={"Cache-Control": CHANGING})


async def _open(request: web.Request, public: PublicFile) -> OpenFile:
    """The file, from here, or in a mirror from its upstreams."""
    app = request.app
    documents = app.get(DOCUMENTS)
    try:
        return await (_open_timestamp(app, public) if public.path == TIMESTAMP_PATH else _open_here(app, public))
    except NotFound as error:
        if documents is None or asks_held_only(request):
            raise
        if public.path == TIMESTAMP_PATH:
            raise documents.no_catalog() from error
        follow(request, app[ALIAS], place=public.path)
        request[SERVED] = "fetched"
        return await documents.open(public)


async def _open_timestamp(app: web.Application, public: PublicFile) -> OpenFile:
    data = await app[WATCH].catalog.timestamp()
    return OpenFile(io.BytesIO(data), len(data), f'"b3-{Digest.of(data).hex}"', public)


def _open_pack(app: web.Application, public: PublicFile) -> OpenFile:
    # Here and not in a thread, which costs as much as all else of a request: like sendfile it waits for the disk where it must,
    # and nothing is read or hashed.
    return app[FILES].open(public)


async def _open_here(app: web.Application, public: PublicFile) -> OpenFile:
    return await asyncio.to_thread(app[FILES].open, public)


_OPENAPI = resources.files("pacmirror").joinpath("openapi.json").read_bytes()

ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/store.json", get_public),
    ("GET", "/packs/{ab}/{id}", get_pack),
    ("GET", "/manifests/{ab}/{id}", get_public),
    ("GET", "/attributes/{ab}/{id}", get_public),
    ("GET", "/provenance/{ab}/{id}", get_public),
    ("GET", "/bundles/{ab}/{id}", get_public),
    ("GET", "/placements/{name}", get_public),
    ("GET", "/releases/{project}/{release}/{name}", get_public),
    ("GET", "/holdings/{release}", get_public),
    ("GET", "/catalog/{name}", get_public),
    ("GET", "/pacballs", add_slash),
    ("GET", "/pacballs/", get_index),
    ("GET", "/pacballs/{name}", get_pacball),
    ("GET", "/pacballs/{store}/{prefix}/{chunk}", get_chunk),
    ("GET", did_paths.PREFIX, did_paths.get_prefix),
    ("GET", did_paths.PREFIX + "{path:.*}", get_replica),
    ("GET", "/files", add_slash),
    ("GET", "/files/", get_index),
    ("GET", "/files/{release}", get_release),
    ("GET", "/files/{release}/{path:.*}", get_file),
    ("GET", "/healthz", get_health),
    ("GET", "/readyz", get_ready),
    ("GET", "/v1/status", get_status),
    ("GET", "/v1/events", get_events),
    ("GET", "/v1/releases", get_releases),
    ("GET", "/metrics", get_metrics),
    ("GET", "/openapi.json", get_openapi),
    *PUBLISHING_ROUTES,
)
"""Method, path, handler; every GET answers HEAD too."""


def add_routes(app: web.Application) -> None:
    """Put the whole table into `app`."""
    for method, path, handler in ROUTES:
        app.router.add_route(method, path, handler)
        if method == "GET":
            app.router.add_route("HEAD", path, handler)
