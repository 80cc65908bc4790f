"""Peers: mirrors that ask each other. What one asks another for must not come back to it, or each would wait for the other.

A mirror asks its peers for nothing but what they hold. Of upstreams it wants more; so each request names the mirrors that it came
through, as HTTP's Via does (RFC 9110, 7.6.3), by names that a daemon draws when it starts: whoever finds its own asks nobody.
"""

from __future__ import annotations

import re
import secrets
from contextvars import ContextVar
from typing import TYPE_CHECKING

from pacmirror.verdict import CIRCLE_HINT, InCircle

if TYPE_CHECKING:
    from aiohttp import web

HELD_ONLY = "Pacball-Held-Only"
"""The request header by which peers are asked. Servers that do not know it have nothing else than what they hold."""
VIA = "Via"
came_through: ContextVar[tuple[str, ...]] = ContextVar("came_through", default=())
"""The mirrors through which came what is being done, beginning with the one that was asked first."""
_ALIAS = re.compile(r"\bpacball-[0-9a-f]{16}\b")
_MOST_MIRRORS = 16


def make_alias() -> str:
    """A name for a daemon among mirrors, which says nothing of it."""
    return f"pacball-{secrets.token_hex(8)}"


def asks_held_only(request: web.BaseRequest) -> bool:
    """Whether only what is held here is asked for; anything else is then not here."""
    return HELD_ONLY in request.headers


def follow(request: web.BaseRequest, alias: str, *, place: str) -> None:
    """Let what is asked of others for the sake of `request` name the mirrors through which it came, and this one, `alias`.

    Raises InCircle if it came through this one before, or through so many that something must be wrong.
    """
    mirrors = tuple(_ALIAS.findall(",".join(request.headers.getall(VIA, []))))
    if alias in mirrors or len(mirrors) >= _MOST_MIRRORS:
        message = "is not here, and asked for by an upstream of this mirror, which would have to ask that in turn"
        raise InCircle(message, place=place, hint=CIRCLE_HINT)
    came_through.set(mirrors)


def via_header(alias: str) -> dict[str, str]:
    """What tells an upstream through which mirrors a request came, this one included."""
    return {VIA: ", ".join(f"1.1 {one}" for one in (*came_through.get(), alias))}
