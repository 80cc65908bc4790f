"""Base URLs: where the public files of a store are, as people write it, checked."""

from __future__ import annotations

import ipaddress
import re

from yarl import URL

from pacstore.errors import Refused, printable

_EXAMPLE = "write for example https://mirror.example.org/pacball"


def parse_base_url(text: str) -> str:
    """A base URL in its normal form, without a slash at the end. Raises Refused, which says what is wrong with it."""
    try:
        url = URL(text)
        port = url.port
    except ValueError:
        url, port = URL(), None
    if url.scheme not in ("http", "https") or not url.host or not port or not text.isprintable():
        raise Refused("is not an http or https URL", place=_shown(text), hint=_EXAMPLE)
    if url.user is not None or url.password is not None:
        raise Refused("the base URL may not hold a user or password", place=str(url.origin()), hint=_EXAMPLE)
    if "?" in text or "#" in text:
        raise Refused("a base URL has no '?' or '#'", place=_shown(text), hint=_EXAMPLE)
    return str(url).rstrip("/")


def _shown(text: str) -> str:
    """`text` for messages, without what may be secret in it."""
    public = re.sub(r"//.*@", "//***@", re.split(r"[?#]", text, maxsplit=1)[0], flags=re.DOTALL)
    return printable(public[:200])


def is_loopback(url: URL) -> bool:
    """Whether what is sent to `url` cannot leave this machine."""
    host = (url.host or "").rstrip(".").lower()
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"
