"""The application: everything that the daemon is made of, put together from one configuration."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from pacmirror.answers import answer_errors, set_common_headers
from pacmirror.files import PublicFiles
from pacmirror.routes import CONFIG, FILES, SERVICES, WATCH, add_routes
from pacmirror.service import Service, Services
from pacmirror.watch import Watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pacmirror.config import Config


def make_app(config: Config) -> web.Application:
    """The daemon's application. Starting it raises a PacballError if there is no readable store, or its keys do not fit.

    Raises Refused for half a configuration.
    """
    app = web.Application(middlewares=[answer_errors])
    app[CONFIG] = config
    app[FILES] = PublicFiles(config)
    app.on_response_prepare.append(set_common_headers)
    app[WATCH] = Watch(config, app[FILES])
    # They start in this order, after the store was looked at, and end in the opposite one.
    services: list[Service] = [app[WATCH]]
    app[SERVICES] = Services(services, drain_seconds=config.limits.drain_seconds)
    app.cleanup_ctx.append(_require_store)
    app.cleanup_ctx.append(_run_services)
    app.on_shutdown.append(_stop_services)
    add_routes(app)
    return app


async def _require_store(app: web.Application) -> AsyncIterator[None]:
    """Half a configuration is refused: without a store the daemon does not start."""
    await asyncio.to_thread(app[FILES].check)
    yield


async def _run_services(app: web.Application) -> AsyncIterator[None]:
    await app[SERVICES].start()
    yield
    await app[SERVICES].end()


async def _stop_services(app: web.Application) -> None:
    """The drain time begins here, for requests in progress and for services alike."""
    app[SERVICES].stop()
