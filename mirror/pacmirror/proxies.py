"""Which proxy, if any, stands between this machine and a URL.

Looked up once for each source. aiohttp's `trust_env` looks again at every request, in two threads (0.4 ms of CPU), and would
send passwords of ~/.netrc to mirrors, which need none.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from yarl import URL

from pacmirror.base_url import is_loopback
from pacstore.errors import Refused, printable

_SEPARATORS = re.compile(r"[,\s]+")
_PORT = re.compile(r"(.+):([0-9]{1,5})\Z")


@dataclass(frozen=True)
class Route:
    """How a URL is reached: through `proxy`, or directly; and `why`, in words."""

    proxy: URL | None
    why: str

    @property
    def proxy_name(self) -> str:
        """The proxy without its user and password, for messages; empty for none."""
        return str(self.proxy.origin()) if self.proxy is not None else ""


@dataclass(frozen=True)
class Proxies:
    """The proxies for http and https URLs, and for which hosts there is none, as curl understands it.

    `no_proxy`: separated by commas or spaces: a domain stands for itself and all below it; an address or a network such as
    10.0.0.0/8 for URLs with such an address in place of a name; each may end in a port; `*` stands for everything.
    """

    http: str | None = None
    https: str | None = None
    no_proxy: str | None = None

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Proxies:
        """What `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` say, in small letters or capitals."""

        def first(*names: str) -> str | None:
            return next((environment[name] for name in names if environment.get(name)), None)

        # A web server that starts us as a CGI program puts a stranger's header Proxy into HTTP_PROXY.
        capitals = () if "REQUEST_METHOD" in environment else ("HTTP_PROXY",)
        return cls(
            first("http_proxy", *capitals, "all_proxy", "ALL_PROXY"),
            first("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"),
            first("no_proxy", "NO_PROXY"),
        )

    def route(self, url: URL) -> Route:
        """How `url` is reached; never through a proxy to this machine itself. Raises Refused for an unusable proxy."""
        named = self.https if url.scheme == "https" else self.http
        if not named:
            return Route(None, f"no proxy is set for {url.scheme}")
        if is_loopback(url):
            return Route(None, "this machine itself is asked without a proxy")
        exempt = self._exemption(url)
        if exempt:
            return Route(None, f"no_proxy has {printable(exempt)}")
        return Route(_parse(named, url.scheme), f"the proxy is set for {url.scheme}")

    def _exemption(self, url: URL) -> str:
        """The entry of no_proxy that fits `url`; empty if none does."""
        host = (url.host or "").rstrip(".").lower()
        for entry in _SEPARATORS.split(self.no_proxy or ""):
            if entry and _fits(entry.lower(), host, url.port or 0):
                return entry
        return ""


def _fits(entry: str, host: str, port: int) -> bool:
    if entry == "*" or _fits_host(entry.strip("[]"), host):
        return True
    with_port = _PORT.match(entry)
    return bool(with_port and int(with_port[2]) == port and _fits_host(with_port[1].strip("[]"), host))


def _fits_host(entry: str, host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        domain = entry.removeprefix("*").strip(".")
        return bool(domain) and (host == domain or host.endswith(f".{domain}"))


def _parse(named: str, scheme: str) -> URL:
    try:
        proxy = URL(named if "://" in named else f"http://{named}")
        usable = proxy.scheme in ("http", "https") and bool(proxy.host and proxy.port)
    except ValueError:
        usable = False
    if not usable:
        # Not the value itself: it may hold a password.
        hint = "write http://HOST:PORT, or http://USER:PASSWORD@HOST:PORT; or unset it"
        raise Refused("names no http or https proxy", place=f"the proxy for {scheme} (https_proxy, http_proxy, or [proxy])",
                      hint=hint)  # fmt: skip
    return proxy
