"""The proxy that the environment names for a URL (`http_proxy`, `https_proxy`, `no_proxy`).

Looked up once for each source. aiohttp's `trust_env` looks again at every request, in two threads (0.4 ms of CPU), and would
send passwords of ~/.netrc to mirrors, which need none.
"""

from __future__ import annotations

from urllib.request import getproxies, proxy_bypass

from yarl import URL

from pacstore.errors import Refused


def find_proxy(url: URL) -> URL | None:
    """The proxy for `url`, with user and password if it wants them. Raises Refused if it is none that we can use."""
    named = getproxies().get(url.scheme, "")
    if not named or proxy_bypass(f"{url.host}:{url.port}"):
        return None
    try:
        proxy = URL(named if "://" in named else f"http://{named}")
        usable = proxy.scheme in ("http", "https") and bool(proxy.host and proxy.port)
    except ValueError:
        usable = False
    if not usable:
        raise Refused(f"{url.scheme}_proxy names no http or https proxy", place=str(url), hint="correct or unset it")
    return proxy
