"""Who may ask for what: by the configuration for each kind of route, by a token, or by the client's address.

What is in no list here is what the store publishes. Errors of the token file close, they never open.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from aiohttp import web

from pacmirror.answers import TAKING_BODIES, error_answer
from pacmirror.request_keys import client_address, is_in
from pacmirror.service import Service
from pacmirror.token_file import REPORT, Token, find_token, read_tokens
from pacstore.errors import PacballError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.typedefs import Middleware

    from pacmirror.config import Config

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/openapi.json"})
"""For load balancers and for programs that want to know how to ask."""
STATUS_PATHS = frozenset({"/v1/status", "/metrics"})
_REPORTED_PATHS = STATUS_PATHS | {"/v1/events", "/v1/releases"}
"""All that a token of the role `report` may see: how the daemon does."""
PUBLICATIONS = TAKING_BODIES
"""Below it nothing is answered without a token that allows to publish that release."""
TOKEN = web.RequestKey("TOKEN", Token)
"""The token that a request has shown, if one was needed."""
TOKENS_SECONDS = 1.0
"""How old what is known of the token file may be."""
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="pacball"'}
_CHALLENGE_ROLE = {"WWW-Authenticate": 'Bearer realm="pacball", error="insufficient_scope"'}
"""RFC 6750, section 3.1."""


class AccessControl(Service):
    """The service `access`. Raises a PacballError at the start if there is to be a token file, and it cannot be read."""

    def __init__(self, config: Config) -> None:
        self._access = config.access
        self._uploads = config.uploads.enabled
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
        token = find_token(self._tokens, text.strip(), now=time.time())
        if token is None:
            hint = "it may have been revoked or have expired: ask the operator for another"
            return self._deny(401, "this token is not known here", hint)
        request[TOKEN] = token
        fault = _exceeds(token, request.path)
        return self._deny(403, fault, "ask the operator for a token that allows it") if fault else None

    def _needs_token(self, request: web.Request) -> bool:
        access = self._access
        if request.path in OPEN_PATHS:
            return False
        if request.path.startswith(PUBLICATIONS):
            return self._uploads or access.read == "token"
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
        challenge = _CHALLENGE if status == 401 else _CHALLENGE_ROLE
        return error_answer(status, "Refused", message, hint=hint, headers=challenge)

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


def _exceeds(token: Token, path: str) -> str:
    """What of `path` the token does not allow; empty if it does."""
    if path.startswith(PUBLICATIONS):
        # The name of a release begins with its project; what is none is refused by whoever answers.
        return token.may_publish(path.removeprefix(PUBLICATIONS).partition("/")[0].partition("-")[0])
    if token.role == REPORT and path not in _REPORTED_PATHS:
        return "this token is for the role report, and shows only how the server does"
    return ""


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
        if denial is None:
            return await handler(request)
        if request.body_exists:
            # It is not read: nothing of it is worth the time.
            denial.force_close()
        return denial

    return check
