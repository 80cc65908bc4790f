"""The application: everything that the daemon is made of, put together from one configuration."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from pacmirror.answers import answer_errors, set_common_headers
from pacmirror.files import PublicFiles
from pacmirror.routes import CONFIG, FILES, add_routes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pacmirror.config import Config


def make_app(config: Config) -> web.Application:
    """The daemon's application. Starting it raises a PacballError if there is no readable store."""
    app = web.Application(middlewares=[answer_errors])
    app[CONFIG] = config
    app[FILES] = PublicFiles(config)
    app.on_response_prepare.append(set_common_headers)
    app.cleanup_ctx.append(_require_store)
    add_routes(app)
    return app


async def _require_store(app: web.Application) -> AsyncIterator[None]:
    """Half a configuration is refused: without a store the daemon does not start."""
    await asyncio.to_thread(app[FILES].check)
    yield
