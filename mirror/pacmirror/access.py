"""Who may ask for what: by the configuration for each kind of route, by a token, or by the client's address.

What is in no list here is what the store publishes. Errors of the token file close, they never open.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from aiohttp import web

from pacmirror.answers import error_answer
from pacmirror.request_keys import client_address, is_in
from pacmirror.service import Service
from pacmirror.token_file import Token, find_token, read_tokens
from pacstore.errors import PacballError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.typedefs import Middleware

    from pacmirror.config import Config

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/openapi.json"})
"""For load balancers and for programs that want to know how to ask."""
STATUS_PATHS = frozenset({"/v1/status", "/metrics"})
TOKENS_SECONDS = 1.0
"""How old what is known of the token file may be."""
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="pacball"'}


class AccessControl(Service):
    """The service `access`. Raises a PacballError at the start if there is to be a token file, and it cannot be read."""

    def __init__(self, config: Config) -> None:
        self._access = config.access
        self._tokens: list[Token] = []
        self._fault: PacballError | None = None
        self._read_at = 0.0
        self._denied = 0

    @property
    def name(self) -> str:
        """The section of /v1/status."""
        return "access"

    async def start(self) -> None:
        """Read the tokens."""
        await self._look()
        if self._fault is not None:
            raise self._fault

    def status(self) -> dict[str, object]:
        """Who may read, and how often somebody may not."""
        return {"read": self._access.read, "status": self._access.status, "denied": self._denied}

    def warnings(self) -> list[str]:
        """That the tokens cannot be read: then nobody is let in who needs one."""
        return [f"the tokens cannot be read, so that nobody is let in with one: {self._fault}"] if self._fault else []

    async def judge(self, request: web.Request) -> web.Response | None:
        """None if `request` may be answered, otherwise the answer that it gets. Raises Unavailable if that is not known."""
        if not self._needs_token(request):
            return None
        header = request.headers.getall("Authorization", [])
        if not header:
            return self._deny(
                401, "a token is needed", "ask the operator for one, and name its file in [tokens] of config.toml"
            )
        if self._came_openly(request):
            hint = "use https; and have this token revoked, since others may have read it"
            return self._deny(403, "a token must not come over plain http", hint)
        scheme, _, text = header[0].partition(" ")
        if len(header) > 1 or scheme.lower() != "bearer":
            return self._deny(401, "is no bearer token", "send one header: Authorization: Bearer TOKEN")
        await self._look()
        if self._fault is not None:
            raise Unavailable("the tokens cannot be read", hint="the server's log says more to its operator")
        if find_token(self._tokens, text.strip(), now=time.time()) is None:
            hint = "it may have been revoked or have expired: ask the operator for another"
            return self._deny(401, "this token is not known here", hint)
        return None

    def _needs_token(self, request: web.Request) -> bool:
        access = self._access
        if request.path in OPEN_PATHS:
            return False
        if request.path not in STATUS_PATHS:
            return access.read == "token"
        client = client_address(request, access.trusted_proxies)
        return access.status == "token" and not is_in(client, access.status_networks)

    def _came_openly(self, request: web.Request) -> bool:
        """Whether a trusted proxy in front says that the client did not use TLS."""
        said = request.headers.get("X-Forwarded-Proto", "").strip().lower()
        return is_in(request.remote or "", self._access.trusted_proxies) and said == "http"

    def _deny(self, status: int, message: str, hint: str) -> web.Response:
        self._denied += 1
        return error_answer(status, "Refused", message, hint=hint, headers=_CHALLENGE if status == 401 else None)

    async def _look(self) -> None:
        """Read the file again, if it was not read just now: so that what is revoked is refused from then on."""
        if self._access.token_file is None or time.monotonic() - self._read_at < TOKENS_SECONDS:
            return
        try:
            self._tokens = await asyncio.to_thread(read_tokens, self._access.token_file)
            self._fault = None
        except PacballError as error:
            self._tokens, self._fault = [], error
        self._read_at = time.monotonic()


async def forbid_shared_caches(_request: web.Request, response: web.StreamResponse) -> None:
    """What is not for everybody must not lie in caches that everybody may ask."""
    lifetime = response.headers.get("Cache-Control", "")
    if "no-store" not in lifetime:
        response.headers["Cache-Control"] = "private, " + lifetime.removeprefix("public, ")


def require_access(
    control: AccessControl,
) -> Middleware:
    """The middleware that lets nobody in whom `control` denies."""

    @web.middleware
    async def check(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        denial = await control.judge(request)
        return denial if denial is not None else await handler(request)

    return check
