"""The steps of an examination in their order, and the time that each may take."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import aiohttp
from yarl import URL

from pacmirror.base_url import parse_base_url
from pacmirror.examine.answers import examine_freshness, examine_marker, examine_ranges
from pacmirror.examine.encryption import examine_tls
from pacmirror.examine.reach import examine_connections, examine_names
from pacmirror.reasons import explain
from pacmirror.resolver import Resolver
from pacmirror.source import USER_AGENT
from pacmirror.surroundings import Access, Surroundings
from pacmirror.tokens import find_token
from pacstore.errors import PacballError, printable
from pacstore.finding import Finding, Level, failed

_STEP_SECONDS = 10.0
_NO_TIME = "there was no time left for it"


@dataclass
class Examination:
    """One source that is being examined. `until`: the monotonic time at which all must be over.

    `addresses`: of the source, or of the proxy before it, as far as they are known.
    """

    base_url: str
    access: Access
    until: float
    addresses: list[str] = field(default_factory=list)

    @property
    def url(self) -> URL:
        """The base URL."""
        return URL(self.base_url)

    @property
    def next_hop(self) -> tuple[str, int]:
        """Host and port that are connected to: of the proxy, or of the source itself."""
        hop = self.access.route.proxy or self.url
        return hop.host or "", hop.port or 0

    def place(self, path: str) -> URL:
        """The URL of a public file."""
        return URL(f"{self.base_url}/{path}", encoded=True)

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[aiohttp.ClientSession]:
        """A session like that of `HttpSource`: no redirects are followed by it if they are not asked for, nothing is decoded."""
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=Resolver(), ssl=self.access.context or True),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity", "User-Agent": USER_AGENT, **self.access.headers},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_STEP_SECONDS / 2, sock_read=_STEP_SECONDS / 2),
            auto_decompress=False,
            proxy=self.access.route.proxy,
        ) as session:
            yield session
        await asyncio.sleep(0)

    async def step(
        self, name: str, work: Callable[[], Awaitable[list[Finding]]], *, most_seconds: float = _STEP_SECONDS
    ) -> list[Finding]:
        """What `work` finds, within the time that a step may take. Never raises for what is wrong outside."""
        seconds = min(most_seconds, self.until - time.monotonic())
        if seconds <= 0:
            return [Finding(name, Level.SKIP, _NO_TIME)]
        try:
            async with asyncio.timeout(seconds):
                return await work()
        except PacballError as error:
            return [failed(name, error)]
        except TimeoutError as error:
            if isinstance(error, aiohttp.ServerTimeoutError):
                return [self._failed(name, error)]
            return [
                Finding(
                    name,
                    Level.FAIL,
                    f"took more than {seconds:.0f} s",
                    "try again; the line, or the server, is very slow",
                )
            ]
        except (aiohttp.ClientError, OSError) as error:
            return [self._failed(name, error)]

    def _failed(self, name: str, error: Exception) -> Finding:
        return failed(name, explain(error, place=self.base_url, proxy=self.access.route.proxy_name))


async def examine_source(
    base_url: str, surroundings: Surroundings, *, until: float, now: Callable[[], float] = time.time
) -> AsyncIterator[Finding]:
    """What is to be said of the way to `base_url`, up to the answers that its server gives.

    Ends with the first step that makes the next ones impossible; that one is a FAIL. `until`: in seconds of the monotonic
    clock. `now`: the time of day, in seconds since 1970.
    """
    try:
        base_url = parse_base_url(base_url)
        one = Examination(base_url, surroundings.access(base_url), until)
    except PacballError as error:
        yield failed("settings", error)
        return
    for finding in _settings(one, surroundings):
        yield finding
    for name, work in (
        ("names", lambda: examine_names(one)),
        ("connections", lambda: examine_connections(one)),
        ("tls", lambda: examine_tls(one, now())),
        ("store", lambda: examine_marker(one)),
        ("ranges", lambda: examine_ranges(one)),
        ("freshness", lambda: examine_freshness(one, now)),
    ):
        findings = await one.step(name, work)
        for finding in findings:
            yield finding
        if name not in ("ranges", "freshness") and any(finding.level is Level.FAIL for finding in findings):
            return


def _settings(one: Examination, surroundings: Surroundings) -> list[Finding]:
    """By which way the source is asked, and whether a token goes along."""
    route = one.access.route
    way = f"asked through the proxy {route.proxy_name}" if route.proxy is not None else "asked directly"
    found = [
        Finding("proxy", Level.OK, f"{way}: {route.why}", values={"proxy": route.proxy_name or None, "why": route.why})
    ]
    token = find_token(one.base_url, surroundings.tokens)
    if token is not None:
        found.append(
            Finding("token", Level.OK, f"the token in {printable(str(token))} is sent", values={"file": str(token)})
        )
    return found
