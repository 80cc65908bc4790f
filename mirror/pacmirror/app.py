"""The application: everything that the daemon is made of, put together from one configuration."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from pacmirror.access import AccessControl, forbid_shared_caches, require_access
from pacmirror.answers import answer_errors, identify, refuse_bodies, set_common_headers
from pacmirror.cache.filler import make_filler
from pacmirror.cache.recording import Recording
from pacmirror.config_rules import check_config
from pacmirror.documents import Documents
from pacmirror.events import Events
from pacmirror.files import PublicFiles
from pacmirror.following import Following
from pacmirror.pacballs.delivering import CONFIG, PACBALLS
from pacmirror.pacballs.service import Pacballs
from pacmirror.replication import Replication
from pacmirror.routes import (
    ALIAS,
    BOOKS,
    DOCUMENTS,
    EVENTS,
    FILES,
    FILLER,
    REPLICATION,
    SERVICES,
    TRAFFIC,
    WATCH,
    add_routes,
)
from pacmirror.scrubbing import Scrubbing
from pacmirror.service import Service, Services
from pacmirror.sweeping import Sweeping
from pacmirror.sync.bookkeeping import Bookkeeping, OwnCatalog
from pacmirror.sync.syncing import Syncing
from pacmirror.traffic import Traffic
from pacmirror.uploads.handling import INTAKE, PUBLICATIONS
from pacmirror.uploads.intake import Intake
from pacmirror.uploads.publications import Publications
from pacmirror.upstream import USER_AGENT, Upstream
from pacmirror.watch import Watch
from pacstore.errors import Refused
from pacstore.storage import STORE_MARKER
from pacstore.store import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from pacmirror.config import Config
    from pacmirror.mirrors import MirrorList


def make_app(config: Config) -> web.Application:
    """The daemon's application. Starting it raises a PacballError if there is no readable store, or its keys do not fit.

    Raises Refused for half a configuration.
    """
    check_config(config)
    access = AccessControl(config)
    app = web.Application(middlewares=[identify, answer_errors, refuse_bodies, require_access(access)])
    app[CONFIG] = config
    app[FILES] = PublicFiles(config)
    app[TRAFFIC] = Traffic()
    app.on_response_prepare.append(set_common_headers)
    if config.access.read == "token":
        app.on_response_prepare.append(forbid_shared_caches)
    app[WATCH] = Watch(config, app[FILES])
    # They start in this order, after the store was looked at, and end in the opposite one.
    app[EVENTS] = Events(app[WATCH].catalog, config.limits.events, trusted=config.access.trusted_proxies)
    services: list[Service] = [app[TRAFFIC], access, app[WATCH], app[EVENTS]]
    upstream = Upstream(config.upstream) if config.upstream.urls or config.upstream.peers else None
    if upstream is not None:
        app.cleanup_ctx.append(_close(upstream.mirrors))
        services.append(upstream)
    if upstream is not None and config.is_mirror:
        services += _mirror_services(app, config, upstream)
    else:
        app[BOOKS] = Bookkeeping(config, OwnCatalog(config, app[WATCH].catalog))
        services += [app[BOOKS], Sweeping(config, app[BOOKS])]
    app[INTAKE] = Intake(config, app[BOOKS])
    app[PUBLICATIONS] = Publications(config, app[INTAKE], app[WATCH])
    scrubbing = Scrubbing(config, upstream)
    app[PACBALLS] = Pacballs(config, app[WATCH].catalog, app[BOOKS], scrubbing)
    services += [app[INTAKE], app[PUBLICATIONS], scrubbing, app[PACBALLS]]
    services += _delivery_services(config)
    app[SERVICES] = Services(services, drain_seconds=config.limits.drain_seconds)
    app.cleanup_ctx.append(_require_store)
    app.cleanup_ctx.append(_run_services)
    app.on_shutdown.append(_stop_services)
    add_routes(app)
    return app


def _mirror_services(app: web.Application, config: Config, upstream: Upstream) -> list[Service]:
    """What only a mirror has, beside its upstreams."""
    app[ALIAS] = upstream.alias
    app[FILLER] = make_filler(config, upstream)
    app[REPLICATION] = Replication(config, app[WATCH].catalog, upstream.catalog_sources())
    app[DOCUMENTS] = Documents(config, app[FILES], app[REPLICATION], upstream)
    surroundings, limits = config.upstream.surroundings, config.limits.events
    heard = app[REPLICATION].poke
    following = Following(config.upstream.urls, surroundings, heard, user_agent=USER_AGENT, limits=limits)
    books = app[BOOKS] = Bookkeeping(config, app[REPLICATION])
    syncing = Syncing(
        config, books, app[REPLICATION], app[DOCUMENTS], app[FILLER], announce=app[EVENTS].announce_release
    )
    recording = Recording(books, app[FILLER])
    sweeping = Sweeping(config, books, app[FILLER])
    return [app[FILLER], app[REPLICATION], app[DOCUMENTS], following, books, recording, syncing, sweeping]


def _delivery_services(config: Config) -> list[Service]:
    """What needs an optional extra is imported by who asks for it."""
    if not config.delivery.rucio.rse:
        return []
    try:
        from pacmirror.delivery.rucio.service import RucioAgent  # noqa: PLC0415
    except ModuleNotFoundError as error:
        hint = "pip install 'pacball[rucio]'"
        raise Refused("Rucio's client is not installed", place="delivery.rucio", hint=hint) from error
    return [RucioAgent(config)]


async def _require_store(app: web.Application) -> AsyncIterator[None]:
    """Half a configuration is refused: without a store the daemon does not start. One that is filled may begin empty."""
    config = app[CONFIG]
    # One that is there already may be an origin's: then the agent says so.
    if config.is_mirror or (config.may_begin_empty and not (config.public / STORE_MARKER).exists()):
        await asyncio.to_thread(_make_store, app[CONFIG])
    await asyncio.to_thread(app[FILES].check)
    yield


def _make_store(config: Config) -> None:
    with Store.create(config.store, state_dir=config.state_dir) as store:
        store.remember_mirror()


def _close(mirrors: MirrorList) -> Callable[[web.Application], AsyncIterator[None]]:
    async def close(_: web.Application) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(mirrors.close)

    return close


async def _run_services(app: web.Application) -> AsyncIterator[None]:
    await app[SERVICES].start()
    yield
    await app[SERVICES].end()


async def _stop_services(app: web.Application) -> None:
    """The drain time begins here, for requests in progress and for services alike."""
    app[SERVICES].stop()
