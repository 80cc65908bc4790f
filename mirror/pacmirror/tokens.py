"""Tokens: what a source may want to see before it serves. Each belongs to a base URL, and goes nowhere else.

A token is sent over TLS, or to this machine itself, but never to a proxy, and to no other origin: redirects are not followed.
It is read anew for each source, from a file that only its owner can read, as private keys are kept. It is never shown.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from yarl import URL

from pacmirror.base_url import is_loopback, parse_base_url
from pacstore.durable import wrapped
from pacstore.errors import Refused

TOKEN_BYTES = 8192
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*\Z")
"""RFC 6750: b64token."""


def find_token(base_url: str, tokens: Mapping[str, Path]) -> Path | None:
    """The file of the token for `base_url`: of the longest of the keys of `tokens` that it equals or is below.

    Raises Refused if the token would have to be sent where others can read it, or one of the keys is no base URL.
    """
    url = URL(base_url)
    found = [key for key in map(parse_base_url, tokens) if covers(URL(key), url)]
    if not found:
        return None
    if url.scheme != "https" and not is_loopback(url):
        hint = "use https; or remove its line from [tokens], if the source wants none"
        raise Refused("a token would be sent over plain http, for everybody to read", place=base_url, hint=hint)
    longest = max(found, key=len)
    return next(file for key, file in tokens.items() if parse_base_url(key) == longest)


def covers(key: URL, url: URL) -> bool:
    """Whether the base URL `url` is `key`, or below it."""
    path = key.raw_path.rstrip("/")
    return key.origin() == url.origin() and (url.raw_path.rstrip("/") + "/").startswith(path + "/")


def read_token(file: Path) -> str:
    """The token in `file`, in one line. Raises Refused if others may read it or it is none, NotFound, Unavailable."""
    with wrapped(file), open(file, "rb") as opened:
        # The open file is what is checked, so nobody can swap it in between.
        if os.fstat(opened.fileno()).st_mode & 0o077:
            hint = f"chmod 600 {shlex.quote(str(file))}"
            raise Refused("other users may read or change this token", place=str(file), hint=hint)
        data = opened.read(TOKEN_BYTES + 1)
    text = data.decode("ascii", "replace").strip()
    if len(data) > TOKEN_BYTES or not _TOKEN.match(text):
        raise Refused("holds no token", place=str(file), hint="write the token into it, and nothing else")
    return text
