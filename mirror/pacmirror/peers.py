"""Peers: mirrors beside each other. What one asks another for, that one does not fetch from somewhere itself.

Otherwise two mirrors that name each other as peers, and lack the same pack, would each wait for the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiohttp import web

HELD_ONLY = "Pacball-Held-Only"
"""The request header that says so. Servers that do not know it have nothing else than what they hold."""


def asks_held_only(request: web.BaseRequest) -> bool:
    """Whether only what is held here is asked for; anything else is then not here."""
    return HELD_ONLY in request.headers
