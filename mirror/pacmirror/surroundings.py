"""Surroundings: what a site has between itself and its sources: proxies, certificate authorities, tokens."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from yarl import URL

from pacmirror.proxies import Proxies, Route
from pacmirror.tls import make_context
from pacmirror.tokens import find_token, read_token


@dataclass(frozen=True)
class Access:
    """How one base URL is asked. `context`: of TLS, None where nothing is encrypted; `headers`: for the source alone."""

    route: Route
    context: ssl.SSLContext | None
    headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class Surroundings:
    """`ca_file`: certificates of authorities beside those of the system; `tokens`: the file of the token for each base URL."""

    proxies: Proxies = field(default_factory=Proxies.of_environment)
    ca_file: Path | None = None
    tokens: Mapping[str, Path] = field(default_factory=dict)

    def access(self, base_url: str) -> Access:
        """How `base_url`, as `parse_base_url` gives it, is asked.

        Raises Refused for a proxy, certificates or a token that cannot be used, NotFound or Unavailable for their files.
        """
        url = URL(base_url)
        route = self.proxies.route(url)
        encrypted = url.scheme == "https" or (route.proxy is not None and route.proxy.scheme == "https")
        context = make_context(self.ca_file) if encrypted else None
        file = find_token(base_url, self.tokens)
        headers = {} if file is None else {"Authorization": f"Bearer {read_token(file)}"}
        return Access(route, context, headers)
