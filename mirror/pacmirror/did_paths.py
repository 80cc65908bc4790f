"""What Rucio asks for, by the names of our files there (FORMAT.md section 11): below which path of the base URL it is.

Rucio's deterministic storage elements make a URL of a file's scope and name alone, and know no directories of ours. Its two stock
ways, `identity` (SCOPE/NAME) and `hash` (SCOPE/ab/cd/NAME), both end in the name, which says everything.
"""

from __future__ import annotations

import contextlib
import re

from aiohttp import web

from pacmirror.delivery.rucio import naming
from pacmirror.files import CHANGING
from pacstore.errors import NotFound, Refused, printable

PREFIX = "/rucio/"
_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*\Z")
_MOST_PARTS = 8
_ABOUT = "<!doctype html><title>pacball</title><p>Storage elements of Rucio with this prefix find the files of releases here.\n"


def public_path(raw_path: str) -> str:
    """The path, relative to the base URL, of what `raw_path` (undecoded, beginning with PREFIX) names. Raises NotFound."""
    *directories, name = raw_path.removeprefix(PREFIX).split("/")
    if 1 <= len(directories) < _MOST_PARTS and all(map(_PART.match, directories)):
        with contextlib.suppress(Refused):
            return naming.public_path(name)
    hint = f"{PREFIX}SCOPE/<64 hex>.pack is one"
    raise NotFound("is no file of ours in Rucio", place=printable(raw_path[:300]), hint=hint)


async def get_prefix(_request: web.Request) -> web.Response:
    """Rucio's WebDAV client asks whether the prefix is there before it asks for a file."""
    return web.Response(text=_ABOUT, content_type="text/html", headers={"Cache-Control": CHANGING})
